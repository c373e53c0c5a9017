"""The photos among which duplicates are looked for: those of an index, and perhaps those of another beside them."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vggsearch.duplicates.results import Photo
from vggsearch.query.searcher import Searcher
from vggsearch.store.store import Store

COLUMNS = ("path", "sha256", "bytes", "mtime_ns", "width", "height", "format", "taken")


@dataclass(frozen=True)
class Collection:
    """The photos of one state of an index, by row.

    `root` is where they are, None where they cannot be reached. Those of another index come after them, named by
    their whole path.
    """

    store: Store
    searcher: Searcher
    root: Path | None
    others: "Collection | None" = None

    def __len__(self) -> int:
        """How many photos there are, without the others'."""
        return len(self.searcher.paths)

    def file(self, row: int) -> Path:
        """Return where a photo is."""
        if self.others is not None and row >= len(self):
            return self.others.file(row - len(self))
        return (self.root or Path()) / self.searcher.paths[row]

    @property
    def is_there(self) -> bool:
        """Whether the photos can be reached."""
        is_own = self.root is not None and self.root.is_dir()
        return is_own and (self.others is None or self.others.is_there)

    def path(self, row: int) -> str:
        """Return a photo's path, relative to its own folder."""
        if self.others is not None and row >= len(self):
            return self.others.path(row - len(self))
        return self.searcher.paths[row]

    def key(self, row: int) -> str:
        """Return the sha256 of a photo's bytes."""
        return str(self.keys[row], "ascii")

    @cached_property
    def keys(self) -> NDArray[np.bytes_]:
        """The sha256 of all photos, by row: 64 bytes each."""
        parts = self.store.manifest.parts
        own = np.array([key for part in parts for key in self.store.column(part, "sha256")], "S64")
        return own if self.others is None else np.concatenate([own, self.others.keys])

    @cached_property
    def blank(self) -> NDArray[np.int64]:
        """The rows of blank photos, int64: they are duplicates of none."""
        own = self.searcher.blank
        return own if self.others is None else np.concatenate([own, self.others.blank + len(self)])

    @cached_property
    def contents(self) -> NDArray[np.int64]:
        """The first row with the same bytes, of each row: int64."""
        _, first, place = np.unique(self.keys, return_index=True, return_inverse=True)
        found: NDArray[np.int64] = first[place]
        return found

    @cached_property
    def own_contents(self) -> NDArray[np.int64]:
        """The first row of each content of the index's own photos, without blank ones: int64, ascending."""
        return np.setdiff1d(self.contents[: len(self)], self.blank)

    @cached_property
    def copies(self) -> NDArray[np.int64]:
        """The first row with the same bytes in the same folder, of each row: int64."""
        folders: dict[str, int] = {}
        paths = map(self.path, range(len(self.contents)))
        of = np.array([folders.setdefault(path.rpartition("/")[0], len(folders)) for path in paths], np.int64)
        _, first, place = np.unique(self.contents * (len(folders) + 1) + of, return_index=True, return_inverse=True)
        found: NDArray[np.int64] = first[place]
        return found

    def similarities(self, pairs: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the similarity of some pairs of the index's own rows, (n, 2): float64 (n,)."""
        index = self.searcher.index
        ones, others = (index.unit_vectors(pairs[:, side]) for side in (0, 1))
        found: NDArray[np.float64] = np.minimum(np.einsum("ij,ij->i", ones, others), 1).astype(np.float64)
        return found

    def photos(self, rows: Iterable[int]) -> dict[int, Photo]:
        """Return what is known of some photos, by row."""
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
