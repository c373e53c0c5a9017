"""The photos of the indexes that are served, by ids that give away and take no path."""

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import SERVE
from vggsearch.image_index import ImageIndex, decoders_of, latest_of, targets_of
from vggsearch.knn.vectors import unit_rows
from vggsearch.photos.decoder_pool import Decoders, default_workers
from vggsearch.photos.inputs import ImageLike, IndexedPhoto
from vggsearch.query.filters import Filter
from vggsearch.query.options import Answer, Images, QueryOptions
from vggsearch.query.run import run_queries
from vggsearch.query.searcher import Match
from vggsearch.query.snapshot import Snapshot, folder_of
from vggsearch.query.targets import check_targets
from vggsearch.render.info import info_values
from vggsearch.serve.answers import not_found
from vggsearch.serve.jobs import Values

COLUMNS = ("width", "height", "bytes", "taken", "format", "sha256")
ID_DIGITS = 16


@dataclass(frozen=True, eq=False)
class Photos:
    """The photos of one committed state of each index, one table by row.

    `source` is the position of the index that a photo is in, `first` the row at which each index begins, and
    `columns` has those of COLUMNS.
    """

    ids: Sequence[str]
    paths: Sequence[str]
    names: Sequence[str]
    source: NDArray[np.int64]
    first: Sequence[int]
    columns: dict[str, NDArray[Any]]

    def __len__(self) -> int:
        """Return the number of photos."""
        return len(self.ids)

    @cached_property
    def rows(self) -> dict[str, int]:
        """The row of each id."""
        return {each: row for row, each in enumerate(self.ids)}

    @cached_property
    def folder_names(self) -> list[str]:
        """The folders with photos, sorted."""
        return sorted(set(map(folder_of, self.paths)))

    @cached_property
    def folders(self) -> NDArray[np.int64]:
        """The position of each photo's folder in `folder_names`, int64 (n,)."""
        places = {name: place for place, name in enumerate(self.folder_names)}
        return np.fromiter((places[folder_of(path)] for path in self.paths), np.int64, len(self))

    @cached_property
    def orders(self) -> dict[str, NDArray[np.int64]]:
        """All rows in each order: by path; by time taken, the newest first, with those of unknown time last."""
        names = [(folder_of(path).casefold(), path.casefold()) for path in self.paths]  # folder by folder
        by_path = np.array(sorted(range(len(self)), key=names.__getitem__), np.int64)
        taken = self.columns["taken"][by_path].astype("datetime64[s]").astype(np.int64)  # NaT is the least
        return {"path": by_path, "taken": by_path[np.argsort(-taken.astype(np.float64), kind="stable")]}

    def ordered(self, order: str, mask: NDArray[np.bool_] | None) -> NDArray[np.int64]:
        """Return the rows that pass the mask in an order, int64."""
        rows = self.orders[order]
        return rows if mask is None else rows[mask[rows]]

    def facts(self, row: int) -> dict[str, object]:
        """Return what is known of a photo, for JSON; `index` only where several indexes are served."""
        values: dict[str, object] = {
            "id": self.ids[row],
            "path": self.paths[row],
            "width": int(self.columns["width"][row]),
            "height": int(self.columns["height"][row]),
            "taken": self.taken(row),
            "bytes": int(self.columns["bytes"][row]),
        }
        return values if len(self.names) == 1 else values | {"index": self.names[self.source[row]]}

    def taken(self, row: int) -> str | None:
        """Return when a photo was taken as ISO 8601 without a time zone, None if that is unknown."""
        taken = self.columns["taken"][row]
        return None if np.isnat(taken) else str(taken.astype("datetime64[s]"))


@dataclass(frozen=True, eq=False)
class Located:
    """A photo: its row among some photos, and the photo folder, None if that is not known."""

    photos: Photos
    row: int
    folder: Path | None

    @property
    def path(self) -> str:
        """The path, relative to the photo folder of the index."""
        return self.photos.paths[self.row]

    @property
    def root(self) -> Path:
        """The photo folder. Raises Problem if it is not known."""
        if self.folder is None:
            raise not_found("The photo folder is not known here. Name it: --root.")
        return self.folder

    def column(self, name: str) -> Any:
        """Return a value of COLUMNS."""
        return self.photos.columns[name][self.row]


class Library(ABC):
    """What a server asks of the photos that it serves: those of indexes, or those that are published.

    `names` are the names of the indexes. `missing` is what the page does not offer: "duplicates", "map", "compare",
    "rerank", "containing", "skipped"; "photos" as pictures, and a "list" of all.
    """

    names: tuple[str, ...]
    missing: tuple[str, ...] = ()

    def __init__(self) -> None:
        self._starting = Lock()
        self._decoders: Decoders | None = None

    def close(self) -> None:
        """End the decoder processes. What is served stays open: it belongs to the caller."""
        with self._starting:
            if self._decoders is not None:
                self._decoders.close()

    def decoders(self) -> Decoders:
        """Return the decoder processes for thumbnails, which do not wait for those of searches."""
        with self._starting:
            if self._decoders is None:
                self._decoders = Decoders(default_workers())
            return self._decoders

    @abstractmethod
    def warm_up(self) -> None:
        """Load what the first request would wait for. Raises VggsearchError."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of photos, as it was last seen if it cannot be seen now."""

    @abstractmethod
    def state(self) -> Values:
        """Return the number of photos, what is served, and which files were skipped, for JSON."""

    @abstractmethod
    def query_decoders(self) -> Decoders:
        """Return the decoder processes of searches."""

    @abstractmethod
    def answers(self, queries: Iterable[Images], options: QueryOptions) -> Iterator[Answer]:
        """Yield the answer to each query, in order."""

    @abstractmethod
    def photos(self, filters: Sequence[Filter] = ()) -> tuple[Photos, NDArray[np.bool_] | None]:
        """Return all photos, and which pass all filters; None for all."""

    @abstractmethod
    def masks(self, filters: Sequence[Filter]) -> tuple[Photos, list[NDArray[np.bool_]]]:
        """Return all photos, and which of them pass each filter by itself."""

    @abstractmethod
    def count(self, filters: Sequence[Filter]) -> int:
        """Return how many photos pass all filters."""

    @abstractmethod
    def find(self, photo: str) -> Located:
        """Return the photo with an id. Raises Problem if there is none."""

    @abstractmethod
    def image(self, photo: str, *, is_cropped: bool) -> ImageLike:
        """Return the photo with an id as a query takes it, whole or to be cropped. Raises Problem."""

    @abstractmethod
    def facts(self, matches: Sequence[Match]) -> list[Values]:
        """Return what is known of photos that were found, for JSON: `id` at least."""


class IndexLibrary(Library):
    """The indexes that are served, the first of which has the network and the decoder processes for searches.

    Raises OptionError and SpecMismatch if they cannot be searched together.
    """

    def __init__(self, indexes: Sequence[ImageIndex]) -> None:
        super().__init__()
        check_targets(indexes)
        self.indexes = tuple(indexes)
        self.names = _names(indexes)
        self._places = [str(Path(os.path.realpath(index.directory))) for index in indexes]
        self._reading = Lock()
        self._known: tuple[tuple[Snapshot, ...], Photos] | None = None

    def warm_up(self) -> None:
        """Load the network, start the decoder processes and list the photos."""
        self.query_decoders()
        self.photos()
        _ = self.indexes[0].engine

    def __len__(self) -> int:
        """Return the number of photos."""
        return len(self.photos()[0])

    def state(self) -> Values:
        """Return the number of photos, what is served, and which files were skipped, for JSON."""
        skipped = [file for index in self.indexes for file in index.skipped()]
        return {
            "photos": len(self),
            "info": [info_values(index.info()) for index in self.indexes],
            "skipped": [
                {"path": file.path, "reason": file.reason, "kind": file.kind}
                for file in skipped[: SERVE.most_listed]
            ],
            "skipped_count": len(skipped),
        }

    def query_decoders(self) -> Decoders:
        """Return the decoder processes of searches."""
        return decoders_of(self.indexes[0])

    def answers(self, queries: Iterable[Images], options: QueryOptions) -> Iterator[Answer]:
        """Yield the answer to each query, in order."""
        return run_queries(targets_of(self.indexes), queries, options)

    def count(self, filters: Sequence[Filter]) -> int:
        """Return how many photos pass all filters."""
        photos, mask = self.photos(filters)
        return len(photos) if mask is None else int(mask.sum())

    def photos(self, filters: Sequence[Filter] = ()) -> tuple[Photos, NDArray[np.bool_] | None]:
        """Return the photos of the last committed states, and which pass all filters; None for all."""

        def read(state: Snapshot) -> tuple[Snapshot, NDArray[np.bool_] | None]:
            wanted = state.wanted(filters)
            return _kept(state), None if wanted is None else wanted.mask

        found = [latest_of(index).read(read) for index in self.indexes]
        photos = self._photos_of(tuple(state for state, _ in found))
        masks = [mask for _, mask in found if mask is not None]
        return photos, np.concatenate(masks) if masks else None

    def masks(self, filters: Sequence[Filter]) -> tuple[Photos, list[NDArray[np.bool_]]]:
        """Return the photos of the last committed states, and which of them pass each filter by itself."""

        def read(state: Snapshot) -> tuple[Snapshot, list[NDArray[np.bool_]]]:
            return _kept(state), [each.keeps(state) for each in filters]

        found = [latest_of(index).read(read) for index in self.indexes]
        by_filter = zip(*(masks for _, masks in found), strict=True)
        return self._photos_of(tuple(state for state, _ in found)), [np.concatenate(each) for each in by_filter]

    def embeddings(self) -> tuple[Photos, NDArray[np.float32]]:
        """Return the photos of the last committed states, and their embeddings: float32 (n, d), unit vectors."""

        def read(state: Snapshot) -> tuple[Snapshot, NDArray[np.float32]]:
            none = np.empty((0, state.store.spec.dim), np.float16)
            return _kept(state), unit_rows(np.concatenate([none, *state.store.embeddings()]))

        found = [latest_of(index).read(read) for index in self.indexes]
        return self._photos_of(tuple(state for state, _ in found)), np.concatenate([rows for _, rows in found])

    def _photos_of(self, states: tuple[Snapshot, ...]) -> Photos:
        with self._reading:
            if self._known is None or self._known[0] != states:
                self._known = states, self._read(states)
            return self._known[1]

    def _read(self, states: Sequence[Snapshot]) -> Photos:
        paths = [list(state.paths) for state in states]
        ids = [id_of(place, path) for place, of_it in zip(self._places, paths, strict=True) for path in of_it]
        sizes = [len(of_it) for of_it in paths]
        return Photos(
            ids,
            [path for of_it in paths for path in of_it],
            self.names,
            np.repeat(np.arange(len(states)), sizes),
            np.cumsum([0, *sizes[:-1]]).tolist(),
            {name: np.concatenate([state.column(name) for state in states]) for name in COLUMNS},
        )

    def find(self, photo: str) -> Located:
        """Return the photo with an id. Raises Problem if there is none."""
        photos, _ = self.photos()
        row = photos.rows.get(photo)
        if row is None:
            raise not_found("There is no photo with this id: it may be gone since the last update.")
        return Located(photos, row, self.indexes[photos.source[row]].root)

    def image(self, photo: str, *, is_cropped: bool) -> ImageLike:  # noqa: ARG002 - the file is read in any case
        """Return the photo with an id as a query takes it. Raises Problem."""
        found = self.find(photo)
        return IndexedPhoto(found.root, found.path)

    def facts(self, matches: Sequence[Match]) -> list[Values]:
        """Return what is known of photos that were found, for JSON: `id` alone of one that is gone since."""
        photos, _ = self.photos()
        positions: dict[str | None, int] = {None: 0}  # of the only index
        positions |= {str(index.directory): at for at, index in enumerate(self.indexes)}
        ids = [self.id_of(positions[match.index], match.path) for match in matches]
        return [photos.facts(photos.rows[each]) if each in photos.rows else {"id": each} for each in ids]

    def index_of(self, photo: Located) -> ImageIndex:
        """Return the index that a photo is in."""
        found: ImageIndex = self.indexes[photo.photos.source[photo.row]]
        return found

    def id_of(self, index: int, path: str) -> str:
        """Return the id of a photo by the position of its index, and its path."""
        return id_of(self._places[index], path)

    def position(self, name: str | None) -> int:
        """Return the position of an index that a client names; the only or first one for None."""
        if name is None:
            return 0
        if name not in self.names:
            raise not_found("There is no index of this name here.")
        return self.names.index(name)


def _kept(state: Snapshot) -> Snapshot:
    """Return a state once it holds COLUMNS: a writer may remove its files."""
    for name in COLUMNS:
        state.column(name)
    return state


def _names(indexes: Sequence[ImageIndex]) -> tuple[str, ...]:
    """Return the names of the folders of the indexes; whole paths where two are alike."""
    names = tuple(index.directory.name for index in indexes)
    return names if len(set(names)) == len(names) else tuple(str(index.directory) for index in indexes)


def id_of(place: str, path: str) -> str:
    """Return the id of a photo in the index at `place`: 16 hexadecimal digits, the same as long as both stay."""
    named = f"{place}\0{path}".encode("utf-8", "surrogateescape")
    return hashlib.sha256(named).hexdigest()[:ID_DIGITS]
