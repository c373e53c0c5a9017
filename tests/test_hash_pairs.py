"""Pairs by perceptual hash: exactly those within the distance in one of eight orientations, each once."""

import numpy as np
import pytest
from numpy.typing import NDArray

from vggsearch import defaults
from vggsearch.defaults import PAIRS
from vggsearch.errors import Stopped
from vggsearch.knn import hash_pairs as module
from vggsearch.knn.edges import Edges
from vggsearch.knn.hash_pairs import hash_pairs
from vggsearch.photos.perceptual_hash import BYTES, in_all_orientations
from vggsearch.progress import Monitor

Hashes = NDArray[np.uint8]


def random_hashes(count: int, seed: int = 0) -> Hashes:
    return np.random.default_rng(seed).integers(0, 256, (count, BYTES), np.uint8)


def flipped(hashes: Hashes, bits: int, seed: int = 0) -> Hashes:
    """Return the hashes with some random bits inverted."""
    random, found = np.random.default_rng(seed), np.unpackbits(hashes, axis=1)
    for row in found:
        row[random.choice(len(row), bits, replace=False)] ^= 1
    return np.packbits(found, axis=1)


def by_brute_force(hashes: Hashes, distance: int) -> dict[tuple[int, int], int]:
    found = {}
    for first in range(len(hashes)):
        for second in range(first + 1, len(hashes)):
            turned = in_all_orientations(hashes[first : first + 1])[:, 0]
            nearest = int(np.bitwise_count(turned ^ hashes[second]).sum(axis=1).min())
            if nearest <= distance:
                found[first, second] = nearest
    return found


def found_in(edges: Edges) -> dict[tuple[int, int], int]:
    pairs = zip(edges.first.tolist(), edges.second.tolist(), strict=True)
    return dict(zip(pairs, np.rint((1 - edges.similarity) * BYTES * 4).astype(int).tolist(), strict=True))


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks for few rows."""
    monkeypatch.setattr(module, "PAIRS", defaults.PairDefaults(hash_block=7))


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("distance", [0, 40, 64, 100])
def test_the_pairs_are_those_of_a_comparison_of_all_with_all(distance: int) -> None:
    photos = random_hashes(12)
    turned = in_all_orientations(photos)
    copies = [flipped(turned[view, :4], bits, view) for view, bits in enumerate((0, 1, 20, 39, 40, 41, 64, 65))]
    hashes = np.concatenate([photos, *copies])
    assert found_in(hash_pairs(hashes, in_all_orientations, len(hashes), distance)) == by_brute_force(
        hashes, distance
    )


def test_rows_without_a_hash_and_those_left_out_are_in_no_pair() -> None:
    hashes = np.concatenate([np.zeros((3, BYTES), np.uint8), np.tile(random_hashes(1), (4, 1))])
    edges = hash_pairs(hashes, in_all_orientations, without=np.array([4]))
    assert found_in(edges) == {(3, 5): 0, (3, 6): 0, (5, 6): 0}
    assert edges.similarity.tolist() == [1.0] * 3
    assert len(hash_pairs(hashes[:3], in_all_orientations)) == len(hash_pairs(hashes[:0], in_all_orientations)) == 0


@pytest.mark.usefixtures("blocks")
def test_each_row_is_paired_with_its_nearest_only() -> None:
    near, far = flipped(random_hashes(1), 10), flipped(random_hashes(1), 30)
    hashes = np.concatenate([random_hashes(1), far, near, far])
    assert found_in(hash_pairs(hashes, in_all_orientations, count=1)).keys() == {(0, 2), (1, 3), (2, 3)}
    many = np.tile(random_hashes(1), (100, 1))
    edges = hash_pairs(many, in_all_orientations, count=5)
    assert len(edges) == 95 * 5 + 4 + 3 + 2 + 1
    assert set(edges.first.tolist()) | set(edges.second.tolist()) == set(range(100))


def test_with_another_index_only_pairs_of_both_are_found() -> None:
    hashes = np.concatenate([random_hashes(3), in_all_orientations(random_hashes(3))[5]])
    assert found_in(hash_pairs(hashes, in_all_orientations, own=3)) == {(0, 3): 0, (1, 4): 0, (2, 5): 0}
    assert len(hash_pairs(hashes, in_all_orientations, own=6)) == 0


def test_of_many_rows_those_that_share_bits_in_a_row_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAIRS", defaults.PairDefaults(most_hashes=0))
    photos = random_hashes(10)
    turned = in_all_orientations(photos)
    hashes = np.concatenate([photos, *(flipped(turned[view], 15, view) for view in range(8))])
    found = found_in(hash_pairs(hashes, in_all_orientations, len(hashes)))
    expected = by_brute_force(hashes, PAIRS.hash_bits)
    assert found.items() <= expected.items()
    assert {pair for pair, bits in expected.items() if bits <= 15} <= found.keys()
    assert len(found) >= 0.9 * len(expected)


def test_it_can_be_stopped() -> None:
    def stop() -> bool:
        return True

    with pytest.raises(Stopped):
        hash_pairs(random_hashes(4), in_all_orientations, monitor=Monitor(None, stop))
