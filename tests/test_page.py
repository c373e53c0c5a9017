import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import save_photo
from tests.helpers.duplicates import group, member, photo
from vggsearch.defaults import THUMBNAILS
from vggsearch.duplicates.results import Group
from vggsearch.errors import OptionError, Stopped, shell_word
from vggsearch.photos.decoder_pool import Decoders, Source
from vggsearch.photos.thumbnails import in_order, thumbnail
from vggsearch.progress import Progress
from vggsearch.render.html.page import PageFacts, write_page

HOSTILE = [
    '"><script>hacked=1</script>.jpg',
    '" onload="hacked=1.jpg',
    "<!--<script>.jpg",
    "a\u202egpj.exe",
    "two\nlines.jpg",
    "it's $HOME `id` \\ !.jpg",
    "\udcff\udcfe9.jpg",
    "-rf.jpg",
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for seed, name in enumerate(["a.jpg", "b.jpg", "c.jpg"]):
        save_photo(tmp_path / "photos" / name, seed)
    shutil.copy(tmp_path / "photos" / "a.jpg", tmp_path / "photos" / "copy.jpg")
    return tmp_path / "photos"


def of_three() -> list[Group]:
    members = [member("copy.jpg", "exact", 1.0, 1.0), member("b.jpg", "near", 0.9, 0.95)]
    return [group(1, photo("a.jpg"), *members), group(2, photo("c.jpg"), member("gone.jpg", "near", 0.9, 0.9))]


def pictures(page: Path, number: int) -> list[object]:
    found = data(page, f"pictures-{number}")
    assert isinstance(found, list)
    return found


def data(page: Path, name: str) -> Any:
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', page.read_text("utf-8"), re.S)
    assert found is not None, name
    return json.loads(found[1])


def test_a_page_holds_the_thumbnails_of_all_photos_exact_copies_once_and_the_reason_for_none(root: Path) -> None:
    page = root.parent / "page.html"
    write_page(page, of_three(), root)
    first, second, third = pictures(page, 1)
    assert str(first).startswith("UklGR")  # RIFF, as WebP begins
    assert second == 0
    assert third not in (first, second)
    assert pictures(page, 2)[1] == {"reason": "No such file or directory"}


def test_a_page_may_fetch_nothing_and_names_no_address(root: Path) -> None:
    page = root.parent / "page.html"
    write_page(page, of_three(), root)
    text = page.read_text("utf-8")
    assert "default-src 'none'" in text
    assert "unsafe" not in text
    outside = set(re.findall(r"https?://[^\"' ]+", text)) - {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert outside == set()


def test_hostile_names_stay_data(root: Path) -> None:
    groups = [group(1, photo("a.jpg"), *(member(name, "near", 0.9, 0.9) for name in HOSTILE))]
    page = root.parent / "page.html"
    write_page(page, groups, root, PageFacts("<script>hacked=1</script>", (("<b>", "&\u202e"),)))
    text = page.read_text("utf-8")
    assert text.count("<script>") == 1  # the page's own
    assert "<b>" not in text
    assert "\u202e" not in text
    (only,) = data(page, "groups-data")
    paths = [photo["path"] for photo in only["photos"][1:]]
    assert paths[3:7] == [r"a\u202egpj.exe", r"two\nlines.jpg", HOSTILE[5], r"\udcff\udcfe9.jpg"]
    assert only["photos"][7]["link"] == "./photos/%FF%FE9.jpg"


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize("name", [*HOSTILE, "plain.jpg", "日本 語.jpg", "\x1b]0;x\x07.jpg"])
def test_a_shell_reads_a_name_as_it_is(name: str) -> None:
    word = shell_word(name)
    assert word.isprintable()
    done = subprocess.run(["bash", "-c", f"printf %s {word}"], capture_output=True, check=True)
    assert done.stdout == os.fsencode(name)


def test_a_photo_is_never_taken_for_the_page_to_write(root: Path) -> None:
    before = (root / "a.jpg").read_bytes()
    with pytest.raises(OptionError, match=r"a\.jpg exists and was not written by vggsearch"):
        write_page(root / "a.jpg", of_three(), root)
    assert (root / "a.jpg").read_bytes() == before


def test_a_page_takes_the_place_of_an_older_one(root: Path) -> None:
    page = root.parent / "page.html"
    write_page(page, of_three(), root)
    write_page(page, of_three()[:1], root)
    assert "pictures-2" not in page.read_text("utf-8")


def test_a_page_that_was_broken_off_is_not_there_and_the_older_one_still_is(root: Path) -> None:
    def break_off(progress: Progress) -> None:
        if progress.done > 3:
            raise KeyboardInterrupt

    page = root.parent / "page.html"
    with pytest.raises(KeyboardInterrupt):
        write_page(page, of_three(), root, progress=break_off)
    assert [path.name for path in root.parent.iterdir()] == ["photos"]
    write_page(page, of_three()[:1], root)
    before = page.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        write_page(page, of_three(), root, progress=break_off)
    assert page.read_bytes() == before
    with pytest.raises(Stopped):
        write_page(page, of_three(), root, stop=lambda: True)
    assert page.read_bytes() == before


def test_a_page_finds_the_photos_from_wherever_it_lies(root: Path) -> None:
    (root.parent / "100% mine").mkdir()
    for page, link in [("100% mine/page.html", "./../photos/a.jpg"), ("photos/page.html", "./a.jpg")]:
        write_page(root.parent / page, of_three(), root)
        address = data(root.parent / page, "groups-data")[0]["photos"][0]["link"]
        assert os.path.normpath(address) == os.path.normpath(link)
    odd = root.rename(root.parent / "file:?#photos")
    write_page(root.parent / "page.html", of_three(), odd)
    assert data(root.parent / "page.html", "groups-data")[0]["photos"][0]["link"] == "./file%3A%3F%23photos/a.jpg"


def test_progress_counts_photos(root: Path) -> None:
    shown: list[Progress] = []
    write_page(root.parent / "page.html", of_three(), root, progress=shown.append)
    assert [(each.done, each.total) for each in shown] == [(3, 5), (5, 5)]


def test_photos_are_read_a_few_groups_ahead_and_no_more() -> None:
    pulled = 0

    def source() -> Iterator[int]:
        nonlocal pulled
        for number in range(1000):
            pulled = number + 1
            yield number

    for made in in_order(lambda number: -number, source()):
        assert pulled <= -made + 1 + THUMBNAILS.ahead
    assert pulled == 1000


def test_a_thumbnail_keeps_the_shape_and_is_never_larger_than_its_photo(root: Path) -> None:
    save_photo(root / "wide.jpg", 5, size=(1000, 250))
    save_photo(root / "tiny.png", 5, size=(20, 10))
    with Decoders(1) as decoders:
        assert thumbnail(decoders, Source("wide.jpg", root)).size == (THUMBNAILS.side, THUMBNAILS.side // 4)
        assert thumbnail(decoders, Source("tiny.png", root)).size == (20, 10)
