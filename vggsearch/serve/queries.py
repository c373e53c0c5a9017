"""Queries of clients: read what they send, remember it under an id, search, and answer."""

import secrets
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from io import BytesIO
from threading import Lock

from vggsearch.defaults import SERVE
from vggsearch.matching.evidence import COPY
from vggsearch.photos.decoder_pool import Source
from vggsearch.photos.inputs import Box, ImageFile, ImageLike
from vggsearch.query.options import Answer, Images, QueryOptions, QueryResult
from vggsearch.query.searcher import Match
from vggsearch.render.query import query_values
from vggsearch.render.query import relation as relation_words
from vggsearch.serve.answers import Problem, bad_request, not_found
from vggsearch.serve.jobs import Values
from vggsearch.serve.library import Library
from vggsearch.serve.parameters import Texts, flag, in_pixels, number, region, whole

SAME = "same picture"
IS_COPY = "copy"


@dataclass(frozen=True)
class Upload:
    """The bytes of a picture that a client sent."""

    data: bytes


Picture = Upload | str  # or the id of a photo


@dataclass(frozen=True)
class Query:
    """What a client searches for: pictures, those that are subtracted, and the options as they were sent."""

    images: tuple[Picture, ...]
    minus: tuple[Picture, ...]
    values: Texts
    filters: tuple[str, ...]

    @property
    def bytes(self) -> int:
        """The size of the uploaded pictures."""
        return sum(len(each.data) for each in (*self.images, *self.minus) if isinstance(each, Upload))


class Remembered:
    """The latest queries by id, for links to them; the oldest are forgotten as new ones need their memory."""

    def __init__(self) -> None:
        self._queries: OrderedDict[str, Query] = OrderedDict()
        self._bytes = 0
        self._changing = Lock()

    def add(self, query: Query) -> str:
        """Remember a query; return its id."""
        with self._changing:
            name = secrets.token_hex(8)
            self._queries[name] = query
            self._bytes += query.bytes
            while len(self._queries) > SERVE.remembered or self._bytes > SERVE.remembered_bytes:
                _, forgotten = self._queries.popitem(last=False)
                self._bytes -= forgotten.bytes
            return name

    def find(self, name: str) -> Query:
        """Return a query. Raises Problem."""
        with self._changing:
            query = self._queries.get(name)
            if query is None:
                raise not_found("This search is no longer known: search again.")
            self._queries.move_to_end(name)
            return query


@dataclass(frozen=True)
class Asked:
    """A query that is ready to be searched: its pictures and options, and the part of the result that is wanted."""

    images: tuple[ImageLike, ...]
    options: QueryOptions
    offset: int
    count: int


class Queries:
    """Turns queries into searches, and their results into answers."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self.remembered = Remembered()

    def asked(self, query: Query, values: Texts) -> Asked:
        """Return the search of a query; `values` may ask for another part of the result. Raises Problem."""
        if not query.images:
            raise bad_request("Send at least one picture, as image or as the id of a photo.")
        if len(query.images) + len(query.minus) > SERVE.upload_files:
            raise bad_request(f"A query has at most {SERVE.upload_files} pictures.")
        count, offset = whole(values, "count", 60, 1, SERVE.most_listed), whole(values, "offset", 0)
        least = number(query.values, "min_similarity", None)
        crop = region(query.values)
        if crop is not None and (len(query.images) > 1 or query.minus):
            raise bad_request("A region can be searched for in a single picture only.")
        options = self.options(
            query.values,
            query.filters,
            offset + count if least is None else None,
            crop=in_pixels(crop, self.size(query.images[0])) if crop is not None else None,
            minus=self._images(query.minus, len(query.images) + 1),
        )
        return Asked(self._images(query.images, 1, is_cropped=crop is not None), options, offset, count)

    def options(
        self,
        values: Texts,
        filters: Sequence[str],
        count: int | None,
        *,
        crop: Box | None = None,
        minus: Images = (),
    ) -> QueryOptions:
        """Return the options of a search from those that a client sent. Raises Problem and OptionError."""
        can_rerank = "rerank" not in self._library.missing
        rerank = flag(values, "rerank", default=can_rerank)
        if rerank and not can_rerank:
            raise bad_request("What is published is not re-ranked: that needs the index. Leave rerank out.")
        return QueryOptions.of(
            count,
            number(values, "min_similarity", None),
            rerank,
            crop,
            flag(values, "containing", default=False),
            filters,
            flag(values, "exclude_same_folder", default=False),
            minus,
        )

    def _images(
        self, pictures: Sequence[Picture], first: int, *, is_cropped: bool = False
    ) -> tuple[ImageLike, ...]:
        """Return pictures as a query takes them, by names with their numbers from `first` on. Raises Problem."""
        return tuple(
            self.image(each, f"picture {number}", is_cropped=is_cropped)
            for number, each in enumerate(pictures, start=first)
        )

    def image(self, picture: Picture, name: str = "-", *, is_cropped: bool = False) -> ImageLike:
        """Return a picture as a query takes it; an upload gets a name. Raises Problem."""
        if isinstance(picture, Upload):
            return ImageFile(BytesIO(picture.data), name)
        return self._library.image(picture, is_cropped=is_cropped)

    def source(self, picture: Picture) -> Source:
        """Return what a decoder process needs for a picture. Raises Problem."""
        if isinstance(picture, Upload):
            return Source("", data=picture.data)
        photo = self._library.find(picture)
        return Source(photo.path, photo.root)

    def size(self, picture: Picture) -> tuple[int, int]:
        """Return width and height of a picture. Raises ImageError and Problem."""
        if isinstance(picture, Upload):
            return self._library.query_decoders().size(self.source(picture))
        photo = self._library.find(picture)
        return int(photo.column("width")), int(photo.column("height"))

    def answer(self, name: str, query: Query, asked: Asked, found: Answer) -> Values:
        """Return the answer to a query. Raises Problem for a picture that cannot be used."""
        result = usable(found)
        searched = self._library.count(asked.options.filters)
        return {
            "query": {"id": name, **_described(query)},
            "matches": self._matches(result, asked.offset, asked.count),
            "total": searched if asked.options.min_similarity is None else len(result.matches),
            "searched": searched,
        }

    def batch_answer(self, found: Sequence[Answer]) -> Values:
        """Return the answers to a batch of queries, each with its matches or the reason why it has none."""
        return {
            "results": [
                {"matches": self._matches(each)}
                if isinstance(each, QueryResult)
                else {"reason": each.reason, "kind": each.kind}
                for each in found
            ]
        }

    def _matches(self, result: QueryResult, offset: int = 0, count: int | None = None) -> list[Values]:
        chosen = result.matches[offset : None if count is None else offset + count]
        printed = query_values(replace(result, matches=chosen))["matches"]
        assert isinstance(printed, list)  # noqa: S101 - as in the command line's JSON
        return [_match(*each) for each in zip(chosen, printed, self._library.facts(chosen), strict=True)]


def _match(match: Match, printed: Mapping[str, object], facts: Values) -> Values:
    """Return a match as the command line prints it, with what a page needs."""
    corners = match.alignment.corners if match.alignment is not None else None
    words = {"confidence": match.confidence, "relation": relation(match), "corners": corners}
    return {**printed, "width": None, "height": None, "taken": None, **facts, **words}


def relation(match: Match) -> str | None:
    """Return how a photo is related to the query, in words; None if it is similar and no more."""
    words = relation_words(match.alignment)
    if words:
        return words
    if match.similarity == 1:
        return SAME
    return IS_COPY if (match.confidence or 0) >= COPY else None


def usable(found: Answer) -> QueryResult:
    """Return the result of a search. Raises Problem if its picture could not be used."""
    if isinstance(found, QueryResult):
        return found
    raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, found.reason)


def _described(query: Query) -> Values:
    """Return a query for JSON, without its pictures."""
    return {
        "photos": [each for each in query.images if isinstance(each, str)],
        "uploads": sum(isinstance(each, Upload) for each in query.images),
        "minus_photos": [each for each in query.minus if isinstance(each, str)],
        "minus_uploads": sum(isinstance(each, Upload) for each in query.minus),
        "filters": list(query.filters),
        "options": {name: value for name, value in query.values.items() if name not in ("offset", "count")},
    }
