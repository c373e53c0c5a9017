"""Groups of duplicates: one photo that is kept, and the photos that are duplicates of just that one."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

from vggsearch.geometry import Alignment

Kind = Literal["exact", "same picture", "near", "similar"]

AlignedIn = Literal["keeper", "member"]

KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True)
class Photo:
    """What the index knows of a photo. `path` is relative to the photo folder.

    `sha256` is of the file's bytes, `width` and `height` are upright, in pixels; `taken` is the camera's local
    time.
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
    0..1, is how sure it is that the two are duplicates. `alignment`, where geometry was asked and found it, says
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
