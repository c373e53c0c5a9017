"""Segments: an update of a large index writes what is new, shares the other files, and every search sees both."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.labelled import photo_of
from tests.helpers.vectors import families
from tests.make_golden_index import SMALL_SPEC
from vggsearch.defaults import BUILD
from vggsearch.errors import IndexDamaged, IndexNotWritable
from vggsearch.indexing.build import build_options, build_vector_index, index_in_memory, open_vector_index, rebuild
from vggsearch.indexing.integrity import verify
from vggsearch.knn.all_pairs import all_pairs
from vggsearch.knn.segments import kept_segments
from vggsearch.knn.vector_index import Selection, VectorIndex
from vggsearch.knn.vectors import StoredVectors, unit_rows
from vggsearch.progress import SILENT
from vggsearch.store.files import FileHash
from vggsearch.store.store import Store
from vggsearch.store.writer import writing

ROWS = 640
LISTS, PLAIN = 60, 4  # photos added: so many get lists, so few do not


@pytest.fixture(autouse=True)
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    small = replace(BUILD, whole_rows=100, plain_rows=30, tuning_queries=40, timed_queries=4, few_rows=20)
    for name in ("knn.segments", "knn.build", "knn.tune", "knn.vector_index"):
        monkeypatch.setattr(f"vggsearch.{name}.BUILD", small)


def change(directory: Path, added: range, gone: range = range(0)) -> None:
    """Add and remove photos, named by their number, as an update does."""
    vectors = unit_rows(families(2 * ROWS, dim=SMALL_SPEC.dim))
    store = Store.open(directory)
    with writing(store) as writer:
        photos = [photo_of(row, f"{row:05}.jpg", vectors[row]) for row in added]
        writer.commit(photos, [f"{row:05}.jpg" for row in gone])
        build_vector_index(store, writer)


def made(directory: Path, recipe: str) -> Path:
    """Make an index of ROWS photos."""
    Store.create(directory, SMALL_SPEC)
    change(directory, range(ROWS))
    store = Store.open(directory)
    rebuild(store, lambda: build_options(store, recipe, None, 0.95, None), SILENT)
    return directory


def opened(directory: Path) -> VectorIndex:
    index = open_vector_index(Store.open(directory))
    assert index is not None
    return index


def files(directory: Path) -> dict[str, int]:
    """The files of the vector index, with their inodes."""
    [folder] = (directory / "search").iterdir()
    return {path.name: path.stat().st_ino for path in folder.iterdir()}


def sizes(directory: Path) -> list[int]:
    return [len(segment) for segment in opened(directory).segments]


def assert_equals_a_whole_index(directory: Path, least: float = 0.9) -> None:
    """The vectors and similarities are those of an index in memory; so are nearly all of the rows found."""
    index, whole = opened(directory), index_in_memory(Store.open(directory))
    np.testing.assert_allclose(index.by_row[:], whole.by_row[:], rtol=2e-3, atol=1e-6)  # sums may round otherwise
    queries = whole.unit_vectors(np.arange(3, len(whole), 23))
    rows, similarities = index.nearest_vectors(queries, 10)
    np.testing.assert_allclose(
        similarities, np.take_along_axis(queries @ whole.unit_vectors(slice(None)).T, rows, 1), atol=1e-5
    )
    expected, best = whole.nearest_vectors(queries, 10)
    assert np.mean(similarities >= best - 1e-4) >= (1 if index.is_exact else least)
    if index.is_exact:
        np.testing.assert_array_equal(rows, expected)
    chosen = Selection(np.arange(len(whole)) % 2 == 0)
    assert chosen.mask[index.nearest_vectors(queries, 10, chosen)[0]].all()
    assert verify(directory).findings == ()


@pytest.mark.parametrize("recipe", ["flat", "ivf-sq8", "ivf-pq", "hnsw"])
def test_added_and_removed_photos_leave_the_base_as_it_is(recipe: str, tmp_path: Path) -> None:
    directory = made(tmp_path / "index", recipe)
    before, reader = files(directory), opened(directory)
    queries = reader.unit_vectors(np.arange(0, ROWS, 50))
    answer = reader.nearest_vectors(queries, 5)
    change(directory, range(ROWS, ROWS + PLAIN))
    assert sizes(directory) == [ROWS, PLAIN]
    change(directory, range(0), range(5, 15))
    change(directory, range(ROWS + PLAIN, ROWS + PLAIN + 1), range(ROWS, ROWS + 1))
    assert sizes(directory) == [ROWS, PLAIN + 1]  # the last one was taken in, with its dead slot
    after = files(directory)
    assert {after[name] for name in ("index.faiss", "vectors.npy")} == {
        before[name] for name in before if name[0] in "iv"
    }
    assert_equals_a_whole_index(directory)
    for one, other in zip(reader.nearest_vectors(queries, 5), answer, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("recipe", ["ivf-sq8", "ivf-pq"])
def test_many_added_photos_get_lists_and_are_joined_when_they_are_a_large_share(
    recipe: str, tmp_path: Path
) -> None:
    directory = made(tmp_path / "index", recipe)
    change(directory, range(ROWS, ROWS + LISTS), range(7))
    change(directory, range(ROWS + LISTS, ROWS + LISTS + PLAIN), range(ROWS, ROWS + 3))
    assert {"index-1.faiss", "vectors-1.npy", "vectors-2.npy", "live.npy"} < files(directory).keys()
    assert "index-2.faiss" not in files(directory)
    assert sizes(directory) == [ROWS, LISTS, PLAIN]
    assert_equals_a_whole_index(directory)
    facts = Store.open(directory).manifest.search
    change(directory, range(ROWS + LISTS + PLAIN, ROWS + 170))
    joined = Store.open(directory).manifest.search
    assert facts is not None
    assert joined is not None
    assert joined.trained_rows == facts.trained_rows == ROWS
    assert sizes(directory) == [ROWS + 170]
    assert files(directory).keys() == {"index.faiss", "vectors.npy", "live.npy", "whitening.npy"}
    assert_equals_a_whole_index(directory)


def test_pairs_are_those_of_all_segments(tmp_path: Path) -> None:
    directory = made(tmp_path / "index", "ivf-sq8")
    change(directory, range(ROWS, ROWS + LISTS), range(7))
    stored = opened(directory).by_row
    found, expected = all_pairs(stored, 5, 0.3), all_pairs(stored[:], 5, 0.3)
    assert len(found) > 100
    for name in ("first", "second", "similarity"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_what_is_shared_is_not_read_again_and_keeps_its_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = made(tmp_path / "index", "ivf-sq8")
    before = Store.open(directory).manifest.search
    read: list[str] = []
    hash_of = FileHash.of

    def recorded(path: Path) -> FileHash:
        read.append(path.name)
        return hash_of(path)

    monkeypatch.setattr(FileHash, "of", recorded)
    monkeypatch.setattr("vggsearch.store.store.BUILD", replace(BUILD, hashed_bytes=0))
    change(directory, range(ROWS, ROWS + PLAIN))
    assert not {"index.faiss", "vectors.npy"} & set(read)
    after = Store.open(directory).manifest.search
    assert before is not None
    assert after is not None
    assert {*before.files} < {*after.files}


@pytest.mark.parametrize("name", ["vectors.npy", "index.faiss", "vectors-1.npy", "whitening.npy"])
def test_a_damaged_file_never_gets_a_valid_hash(name: str, tmp_path: Path) -> None:
    directory = made(tmp_path / "index", "ivf-sq8")
    change(directory, range(ROWS, ROWS + PLAIN))
    [path] = (directory / "search").glob(f"*/{name}")
    data = bytearray(path.read_bytes())
    data[-9] ^= 0x10
    path.write_bytes(data)
    change(directory, range(ROWS + PLAIN, ROWS + PLAIN + 2))
    if name in ("vectors.npy", "index.faiss"):  # shared, so it was not read
        with pytest.raises(IndexDamaged, match="has sha256"):
            open_vector_index(Store.open(directory))
        assert [finding.file.rpartition("/")[2] for finding in verify(directory, repair=True).findings] == [name]
    assert_equals_a_whole_index(directory)


def test_a_crash_leaves_the_old_state_and_the_next_update_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = made(tmp_path / "index", "flat")
    change(directory, range(ROWS, ROWS + PLAIN))

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("vggsearch.knn.build.write_live", fail)
        with pytest.raises(IndexNotWritable):
            change(directory, range(ROWS + PLAIN, ROWS + PLAIN + 2), range(3))
    assert open_vector_index(Store.open(directory)) is None  # the photos are stored, their vectors are not
    change(directory, range(0))
    assert sizes(directory) == [ROWS, PLAIN + 2]
    assert_equals_a_whole_index(directory)


def test_a_disk_without_hard_links_gets_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    directory = made(tmp_path / "index", "flat")
    before = files(directory)
    monkeypatch.setattr("os.link", refuse)
    change(directory, range(ROWS, ROWS + PLAIN))
    assert sizes(directory) == [ROWS, PLAIN]
    assert not {*before.values()} & {*files(directory).values()}
    assert_equals_a_whole_index(directory)


def test_slots_of_an_earlier_version_are_read(tmp_path: Path) -> None:
    directory = made(tmp_path / "index", "ivf-sq8")
    change(directory, range(0), range(5, 15))
    [folder] = (directory / "search").iterdir()
    slots = opened(directory).slots
    (folder / "live.npy").unlink()
    np.save(folder / "slots.npy", slots)
    np.testing.assert_array_equal(VectorIndex.open(folder, ROWS - 10, SMALL_SPEC.dim).slots, slots)


@pytest.mark.parametrize("bits", [np.zeros(79, np.uint8), np.zeros(80, np.int8), np.zeros((80, 1), np.uint8)])
def test_wrong_bits_are_damage(bits: np.ndarray, tmp_path: Path) -> None:
    directory = made(tmp_path / "index", "ivf-sq8")
    [folder] = (directory / "search").iterdir()
    np.save(folder / "live.npy", bits)
    with pytest.raises(IndexDamaged, match="not bits of 640 slots"):
        VectorIndex.open(folder, ROWS, SMALL_SPEC.dim)


@pytest.mark.parametrize(
    ("before", "added", "kept"),
    [
        ([], 1000, 0),
        ([1000], 0, 1),  # photos were removed only
        ([1000], 10, 1),
        ([1000, 10], 2, 2),
        ([1000, 10], 3, 1),
        ([1000, 100, 20, 4], 1, 1),  # 1 takes in 4, 5 take in 20, and 25 take in 100
        ([1000, 100], 300, 0),  # the base, too
    ],
)
def test_a_new_segment_takes_in_those_before_that_are_not_much_larger(
    before: list[int], added: int, kept: int
) -> None:
    assert kept_segments(before, added, has_lists=True, is_exact=False) == kept


def test_the_number_of_segments_stays_small_and_vectors_are_rewritten_rarely() -> None:
    segments, written = [1_000_000], 0
    for _ in range(1500):
        kept = kept_segments(segments, 100, has_lists=True, is_exact=False)
        segments = [*segments[:kept], sum(segments[kept:]) + 100]
        written += segments[-1]
        assert len(segments) <= 7
    assert sum(segments) == 1_150_000
    assert written < 20 * 150_000


def test_joined_vectors_are_read_as_one_array() -> None:
    whole = families(50)
    for chosen in (None, np.arange(1, 50, 3)):
        joined, expected = StoredVectors([whole[:20], whole[20:20], whole[20:23], whole[23:]], chosen), whole
        if chosen is not None:
            expected = whole[chosen]
        assert joined.shape == expected.shape
        assert len(joined) == len(expected)
        for rows in (slice(None), slice(3, 9), slice(10, 400), slice(7, 7), np.array([[0, 5], [-1, 2]])):
            np.testing.assert_array_equal(joined[rows], expected[rows])
