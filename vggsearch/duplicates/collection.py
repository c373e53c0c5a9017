"""The photos among which duplicates are searched: those of an index, optionally with those of another index."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vggsearch.duplicates.decided import DecidedPairs
from vggsearch.duplicates.indexed_files import IndexedFiles
from vggsearch.duplicates.results import Photo
from vggsearch.knn.tasks import HERE, Tasks
from vggsearch.photos.addresses import is_available
from vggsearch.photos.decoder_pool import Source
from vggsearch.query.searcher import Searcher
from vggsearch.store.decisions import decisions_of
from vggsearch.store.parts import CAPTURE
from vggsearch.store.store import Store

COLUMNS = ("path", "sha256", "bytes", "mtime_ns", "width", "height", "format", *CAPTURE)


@dataclass(frozen=True)
class Collection:
    """The photos of one state of an index, by row.

    `root` is the photo folder, None if it is unknown. The photos of another index, `others`, take the rows after
    them and are named by their absolute path. `tasks` compare the vectors of very many photos.
    """

    store: Store
    searcher: Searcher
    root: Path | None
    others: "Collection | None" = None
    tasks: Tasks = HERE

    def __len__(self) -> int:
        """Return the number of photos, not counting those of `others`."""
        return len(self.searcher.paths)

    def file(self, row: int) -> Path:
        """Return the path of the file of a photo."""
        if self.others is not None and row >= len(self):
            return self.others.file(row - len(self))
        return (self.root or Path()) / self.searcher.paths[row]

    def source(self, row: int) -> Source:
        """Return what a decoder process needs to decode a photo."""
        if self.others is not None and row >= len(self):
            return self.others.source(row - len(self))
        return Source(self.searcher.paths[row], self.root or Path())

    @property
    def has_files(self) -> bool:
        """Whether the photo files are available."""
        return is_available(self.root) and (self.others is None or self.others.has_files)

    @cached_property
    def files(self) -> IndexedFiles | None:
        """The index's own photo files, None if they are not available, or on no disk."""
        if self.root is None or not self.root.is_dir():
            return None
        return IndexedFiles(self.store, self.root, self.searcher.paths, self.key)

    def is_current(self, row: int) -> bool:
        """Return whether the file of a photo is still the one that was indexed, as far as files are available."""
        if self.others is not None and row >= len(self):
            return self.others.is_current(row - len(self))
        return self.files is None or self.files.identity(row) is not None

    def is_same_file(self, row: int, other: int) -> bool:
        """Return whether two rows are one file: the same row, hard links, or two spellings of a name."""
        if row == other:
            return True
        if self.files is None or max(row, other) >= len(self):
            return False
        identity = self.files.identity(row)
        return identity is not None and identity == self.files.identity(other)

    def path(self, row: int) -> str:
        """Return the path of a photo, relative to its own photo folder."""
        if self.others is not None and row >= len(self):
            return self.others.path(row - len(self))
        return self.searcher.paths[row]

    def key(self, row: int) -> str:
        """Return the SHA-256 of a photo."""
        return str(self.keys[row], "ascii")

    @cached_property
    def keys(self) -> NDArray[np.bytes_]:
        """The SHA-256 of all photos by row, 64 bytes each."""
        own = self.store.keys()
        return own if self.others is None else np.concatenate([own, self.others.keys])

    @cached_property
    def hashes(self) -> NDArray[np.uint8]:
        """The perceptual hashes of all photos by row: uint8 (n, BYTES), NO_HASH where none is known."""
        own = self.store.perceptual_hashes()
        return own if self.others is None else np.concatenate([own, self.others.hashes])

    @cached_property
    def blank(self) -> NDArray[np.int64]:
        """The rows of blank photos, int64, which are never duplicates."""
        own = self.searcher.blank
        return own if self.others is None else np.concatenate([own, self.others.blank + len(self)])

    @cached_property
    def contents(self) -> NDArray[np.int64]:
        """For each row, the first row with the same bytes: int64. It identifies the content of the row.

        It is the first whose file is current, if there is one in the same index.
        """
        return self._first_current(self._first_rows)

    @cached_property
    def _first_rows(self) -> NDArray[np.int64]:
        """For each row, the first row with the same bytes, whether its file is current or not: int64."""
        _, first, inverse = np.unique(self.keys, return_index=True, return_inverse=True)
        first_rows: NDArray[np.int64] = first[inverse]
        return first_rows

    def _first_current(self, firsts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Replace the first row of each class of rows by the first whose file is current, int64 (rows,)."""
        chosen = np.arange(len(firsts))
        is_repeated = np.bincount(firsts, minlength=len(firsts)) > 1
        done = set[int]()
        for row in np.flatnonzero(is_repeated[firsts]).tolist():
            first = int(firsts[row])
            is_here = (row < len(self)) == (first < len(self))
            if first not in done and is_here and self.is_current(row):
                chosen[first] = row
                done.add(first)
        rows: NDArray[np.int64] = chosen[firsts]
        return rows

    @cached_property
    def not_compared(self) -> NDArray[np.int64]:
        """The rows of blank photos and of all but the first of each content: int64, ascending.

        Files do not matter here, so that what is stored for these rows holds whichever are current.
        """
        is_repeated = self._first_rows != np.arange(len(self._first_rows))
        is_repeated[self.blank] = True
        return np.flatnonzero(is_repeated)

    @cached_property
    def decided(self) -> DecidedPairs:
        """What the user of the index decided about pairs of photos. Raises IndexNotReadable."""
        decisions = decisions_of(self.store.directory)
        return DecidedPairs(self.keys, self.contents, self.path, decisions.pairs(), decisions.kept())

    @cached_property
    def own_contents(self) -> NDArray[np.int64]:
        """The first row of each content among the index's own photos, without blank ones: int64, ascending."""
        return np.setdiff1d(self.contents[: len(self)], self.blank)

    @cached_property
    def folders(self) -> NDArray[np.int64]:
        """For each row, a number of the folder of its photo: int64, from 0."""
        numbers: dict[str, int] = {}
        paths = map(self.path, range(len(self.contents)))
        return np.array([numbers.setdefault(path.rpartition("/")[0], len(numbers)) for path in paths], np.int64)

    @cached_property
    def only_folder(self) -> NDArray[np.int64]:
        """For each row, the folder that holds all photos with the same bytes, int64; -1 if they are in several."""
        lowest, highest = (np.full(len(self.contents), start, np.int64) for start in (len(self.contents), -1))
        np.minimum.at(lowest, self.contents, self.folders)
        np.maximum.at(highest, self.contents, self.folders)
        folders: NDArray[np.int64] = np.where(lowest == highest, lowest, -1)[self.contents]
        return folders

    @cached_property
    def contents_by_folder(self) -> NDArray[np.int64]:
        """For each row, the first row with the same bytes in the same folder: int64."""
        keys = self.contents * (int(self.folders.max(initial=0)) + 1) + self.folders
        _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        return self._first_current(first[inverse])

    def similarities(self, pairs: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the similarity of each of the pairs (n, 2) of the index's own rows: float64 (n,)."""
        index = self.searcher.index
        ones, others = (index.unit_vectors(pairs[:, column]) for column in (0, 1))
        products = np.einsum("ij,ij->i", ones, others)
        similarities: NDArray[np.float64] = np.minimum(products, 1).astype(np.float64)
        return similarities

    def photos(self, rows: Iterable[int]) -> dict[int, Photo]:
        """Return the given photos by row."""
        wanted = sorted(set(rows))
        own = [row for row in wanted if row < len(self)]
        found = {row: Photo(*values) for row, values in zip(own, self.store.values_of(own, COLUMNS), strict=True)}
        if self.others is not None:
            theirs = self.others.photos(row - len(self) for row in wanted if row >= len(self))
            found |= {
                row + len(self): replace(photo, path=self.others.file(row).absolute().as_posix())
                for row, photo in theirs.items()
            }
        return found
