"""Groups of duplicates: a photo to keep, and the photos that are duplicates of exactly that photo."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from vggsearch.knn.edges import Edges
from vggsearch.matching.alignment import Alignment
from vggsearch.notebook import Figure, Section, gallery
from vggsearch.photos.capture import TimeKind
from vggsearch.photos.raw_formats import RAW_FORMAT, is_raw
from vggsearch.tables import Row, Table, Tabular, arrow_table

Kind = Literal["exact", "same picture", "near", "similar", "contains", "RAW"]
DUPLICATE_KINDS: tuple[Kind, ...] = ("exact", "same picture", "near")
KINDS: tuple[Kind, ...] = get_args(Kind)

AlignedIn = Literal["keeper", "member"]

GROUP_COLUMNS = {
    "group": "int32",
    "role": "string",
    "path": "string",
    "width": "int32",
    "height": "int32",
    "bytes": "int64",
    "taken": "timestamp[ms]",
    "sha256": "string",
    "kind": "string",
    "similarity": "double",
    "confidence": "double",
    "reason": "string",
    "left_alone": "string",
}


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo as recorded in the index. `path` is relative to the photo folder.

    `sha256` and `bytes` are hash and size of the file; `mtime_ns` is its modification time in nanoseconds; `width`
    and `height` are the size of the upright photo in pixels; `taken` to `camera_serial` are when and by which
    camera it was taken, as in photos.capture.Capture, None if not recorded.

    >>> photo = index.duplicates().groups[0].keeper
    >>> photo.path, photo.width, photo.height, photo.format
    ('a.jpg', 320, 240, 'JPEG')
    """

    path: str
    sha256: str
    bytes: int
    mtime_ns: int
    width: int
    height: int
    format: str
    taken: datetime | None
    taken_kind: TimeKind | None = None
    camera: str | None = None
    camera_serial: str | None = None

    @property
    def is_raw(self) -> bool:
        """Whether the file is RAW by its suffix or content: the camera may have written a JPEG beside it."""
        return is_raw(self.path) or self.format == RAW_FORMAT


@dataclass(frozen=True, slots=True)
class Member:
    """A photo that is a duplicate of the keeper of its group.

    `kind` is "exact" (same bytes), "same picture" (same pixels in another file), "near" (an edited copy),
    "similar" (another shot of the same subject), "contains" (one of the two shows the other among other pictures)
    or "RAW" (the RAW file of the keeper). `similarity`, at most 1.0, is that with the keeper; `confidence`, 0..1,
    is the estimated probability that the two are duplicates. `alignment`, if keypoints matched, is the position of
    this photo in the keeper or, if `aligned_in` is "member", of the keeper in this photo: always of the one that
    shows less in the other.
    `reason` states why the keeper is kept rather than this photo.
    `left_alone` states why this photo is not to be removed nevertheless, None if it may be removed.

    >>> member = index.duplicates().groups[0].members[0]
    >>> member.photo.path, member.kind, member.similarity, member.confidence
    ('copy of a.jpg', 'exact', 1.0, 1.0)
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
    """A photo to keep, and its duplicates, most similar first. Groups are numbered from 1.

    `root` is the photo folder, None where it is unknown.

    >>> group = index.duplicates().groups[0]
    >>> group.keeper.path, [member.photo.path for member in group.members]
    ('a.jpg', ['copy of a.jpg'])
    """

    number: int
    keeper: Photo
    members: tuple[Member, ...]
    root: Path | None = field(default=None, compare=False, repr=False)

    @property
    def lowest_similarity(self) -> float:
        """The similarity of the member that is least similar to the keeper."""
        return min(member.similarity for member in self.members)

    @property
    def removable(self) -> tuple[Member, ...]:
        """The members that may be removed."""
        return tuple(member for member in self.members if member.left_alone is None)

    def _repr_html_(self) -> str:
        return gallery([self._section()])

    def _section(self) -> Section:
        heading = f"Group {self.number:,}: {1 + len(self.members):,} photos"
        members = (Figure(self.root, member.photo.path, _lines(member)) for member in self.members)
        return Section(heading, (Figure(self.root, self.keeper.path, ("keep",)), *members))

    def _rows(self) -> Iterator[Row]:
        yield (self.number, "keep", *_facts(self.keeper), *[None] * 5)
        for member in self.members:
            judged = (member.kind, member.similarity, member.confidence, member.reason, member.left_alone)
            yield (self.number, "duplicate", *_facts(member.photo), *judged)


class Groups(tuple[Group, ...], Tabular):
    """Groups of duplicates: a tuple of Group.

    >>> index.duplicates().groups.to_arrow().column("role").to_pylist()
    ['keep', 'duplicate']
    """

    __slots__ = ()

    def to_arrow(self) -> Table:
        """Return one row per photo: group, role ("keep" or "duplicate"), path, what is known of it, and why.

        `width` and `height` are in pixels; `similarity`, `confidence`, `reason` and `left_alone` are null for the
        photo to keep, and `left_alone` for what may be removed.
        """
        return arrow_table(GROUP_COLUMNS, (row for group in self for row in group._rows()))

    def _repr_html_(self) -> str:
        return gallery([group._section() for group in self], f"{len(self):,} groups of duplicates")


@dataclass(frozen=True, slots=True)
class Pair:
    """Two photos that are duplicates. `alignment` is the position of the first in the second, None if unknown.

    The pair also stands for those of the files with the same bytes: `copies_of_first` and `copies_of_second` are
    their paths. In exact pairs they are empty, since each copy makes a pair of its own.

    >>> pair = index.duplicates().pairs[0]
    >>> pair.first.path, pair.second.path, pair.kind
    ('copy of a.jpg', 'a.jpg', 'exact')
    """

    first: Photo
    second: Photo
    kind: Kind
    similarity: float
    confidence: float
    alignment: Alignment | None
    copies_of_first: tuple[str, ...] = ()
    copies_of_second: tuple[str, ...] = ()


class Pairs(tuple[Pair, ...], Tabular):
    """Pairs of duplicates: a tuple of Pair.

    >>> index.duplicates().pairs.to_arrow().select(["a", "b", "kind"]).to_pylist()
    [{'a': 'copy of a.jpg', 'b': 'a.jpg', 'kind': 'exact'}]
    """

    __slots__ = ()

    def to_arrow(self) -> Table:
        """Return one row per pair: the paths a and b, their similarity, confidence and kind."""
        columns = {"a": "string", "b": "string", "similarity": "double", "confidence": "double", "kind": "string"}
        rows = ((each.first.path, each.second.path, each.similarity, each.confidence, each.kind) for each in self)
        return arrow_table(columns, rows)


def _facts(photo: Photo) -> Row:
    return (photo.path, photo.width, photo.height, photo.bytes, photo.taken, photo.sha256)


def _lines(member: Member) -> tuple[str, ...]:
    confidence = "100%" if member.confidence == 1 else f"{min(member.confidence, 0.999):.1%}"
    judged = f"similarity {member.similarity:.4f}, confidence {confidence}"
    left_alone = f"left alone: {member.left_alone}" if member.left_alone else ""
    return tuple(filter(None, (member.kind, judged, member.reason, left_alone)))


def keepers(ranks: NDArray[np.int64], edges: Edges) -> NDArray[np.int64]:
    """Return the row that is kept for each row, int64 (n,): itself unless a better duplicate of it is kept.

    `ranks`, int64 (n,), all different, decide which photo to keep: lower is better. The best photo becomes a leader
    and claims all its duplicates, then the best of the remaining photos, and so on. Finally, each claimed photo is
    assigned to the most similar leader of a better rank, of equally similar ones to the best. So a leader ranks
    better than all its members and is a duplicate of each: groups do not chain, and depend only on the pairs and
    ranks. This is leader clustering: Hartigan, "Clustering Algorithms", 1975, chapter 3.
    """
    kept = np.arange(len(ranks))
    neighbours = _neighbours(len(ranks), edges)
    is_leader = np.zeros(len(ranks), bool)
    is_claimed = np.zeros(len(ranks), bool)
    for row in np.argsort(ranks).tolist():
        if not is_claimed[row]:
            is_leader[row] = True
            is_claimed[neighbours.of(row)] = True
    # A leader has no better leader among its duplicates, which would have claimed it.
    for row in np.flatnonzero(~is_leader).tolist():
        rows, similarity = neighbours.of(row), neighbours.similarities(row)
        is_better = is_leader[rows] & (ranks[rows] < ranks[row])
        rows, similarity = rows[is_better], similarity[is_better]
        kept[row] = rows[np.lexsort((ranks[rows], -similarity))[0]]
    return kept


@dataclass(frozen=True, eq=False)
class _Neighbours:
    """The pairs in both directions, sorted by their first row: those of row r are starts[r] to starts[r + 1]."""

    starts: NDArray[np.int64]
    rows: NDArray[np.int32]
    similarity: NDArray[np.float32]

    def of(self, row: int) -> NDArray[np.int32]:
        return self.rows[self.starts[row] : self.starts[row + 1]]

    def similarities(self, row: int) -> NDArray[np.float32]:
        return self.similarity[self.starts[row] : self.starts[row + 1]]


def _neighbours(rows: int, edges: Edges) -> _Neighbours:
    ones = np.concatenate([edges.first, edges.second])
    others = np.concatenate([edges.second, edges.first])
    order = np.argsort(ones, kind="stable")
    starts = np.searchsorted(ones[order], np.arange(rows + 1))
    return _Neighbours(starts, others[order], np.tile(edges.similarity, 2)[order])
