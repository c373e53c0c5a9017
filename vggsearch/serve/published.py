"""The photos of a published index: searched in the database, listed here if they are not too many."""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from http import HTTPStatus
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vggsearch.defaults import SERVE
from vggsearch.photos.addresses import address_of
from vggsearch.photos.decoder_pool import Decoders
from vggsearch.photos.inputs import ImageLike, IndexedPhoto
from vggsearch.published.index import PublishedIndex, answers_of, decoders_at, prepare, published_of
from vggsearch.published.rows import facts_schema
from vggsearch.published.searcher import PublishedPhoto
from vggsearch.published.state import Stamp
from vggsearch.published.table import Wanted
from vggsearch.query.filters import Filter, FoldedPaths
from vggsearch.query.options import Answer, Images, QueryOptions
from vggsearch.query.searcher import Match
from vggsearch.serve.answers import Problem, not_found
from vggsearch.serve.jobs import Values
from vggsearch.serve.library import COLUMNS, Library, Located, Photos
from vggsearch.store.paths import Paths

NOT_PUBLISHED = ("duplicates", "map", "compare", "rerank", "containing", "skipped")  # what needs an index


@dataclass(frozen=True, eq=False)
class Listing:
    """All photos that were published at a time. It implements PhotoFacts for filters."""

    stamp: Stamp
    photos: Photos
    paths: Paths

    @cached_property
    def folded_paths(self) -> FoldedPaths:
        """The paths of the photos."""
        return FoldedPaths(self.paths)

    def column(self, name: str) -> NDArray[Any]:
        """Return one of COLUMNS, by row."""
        return self.photos.columns[name]


class PublishedLibrary(Library):
    """The photos of a published index. An id is the path in base64, so that every server knows it."""

    def __init__(self, index: PublishedIndex) -> None:
        super().__init__()
        self._index, self._published = index, published_of(index)
        self.names = (index.place,)
        self._reading = Lock()
        self._listing: Listing | None = None

    @property
    def missing(self) -> tuple[str, ...]:  # type: ignore[override] # changes with what is published
        """What the page does not offer."""
        photos = ("photos",) if self._index.root is None else ()
        return (*NOT_PUBLISHED, *photos, *(("list",) if len(self) > SERVE.listed_photos else ()))

    def warm_up(self) -> None:
        """Load the network, start the decoder processes and list the photos."""
        prepare(self._index)
        if "list" not in self.missing:
            self._listed()

    def __len__(self) -> int:
        """Return the number of photos when they were last looked at."""
        return 0 if self._published.last is None else self._published.last.state.rows

    def state(self) -> Values:
        """Return the number of photos and what is published, for JSON; skipped files are not."""
        seen, root = self._published.now(), self._index.root
        published = {
            "published": self._index.place,
            "photos": seen.state.rows,
            "root": address_of(root) if root is not None else None,
            "spec": asdict(seen.state.spec),
            "dimensions": seen.state.dim,
        }
        return {"photos": seen.state.rows, "info": [published], "skipped": [], "skipped_count": 0}

    def query_decoders(self) -> Decoders:
        """Return the decoder processes of searches."""
        return decoders_at(self._index)

    def answers(self, queries: Iterable[Images], options: QueryOptions) -> Iterator[Answer]:
        """Yield the answer to each query, in order."""
        return answers_of(self._index, queries, options)

    def photos(self, filters: Sequence[Filter] = ()) -> tuple[Photos, NDArray[np.bool_] | None]:
        """Return all photos, and which pass all filters; None for all. Raises Problem for too many."""
        photos, masks = self.masks(filters)
        return photos, np.logical_and.reduce(masks) if masks else None

    def masks(self, filters: Sequence[Filter]) -> tuple[Photos, list[NDArray[np.bool_]]]:
        """Return all photos, and which of them pass each filter by itself. Raises Problem for too many."""
        listing = self._listed()
        return listing.photos, [each.keeps(listing) for each in filters]

    def count(self, filters: Sequence[Filter]) -> int:
        """Return how many photos pass all filters."""
        return self._published.counts(self._published.now(), Wanted(tuple(filters)))[0]

    def find(self, photo: str) -> Located:
        """Return the photo with an id. Raises Problem if there is none."""
        stamp, path = self._published.now().stamp, path_of(photo)
        found = pa.concat_tables(self._published.table.facts(stamp, [path]))
        if not len(found):
            raise not_found("There is no photo with this id: it may be gone since it was published.")
        return Located(self._photos_of(found), 0, self._index.root)

    def image(self, photo: str, *, is_cropped: bool) -> ImageLike:
        """Return a published photo, whose vector is known; to be cropped, its file. Raises Problem."""
        if not is_cropped:
            return PublishedPhoto(path_of(photo))
        found = self.find(photo)
        return IndexedPhoto(found.root, found.path)

    def facts(self, matches: Sequence[Match]) -> list[Values]:
        """Return what is known of photos that were found, for JSON: `id` alone of one that is gone since."""
        stamp, paths = self._published.now().stamp, [match.path for match in matches]
        photos = self._photos_of(pa.concat_tables(self._published.table.facts(stamp, paths)))
        ids = map(id_of, paths)
        return [photos.facts(photos.rows[each]) if each in photos.rows else {"id": each} for each in ids]

    def _listed(self) -> Listing:
        seen = self._published.now()
        if seen.state.rows > SERVE.listed_photos:
            raise Problem(
                HTTPStatus.FORBIDDEN,
                f"{seen.state.rows:,} photos are published, and this server lists at most {SERVE.listed_photos:,}. "
                "It can search them all.",
            )
        with self._reading:
            if self._listing is None or self._listing.stamp != seen.stamp:
                none = facts_schema().empty_table()
                found = pa.concat_tables([none, *self._published.table.facts(seen.stamp)])
                self._listing = Listing(seen.stamp, self._photos_of(found), Paths([found.column("path")]))
            return self._listing

    def _photos_of(self, found: pa.Table) -> Photos:
        paths = found.column("path").to_pylist()
        columns = {name: found.column(name).to_numpy() for name in COLUMNS}
        return Photos([*map(id_of, paths)], paths, self.names, np.zeros(len(paths), np.int64), [0], columns)


def id_of(path: str) -> str:
    """Return the id of a published photo: its path in base64 for addresses, without padding."""
    return urlsafe_b64encode(path.encode()).decode().rstrip("=")


def path_of(photo: str) -> str:
    """Return the path of an id. Raises Problem for what is no id."""
    try:
        path = urlsafe_b64decode(photo + "=" * (-len(photo) % 4)).decode()
    except (binascii.Error, ValueError):
        raise not_found("There is no photo with this id.") from None
    if "\0" in path:
        raise not_found("There is no photo with this id.")
    return path
