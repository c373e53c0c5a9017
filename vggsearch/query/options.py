"""The options of a query, and its results."""

import operator
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, SupportsIndex, TypeAlias, TypeVar

import numpy as np

from vggsearch.defaults import SEARCH
from vggsearch.errors import OptionError, option
from vggsearch.notebook import Figure, Section, gallery
from vggsearch.photos.inputs import Box, ImageFile, ImageLike, ReadableFile, TensorLike, is_image
from vggsearch.photos.walk import Skipped
from vggsearch.query.filters import Filter, parse_filter
from vggsearch.query.searcher import Match
from vggsearch.tables import Row, Table, Tabular, arrow_table

Images = ImageLike | Iterable[ImageLike]  # one picture, or several that are one query
Item = TypeVar("Item")

MATCH_COLUMNS = {
    "query": "string",
    "rank": "int32",
    "path": "string",
    "similarity": "double",
    "confidence": "double",
    "index": "string",
    "score": "double",
    "inliers": "int32",
    "mirrored": "bool",
    "turned": "double",
    "scale": "double",
}


@dataclass(frozen=True)
class QueryResult(Tabular):
    """The matches of one query, most similar first.

    `query` is the path of the query image, "-" where it has none. `folders` are the photo folders that the paths of
    the matches are relative to, by `Match.index`.

    >>> result = index.query("photos/a.jpg", count=2)
    >>> result.matches[0].path
    'a.jpg'
    """

    query: str
    matches: tuple[Match, ...]
    folders: Mapping[str | None, Path | None] = field(default_factory=dict, compare=False, repr=False)

    def to_arrow(self) -> Table:
        """Return one row per match: query, rank (from 1), path, similarity, confidence, index and the alignment.

        `index` is the directory of the index where several were searched. `score`, `inliers`, `mirrored`, `turned`
        and `scale` are those of the alignment, null where the query was not located in the photo.
        """
        return arrow_table(MATCH_COLUMNS, self._rows())

    def _repr_html_(self) -> str:
        found = tuple(Figure(self.folders.get(match.index), match.path, _lines(match)) for match in self.matches)
        return gallery([Section(f"Photos most similar to {self.query}", found)])

    def _rows(self) -> list[Row]:
        return [(self.query, rank, *_match_values(match)) for rank, match in enumerate(self.matches, start=1)]


Answer: TypeAlias = QueryResult | Skipped  # what was found, or why the image could not be used


class QueryResults(Iterator[Answer], Tabular):
    """The results of many queries, computed as they are read: a QueryResult each, or a Skipped where one failed.

    >>> for result in index.query_many(["photos/a.jpg", "photos/b.jpg"], count=1):
    ...     print(result.query, result.matches[0].path)
    photos/a.jpg a.jpg
    photos/b.jpg b.jpg
    """

    def __init__(self, answers: Iterable[Answer]) -> None:
        self._answers = iter(answers)

    def __next__(self) -> Answer:
        return next(self._answers)

    def to_arrow(self) -> Table:
        """Return the remaining results as one table, with the columns of QueryResult.to_arrow and `reason`.

        A query that failed is one row with its reason and nulls.
        """
        rows: list[Row] = []
        for answer in self:
            if isinstance(answer, QueryResult):
                rows += [(*row, None) for row in answer._rows()]
            else:
                rows.append((answer.path, *[None] * (len(MATCH_COLUMNS) - 1), answer.reason))
        return arrow_table({**MATCH_COLUMNS, "reason": "string"}, rows)


@dataclass(frozen=True)
class Pick:
    """A photo that was picked at random. `index` is the directory of its index, if several were searched.

    >>> index.random(1, filters="trips/**")
    (Pick(path='trips/c.jpg', index=None),)
    """

    path: str
    index: str | None = None


@dataclass(frozen=True)
class QueryOptions:
    """What to find, and how; see ImageIndex.query. Raises OptionError for invalid values."""

    count: int | None = None
    min_similarity: float | None = None
    rerank: bool = True
    crop: Box | None = None
    containing: bool = False
    filters: tuple[Filter, ...] = ()
    exclude_same_folder: bool = False
    minus: tuple[ImageLike, ...] = ()

    def __post_init__(self) -> None:
        """Raise OptionError for invalid values and combinations."""
        if self.count is not None and self.count < 1:
            raise OptionError(f"The count of photos to show must be at least 1, not {self.count}.")
        floor: Any = self.min_similarity
        is_number = isinstance(floor, int | float | np.integer | np.floating)
        if floor is not None and not (is_number and -1 <= floor <= 1):
            raise OptionError(option("min_similarity", floor), " is out of range: a number from -1 to 1.")
        if self.containing and self.minus:
            raise several_parts()

    @classmethod
    def of(
        cls,
        count: SupportsIndex | None,
        min_similarity: float | None,
        rerank: bool,
        crop: Box | None,
        containing: bool,
        filters: str | Iterable[str],
        exclude_same_folder: bool,
        minus: Images,
    ) -> "QueryOptions":
        """Return the options for the keywords of ImageIndex.query."""
        number = whole_number(count) if count is not None else None
        return cls(
            number, min_similarity, rerank, crop, containing, rules(filters), exclude_same_folder, each_of(minus)
        )

    @property
    def is_plain(self) -> bool:
        """Whether embeddings alone decide, and the set of photos searched does not depend on the picture."""
        return not (self.rerank or self.containing or self.minus or self.exclude_same_folder)

    @property
    def most(self) -> int | None:
        """The largest number of photos to return, None for all that are similar enough."""
        return SEARCH.count if self.count is None and self.min_similarity is None else self.count


def _lines(match: Match) -> tuple[str, ...]:
    lines = [f"similarity {match.similarity:.4f}"]
    if match.confidence is not None:
        lines.append(f"confidence {match.confidence:.4f}")
    return (*lines, match.index) if match.index is not None else tuple(lines)


def _match_values(match: Match) -> Row:
    at = match.alignment
    aligned = (at.score, at.inliers, at.mirrored, at.turned, at.scale) if at is not None else (None,) * 5
    return (match.path, match.similarity, match.confidence, match.index, *aligned)


def rules(filters: str | Iterable[str]) -> tuple[Filter, ...]:
    """Parse one filter or several. Raises OptionError."""
    return tuple(map(parse_filter, [filters] if isinstance(filters, str | os.PathLike) else filters))


def each_of(images: Images) -> tuple[ImageLike, ...]:
    """Return one picture or several as a tuple, so that they can be read later, and again.

    A value that is neither is returned as if it were a picture: reading it raises InputError.
    """
    if is_image(images) or isinstance(images, Mapping) or not isinstance(images, Iterable):
        return (_rereadable(images),)
    return tuple(map(_rereadable, images))


def batch_of(images: Iterable[Item]) -> Iterable[Item]:
    """Return the queries of a batch. Raises OptionError for a single image, which would be taken apart."""
    if is_image(images) or isinstance(images, Mapping) or not isinstance(images, Iterable):
        raise OptionError(f"A batch is a list of images, or an array of four dimensions, not {_kind(images)}.")
    return images


def whole_number(count: SupportsIndex) -> int:
    """Return a count as an int, from any integer type. Raises OptionError for all other types."""
    try:
        return operator.index(count)
    except TypeError:
        raise OptionError(f"A count of photos is a whole number, not {count!r}.") from None


def _kind(value: object) -> str:
    shape = getattr(value, "shape", None)
    return type(value).__name__ if shape is None else f"{type(value).__name__} of shape {tuple(shape)}"


def _rereadable(image: Any) -> ImageLike:
    """Return a picture that is the same when it is read later: a file may be closed then, a buffer filled again."""
    if isinstance(image, ReadableFile) and not isinstance(image, ImageFile):
        return ImageFile(image)
    if isinstance(image, bytearray | memoryview):
        return bytes(image)
    if isinstance(image, np.ndarray):
        return image.copy()
    kept: ImageLike = image.detach().clone() if isinstance(image, TensorLike) else image
    return kept


def several_parts() -> OptionError:
    """Return the error for a containment query with several pictures."""
    return OptionError(option("containing"), " takes a single picture: no other can be added or subtracted.")
