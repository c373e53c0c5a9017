"""Groups of duplicates: one photo that is kept, and the photos that are duplicates of just that one."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vggsearch.knn.edges import Edges
from vggsearch.matching.alignment import Alignment

Kind = Literal["exact", "same picture", "near", "similar"]

AlignedIn = Literal["keeper", "member"]


@dataclass(frozen=True, slots=True)
class Photo:
    """What the index knows of a photo. `path` is relative to the photo folder.

    `sha256` is of the file's bytes; `width` and `height` are upright, in pixels; `taken` is the camera's own time.
    """

    path: str
    sha256: str
    bytes: int
    mtime_ns: int
    width: int
    height: int
    format: str
    taken: datetime | None


@dataclass(frozen=True, slots=True)
class Member:
    """A photo that is a duplicate of its group's keeper.

    `kind` says of which tier: `exact`, the same bytes; `same picture`, the same pixels in another file; `near`, an
    edited copy; `similar`, another shot of the same. `similarity` is with the keeper, at most 1.0; `confidence`,
    0..1, is how sure it is that the two are duplicates. `alignment`, where keypoints were compared and fit, says
    where in the keeper this photo lies; where `aligned_in` is "member", where in this photo the keeper lies: so the
    smaller of the two is looked for in the larger. `reason` says in words why the keeper is kept rather than this
    one, and `left_alone` why this one is not to be touched all the same; None where it may be removed.
    """

    photo: Photo
    kind: Kind
    similarity: float
    confidence: float
    alignment: Alignment | None
    reason: str
    left_alone: str | None = None
    aligned_in: AlignedIn = "keeper"


@dataclass(frozen=True, slots=True)
class Group:
    """A photo to keep, and its duplicates, most similar first. Groups are numbered from 1 on."""

    number: int
    keeper: Photo
    members: tuple[Member, ...]

    @property
    def lowest_similarity(self) -> float:
        """The similarity of the member least like the keeper."""
        return min(member.similarity for member in self.members)

    @property
    def removable(self) -> tuple[Member, ...]:
        """The members that may be removed."""
        return tuple(member for member in self.members if member.left_alone is None)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two photos that are duplicates. `alignment` says where in the second the first lies."""

    first: Photo
    second: Photo
    kind: Kind
    similarity: float
    confidence: float
    alignment: Alignment | None


def keepers(ranks: NDArray[np.int64], edges: Edges) -> NDArray[np.int64]:
    """Return the row that is kept for each row, int64 (n,): itself, where no better duplicate of it is kept.

    `ranks`, int64 (n,), all different, say which photo to keep: lower is better. The best photo leads and takes all
    its duplicates along, then the best of the rest; last, each goes to the leader most like it, of equals the best.
    So a leader is better than all it leads and within the threshold of each: groups do not chain, and depend on the
    ranks alone. Leader clustering: Hartigan, "Clustering Algorithms", 1975, chapter 3.
    """
    kept = np.arange(len(ranks))
    neighbours = _neighbours(len(ranks), edges)
    is_leader = np.zeros(len(ranks), bool)
    is_led = np.zeros(len(ranks), bool)
    for row in np.argsort(ranks).tolist():
        if not is_led[row]:
            is_leader[row] = True
            is_led[neighbours.of(row)] = True
    # What leads is led by nobody: a better leader beside it would have taken it along.
    for row in np.flatnonzero(~is_leader).tolist():
        places = neighbours.places(row)
        better = is_leader[neighbours.rows[places]] & (ranks[neighbours.rows[places]] < ranks[row])
        rows, similarity = neighbours.rows[places][better], neighbours.similarity[places][better]
        kept[row] = rows[np.lexsort((ranks[rows], -similarity))[0]]
    return kept


@dataclass(frozen=True, eq=False)
class _Neighbours:
    """The pairs both ways round, by their first row: those of row r are starts[r] to starts[r + 1]."""

    starts: NDArray[np.int64]
    rows: NDArray[np.int32]
    similarity: NDArray[np.float32]

    def places(self, row: int) -> slice:
        return slice(self.starts[row], self.starts[row + 1])

    def of(self, row: int) -> NDArray[np.int32]:
        return self.rows[self.places(row)]


def _neighbours(rows: int, edges: Edges) -> _Neighbours:
    some = np.concatenate([edges.first, edges.second])
    others = np.concatenate([edges.second, edges.first])
    order = np.argsort(some, kind="stable")
    starts = np.searchsorted(some[order], np.arange(rows + 1))
    return _Neighbours(starts, others[order], np.tile(edges.similarity, 2)[order])
