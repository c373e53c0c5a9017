"""The page of a query: every picture, escaped texts, links that lead to the photos, and no script."""

import os
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

import pytest

from tests.fakes import save_photo
from tests.helpers.duplicates import aligned
from tests.test_page import HOSTILE
from vggsearch.errors import OptionError
from vggsearch.photos.decoder_pool import Source
from vggsearch.query.options import QueryResult
from vggsearch.query.searcher import Match
from vggsearch.render.html.results import section_of, write_results

PNG_OF_ONE_PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415408d763f8cfc000000301010018dd8db0"
    "0000000049454e44ae426082"
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for seed, name in enumerate(["a.jpg", *HOSTILE]):
        save_photo(tmp_path / "photos" / name, seed, format="JPEG")
    return tmp_path / "photos"


def written(root: Path, *matches: Match) -> str:
    page = root.parent / "page.html"
    result = QueryResult("a.jpg", matches, {None: root})
    write_results(page, [section_of(result, [Source(str(root / "a.jpg"))])])
    return page.read_text("utf-8")


def test_every_match_has_its_picture_and_what_is_known_of_it(root: Path) -> None:
    page = written(root, Match("a.jpg", 1.0, confidence=1.0), Match(HOSTILE[0], 0.5, aligned(0.5), confidence=0.25))
    assert page.count('src="data:image/webp;base64,') == 3
    assert "<p>1.000 · copy</p>" in page
    assert "<p>0.500 · 25%</p><p>query covers 25% of it</p>" in page


def test_the_outline_of_the_query_is_drawn_unless_it_is_the_whole_photo(root: Path) -> None:
    assert "<polygon" not in written(root, Match("a.jpg", 1.0, aligned(1.0)))
    outline = 'points="0.2500,0.2500 0.7500,0.2500 0.7500,0.7500 0.2500,0.7500"'
    assert written(root, Match("a.jpg", 0.9, aligned(0.5))).count(outline) == 2  # a line and its halo


class Elements(HTMLParser):
    """Collects the elements of a page, with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_names_are_text_and_links_lead_to_the_photos(root: Path) -> None:
    elements = Elements(written(root, *(Match(name, 0.9) for name in HOSTILE))).found
    assert not [name for name, _ in elements if name == "script"]
    assert not [attribute for _, attributes in elements for attribute in attributes if attribute.startswith("on")]
    addresses = [urlsplit(str(attributes["href"])).path for name, attributes in elements if name == "a"]
    links = [root.parent / os.fsdecode(unquote_to_bytes(address)) for address in addresses]
    assert [link.resolve() for link in links] == [root / name for name in ("a.jpg", *HOSTILE)]


def test_a_picture_that_cannot_be_shown_says_why_and_one_from_standard_input_is_shown(root: Path) -> None:
    page = root.parent / "page.html"
    result = QueryResult("-", (Match("gone.jpg", 0.9),), {None: root})
    write_results(page, [section_of(result, [Source("-", data=PNG_OF_ONE_PIXEL)])])
    text = page.read_text("utf-8")
    assert "<h2>standard input</h2>" in text
    assert text.count("data:image/webp") == 1
    assert '<div class="missing">No such file or directory</div>' in text


def test_another_file_is_not_overwritten(root: Path) -> None:
    before = (root / "a.jpg").read_bytes()
    with pytest.raises(OptionError, match="was not written by vggsearch"):
        write_results(root / "a.jpg", [])
    assert (root / "a.jpg").read_bytes() == before
    assert not list(root.glob("*.part"))
