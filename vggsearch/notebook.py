"""Results in a notebook: thumbnails with captions, as self-contained HTML."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path

from vggsearch.defaults import NOTEBOOK
from vggsearch.errors import ImageError
from vggsearch.photos.decoder_pool import Decoders, Source, default_workers
from vggsearch.photos.thumbnails import in_order, thumbnail, webp_base64
from vggsearch.photos.walk import one_line

FRAME = "display:flex;flex-wrap:wrap;gap:12px;align-items:flex-start;margin:4px 0 16px"
FIGURE = f"margin:0;width:{NOTEBOOK.side}px;font-size:12px;line-height:1.35;overflow-wrap:anywhere"
MISSING = (
    f"box-sizing:border-box;height:{NOTEBOOK.side // 2}px;padding:8px;border:1px dashed currentColor;opacity:.7;"
    "display:flex;align-items:center;justify-content:center;text-align:center"
)


@dataclass(frozen=True, slots=True)
class Figure:
    """A photo to show: its `path` relative to the folder `root`, and lines of text below its name."""

    root: Path | None
    path: str
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Section:
    """Some photos under one heading."""

    heading: str
    figures: tuple[Figure, ...]


def gallery(sections: Sequence[Section], heading: str = "") -> str:
    """Return sections as HTML, with at most NOTEBOOK.photos photos and the number of those left out.

    All text is escaped. For a photo that cannot be read, the reason is shown.
    """
    shown = list(_first(sections, NOTEBOOK.photos))
    wanted = [figure for section in shown for figure in section.figures]
    with Decoders(min(default_workers(), len(wanted))) as decoders:
        figures = iter(list(in_order(lambda figure: _figure(figure, decoders), wanted)))
    parts = [f"<div><b>{_text(heading)}</b></div>"] if heading else []
    for section, whole in zip(shown, sections, strict=False):
        images = "".join(next(figures) for _ in section.figures)
        left_out = len(whole.figures) - len(section.figures)
        more = f'<div style="{FIGURE}">and {left_out:,} more</div>' if left_out else ""
        parts.append(f'<div>{_text(section.heading)}</div><div style="{FRAME}">{images}{more}</div>')
    if len(shown) < len(sections):
        parts.append(f"<div>and {len(sections) - len(shown):,} more groups</div>")
    return f"<div>{''.join(parts)}</div>"


def _first(sections: Sequence[Section], photos: int) -> Iterator[Section]:
    """Yield the first sections, the last one shortened, with at most `photos` photos in total."""
    for section in sections:
        if photos <= 0:
            return
        yield replace(section, figures=section.figures[:photos])
        photos -= len(section.figures)


def _figure(figure: Figure, decoders: Decoders) -> str:
    first, rest = figure.lines[:1], figure.lines[1:]
    caption = "".join(f"<div><b>{_text(line)}</b></div>" for line in first)
    caption += "".join(f'<div style="opacity:.75">{_text(line)}</div>' for line in rest)
    name = _text(figure.path)
    return (
        f'<figure style="{FIGURE}">{_image(figure, name, decoders)}'
        f'<figcaption><div title="{name}">{name}</div>{caption}</figcaption></figure>'
    )


def _image(figure: Figure, name: str, decoders: Decoders) -> str:
    try:
        if figure.root is None:
            raise ImageError("the photo folder is unknown", "unreadable")
        data = webp_base64(thumbnail(decoders, Source(figure.path, figure.root), NOTEBOOK.side))
    except ImageError as error:
        return f'<div style="{MISSING}">{_text(error.reason)}</div>'
    return f'<img alt="{name}" src="data:image/webp;base64,{data}" style="max-width:100%;display:block">'


def _text(text: str) -> str:
    return escape(one_line(text))
