"""Stored pairs after updates of an index: those of a new search, although only new photos are compared."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.fakes import FakeEngine
from tests.helpers.vectors import families
from tests.make_golden_index import SMALL_SPEC
from vggsearch.duplicates import stored_pairs
from vggsearch.duplicates.stored_pairs import StoredPairs, numbers_of
from vggsearch.image_index import ImageIndex
from vggsearch.indexing.build import build_vector_index
from vggsearch.knn.edges import SIMILARITY_STEPS, Edges
from vggsearch.knn.vectors import unit_rows
from vggsearch.photos.capture import Capture
from vggsearch.photos.perceptual_hash import BYTES
from vggsearch.photos.walk import PhotoFile
from vggsearch.progress import SILENT
from vggsearch.store.contents import COMPARED, EDGES, HASH_EDGES
from vggsearch.store.records import Embedded, EngineInfo
from vggsearch.store.store import Store
from vggsearch.store.writer import writing

ROWS = 400
VECTORS = unit_rows(families(ROWS, dim=SMALL_SPEC.dim))
HASHES = np.random.default_rng(1).integers(0, 256, (ROWS, BYTES), np.uint8)
HASHES[1::2] = HASHES[::2]  # of two photos in a row


def photo(row: int, name: str = "") -> Embedded:
    """Return a photo with the content of a row; every 50th is blank."""
    file = PhotoFile(name or f"{row:03}.jpg", row, row)
    facts = (f"{row:064x}", 40, 30, "JPEG", Capture(), row % 50 == 3, HASHES[row].tobytes(), VECTORS[row])
    return Embedded(file, *facts, EngineInfo("none", "fp32"))


def update(directory: Path, added: list[Embedded], removed: list[int] | None = None) -> None:
    store = Store.open(directory)
    with writing(store) as writer:
        writer.commit(added, [f"{row:03}.jpg" for row in removed or []])
        build_vector_index(store, writer)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """An index of most rows, some of them twice, whose pairs are stored."""
    store = Store.create(tmp_path / "index", SMALL_SPEC)
    update(store.directory, [photo(row) for row in range(370)] + [photo(row, f"copy {row}") for row in (8, 90)])
    found(store.directory)
    return store.directory


def found(directory: Path) -> Edges:
    with ImageIndex.open(directory, engine=FakeEngine(SMALL_SPEC.dim)) as index:
        return StoredPairs(index._collection(), SILENT).found()


def pairs_of(edges: Edges) -> dict[tuple[int, int], float]:
    return dict(zip(zip(edges.first.tolist(), edges.second.tolist(), strict=True), edges.similarity, strict=True))


def assert_as_new(directory: Path, edges: Edges) -> None:
    """Check that a search without anything stored finds the same."""
    for name in (EDGES, HASH_EDGES, COMPARED):
        (directory / name).unlink()
    ours, new = pairs_of(edges), pairs_of(found(directory))
    assert ours.keys() == new.keys()
    assert max(abs(ours[pair] - new[pair]) for pair in new) <= 1.5 / SIMILARITY_STEPS


@pytest.fixture
def only_updates(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Once there is an index, nothing is compared with all: neither vectors nor hashes."""
    assert (directory / EDGES).exists()
    with monkeypatch.context() as patched:
        for name in ("all_pairs", "hash_pairs"):
            patched.delattr(stored_pairs, name)
        yield patched


def test_after_updates_only_new_photos_are_compared(directory: Path, only_updates: pytest.MonkeyPatch) -> None:
    before = found(directory)
    update(directory, [photo(row) for row in range(370, 385)], removed=[8])  # its copy is compared now
    update(directory, [photo(200, "renamed"), photo(389)], removed=[200])
    with writing(store := Store.open(directory)) as writer:
        writer.compact()
    assert len(store) == 372 - 1 + 15 + 1
    edges = found(directory)
    again = found(directory)
    only_updates.undo()
    assert pairs_of(again) == pairs_of(edges) != pairs_of(before)
    assert_as_new(directory, edges)


@pytest.mark.usefixtures("only_updates")
def test_another_photo_under_the_same_name_is_compared(directory: Path) -> None:
    update(directory, [photo(388, "005.jpg")])
    edges = found(directory)
    place = Store.open(directory).paths().index("005.jpg")
    assert {pair for pair in pairs_of(edges) if place in pair}


@pytest.mark.parametrize("name", [EDGES, HASH_EDGES, COMPARED])
def test_what_is_lost_or_damaged_is_searched_again(directory: Path, name: str) -> None:
    update(directory, [photo(380)])
    (directory / name).write_bytes((directory / name).read_bytes()[:-20])
    assert_as_new(directory, found(directory))


def test_vectors_of_another_whitening_are_all_compared(directory: Path) -> None:
    with writing(Store.open(directory)) as writer:
        writer.set_whitened(False)
    update(directory, [])
    assert_as_new(directory, found(directory))


def test_a_number_changes_with_every_byte_of_a_photo_and_is_0_without_one() -> None:
    keys = np.array([f"{row:064x}" for row in range(ROWS)], "S64")
    vectors = VECTORS.astype(np.float16)
    numbers = numbers_of(vectors, keys, HASHES, np.array([7]))
    assert numbers[7] == 0
    assert len(set(numbers.tolist())) == ROWS
    for change in range(3):
        others = vectors.copy(), keys.copy(), HASHES.copy()
        others[change].view(np.uint8).reshape(ROWS, -1)[:, -1] ^= 1
        assert not (numbers_of(*others, np.array([7])) == numbers)[np.arange(ROWS) != 7].any()
    assert (numbers_of(vectors[100:], keys[100:], HASHES[100:], np.array([7]))[8:] == numbers[108:]).all()
