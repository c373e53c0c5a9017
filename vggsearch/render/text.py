"""What every kind of result is put into: columns, CSV, one line of a name, bytes for a person."""

import csv
import io
from collections.abc import Sequence

PART_BELOW = 0.85  # scale from which a picture is told to be a part
UNITS = ("B", "kB", "MB", "GB", "TB")

WIDE = 10_000  # columns; a table is never folded, so that a path stays whole


def one_line(text: str) -> str:
    """Return `text` with control characters escaped, so that a file name cannot break a table or a terminal."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def bytes_text(count: float) -> str:
    """Return a number of bytes for a person: 1_234_567 -> "1.2 MB"."""
    for unit in UNITS:
        if count < 1000 or unit == UNITS[-1]:
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"


def similarity_text(similarity: float) -> str:
    """Return three decimals, of which 1.000 is kept for the same picture."""
    return f"{similarity if similarity == 1 else min(similarity, 0.999):.3f}"


def transform_words(mirrored: bool, turned: float, scale: float) -> str:
    """Say how a picture lies in another, as an Alignment does; nothing where it simply lies there as a whole."""
    quarter = round(turned / 90) * 90 % 360
    words = [
        "mirrored" if mirrored else "",
        f"turned {quarter}°" if quarter else "",
        f"a part, {scale**2:.0%} of it" if scale < PART_BELOW else "",
        "holds more" if scale > 1 / PART_BELOW else "",
    ]
    return ", ".join(filter(None, words))


def as_csv(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows as CSV, quoted where needed, without a newline at the end."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return text.getvalue().rstrip("\n")


def as_table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    right: Sequence[int] = (),
    rule_before: int | None = None,
) -> str:
    """Return aligned columns; those in `right` are numbers. A rule goes before row `rule_before`."""
    from rich.box import SIMPLE_HEAD  # here, since JSON needs none of it
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for number, title in enumerate(head):
        table.add_column(title, justify="right" if number in right else "left", no_wrap=True)
    for number, row in enumerate(rows):
        if number == rule_before:
            table.add_section()
        table.add_row(*(Text(one_line(cell)) for cell in row))
    text = io.StringIO()
    Console(file=text, width=WIDE, color_system=None).print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def aligned(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Return a line for each row, its cells in columns two spaces apart; those in `right` are numbers.

    It measures names in cells of a terminal, of which a Chinese character takes two, and is quick for 100,000 rows.
    """
    from rich.cells import cell_len

    rows = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]

    def padded(number: int, cell: str) -> str:
        space = " " * (widths[number] - cell_len(cell))
        return space + cell if number in right else cell + space

    return ["  ".join(padded(*cell) for cell in enumerate(row)).rstrip() for row in rows]
