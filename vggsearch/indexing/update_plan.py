"""Compare the files of a walk with those that an index knows, and plan what an update has to do."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import EXTRACT
from vggsearch.photos.addresses import is_address
from vggsearch.photos.walk import PhotoFile, Skipped, Stamp
from vggsearch.store.known_files import KnownFiles
from vggsearch.system.collecting import without_garbage_collection

AT_ONCE = 4096  # files that are compared at once


@dataclass(frozen=True)
class UpdatePlan:
    """What an update has to do.

    `todo` are the files to embed, in walk order; `suspects` the photos to read again, since they may have been
    edited although size and modification time are the same; `gone` the paths to drop; `skipped` the files already
    known to be unusable, by path; `unchanged` counts the unchanged photos, without suspects. `stamps` are those
    that are not recorded, by path; `are_stamps_current` is whether exactly those of all files are recorded.
    """

    todo: tuple[PhotoFile, ...]
    suspects: tuple[PhotoFile, ...]
    gone: tuple[str, ...]
    skipped: Mapping[str, Skipped]
    unchanged: int
    stamps: Mapping[str, Stamp]
    are_stamps_current: bool

    def loses_too_many(self, photos: int, found: int, root: Path) -> bool:
        """Whether the update would drop all `photos` of a store, but for those `found` under another path.

        Of an address, more than EXTRACT.lost_share of them are too many: its list may be incomplete.
        """
        if is_address(root):
            return len(self.gone) - found > EXTRACT.lost_share * photos
        return 0 < photos == len(self.gone) and not found


def plan_update(
    found: Iterable[PhotoFile | Skipped],
    known: KnownFiles,
    known_skipped: Mapping[str, Skipped],
    *,
    retry_skipped: bool = False,
    rehash: bool = False,
    are_versions: bool = False,
) -> UpdatePlan:
    """Compare the files of the walk with the store; a file is unchanged if its size and modification time are.

    If its stamp is not the one that is recorded, it is a suspect; with `rehash`, every photo is. If stamps
    `are_versions`, as those of objects are, a file is unchanged if its size and its stamp are, whatever its time;
    without a stamp, the time decides. Photos at or below an unreadable path are neither dropped nor changed.
    """
    comparison = _Comparison(
        known, known_skipped, retry_skipped=retry_skipped, rehash=rehash, are_versions=are_versions
    )
    source = iter(found)
    with without_garbage_collection():
        while some := list(islice(source, AT_ONCE)):
            comparison.add(some)
    return comparison.plan()


class _Comparison:
    """Compares files as arrays, so that only those that are new, changed or skipped stay in memory as objects."""

    def __init__(
        self,
        known: KnownFiles,
        known_skipped: Mapping[str, Skipped],
        *,
        retry_skipped: bool,
        rehash: bool,
        are_versions: bool,
    ) -> None:
        self._known, self._known_skipped = known, known_skipped
        self._retry_skipped, self._rehash, self._are_versions = retry_skipped, rehash, are_versions
        self._rows_of_skipped = known.rows_among(known_skipped)
        self._is_seen = np.zeros(len(known), bool)
        self._same = self._changed = self._stamped = 0  # photos as they were, photos to embed again, known stamps
        self._todo: list[PhotoFile] = []
        self._suspects: list[PhotoFile] = []
        self._renumbered: set[str] = set()  # suspects of which only the inode is another
        self._skipped: dict[str, Skipped] = {}
        self._dropped: list[str] = []
        self._stamps: dict[str, Stamp] = {}

    def add(self, found: Sequence[PhotoFile | Skipped]) -> None:
        """Compare some files."""
        self._skipped.update((file.path, file) for file in found if isinstance(file, Skipped))
        files = [file for file in found if isinstance(file, PhotoFile)]
        if not files:
            return
        paths, sizes, times, stamps = zip(*files, strict=True)
        rows = self._rows_of(paths)
        self._is_seen[rows[rows >= 0]] = True
        is_same = self._known.are_same(rows, sizes, times)
        if self._are_versions:
            is_same = self._known.are_same_versions(rows, sizes, stamps, is_same)
        is_stamped = self._known.have_stamps(rows, stamps)
        self._same += int(is_same.sum())
        self._stamped += self._known.count_stamps(rows[is_stamped])
        is_settled = is_same & is_stamped & (not self._rehash)
        for at in np.flatnonzero(~is_settled).tolist():
            self._note(files[at], int(rows[at]), is_same=bool(is_same[at]))

    def plan(self) -> UpdatePlan:
        """Return what there is to do, once all files were compared."""
        gone = (*self._unseen(), *self._dropped)
        suspects = tuple(self._suspected())
        return UpdatePlan(
            todo=tuple(self._todo),
            suspects=suspects,
            gone=gone,
            skipped=self._skipped,
            unchanged=len(self._known) - len(gone) - self._changed - len(suspects),
            stamps=self._stamps,
            are_stamps_current=not self._stamps and self._stamped == self._known.recorded,
        )

    def _rows_of(self, paths: Sequence[str]) -> NDArray[np.int64]:
        """Return the row of each path, -1 if there is none. Those of skipped files would break the row order."""
        if self._known_skipped.keys().isdisjoint(paths):
            return self._known.find(paths)
        is_skipped = np.fromiter((path in self._known_skipped for path in paths), bool, len(paths))
        rows = np.empty(len(paths), np.int64)
        rows[is_skipped] = [self._rows_of_skipped.get(path, -1) for path in compress(paths, is_skipped)]
        rows[~is_skipped] = self._known.find(list(compress(paths, ~is_skipped)))
        return rows

    def _note(self, file: PhotoFile, row: int, *, is_same: bool) -> None:
        """Take note of a file that is not, or not surely, as it was."""
        recorded = self._known.stamp(row, file.path)
        if file.stamp is not None and file.stamp != recorded:
            self._stamps[file.path] = file.stamp
        self._stamped += row < 0 and recorded is not None and recorded == file.stamp
        before = self._known_skipped.get(file.path)
        if is_same:
            self._suspect(file, recorded)
        elif before is not None and not self._retry_skipped and self._is_same_failure(before, file, recorded):
            self._skipped[file.path] = before
            self._dropped += [file.path] * (row >= 0)
        else:
            self._todo.append(file)
            self._changed += row >= 0

    def _suspect(self, file: PhotoFile, recorded: Stamp | None) -> None:
        is_other = self._known.recorded and file.stamp != recorded and not self._are_versions
        if self._rehash or is_other:
            self._suspects.append(file)
            if file.stamp is not None and recorded is not None and recorded.ctime_ns == file.stamp.ctime_ns:
                self._renumbered.add(file.path)

    def _suspected(self) -> Iterable[PhotoFile]:
        """Return the photos to read again.

        If most photos have another inode, the file system numbers files anew, and an inode alone says nothing.
        """
        if self._rehash or len(self._renumbered) <= self._same // 2:
            return self._suspects
        return (file for file in self._suspects if file.path not in self._renumbered)

    def _is_same_failure(self, before: Skipped, file: PhotoFile, recorded: Stamp | None) -> bool:
        has_same_stamp = not self._known.recorded or self._are_versions or recorded == file.stamp
        is_same_file = (before.bytes, before.mtime_ns) == (file.bytes, file.mtime_ns)
        return is_same_file and before.kind != "unreadable" and has_same_stamp

    def _unseen(self) -> list[str]:
        """Return the paths of photos that the walk did not find, but for those below what it could not read."""
        unreadable = [path for path, file in self._skipped.items() if file.kind == "unreadable"]
        return [path for path in self._known.paths_unseen(self._is_seen) if not _is_below(path, unreadable)]


def _is_below(path: str, folders: list[str]) -> bool:
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)
