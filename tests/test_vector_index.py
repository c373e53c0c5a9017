import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.helpers.vectors import DIM, families, saved
from vggsearch.errors import IndexDamaged, InstallationError
from vggsearch.knn import faiss_import
from vggsearch.knn.build import build_in_memory
from vggsearch.knn.vector_index import Selection, VectorIndex
from vggsearch.knn.vectors import unit_rows
from vggsearch.query.searcher import Match, Searcher
from vggsearch.system.installation import installed

NOTHING = np.empty(0, np.int64)


def test_the_nearest_rows_are_those_that_numpy_finds() -> None:
    stored = families(500)
    index = build_in_memory([stored[:200], stored[200:]], 500, DIM)
    queries = unit_rows(families(20, seed=1))
    truth = queries @ unit_rows(stored).T
    rows, similarities = index.nearest(queries, 10)
    np.testing.assert_allclose(similarities, -np.sort(-truth, axis=1)[:, :10], atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(truth, rows, 1), similarities, atol=1e-6)
    np.testing.assert_allclose(index.similarities(queries[3], rows[3]), similarities[3], atol=1e-6)


def test_a_saved_index_returns_the_same_rows(tmp_path: Path) -> None:
    stored, queries = families(50), unit_rows(families(5, seed=2))
    opened = saved(tmp_path / "abc", stored)
    for one, other in zip(
        opened.nearest(queries, 5), build_in_memory([stored], 50, DIM).nearest(queries, 5), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_an_empty_index_finds_nothing(tmp_path: Path) -> None:
    opened = saved(tmp_path / "abc", families(0))
    assert len(opened) == 0
    rows, similarities = opened.nearest(np.ones((2, DIM), np.float32), 5)
    assert (rows.shape, similarities.shape) == ((2, 0), (2, 0))
    assert opened.above_vector(np.ones(DIM, np.float32), -1)[0].size == 0


def test_an_index_of_another_size_is_refused_with_both_sizes(tmp_path: Path) -> None:
    saved(tmp_path / "abc", families(50))
    with pytest.raises(IndexDamaged, match=rf"holds 50 x {DIM} .*, but the manifest says 51 x {DIM}"):
        VectorIndex.open(tmp_path / "abc", 51, DIM)


@pytest.mark.parametrize("name", ["index.faiss", "vectors.npy"])
def test_a_truncated_file_is_an_error(tmp_path: Path, name: str) -> None:
    saved(tmp_path / "abc", families(50))
    data = (tmp_path / "abc" / name).read_bytes()
    (tmp_path / "abc" / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(IndexDamaged, match="cannot be opened"):
        VectorIndex.open(tmp_path / "abc", 50, DIM)


def test_two_faiss_packages_are_an_error_that_names_both(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version

    def version(name: str) -> str:
        return "1.9.0" if name in ("faiss-cpu", "faiss-gpu") else real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    faiss_import.faiss.cache_clear()
    with pytest.raises(InstallationError, match="faiss-cpu and faiss-gpu"):
        faiss_import.faiss()
    monkeypatch.undo()
    faiss_import.faiss.cache_clear()
    assert len(installed(faiss_import.PACKAGES)) == 1
    assert faiss_import.faiss().IndexFlatIP(2).d == 2


def searcher(stored: NDArray[np.float16], paths: list[str], blank: NDArray[np.int64] = NOTHING) -> Searcher:
    return Searcher(paths, build_in_memory([stored], len(stored), DIM), blank)


def test_matches_come_most_similar_first_with_exact_similarities() -> None:
    stored = families(100)
    found = searcher(stored, [f"{row}.jpg" for row in range(100)]).nearest(unit_rows(stored)[7], 3)
    assert found[0] == Match("7.jpg", 1.0)
    truth = np.sort(unit_rows(stored) @ unit_rows(stored)[7])[::-1][:3]
    np.testing.assert_allclose([match.similarity for match in found], truth, atol=5.1e-5)


def test_a_photo_comes_before_its_forty_exact_copies_and_the_rest_by_path() -> None:
    stored = np.concatenate([families(5, seed=3), np.repeat(families(1), 41, axis=0)])
    paths = [f"other{row}.jpg" for row in range(5)] + [f"copy{row:02}.jpg" for row in range(41)]
    found = searcher(stored, paths).nearest(unit_rows(stored)[-1], 4, own_path="copy33.jpg")
    assert found[0] == Match("copy33.jpg", 1.0)
    assert all(match.similarity == 1.0 for match in found)
    assert [match.path for match in found[1:]] == sorted(match.path for match in found[1:])


def test_min_similarity_limits_the_matches_and_without_a_count_returns_all_above() -> None:
    stored = families(1000)
    photos = searcher(stored, [f"{row:04}.jpg" for row in range(1000)], blank=np.arange(5))
    truth = (unit_rows(stored) @ unit_rows(stored)[7])[5:].round(4)
    floor = float(np.sort(truth)[-300])
    assert len(photos.nearest(unit_rows(stored)[7], 50, floor)) == 50
    found = photos.nearest(unit_rows(stored)[7], None, floor)
    assert len(found) == (truth >= floor).sum() >= 300
    assert found[:50] == photos.nearest(unit_rows(stored)[7], 50, floor)


@pytest.mark.parametrize("is_saved", [False, True])
def test_excluded_rows_are_replaced_by_others(tmp_path: Path, is_saved: bool) -> None:
    stored = families(200)
    index = saved(tmp_path / "abc", stored) if is_saved else build_in_memory([stored], 200, DIM)
    query = unit_rows(stored)[:1]
    without = np.arange(0, 200, 2)
    truth = unit_rows(stored) @ query[0]
    truth[without] = -2
    among = index.all_but(without)
    np.testing.assert_array_equal(index.nearest(query, 10, among)[0][0], np.argsort(-truth)[:10])
    assert index.nearest(query, 150, among)[0].shape == (1, 100)
    assert index.nearest(query, 5, index.all_but(np.arange(200)))[0].size == 0
    assert index.all_but(NOTHING) is None
    np.testing.assert_array_equal(Selection(truth > -2).rows, np.arange(1, 200, 2))


@pytest.mark.parametrize("wanted", [None, "ACTIVE"])
def test_openmp_threads_wait_passively_unless_the_user_set_a_policy(wanted: str | None) -> None:
    """OMP_DISPLAY_ENV makes OpenMP print its settings when it is loaded."""
    code = (
        "import os; from vggsearch.knn.faiss_import import faiss;"
        "faiss().omp_get_max_threads(); print(os.environ.get('OMP_WAIT_POLICY'))"
    )
    environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    environment |= {"OMP_DISPLAY_ENV": "TRUE"} | ({} if wanted is None else {"OMP_WAIT_POLICY": wanted})
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    policies = set(re.findall(r"OMP_WAIT_POLICY\s*=\s*'(\w+)'", done.stderr))
    assert policies == {wanted or "PASSIVE"}
    assert done.stdout.split() == [str(wanted)]  # later libraries see the original value
