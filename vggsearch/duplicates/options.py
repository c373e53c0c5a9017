"""The options of a search for duplicates, and the photos and folders that a user names."""

import logging
import operator
import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path, PurePosixPath
from typing import Any

from vggsearch.defaults import DUPLICATES
from vggsearch.duplicates.results import KINDS
from vggsearch.errors import OptionError, Spelled, option, shell_word
from vggsearch.query.filters import Filter
from vggsearch.store.decisions import MOST_PHOTOS
from vggsearch.system.places import from_home

log = logging.getLogger(__name__)

PAIR_WANTED = "Name at least two photos; the decision applies to every pair of them."

Folders = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]  # one or several


@dataclass(frozen=True)
class DuplicateOptions:
    """What counts as a duplicate, and which photo of a group to keep.

    `min_precision` is the share of reported pairs that should be duplicates; `threshold`, a similarity, replaces it
    and the calibration. `keep` is a list of keep rules, see keep_policy. `protect` are folders, relative to the
    photo folder, from which nothing is removed. Groups with fewer than `min_size` photos are omitted.
    `within_folder` only considers pairs in the same folder, `across_folders` only pairs in different folders.
    `similar` also reports photos that are probably other shots of the same subject; `siblings` treats burst shots
    as duplicates; `confirm` compares the keypoints of the photos, if their files are available. `kinds`, `group_of`
    and `filters` restrict the groups of the report, see shown.only: to members of these kinds, to the groups of
    these photos, and to groups with a photo that passes these filters.
    """

    min_precision: float = DUPLICATES.min_precision
    threshold: float | None = None
    keep: str = DUPLICATES.keep
    protect: tuple[str, ...] = ()
    min_size: int = 2
    within_folder: bool = False
    across_folders: bool = False
    similar: bool = False
    siblings: bool = False
    confirm: bool = True
    kinds: tuple[str, ...] = ()
    group_of: tuple[str, ...] = ()
    filters: tuple[Filter, ...] = ()

    def __post_init__(self) -> None:
        """Raise OptionError for invalid values and combinations."""
        if not (_is_number(self.min_precision) and 0.5 <= self.min_precision < 1):
            raise OptionError(option("min_precision", self.min_precision), " is out of range: 0.5 to below 1.")
        if self.threshold is not None and not (_is_number(self.threshold) and 0 < self.threshold <= 1):
            raise OptionError(option("threshold", self.threshold), " is out of range: above 0 and at most 1.")
        if not _is_whole(self.min_size) or self.min_size < 2:
            raise OptionError(option("min_size", self.min_size), " is out of range: a group has at least 2 photos.")
        if not isinstance(self.keep, str):
            raise OptionError(option("keep", self.keep), ' is no list of rules such as "resolution,oldest".')
        if self.within_folder and self.across_folders:
            across = Spelled("across_folders=True", "--across-folders-only")
            raise OptionError(option("within_folder"), " and ", across, " exclude each other.")
        for kind in self.kinds:
            if kind not in KINDS:
                raise OptionError(f"There is no kind {kind!r} of duplicates. Available: {', '.join(KINDS)}.")


def _is_number(value: object) -> bool:
    return isinstance(value, Real)


def _is_whole(value: Any) -> bool:
    try:
        operator.index(value)
    except TypeError:
        return False
    return True


def folders_in(root: Path | None, named: Folders) -> list[str]:
    """Return one folder or several relative to the photo folder, as they are if that is not known.

    Raises OptionError as `path_in_folder` does.
    """
    folders = [named] if isinstance(named, str | os.PathLike) else named
    return [path_in_folder(root, folder) if root is not None else os.fspath(folder) for folder in folders]


def protected_folders(root: Path | None, named: Folders, paths: Iterable[str]) -> tuple[str, ...]:
    """Return the folders to protect, relative to the photo folder; `paths` are those of the photos in the index.

    Logs a warning for a folder without a photo of the index. Raises OptionError for one that does not exist, which
    may be misspelt, and as `path_in_folder` does.
    """
    folders = folders_in(root, named)
    for folder in _without_photos(folders, paths):
        if root is None or not os.path.lexists(root / folder):
            raise OptionError(
                option("protect", folder), f": there is no such folder or file in the photo folder {root}."
            )
        log.warning("No photo of the index is in %s, so there is nothing to protect.", root / folder)
    return tuple(folders)


def _without_photos(folders: Sequence[str], paths: Iterable[str]) -> list[str]:
    """Return the folders that hold none of the photos, and are none; `paths` are read until all hold one."""
    left = {folder: "" if folder == "." else f"{folder}/" for folder in folders}
    for path in paths if left else ():
        for folder in [each for each, inside in left.items() if path.startswith(inside) or path == each]:
            del left[folder]
        if not left:
            break
    return list(left)


def path_in_folder(root: Path, named: str | os.PathLike[str]) -> str:
    """Return the path of a photo or folder relative to the photo folder `root`, as POSIX.

    `named` is a path relative to the current directory or to the photo folder, or an absolute path. Raises
    OptionError if it is outside the photo folder.
    """
    path = from_home(named)
    if path.exists() and path.resolve().is_relative_to(root.resolve()):
        return path.resolve().relative_to(root.resolve()).as_posix()
    if not path.is_absolute() and ".." not in PurePosixPath(named).parts:
        return PurePosixPath(named).as_posix()
    raise OptionError(f"{named} is not in the photo folder {root}.")


def named_photos(root: Path, named: Sequence[str]) -> list[str]:
    """Return the paths of photos that a user names, each once, see `path_in_folder`."""
    return list(dict.fromkeys(path_in_folder(root, each) for each in named))


def check_named(root: Path, paths: Sequence[str], known: Collection[str], least: int = 2) -> None:
    """Raise OptionError unless these are `least` to MOST_PHOTOS paths, and all are `known`: those in the index."""
    for path in paths:
        if path not in known:
            raise OptionError(
                f"{path} is not in the index. If it is new, update the index: ",
                Spelled("index.update()", f"vggsearch index {shell_word(root)}"),
            )
    if len(paths) < least:
        one_or_pair = "Name at least one photo." if least == 1 else PAIR_WANTED
        raise OptionError(one_or_pair)
    if len(paths) > MOST_PHOTOS:
        raise OptionError(f"A decision about {len(paths):,} photos is not possible: name at most {MOST_PHOTOS:,}.")
