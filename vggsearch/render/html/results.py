"""Write what queries found as a page: each query picture, and the photos like it, with what the two share."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import TextIO

from vggsearch.errors import ImageError
from vggsearch.matching.alignment import Alignment
from vggsearch.photos.decoder_pool import Decoders, Source, default_workers
from vggsearch.photos.thumbnails import in_order, thumbnail, webp_base64
from vggsearch.progress import Monitor, OnProgress, Stop
from vggsearch.query.options import Pick, QueryResult
from vggsearch.query.searcher import Match
from vggsearch.render.html.files import address, asset, content_policy, escaped, link_to, new_page
from vggsearch.render.query import confidence_text, relation
from vggsearch.render.text import quantity, similarity_text

STYLES = ("shared.css", "results.css")
SECTIONS = "<!-- sections -->\n"
COVERING = 0.03  # of a side: a corner of the query so near that of a photo is that corner


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture with lines of text below it. `alignment` is where the query lies in it, None if that is unknown."""

    source: Source
    name: str
    lines: tuple[str, ...] = ()
    alignment: Alignment | None = None


@dataclass(frozen=True, slots=True)
class Section:
    """A query: its pictures, none for random photos, and what it found."""

    heading: str
    queries: tuple[Shown, ...]
    found: tuple[Shown, ...]


def section_of(result: QueryResult, queries: Sequence[Source]) -> Section:
    """Return what a query found, with its pictures."""
    found = tuple(
        Shown(
            Source(match.path, result.folders.get(match.index) or Path()),
            match.path,
            tuple(filter(None, (_likeness(match), relation(match.alignment), match.index))),
            match.alignment,
        )
        for match in result.matches
    )
    named = tuple(Shown(each, "standard input" if each.path == "-" else each.path) for each in queries)
    return Section("standard input" if result.query == "-" else result.query, named, found)


def section_of_picks(picked: Sequence[Pick], sources: Sequence[Source]) -> Section:
    """Return random photos."""
    found = (
        Shown(source, each.path, (each.index,) if each.index else ())
        for each, source in zip(picked, sources, strict=True)
    )
    return Section(quantity(len(picked), "random photo"), (), tuple(found))


def _likeness(match: Match) -> str:
    confidence = confidence_text(match).strip("- ")
    return " · ".join(filter(None, (similarity_text(match.similarity), confidence)))


def write_results(
    path: Path, sections: Sequence[Section], *, progress: OnProgress | None = None, stop: Stop | None = None
) -> None:
    """Write queries as a page at `path`. It has no script, and can be moved together with the photos.

    For a picture that cannot be read, the reason is shown. The page is written completely or not at all. Raises
    OptionError if `path` is another kind of file, which is left unchanged; OSError if the page cannot be written;
    Stopped.
    """
    style = "".join(map(asset, STYLES))
    frame = Template(asset("results.html")).substitute(policy=content_policy(style), style=style)
    before, after = frame.split(SECTIONS)
    monitor = Monitor(progress, stop)
    with new_page(path) as file:
        file.write(before)
        _write_sections(file, path, sections, monitor)
        file.write(after)


def _write_sections(file: TextIO, page: Path, sections: Sequence[Section], monitor: Monitor) -> None:
    pictures = [shown for section in sections for shown in (*section.queries, *section.found)]
    with Decoders(min(default_workers(), len(pictures))) as decoders:
        figures = in_order(lambda shown: _figure(shown, page, decoders), pictures)
        done = 0
        for section in sections:
            file.write(f"<section>\n<h2>{escaped(section.heading)}</h2>\n")
            for kind, some in (("queries", section.queries), ("found", section.found)):
                file.write(f'<div class="{kind}">\n' if some else "")
                for figure in _next(figures, len(some)):
                    file.write(figure)
                    done += 1
                    monitor.step("writing the page", done, len(pictures))
                file.write("</div>\n" if some else "")
            file.write("" if section.found else "<p>No matching photos.</p>\n")
            file.write("</section>\n")


def _next(figures: Iterator[str], count: int) -> Iterator[str]:
    for _ in range(count):
        yield next(figures)


def _figure(shown: Shown, page: Path, decoders: Decoders) -> str:
    name = escaped(shown.name)
    breakable = re.sub("(?<=[/_-])", "<wbr>", name)
    lines = "".join(f"<p>{escaped(line)}</p>" for line in shown.lines)
    link = _link(shown.source, page)
    named = f'<a href="{escaped(link)}">{breakable}</a>' if link else breakable
    return f"<figure>{_picture(shown, name, decoders)}<figcaption><h3>{named}</h3>{lines}</figcaption></figure>\n"


def _picture(shown: Shown, name: str, decoders: Decoders) -> str:
    try:
        image = thumbnail(decoders, shown.source)
    except ImageError as error:
        return f'<div class="missing">{escaped(error.reason)}</div>'
    return (
        f'<div class="well"><div class="picture"><img width="{image.width}" height="{image.height}" alt="{name}" '
        f'src="data:image/webp;base64,{webp_base64(image)}">{_region(shown.alignment)}</div></div>'
    )


def _region(alignment: Alignment | None) -> str:
    """Return the outline of the query in a photo, in fractions of its sides; "" if it covers the photo."""
    if alignment is None or all(
        max(min(abs(z), abs(1 - z)) for z in each) < COVERING for each in alignment.corners
    ):
        return ""
    points = " ".join(f"{x:.4f},{y:.4f}" for x, y in alignment.corners)
    polygons = f'<polygon class="halo" points="{points}"/><polygon points="{points}"/>'
    return f'<svg viewBox="0 0 1 1" preserveAspectRatio="none" aria-hidden="true">{polygons}</svg>'


def _link(source: Source, page: Path) -> str:
    """Return the URL of a file, "" for what is no file."""
    if source.data is not None:
        return ""
    if source.root is not None:
        return f"{link_to(source.root, page)}/{address(source.path)}"
    return link_to(Path(source.path), page)
