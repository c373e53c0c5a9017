"""What every kind of result is put into: columns, CSV, one line of a name, bytes for a person."""

import csv
import io
from collections.abc import Sequence

UNITS = ("B", "kB", "MB", "GB", "TB")

WIDE = 10_000  # columns; a table is never folded, so that a path stays whole


def one_line(text: str) -> str:
    """Return `text` with control characters escaped, so that a file name cannot break a table or a terminal."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def bytes_text(count: float) -> str:
    """Return a number of bytes for a person: 1_234_567 -> "1.2 MB"."""
    for unit in UNITS:
        if count < 1000 or unit == UNITS[-1]:
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"


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
