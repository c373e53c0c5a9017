"""Similar pairs among so many rows that not all can be compared: each row with those of the lists nearest to it.

Rows are divided among lists by k-means. SemDeDup compares the rows of one list (Abbas, Tirumala, Simig, Ganguli &
Morcos, "SemDeDup: data-efficient learning at web-scale through semantic deduplication", 2023), and misses the pairs
that a border divides. Here each row is compared with those of several lists; how many, is decided by measurement.
"""

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import BUILD, PAIRS
from vggsearch.knn import brute_force
from vggsearch.knn.build import sample_of
from vggsearch.knn.edges import Edges, edges_from_pairs, edges_from_pieces
from vggsearch.knn.faiss_import import FaissIndex, restore_thread_count
from vggsearch.knn.neighbours import Candidates, Nearest, Rows, in_order, pairs_in
from vggsearch.knn.recipes import ivf_of, make_index
from vggsearch.knn.vectors import Vectors
from vggsearch.progress import Monitor

log = logging.getLogger(__name__)


def near_pairs(
    vectors: Vectors, count: int, floor: float, without: NDArray[np.int64] | None, monitor: Monitor
) -> Edges:
    """Return the pairs that `all_pairs` does, but for those of rows that are in no near list of each other.

    Each row probes as many lists as find PAIRS.near_recall of the pairs of a sample with a similarity of at least
    PAIRS.near_similarity, within PAIRS.fewest_probes and PAIRS.most_probes; the share found is logged. Of equally
    similar rows in different lists, either counts as nearer. In memory are PAIRS.near_rows unit vectors and their
    lists of neighbours, 17 bytes a row, and the result.

    Raises InstallationError without FAISS, VectorsDamaged and Stopped.
    """
    rows = Rows(vectors, without)
    compared = np.flatnonzero(~rows.excluded)
    lists = _Lists.learned(vectors, rows, compared, monitor)
    probes, recall = _probes_needed(rows, lists, compared, count, monitor)
    log.warning(
        "Each of the %s photos was compared with those in the %d of %s lists nearest to it. This finds %.3f of the "
        "pairs with a similarity of at least %g, as measured on %s photos.",
        f"{len(vectors):,}",
        probes,
        f"{len(lists.starts) - 1:,}",
        recall,
        PAIRS.near_similarity,
        PAIRS.near_sample,
    )
    found = []
    for start in range(0, len(lists.rows), PAIRS.near_rows):
        group = lists.rows[start : start + PAIRS.near_rows]
        nearest = _nearest_of(group, rows, lists, probes, Nearest(len(group), count, floor), monitor)
        positions, others, similarity = pairs_in(nearest.keys, floor)
        # Most pairs are of two rows of the group, and in the lists of both: each is kept once.
        pairs = edges_from_pairs(len(vectors), count, floor, group[positions], others, similarity)
        found.append((pairs.first, pairs.second, pairs.similarity))
        monitor.show("comparing near photos", start + len(group), len(lists.rows), "vectors")
    return edges_from_pieces(len(vectors), count, floor, found)


@dataclass(frozen=True)
class _Lists:
    """Rows by list: those of list i are rows[starts[i] : starts[i + 1]], int64, ascending.

    `of_row`, int32, is the list of each row, -1 for excluded ones. `centroids` is a FAISS index of the centroids.
    """

    centroids: FaissIndex
    of_row: NDArray[np.int32]
    rows: NDArray[np.int64]
    starts: NDArray[np.int64]

    @classmethod
    def learned(cls, vectors: Vectors, rows: Rows, compared: NDArray[np.int64], monitor: Monitor) -> "_Lists":
        """Learn lists from a sample of the vectors, and put all rows to compare into the nearest one."""
        count = 1 << round(np.log2(max(1, PAIRS.near_lists * np.sqrt(len(vectors)))))
        ivf = ivf_of(make_index(vectors.shape[1], f"IVF{count},Flat"))
        restore_thread_count()
        monitor.step(f"learning {count:,} lists", 0, BUILD.training_points * count, "vectors")
        ivf.train(sample_of(vectors, BUILD.training_points * count))
        of_row = np.full(len(vectors), -1, np.int32)
        for start in range(0, len(compared), PAIRS.near_rows):
            monitor.step("dividing photos among lists", start, len(compared), "vectors")
            block = compared[start : start + PAIRS.near_rows]
            of_row[block] = ivf.quantizer.search(rows.unit(block), 1)[1][:, 0]
        order = compared[np.argsort(of_row[compared], kind="stable")]
        starts = np.searchsorted(of_row[order], np.arange(count + 1))
        return cls(ivf, of_row, order, starts)

    def of(self, number: int) -> NDArray[np.int64]:
        """Return the rows of a list."""
        return self.rows[self.starts[number] : self.starts[number + 1]]

    def nearest(self, vectors: NDArray[np.float32], count: int) -> NDArray[np.int64]:
        """Return the lists nearest to each unit vector, nearest first: int64 (n, count)."""
        restore_thread_count()
        found: NDArray[np.int64] = self.centroids.quantizer.search(vectors, min(count, len(self.starts) - 1))[1]
        return found


def _probes_needed(
    rows: Rows, lists: _Lists, compared: NDArray[np.int64], count: int, monitor: Monitor
) -> tuple[int, float]:
    """Return how many lists to probe for PAIRS.near_recall, and the share of the sample's pairs that this finds.

    A pair is found if one of its rows probes the list of the other.
    """
    monitor.step("measuring recall", 0, PAIRS.near_sample, "vectors")
    sample = np.random.default_rng(BUILD.seed).choice(
        compared, min(len(compared), PAIRS.near_sample), replace=False
    )
    wanted = min(count + 1, len(compared))
    places, similarity = brute_force.nearest(rows.unit(sample), wanted, rows.unit, compared)
    pair, entry = np.nonzero((similarity >= PAIRS.near_similarity) & (places != sample[:, None]))
    ones, others = sample[pair], places[pair, entry]
    if not len(ones):
        return PAIRS.most_probes, 1.0
    ranks = np.minimum(_ranks(rows, lists, ones, others), _ranks(rows, lists, others, ones))
    probes = PAIRS.fewest_probes
    while probes < PAIRS.most_probes and np.mean(ranks < probes) < PAIRS.near_recall:
        probes *= 2
    return probes, float(np.mean(ranks < probes))


def _ranks(rows: Rows, lists: _Lists, ones: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many lists are nearer to each of `ones` than that of the other row; PAIRS.most_probes for more."""
    distinct, inverse = np.unique(ones, return_inverse=True)
    probed = lists.nearest(rows.unit(distinct), PAIRS.most_probes)[inverse]
    is_list = probed == lists.of_row[others][:, None]
    return np.where(is_list.any(axis=1), is_list.argmax(axis=1), PAIRS.most_probes)


def _nearest_of(
    group: NDArray[np.int64], rows: Rows, lists: _Lists, probes: int, nearest: Nearest, monitor: Monitor
) -> Nearest:
    """Fill the lists of neighbours of a group of rows with rows of the lists that each of them probes."""
    unit = rows.unit(group)
    probed = lists.nearest(unit, probes)
    order = np.argsort(probed.ravel(), kind="stable")  # the group's rows by the list that they probe, ascending
    numbers, starts = np.unique(probed.ravel()[order], return_index=True)
    asking = np.split(order // probed.shape[1], starts[1:])

    def compare(item: tuple[int, NDArray[np.int64]]) -> Candidates:
        number, ones = item
        others = lists.of(number)
        products = unit[ones] @ rows.unit(others).T
        own = np.flatnonzero(lists.of_row[group[ones]] == number)
        products[own, np.searchsorted(others, group[ones[own]])] = -np.inf
        return nearest.candidates_of_rows(products, ones, others)

    for candidates in in_order(compare, list(zip(numbers.tolist(), asking, strict=True)), monitor):
        nearest.insert(candidates)
    return nearest
