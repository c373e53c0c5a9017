"""Nearest neighbours in another index, against brute force in numpy."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from vggsearch import defaults
from vggsearch.errors import Stopped
from vggsearch.knn.build import build_in_memory
from vggsearch.knn.edges import Edges
from vggsearch.knn.pairs_across import pairs_across
from vggsearch.knn.vector_index import VectorIndex
from vggsearch.knn.vectors import unit_rows
from vggsearch.knn.whitening import Whitening
from vggsearch.progress import Monitor, Progress

DIM = 8


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vggsearch.knn.pairs_across.PAIRS", replace(defaults.PAIRS, block_rows=16))


def embeddings(rows: int, seed: int) -> NDArray[np.float16]:
    return unit_rows(np.random.default_rng(seed).standard_normal((rows, DIM))).astype(np.float16)


def index_of(rows: NDArray[np.float16], whitening: Whitening | None = None) -> VectorIndex:
    return build_in_memory([rows], len(rows), DIM, whitening)


def listed(edges: Edges) -> set[tuple[int, int]]:
    return set(zip(edges.first.tolist(), edges.second.tolist(), strict=True))


def turned() -> Whitening:
    """A whitening that moves and turns, so that forgetting it changes all similarities."""
    matrix = np.random.default_rng(9).standard_normal((DIM, DIM)).astype(np.float32)
    return Whitening(matrix, np.linspace(-0.2, 0.2, DIM, dtype=np.float32))


@pytest.mark.parametrize("whitening", [None, turned()])
@pytest.mark.parametrize(
    ("count", "floor", "without"), [(3, -1.0, ()), (50, 0.2, ()), (2, -1.0, (0, 17, 40, 55, 69))]
)
def test_each_row_is_paired_with_its_nearest_in_the_other_index(
    whitening: Whitening | None, count: int, floor: float, without: tuple[int, ...]
) -> None:
    own, theirs = embeddings(40, 1), embeddings(30, 2)
    index = index_of(own, whitening)
    others = index.to_vectors(unit_rows(theirs))
    products = index.unit_vectors(slice(None)) @ others.T
    excluded = np.array(without, np.int64)
    products[excluded[excluded < 40]] = -np.inf
    products[:, excluded[excluded >= 40] - 40] = -np.inf
    wanted = {
        (row, int(column) + 40)
        for row in range(40)
        for column in np.argsort(-products[row])[:count]
        if products[row, column] >= floor
    }
    found = pairs_across(index, [theirs[:13], theirs[13:]], count, floor, excluded)
    assert listed(found) == wanted
    assert (found.rows, found.count, found.floor) == (70, count, floor)
    values = products[found.first, found.second - 40]
    np.testing.assert_allclose(found.similarity, np.minimum(values, 1), atol=1e-6)


def test_an_index_without_photos_has_no_pairs() -> None:
    index = index_of(embeddings(5, 3))
    assert listed(pairs_across(index, [], 3, -1.0)) == set()
    assert listed(pairs_across(index, [embeddings(2, 4)], 3, -1.0, np.array([5, 6]))) == set()


def test_progress_is_shown_and_stop_is_obeyed() -> None:
    index, shown = index_of(embeddings(40, 5)), list[Progress]()
    pairs_across(index, [embeddings(6, 6)], 3, -1.0, monitor=Monitor(shown.append))
    assert [(each.done, each.total) for each in shown] == [(16, 40), (32, 40), (40, 40)]
    with pytest.raises(Stopped):
        pairs_across(index, [embeddings(6, 6)], 3, -1.0, monitor=Monitor(stop=lambda: True))


def test_the_union_of_edges_holds_each_pair_once() -> None:
    first, second = np.array([0, 1], np.int32), np.array([2, 3], np.int32)
    edges = Edges(5, 1, 0.5, first, second, np.array([0.7, 0.6], np.float32))
    more = Edges(5, None, 0.8, first[1:], second[1:] + 1, np.array([0.9], np.float32))
    both = edges.union(more).union(edges)
    assert (both.rows, both.count, both.floor) == (5, 1, 0.5)
    assert both.first.tolist() == [0, 1, 1]
    assert both.second.tolist() == [2, 3, 4]
    np.testing.assert_array_equal(both.similarity, np.array([0.7, 0.6, 0.9], np.float32))
