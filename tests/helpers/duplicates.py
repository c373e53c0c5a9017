"""Groups of duplicates that a test can write in a line."""

from datetime import datetime
from pathlib import Path

from vggsearch.duplicates.results import AlignedIn, Group, Kind, Member, Pair, Photo
from vggsearch.matching.alignment import Alignment

TAKEN = datetime(2024, 5, 1, 12, 30)


def photo(
    path: str, size: tuple[int, int] = (640, 480), bytes: int = 100_000, taken: datetime | None = TAKEN
) -> Photo:
    return Photo(path, "0" * 64, bytes, 1_700_000_000_000_000_000, *size, "JPEG", taken)


def member(
    path: str,
    kind: Kind,
    similarity: float,
    confidence: float,
    *,
    size: tuple[int, int] = (640, 480),
    bytes: int = 100_000,
    alignment: Alignment | None = None,
    reason: str = "larger",
    left_alone: str | None = None,
    aligned_in: AlignedIn = "keeper",
) -> Member:
    kept = photo(path, size, bytes)
    return Member(kept, kind, similarity, confidence, alignment, reason, left_alone, aligned_in)


def group(number: int, keeper: Photo, *members: Member, root: Path | None = None) -> Group:
    return Group(number, keeper, members, root)


def pair(first: str, second: str, similarity: float, kind: Kind, alignment: Alignment | None = None) -> Pair:
    return Pair(photo(first), photo(second), kind, similarity, similarity, alignment)


def aligned(scale: float = 1.0, turned: float = 0.0, *, mirrored: bool = False) -> Alignment:
    """The middle of the found photo; `corners` are those of a part that is upright."""
    low, high = 0.5 - scale / 2, 0.5 + scale / 2
    corners = ((low, low), (high, low), (high, high), (low, high))
    return Alignment(0.9, 40, mirrored, turned, scale, corners)
