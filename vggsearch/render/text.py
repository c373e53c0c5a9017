"""Building blocks of all renderings: quantities, aligned columns, CSV, names that fit on one line."""

import csv
import io
import re
import textwrap
from collections.abc import Iterable, Sequence
from itertools import islice

from vggsearch.photos.walk import one_line

TERMINAL_WIDTH = 80
COMMAND = "vggsearch "  # before what a person may copy
NUL = "\0"  # between paths, since no name contains it
# A spreadsheet runs a cell that starts with one of these, also wide; a ' is doubled, so that it can be told.
FORMULAS = tuple("'=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
CROP_BELOW = 0.85  # scale below which a picture is called a crop of the other


def quantity(count: int, noun: str, plural: str | None = None) -> str:
    """Return a count with its noun, in the singular or the plural.

    >>> quantity(1, "photo"), quantity(2_500, "photo"), quantity(2, "copy", "copies")
    ('1 photo', '2,500 photos', '2 copies')
    """
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def similarity_text(similarity: float) -> str:
    """Return three decimals; only the same picture is 1.000."""
    return f"{similarity if similarity == 1 else min(similarity, 0.999):.3f}"


def transform_words(mirrored: bool, turned: float, scale: float, *, crop: str, wider: str) -> str:
    """Describe how one picture is related to another, as an Alignment has it; "" where it is simply the whole.

    `crop` describes a picture that covers only a share of the other, written where it says {}; `wider` one that
    shows more than the other.
    """
    quarter = round(turned / 90) * 90 % 360
    words = [
        "mirrored" if mirrored else "",
        f"rotated {quarter}°" if quarter else "",
        crop.format(f"{scale**2:.0%}") if scale < CROP_BELOW else "",
        wider if scale > 1 / CROP_BELOW else "",
    ]
    return ", ".join(filter(None, words))


def as_csv(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows as CSV, quoted where needed, without a newline at the end.

    A cell that a spreadsheet would run as a formula gets a ' in front (OWASP, CSV Injection); numbers do not.
    """
    return "\n".join(_csv_line(row) for row in (head, *([_inert(cell) for cell in row] for row in rows)))


def _csv_line(row: Sequence[str]) -> str:
    """Return one row. The writer quotes what it ends a line with, so it ends one with both, although we do not."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow(row)
    return text.getvalue().removesuffix("\r\n")


def as_paths(paths: Iterable[str]) -> str:
    """Return paths with a NUL between them."""
    return NUL.join(paths)


def _inert(cell: str) -> str:
    return f"'{cell}" if cell.startswith(FORMULAS) and not _is_number(cell) else cell


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[+-]?[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?", text) is not None


def as_table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    right: Sequence[int] = (),
    rule_before: int | None = None,
) -> str:
    """Return aligned columns under a heading; those in `right` are numbers. A rule goes before row `rule_before`.

    A table is never folded, so that a path stays whole; its rules are at most as wide as a usual terminal.
    """
    lines = iter(aligned([head, *rows], right))
    heading, above = next(lines), list(islice(lines, rule_before))
    rule = "─" * min(TERMINAL_WIDTH, max(map(_width, [heading, *above])))
    below = list(lines)
    return "\n".join([heading, rule, *above, *([rule, *below] if below else [])])


def aligned(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Return a line for each row, its cells in columns two spaces apart; those in `right` are numbers.

    Widths are cells of a terminal, of which a Chinese character takes two. It is quick for 100,000 rows.
    """
    rows = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(map(_width, column)) for column in zip(*rows, strict=True)]

    def padded(number: int, cell: str) -> str:
        space = " " * (widths[number] - _width(cell))
        return space + cell if number in right else cell + space

    return ["  ".join(padded(*cell) for cell in enumerate(row)).rstrip() for row in rows]


def folded(line: str, columns: int) -> list[str]:
    """Return a line as lines of at most so many columns, broken before words; each further one is indented by more.

    Spaces between cells are kept. A line with a command stays whole, so that it can be copied, and so does a word
    that is longer, such as a path.
    """
    indent = " " * (len(line) - len(line.lstrip(" ")) + 4)
    if _width(line) <= columns or COMMAND in line or columns < 2 * len(indent):
        return [line]
    return textwrap.wrap(
        line,
        columns,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
        expand_tabs=False,
        replace_whitespace=False,
    )


def _width(text: str) -> int:
    """Return how many cells of a terminal a text takes; ASCII needs no rich for that."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)
