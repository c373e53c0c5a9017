"""Which new files are read before they are decoded, and what of the index they reuse."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.fakes import FAKE_SPEC
from tests.test_store import photo
from vggsearch.photos.walk import PhotoFile
from vggsearch.store.records import Embedded
from vggsearch.store.reuse import FIRST_LOOKS, KnownContent
from vggsearch.store.store import Store
from vggsearch.store.writer import writing

SIZE, TIME = 5000, 10**18


def stored(directory: Path, *commits: list[Embedded]) -> Store:
    store = Store.create(directory, FAKE_SPEC)
    with writing(store) as writer:
        for photos in commits:
            writer.commit(photos)
    return store


def of_one_size(name: str, seed: int) -> Embedded:
    return replace(photo(name, seed), file=PhotoFile(name, SIZE, TIME + seed))


def never() -> str:
    pytest.fail("read")


def test_files_are_read_first_only_while_enough_of_them_are_copies(tmp_path: Path) -> None:
    store = stored(tmp_path / "x", [of_one_size("a.jpg", 1), of_one_size("b.jpg", 2)])
    new = [PhotoFile(f"{number}.jpg", SIZE, number) for number in range(2 * FIRST_LOOKS)]
    moved = PhotoFile("c.jpg", SIZE, TIME + 2)
    known = KnownContent(store, [*new, moved])
    read: list[str] = []

    def other_bytes() -> str:
        read.append("")
        return f"{9:064x}"

    assert not any(known.look_up(file, other_bytes) for file in new)
    assert len(read) == FIRST_LOOKS
    found = known.look_up(moved, lambda: f"{2:064x}")
    assert found is not None
    assert found.file.path == "b.jpg"
    assert known.may_know(new[-1])
    assert known.find(f"{1:064x}") is not None


def test_copies_are_read_first_however_many_there_are(tmp_path: Path) -> None:
    store = stored(tmp_path / "x", [of_one_size("a.jpg", 1)])
    new = [PhotoFile(f"{number}.jpg", SIZE, number) for number in range(2 * FIRST_LOOKS)]
    known = KnownContent(store, new)
    assert all(known.look_up(file, lambda: f"{1:064x}") is not None for file in new)


def test_a_file_of_another_size_is_not_read_first(tmp_path: Path) -> None:
    store = stored(tmp_path / "x", [of_one_size("a.jpg", 1)])
    new = PhotoFile("b.jpg", SIZE + 1, TIME + 1)
    known = KnownContent(store, [new])
    assert known.look_up(new, never) is None
    assert not known.may_know(new)


def test_content_is_told_apart_by_the_whole_hash_and_found_in_any_live_part(tmp_path: Path) -> None:
    alike = [f"{7:016x}{number:048x}" for number in range(4)]
    photos = [replace(of_one_size(f"{number}.jpg", number), sha256=sha256) for number, sha256 in enumerate(alike)]
    gone = replace(of_one_size("0.jpg", 9), sha256=f"{9:064x}")
    store = stored(tmp_path / "x", [gone, photos[1]], photos[:1], photos[2:])
    known = KnownContent(store, [PhotoFile("new.jpg", SIZE, 1)])
    for one in photos:
        found = known.find(one.sha256)
        assert found is not None
        assert (found.file.path, found.sha256) == (one.file.path, one.sha256)
    assert known.find(f"{7:016x}{9:048x}") is None
    assert known.find(gone.sha256) is None
