"""Pictures in a terminal: a strip of thumbnails for each group of duplicates or query, described below it.

Two protocols show real pictures: kitty's (sw.kovidgoyal.net/kitty/graphics-protocol), also supported by Ghostty and
Konsole, and iTerm2's (iterm2.com/documentation-images.html), also supported by WezTerm and mintty. Any other
terminal with 24-bit colours shows half blocks, each of which is two pixels, one above the other.
"""

import io
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Literal, TextIO

from PIL import Image, ImageDraw, ImageOps

from vggsearch.duplicates.results import Group
from vggsearch.errors import ImageError
from vggsearch.photos.decoder_pool import Decoders, Source, default_workers
from vggsearch.photos.thumbnails import in_order, thumbnail
from vggsearch.query.options import Pick, QueryResult
from vggsearch.render.duplicates import group_blocks
from vggsearch.render.query import picks, query_results

MakeThumbnail = Callable[[Source, int], Image.Image]  # with the longer side in pixels; raises ImageError
Protocol = Literal["kitty", "iterm2", "blocks"]

COLUMNS, ROWS = 26, 10  # characters of a framed photo; they are twice as high as wide, so this is 4:3
GAP = 1  # columns between two photos
PIXELS: dict[Protocol, int] = {"kitty": 10, "iterm2": 10, "blocks": 1}  # per character, horizontally
CHUNK = 4096  # characters of base64 in one escape sequence, the most that kitty's protocol allows
KONSOLE_WITH_PICTURES = 220400  # Konsole 22.04
KEEP, OTHER, MISSING = (46, 160, 67, 255), (110, 118, 129, 255), (60, 64, 70, 255)
NOTHING = (0, 0, 0, 0)
RESET = "\x1b[0m"


@dataclass(frozen=True)
class Screen:
    """A terminal that can show pictures: by which protocol, and how many characters wide it is."""

    protocol: Protocol
    columns: int


@dataclass(frozen=True, slots=True)
class Strip:
    """Pictures side by side, and the text below them."""

    pictures: tuple[Source, ...]
    text: str


def protocol_of(environment: Mapping[str, str]) -> Protocol | None:
    """Return how a terminal shows pictures, None if it cannot, judged by its environment variables.

    Sending it a query instead would wait for a time-out wherever it does not reply.
    """
    is_multiplexed = "TMUX" in environment or environment.get("TERM", "").startswith(("screen", "tmux"))
    if not is_multiplexed:  # tmux and screen do not pass pictures on
        if _supports_kitty(environment):
            return "kitty"
        if _supports_iterm2(environment):
            return "iterm2"
    return "blocks" if _has_24_bit_colours(environment) else None


def _supports_kitty(environment: Mapping[str, str]) -> bool:
    konsole = environment.get("KONSOLE_VERSION", "")
    return (
        "KITTY_WINDOW_ID" in environment
        or environment.get("TERM") in ("xterm-kitty", "xterm-ghostty")
        or environment.get("TERM_PROGRAM") == "ghostty"
        or (konsole.isdecimal() and int(konsole) >= KONSOLE_WITH_PICTURES)
    )


def _supports_iterm2(environment: Mapping[str, str]) -> bool:
    is_known = environment.get("TERM_PROGRAM") in ("iTerm.app", "WezTerm", "mintty")
    return is_known or environment.get("LC_TERMINAL") == "iTerm2"


def _has_24_bit_colours(environment: Mapping[str, str]) -> bool:
    has_colours = environment.get("COLORTERM") in ("truecolor", "24bit") or "WT_SESSION" in environment
    return has_colours and environment.get("TERM") != "dumb"


def group_strips(groups: Sequence[Group], root: Path) -> list[Strip]:
    """Return the strips of groups of duplicates: the keeper, then its duplicates."""
    photos = ((group.keeper, *(member.photo for member in group.members)) for group in groups)
    pictures = (tuple(Source(photo.path, root) for photo in some) for some in photos)
    return [Strip(some, text) for some, text in zip(pictures, group_blocks(groups), strict=True)]


def result_strip(result: QueryResult, queries: Sequence[Source]) -> Strip:
    """Return the strip of a query: its picture, the first if there are several, then what it found."""
    found = (Source(match.path, result.folders.get(match.index) or Path()) for match in result.matches)
    return Strip((*queries[:1], *found), query_results([result], "table", {}))


def picks_strip(picked: Sequence[Pick], sources: Sequence[Source]) -> Strip:
    """Return random photos side by side."""
    return Strip(tuple(sources), picks(picked, "table", {}))


def preview(strips: Sequence[Strip], stream: TextIO, screen: Screen) -> None:
    """Write strips to a terminal: the first picture in a green frame, the others to its right, the text below.

    As many pictures as fit in a line are shown. One that cannot be read is a crossed-out box.
    """
    most = max(1, (screen.columns + GAP) // (COLUMNS + GAP))
    with Decoders(min(default_workers(), most * len(strips))) as decoders:
        make = partial(thumbnail, decoders)
        made = in_order(lambda strip: _joined(strip.pictures[:most], make, PIXELS[screen.protocol]), strips)
        for joined, strip in zip(made, strips, strict=True):
            shown = f"{ENCODERS[screen.protocol](joined)}\n" if strip.pictures else ""
            stream.write(f"{shown}{strip.text}\n\n")
            stream.flush()


def _joined(pictures: Sequence[Source], make: MakeThumbnail, pixels: int) -> Image.Image:
    """Return pictures side by side, RGBA, `pixels` to the width of a character."""
    columns = max(1, len(pictures) * (COLUMNS + GAP) - GAP)
    strip = Image.new("RGBA", (columns * pixels, 2 * ROWS * pixels), NOTHING)
    for number, picture in enumerate(pictures):
        tile = _tile(picture, make, KEEP if number == 0 else OTHER, pixels)
        strip.paste(tile, (number * (COLUMNS + GAP) * pixels, 0))
    return strip


def _tile(picture: Source, make: MakeThumbnail, colour: tuple[int, ...], pixels: int) -> Image.Image:
    """Return a picture centred in a frame."""
    width, height = COLUMNS * pixels, 2 * ROWS * pixels
    border = max(1, pixels // 2)
    inside = (width - 2 * border, height - 2 * border)
    tile = Image.new("RGBA", (width, height), colour)
    tile.paste(NOTHING, (border, border, width - border, height - border))
    try:
        shown = ImageOps.contain(make(picture, max(inside)), inside)
    except ImageError:
        shown = _crossed(inside)
    tile.paste(shown, ((width - shown.width) // 2, (height - shown.height) // 2))
    return tile


def _crossed(size: tuple[int, int]) -> Image.Image:
    box = Image.new("RGBA", size, MISSING)
    draw = ImageDraw.Draw(box)
    right, bottom = size[0] - 1, size[1] - 1
    draw.line((0, 0, right, bottom), OTHER)
    draw.line((0, bottom, right, 0), OTHER)
    return box


def _png(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return b64encode(file.getvalue()).decode()


def _columns(strip: Image.Image) -> int:
    return strip.width * 2 * ROWS // strip.height


def _kitty(strip: Image.Image) -> str:
    """Return a PNG in chunks; q=2 suppresses the reply of the terminal, which nobody would read."""
    data = _png(strip)
    chunks = [data[start : start + CHUNK] for start in range(0, len(data), CHUNK)]
    heads = [f"a=T,f=100,q=2,c={_columns(strip)},r={ROWS},", *[""] * (len(chunks) - 1)]
    more = [*[1] * (len(chunks) - 1), 0]
    return "".join(
        f"\x1b_G{head}m={is_more};{chunk}\x1b\\" for head, is_more, chunk in zip(heads, more, chunks, strict=True)
    )


def _iterm2(strip: Image.Image) -> str:
    size = f"width={_columns(strip)};height={ROWS};preserveAspectRatio=1"
    return f"\x1b]1337;File=inline=1;{size}:{_png(strip)}\a"


def _blocks(strip: Image.Image) -> str:
    return "\n".join("".join(_block_line(strip, y)) + RESET for y in range(0, strip.height, 2))


def _block_line(strip: Image.Image, y: int) -> Iterator[str]:
    """Yield a line of characters, setting colours only where they change."""
    pixels, row = strip.tobytes(), 4 * strip.width
    starts = range(y * row, (y + 1) * row, 4)
    cells = ((pixels[start : start + 4], pixels[start + row : start + row + 4]) for start in starts)
    for (upper, lower), same in groupby(cells):
        count = len(list(same))
        if upper == lower == bytes(NOTHING):
            yield RESET + " " * count
        else:
            yield f"\x1b[38;2;{_rgb(upper)};48;2;{_rgb(lower)}m" + "▀" * count


def _rgb(colour: bytes) -> str:
    return ";".join(map(str, colour[:3]))


ENCODERS: dict[Protocol, Callable[[Image.Image], str]] = {"kitty": _kitty, "iterm2": _iterm2, "blocks": _blocks}
