"""What queries found, shown with the pictures: as a page, or in the terminal. Imported only if asked for."""

from collections.abc import Sequence
from pathlib import Path

from vggsearch.cli.output import say
from vggsearch.cli.pictures import show_pictures
from vggsearch.cli.terminal import quiet_decoders, stopping_on_ctrl_c
from vggsearch.photos.decoder_pool import Source
from vggsearch.photos.walk import one_line
from vggsearch.progress import progress_bar
from vggsearch.query.options import Pick, QueryResult
from vggsearch.render.html.results import Section, section_of, section_of_picks, write_results
from vggsearch.render.terminal_images import picks_strip, result_strip
from vggsearch.render.text import quantity

HTML_INSTEAD = "vggsearch query IMAGE --html FILE"


def show_results(found: Sequence[tuple[QueryResult, Sequence[Source]]], page: Path | None) -> None:
    """Write results, each with its query pictures, to a page; without one, show them in the terminal."""
    if page is not None:
        _write_page(page, [section_of(result, sources) for result, sources in found])
    else:
        show_pictures([result_strip(result, sources) for result, sources in found], HTML_INSTEAD)


def show_picks(picked: Sequence[Pick], sources: Sequence[Source], page: Path | None) -> None:
    """Write random photos to a page; without one, show them in the terminal."""
    if page is not None:
        _write_page(page, [section_of_picks(picked, sources)])
    else:
        show_pictures([picks_strip(picked, sources)], HTML_INSTEAD)


def _write_page(page: Path, sections: Sequence[Section]) -> None:
    with progress_bar() as progress, stopping_on_ctrl_c() as stop, quiet_decoders():
        write_results(page, sections, progress=progress, stop=stop)
    photos = sum(len(section.found) for section in sections)
    say(f"{one_line(str(page))}: {quantity(photos, 'photo')}")
