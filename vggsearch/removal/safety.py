"""The safety rules. They are checked when a plan is made, and again immediately before each removal."""

import os
from bisect import bisect_left
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile
from pathlib import Path, PurePosixPath

from vggsearch.errors import ActionRefused, OptionError, PhotosError, option
from vggsearch.photos.addresses import address_of, is_address
from vggsearch.photos.walk import is_indexed
from vggsearch.removal.companions import common_start, companions, is_video, keeper_companions, raw_partner
from vggsearch.removal.files import FoundFile, find_file, refusing_read_errors
from vggsearch.removal.live_photos import is_live_photo
from vggsearch.removal.request import Action, Removal

Identity = tuple[int, int]  # device and inode: one file or folder, whatever its name
Listings = dict[Path, list[str]]  # the names in each folder that was listed, sorted


@dataclass(frozen=True, slots=True)
class ExaminedRemoval:
    """A removal that no rule forbids: its photo, its keeper, and the companions that go with the photo."""

    removal: Removal
    photo: FoundFile
    keeper: FoundFile
    companions: tuple[FoundFile, ...]


class SafetyRules:
    """The rules of one run. `protect` are folders or files that are never touched."""

    def __init__(self, root: Path, action: Action, protect: Sequence[Path] = (), raw_pairs: bool = False) -> None:
        """Raise PhotosError if the photo folder is missing, OptionError for unsuitable folders."""
        if is_address(root):
            raise PhotosError(
                f"The photos are in {address_of(root)}: vggsearch removes, moves and links files on a disk only. "
                "Remove them there, by the paths of the duplicates."
            )
        try:
            self.root = Path(os.path.realpath(root, strict=True))
        except OSError as error:
            raise PhotosError(f"{root} is missing ({error.strerror}). Is its disk mounted?") from error
        self.action = _resolved(action, self.root)
        self.raw_pairs = raw_pairs
        self.protected = frozenset(_identity_of_protected(each) for each in protect)
        self._folders: dict[Path, bool] = {}
        if self.action.folder is not None and self._is_protected(self.action.folder):
            raise OptionError(f"{self.action.folder} is protected, so nothing can be moved there.")

    def examine(
        self, removal: Removal, leaving: Collection[str] = (), listings: Listings | None = None
    ) -> ExaminedRemoval:
        """Find a photo, its keeper and its companions. Raises ActionRefused if the photo has to be left alone.

        `leaving` are paths that are removed before this one. No file is read but videos beside a photo, and the
        photo, to see whether they are one Live Photo. Folders are listed unless they are in
        `listings`, which caches them.
        """
        photo = find_file(self.root, removal.path)
        if photo.status.st_size != removal.bytes:
            raise ActionRefused(
                f"{removal.path} has changed since it was indexed ({photo.status.st_size:,} bytes, not "
                f"{removal.bytes:,}): update the index"
            )
        self._check_protection(photo)
        keeper = self._keeper(removal, photo)
        if self.action.makes_links:
            self._check_link(removal, photo, keeper)
            return ExaminedRemoval(removal, photo, keeper, ())
        siblings = _siblings(photo, listings)
        partner = raw_partner(photo.path.name, siblings)
        if partner is not None and not self.raw_pairs:
            raise ActionRefused(
                f"{removal.path} and {partner} are a RAW and JPEG pair; allow removing one of them with ",
                option("raw_pairs"),
            )
        gone = {name for name in siblings if sibling_path(removal.path, name) in leaving}
        beside = [
            find_file(self.root, sibling_path(removal.path, name))
            for name in companions(photo.path.name, siblings, gone)
        ]
        found = [each for each in beside if self._goes_along(each, photo, keeper, listings)]
        for companion in found:
            self._check_protection(companion)
            if self.action.kind == "delete" and not self.same_size_companions(keeper, companion, listings):
                raise only_copy_of_companion(companion, keeper)
        return ExaminedRemoval(removal, photo, keeper, tuple(found))

    def same_size_companions(
        self, keeper: FoundFile, companion: FoundFile, listings: Listings | None = None
    ) -> list[FoundFile]:
        """Return the companions of the keeper that may equal one of its copy: those of the same size."""
        found = []
        for name in keeper_companions(keeper.path.name, _siblings(keeper, listings)):
            try:
                twin = find_file(self.root, sibling_path(keeper.relative, name))
            except ActionRefused:
                continue
            if twin.status.st_size == companion.status.st_size and not twin.is_same_file(companion):
                found.append(twin)
        return found

    def _goes_along(
        self, companion: FoundFile, photo: FoundFile, keeper: FoundFile, listings: Listings | None
    ) -> bool:
        """Return whether a companion may go: a video only if the keeper has the same, or its Live Photo goes."""
        if not is_video(companion.path.name) or self.same_size_companions(keeper, companion, listings):
            return True
        return is_live_photo(photo.path, companion.path)

    def _keeper(self, removal: Removal, photo: FoundFile) -> FoundFile:
        try:
            keeper = find_file(self.root, removal.keeper)
        except ActionRefused as error:
            raise ActionRefused(f"the photo to keep is not safe: {error}") from error
        if keeper.is_same_file(photo):
            raise ActionRefused(
                f"{removal.path} and {removal.keeper} are one file (a hard link, or one name in two spellings): "
                "removing one frees nothing"
            )
        return keeper

    def _check_protection(self, photo: FoundFile) -> None:
        if (photo.status.st_dev, photo.status.st_ino) in self.protected or self._is_protected(photo.path.parent):
            raise ActionRefused(f"{photo.relative} is protected")

    def _is_protected(self, folder: Path) -> bool:
        """Folders are compared by device and inode, so neither spelling nor a second mount matters."""
        if folder not in self._folders:
            self._folders[folder] = any(_identity(each) in self.protected for each in (folder, *folder.parents))
        return self._folders[folder]

    def _check_link(self, removal: Removal, photo: FoundFile, keeper: FoundFile) -> None:
        if not removal.is_exact:
            raise ActionRefused(
                f"{removal.path} differs from {removal.keeper}, and a link would replace its bytes: use trash or "
                "move:DIR"
            )
        if self.action.kind == "hardlink" and photo.status.st_dev != keeper.status.st_dev:
            raise ActionRefused(
                f"{removal.keeper} is on another volume, which hard links cannot cross: use symlink"
            )


def sibling_path(relative: str, name: str) -> str:
    """Return the path of another name in the folder of `relative`."""
    return str(PurePosixPath(relative).with_name(name))


def _siblings(photo: FoundFile, listings: Listings | None) -> list[str]:
    """Return the names in a photo's folder that begin as its own: a folder may have a hundred thousand."""
    folder = photo.path.parent
    if listings is None or folder not in listings:
        with refusing_read_errors(photo.relative):
            names = os.listdir(folder)  # noqa: PTH208 - only names are needed
        listings = {} if listings is None else listings
        listings[folder] = sorted(names)
    names, start = listings[folder], common_start(photo.path.name)
    return list(takewhile(lambda name: name.startswith(start), islice(names, bisect_left(names, start), None)))


def only_copy_of_companion(companion: FoundFile, keeper: FoundFile) -> ActionRefused:
    """Return the refusal of a photo whose companion exists nowhere else."""
    return ActionRefused(
        f"{companion.relative} would be lost with its photo, because {keeper.relative} has no equal companion: use "
        "trash or move:DIR"
    )


def _resolved(action: Action, root: Path) -> Action:
    """Return the action with its folder absolute. Raises OptionError if the next update would index that folder."""
    if action.folder is None:
        return action
    folder = Path(os.path.realpath(action.folder))
    if is_indexed(folder, root):
        raise OptionError(
            f"{action.folder} is in the photo folder {root}, so the next update would index the photos again. Move "
            "them elsewhere, or into a folder whose name begins with a dot."
        )
    return Action(action.kind, folder)


def _identity_of_protected(path: Path) -> Identity:
    found = _identity(path)
    if found is None:
        raise OptionError(f"{path}, to be protected, does not exist.")
    return found


def _identity(path: Path) -> Identity | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
