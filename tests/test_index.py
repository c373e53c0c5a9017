import importlib.metadata
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from vggsearch.errors import IndexDamaged, InstallationError
from vggsearch.index import library
from vggsearch.index.flat import FlatIndex
from vggsearch.index.vectors import unit_rows
from vggsearch.search import Match, Searcher

DIM = 32
NOTHING = np.empty(0, np.int64)


def vectors(rows: int, seed: int = 0) -> NDArray[np.float16]:
    return unit_rows(np.random.default_rng(seed).standard_normal((rows, DIM))).astype(np.float16)


def folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_the_nearest_rows_are_those_that_numpy_finds() -> None:
    stored = vectors(500)
    index = FlatIndex.build([stored[:200], stored[200:]], DIM)
    for query in unit_rows(vectors(20, seed=1)):
        truth = unit_rows(stored) @ query
        found = index.nearest(query, 10, NOTHING)
        np.testing.assert_allclose(truth[found], np.sort(truth)[::-1][:10], atol=1e-6)
        np.testing.assert_allclose(index.similarities(query, found), truth[found], atol=1e-6)


def test_a_saved_index_opens_with_the_same_answers(tmp_path: Path) -> None:
    built = FlatIndex.build([vectors(50)], DIM)
    built.save(folder(tmp_path / "abc"))
    opened = FlatIndex.open(tmp_path / "abc", 50, DIM)
    query = unit_rows(vectors(1, seed=2))[0]
    np.testing.assert_array_equal(opened.nearest(query, 5, NOTHING), built.nearest(query, 5, NOTHING))


def test_an_empty_index_finds_nothing(tmp_path: Path) -> None:
    FlatIndex.build([], DIM).save(folder(tmp_path / "abc"))
    opened = FlatIndex.open(tmp_path / "abc", 0, DIM)
    assert len(opened) == 0
    assert opened.nearest(np.ones(DIM, np.float32), 5, NOTHING).size == 0


def test_an_index_of_other_rows_is_refused_with_the_numbers(tmp_path: Path) -> None:
    FlatIndex.build([vectors(50)], DIM).save(folder(tmp_path / "abc"))
    with pytest.raises(IndexDamaged, match=r"holds 50 x 32 .* the manifest says 51 x 32"):
        FlatIndex.open(tmp_path / "abc", 51, DIM)


@pytest.mark.parametrize("name", ["index.faiss", "vectors.npy"])
def test_a_file_cut_short_is_an_error_not_an_answer(tmp_path: Path, name: str) -> None:
    FlatIndex.build([vectors(50)], DIM).save(folder(tmp_path / "abc"))
    data = (tmp_path / "abc" / name).read_bytes()
    (tmp_path / "abc" / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(IndexDamaged, match="cannot be opened"):
        FlatIndex.open(tmp_path / "abc", 50, DIM)


def test_two_faiss_packages_are_an_error_that_names_both(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version

    def version(name: str) -> str:
        return "1.9.0" if name in ("faiss-cpu", "faiss-gpu") else real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    library.faiss.cache_clear()
    with pytest.raises(InstallationError, match="faiss-cpu and faiss-gpu"):
        library.faiss()
    monkeypatch.undo()
    library.faiss.cache_clear()
    assert len(library.installed_packages()) == 1
    assert library.faiss().IndexFlatIP(2).d == 2


def searcher(stored: NDArray[np.float16], paths: list[str], blank: NDArray[np.int64] = NOTHING) -> Searcher:
    return Searcher(paths, FlatIndex.build([stored], DIM), blank)


def test_matches_come_most_similar_first_with_exact_similarities() -> None:
    stored = vectors(100)
    found = searcher(stored, [f"{row}.jpg" for row in range(100)]).nearest(unit_rows(stored)[7], 3)
    assert found[0] == Match("7.jpg", 1.0)
    truth = np.sort(unit_rows(stored) @ unit_rows(stored)[7])[::-1][:3]
    np.testing.assert_allclose([match.similarity for match in found], truth, atol=5.1e-5)


def test_a_photo_comes_before_its_forty_exact_copies_and_the_rest_by_path() -> None:
    stored = np.concatenate([vectors(5, seed=3), np.repeat(vectors(1), 41, axis=0)])
    paths = [f"other{row}.jpg" for row in range(5)] + [f"copy{row:02}.jpg" for row in range(41)]
    found = searcher(stored, paths).nearest(unit_rows(stored)[-1], 4, own_path="copy33.jpg")
    assert found[0] == Match("copy33.jpg", 1.0)
    assert all(match.similarity == 1.0 for match in found)
    assert [match.path for match in found[1:]] == sorted(match.path for match in found[1:])


def test_nothing_below_the_least_similarity_is_shown() -> None:
    stored = vectors(100)
    found = searcher(stored, [f"{row}.jpg" for row in range(100)]).nearest(unit_rows(stored)[0], 50, 0.3)
    assert 1 <= len(found) < 50
    assert all(match.similarity >= 0.3 for match in found)


@pytest.mark.parametrize("saved", [False, True])
def test_rows_that_are_passed_over_leave_their_places_to_others(tmp_path: Path, saved: bool) -> None:
    stored = vectors(200)
    index = FlatIndex.build([stored], DIM)
    if saved:
        index.save(folder(tmp_path / "abc"))
        index = FlatIndex.open(tmp_path / "abc", 200, DIM)
    without = np.arange(0, 200, 2)
    truth = unit_rows(stored) @ unit_rows(stored)[0]
    truth[without] = -2
    np.testing.assert_array_equal(index.nearest(unit_rows(stored)[0], 10, without), np.argsort(-truth)[:10])
    assert len(index.nearest(unit_rows(stored)[0], 150, without)) == 100
    assert index.nearest(unit_rows(stored)[0], 5, np.arange(200)).size == 0
