"""Similar pairs among so many rows that not all can be compared: each row with those of the lists nearest to it.

Rows are divided among lists by k-means. SemDeDup compares the rows of one list (Abbas, Tirumala, Simig, Ganguli &
Morcos, "SemDeDup: data-efficient learning at web-scale through semantic deduplication", 2023), and misses the pairs
that a border divides. Here each row is compared with those of several lists; how many, is decided by measurement.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import BUILD, PAIRS
from vggsearch.knn import brute_force
from vggsearch.knn.build import sample_of
from vggsearch.knn.edges import Columns, Edges, edges_from_pairs, edges_from_pieces
from vggsearch.knn.faiss_import import FaissIndex, restore_thread_count
from vggsearch.knn.neighbours import Candidates, Nearest, Rows, in_order, pairs_in
from vggsearch.knn.recipes import ivf_of, make_index
from vggsearch.knn.tasks import HERE, Tasks
from vggsearch.knn.vectors import Vectors
from vggsearch.progress import Monitor

log = logging.getLogger(__name__)


def near_pairs(
    vectors: Vectors,
    count: int,
    floor: float,
    without: NDArray[np.int64] | None,
    monitor: Monitor,
    tasks: Tasks = HERE,
) -> Edges:
    """Return the pairs that `all_pairs` does, but for those of rows that are in no near list of each other.

    Each row probes as many lists as find PAIRS.near_recall of the pairs of a sample with a similarity of at least
    PAIRS.near_similarity, within PAIRS.fewest_probes and PAIRS.most_probes; the share found is logged. Of equally
    similar rows the lower one counts as nearer. In memory are PAIRS.near_rows unit vectors and their lists of
    neighbours, 25 bytes a row, and the result. Each of the `tasks` finds the lists of PAIRS.near_rows rows, or
    their neighbours; the pairs are the same wherever these run.

    Raises InstallationError without FAISS, VectorsDamaged and Stopped.
    """
    rows = Rows(vectors, without)
    compared = np.flatnonzero(~rows.excluded)
    lists = _Lists.learned(vectors, rows, compared, monitor, tasks)
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
    search = _Search.of(rows, lists, probes, count, floor, tasks)
    groups = [(start, _Block(rows, group)) for start, group in _groups_of(lists.rows)]
    found = []
    for (start, group), columns in zip(groups, tasks.run(search, groups, monitor), strict=True):
        found.append(columns)
        monitor.show("comparing near photos", start + len(group), len(lists.rows), "vectors")
    return edges_from_pieces(len(vectors), count, floor, found)


class _Block:
    """The vectors of some rows, int64: where they are or, in another process, a copy of them."""

    def __init__(self, source: Rows, rows: NDArray[np.int64], at: NDArray[np.int64] | None = None) -> None:
        self._source, self.rows, self._at = source, rows, rows if at is None else at

    def __len__(self) -> int:
        return len(self.rows)

    def __reduce__(self) -> tuple[type["_Block"], tuple[Rows, NDArray[np.int64], NDArray[np.int64]]]:
        return _Block, (self._source.only(self._at), self.rows, np.arange(len(self)))

    def unit(self, places: slice = slice(None)) -> NDArray[np.float32]:
        """Return the unit vectors at some places."""
        return self._source.unit(self._at[places])


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
    def learned(
        cls, vectors: Vectors, rows: Rows, compared: NDArray[np.int64], monitor: Monitor, tasks: Tasks
    ) -> "_Lists":
        """Learn lists from a sample of the vectors, and put all rows to compare into the nearest one."""
        count = 1 << round(np.log2(max(1, PAIRS.near_lists * np.sqrt(len(vectors)))))
        ivf = ivf_of(make_index(vectors.shape[1], f"IVF{count},Flat"))
        restore_thread_count()
        monitor.step(f"learning {count:,} lists", 0, BUILD.training_points * count, "vectors")
        ivf.train(sample_of(vectors, BUILD.training_points * count))
        of_row = np.full(len(vectors), -1, np.int32)
        blocks = [_Block(rows, block) for _, block in _groups_of(compared)]
        done = tasks.run(_Assignment(tasks.put(ivf)), blocks, monitor)
        for block in blocks:
            of_row[block.rows] = next(done)
            monitor.step("dividing photos among lists", int(block.rows[-1]) + 1, len(vectors), "vectors")
        order = compared[np.argsort(of_row[compared], kind="stable")]
        starts = np.searchsorted(of_row[order], np.arange(count + 1))
        return cls(ivf, of_row, order, starts)

    def bounds(self) -> NDArray[np.int64]:
        """Return the lists, int64 ascending, between which to divide the rows into about PAIRS.near_rows each."""
        inner = np.searchsorted(self.starts, np.arange(PAIRS.near_rows, len(self.rows), PAIRS.near_rows))
        return np.unique([0, *inner, len(self.starts) - 1])


@dataclass(frozen=True)
class _Assignment:
    """Finds the list nearest to each row of a block, int64 (n,); `centroids` returns the index of the centroids."""

    centroids: Callable[[], FaissIndex]

    def __call__(self, block: _Block, monitor: Monitor) -> NDArray[np.int64]:
        monitor.check()
        return _nearest_lists(self.centroids(), block.unit(), 1)[:, 0]


@dataclass(frozen=True)
class _Search:
    """Finds the neighbours of a group of rows in the lists that each of them probes.

    `centroids` and each of the `blocks` return what the tasks share. Block i has the rows of the lists bounds[i] to
    bounds[i + 1], in the order of _Lists.rows; list j starts at starts[j] of that order.
    """

    centroids: Callable[[], FaissIndex]
    blocks: tuple[Callable[[], _Block], ...]
    bounds: NDArray[np.int64]
    starts: NDArray[np.int64]
    among: int
    probes: int
    count: int
    floor: float

    @classmethod
    def of(cls, rows: Rows, lists: _Lists, probes: int, count: int, floor: float, tasks: Tasks) -> "_Search":
        bounds = lists.bounds()
        places = lists.starts[bounds]
        blocks = [_Block(rows, lists.rows[start:stop]) for start, stop in pairwise(places.tolist())]
        kept = tuple(tasks.put(block) for block in blocks)
        return cls(tasks.put(lists.centroids), kept, bounds, lists.starts, len(rows), probes, count, floor)

    def __call__(self, item: tuple[int, _Block], monitor: Monitor) -> Columns:
        """Return the pairs of the rows of a group, which starts at a place in the order of all."""
        start, group = item
        unit = group.unit()
        nearest = Nearest(len(group), self.count, self.floor, in_any_order=True)
        own = np.searchsorted(self.starts, np.arange(start, start + len(group)), "right") - 1
        for block, asked in self._asked(unit):
            compare = partial(self._compare, nearest, group.rows, unit, own, block)
            for candidates in in_order(compare, asked, monitor):
                nearest.insert(candidates)
        positions, others, similarity = pairs_in(nearest.keys, self.floor)
        # Most pairs are of two rows of the group, and in the lists of both: each is kept once.
        pairs = edges_from_pairs(self.among, self.count, self.floor, group.rows[positions], others, similarity)
        return pairs.first, pairs.second, pairs.similarity

    def _asked(self, unit: NDArray[np.float32]) -> Iterator[tuple["_Probed", list["_Probe"]]]:
        """Yield each block, with the lists of it that are probed, and by which rows of the group."""
        probed = _nearest_lists(self.centroids(), unit, self.probes)
        order = np.argsort(probed.ravel(), kind="stable")
        numbers, starts = np.unique(probed.ravel()[order], return_index=True)
        asking = np.split(order // probed.shape[1], starts[1:])
        owners = np.searchsorted(self.bounds, numbers, "right") - 1
        for owner in np.unique(owners).tolist():
            here = np.flatnonzero(owners == owner).tolist()
            first = int(self.starts[self.bounds[owner]])
            probes = [probe for at in here for probe in self._divided(int(numbers[at]), asking[at])]
            yield _Probed(self.blocks[owner](), first), probes

    def _divided(self, number: int, ones: NDArray[np.int64]) -> Iterator["_Probe"]:
        """Yield the probes of a list. A list of many similar photos, probed by most of them, takes several."""
        size = PAIRS.block_rows
        for start in range(int(self.starts[number]), int(self.starts[number + 1]), size):
            others = slice(start, min(start + size, int(self.starts[number + 1])))
            for first in range(0, len(ones), size):
                yield _Probe(number, ones[first : first + size], others)

    def _compare(
        self,
        nearest: Nearest,
        rows: NDArray[np.int64],
        unit: NDArray[np.float32],
        own: NDArray[np.int64],
        probed: "_Probed",
        probe: "_Probe",
    ) -> Candidates:
        """Return the candidates of a probe."""
        place = slice(probe.others.start - probed.first, probe.others.stop - probed.first)
        others = probed.block.rows[place]
        products = unit[probe.ones] @ probed.block.unit(place).T
        own_list = np.flatnonzero(own[probe.ones] == probe.number)
        itself = np.searchsorted(others, rows[probe.ones[own_list]]).clip(max=len(others) - 1)
        is_here = others[itself] == rows[probe.ones[own_list]]
        products[own_list[is_here], itself[is_here]] = -np.inf
        return nearest.candidates_of_rows(products, probe.ones, others)


@dataclass(frozen=True)
class _Probe:
    """A list, rows of the group that probe it, ascending, and the places of the rows to compare them with."""

    number: int
    ones: NDArray[np.int64]
    others: slice


@dataclass(frozen=True)
class _Probed:
    """A block, and the place of its first row in the order of all."""

    block: _Block
    first: int


def _nearest_lists(centroids: FaissIndex, vectors: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Return the lists nearest to each unit vector, nearest first: int64 (n, count)."""
    restore_thread_count()
    found: NDArray[np.int64] = centroids.quantizer.search(vectors, min(count, centroids.nlist))[1]
    return found


def _groups_of(rows: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield groups of PAIRS.near_rows rows, each with its place among all."""
    return ((start, rows[start : start + PAIRS.near_rows]) for start in range(0, len(rows), PAIRS.near_rows))


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
    probed = _nearest_lists(lists.centroids, rows.unit(distinct), PAIRS.most_probes)[inverse]
    is_list = probed == lists.of_row[others][:, None]
    return np.where(is_list.any(axis=1), is_list.argmax(axis=1), PAIRS.most_probes)
