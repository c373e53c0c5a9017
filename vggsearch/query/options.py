"""What a query wants, and what comes of it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vggsearch.defaults import SEARCH
from vggsearch.errors import OptionError
from vggsearch.photos.inputs import IMAGE_TYPES, Box, ImageLike
from vggsearch.photos.walk import Skipped
from vggsearch.query.filters import Filter, parse_filter
from vggsearch.query.searcher import Match

Images = ImageLike | Sequence[ImageLike]  # one picture, or several that are one query


@dataclass(frozen=True)
class QueryResult:
    """What was found for one query. `query` is its path, "-" where it has none; most similar matches first."""

    query: str
    matches: tuple[Match, ...]


Answer = QueryResult | Skipped  # what was found, or why the picture could not be used


@dataclass(frozen=True)
class Pick:
    """A photo that was picked at random. `index` is the directory of its index, where several were asked."""

    path: str
    index: str | None = None


@dataclass(frozen=True)
class QueryOptions:
    """What is to be found, and how; see ImageIndex.query. Raises OptionError for what cannot be."""

    count: int | None = None
    min_similarity: float | None = None
    rerank: bool = True
    crop: Box | None = None
    containing: bool = False
    filters: tuple[Filter, ...] = ()
    exclude_same_folder: bool = False
    minus: tuple[ImageLike, ...] = ()

    def __post_init__(self) -> None:
        """Check them."""
        if self.count is not None and self.count < 1:
            raise OptionError(f"The count of photos to show must be at least 1, not {self.count}.")
        if self.containing and self.minus:
            raise several_parts()

    @classmethod
    def of(
        cls,
        count: int | None,
        min_similarity: float | None,
        rerank: bool,
        crop: Box | None,
        containing: bool,
        filters: str | Iterable[str],
        exclude_same_folder: bool,
        minus: Images,
    ) -> "QueryOptions":
        """Return the options that the keywords of ImageIndex.query mean."""
        return cls(
            count, min_similarity, rerank, crop, containing, rules(filters), exclude_same_folder, each_of(minus)
        )

    @property
    def is_plain(self) -> bool:
        """Whether embeddings alone decide, and the same photos may be found whatever the picture."""
        return not (self.rerank or self.containing or self.minus or self.exclude_same_folder)

    @property
    def most(self) -> int | None:
        """How many photos to show at most, None for all that are similar enough."""
        return SEARCH.count if self.count is None and self.min_similarity is None else self.count


def rules(filters: str | Iterable[str]) -> tuple[Filter, ...]:
    """Return the filters that texts ask for, or one text does. Raises OptionError."""
    return tuple(map(parse_filter, [filters] if isinstance(filters, str) else filters))


def each_of(images: Images) -> tuple[ImageLike, ...]:
    """Return pictures as a tuple, whether it is one or several."""
    return (images,) if isinstance(images, IMAGE_TYPES) else tuple(images)


def several_parts() -> OptionError:
    """Return the error for asking which photos contain several pictures at once."""
    return OptionError("Parts are looked for of one picture at a time: no other can be added to it or subtracted.")
