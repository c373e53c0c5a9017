"""What may not be done. A plan asks before, and performing asks again immediately before each act."""

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vggsearch.errors import ActionRefused, OptionError, PhotosError
from vggsearch.photos.walk import is_clutter
from vggsearch.removal.companions import companions, raw_partner, twins
from vggsearch.removal.files import FoundFile, look, reading
from vggsearch.removal.request import Action, Removal

Identity = tuple[int, int]  # device and inode: one file or folder, under whatever name
Listings = dict[Path, list[str]]  # the names in each folder that was looked into


@dataclass(frozen=True, slots=True)
class Examined:
    """A removal that nothing speaks against so far: its photo, its keeper, and what goes with the photo."""

    removal: Removal
    photo: FoundFile
    keeper: FoundFile
    companions: tuple[FoundFile, ...]


class Rules:
    """The rules of one run. `protect` are folders, or files, that are never touched."""

    def __init__(self, root: Path, action: Action, protect: Sequence[Path] = (), with_raw: bool = False) -> None:
        """Raise PhotosError without a photo folder, OptionError for folders that cannot be meant."""
        try:
            self.root = Path(os.path.realpath(root, strict=True))
        except OSError as error:
            raise PhotosError(f"{root} is not there ({error.strerror}). Is its disk mounted?") from error
        self.action = _settled(action, self.root)
        self.with_raw = with_raw
        self.protected = frozenset(_identity_of_protected(each) for each in protect)
        self._folders: dict[Path, bool] = {}
        if self.action.folder is not None and self._is_protected(self.action.folder):
            raise OptionError(f"{self.action.folder} is protected, so that nothing can be moved there.")

    def examine(
        self, removal: Removal, leaving: Collection[str] = (), listings: Listings | None = None
    ) -> Examined:
        """Look at a photo, its keeper and what belongs to it. Raises ActionRefused where it is to be left alone.

        `leaving` are paths that go before this one. No file is read here. Folders are listed anew, unless they are
        in `listings`, which takes them down.
        """
        photo = look(self.root, removal.path)
        if photo.status.st_size != removal.bytes:
            raise ActionRefused(
                f"{removal.path} has changed since it was indexed: {photo.status.st_size:,} bytes, not "
                f"{removal.bytes:,}. Run vggsearch index again"
            )
        self._check_protection(photo)
        keeper = self._keeper(removal, photo)
        if self.action.makes_links:
            self._check_link(removal, photo, keeper)
            return Examined(removal, photo, keeper, ())
        siblings = _siblings(photo, listings)
        partner = raw_partner(photo.path.name, siblings)
        if partner is not None and not self.with_raw:
            raise ActionRefused(f"{removal.path} and {partner} are a RAW and JPEG pair, which would be torn apart")
        gone = {name for name in siblings if beside(removal.path, name) in leaving}
        found = [
            look(self.root, beside(removal.path, name)) for name in companions(photo.path.name, siblings, gone)
        ]
        for companion in found:
            self._check_protection(companion)
            if self.action.kind == "delete" and not self.twins(keeper, companion, listings):
                raise only_one_of_its_kind(companion, keeper)
        return Examined(removal, photo, keeper, tuple(found))

    def twins(self, keeper: FoundFile, companion: FoundFile, listings: Listings | None = None) -> list[FoundFile]:
        """Return the keeper's own companions that may be the same as a companion of its copy: of the same size."""
        found = []
        for name in twins(keeper.path.name, _siblings(keeper, listings)):
            try:
                twin = look(self.root, beside(keeper.inside, name))
            except ActionRefused:
                continue
            if twin.status.st_size == companion.status.st_size and not twin.is_same_file(companion):
                found.append(twin)
        return found

    def _keeper(self, removal: Removal, photo: FoundFile) -> FoundFile:
        try:
            keeper = look(self.root, removal.keeper)
        except ActionRefused as error:
            raise ActionRefused(f"the photo to keep cannot be relied on: {error}") from error
        if keeper.is_same_file(photo):
            raise ActionRefused(
                f"{removal.path} and {removal.keeper} are one and the same file, a hard link or one name in two "
                "spellings: removing one frees nothing"
            )
        return keeper

    def _check_protection(self, photo: FoundFile) -> None:
        if (photo.status.st_dev, photo.status.st_ino) in self.protected or self._is_protected(photo.path.parent):
            raise ActionRefused(f"{photo.inside} is protected")

    def _is_protected(self, folder: Path) -> bool:
        """Folders are compared as the disk knows them, so that neither spelling nor a second mount matters."""
        if folder not in self._folders:
            self._folders[folder] = any(_identity(each) in self.protected for each in (folder, *folder.parents))
        return self._folders[folder]

    def _check_link(self, removal: Removal, photo: FoundFile, keeper: FoundFile) -> None:
        if not removal.is_exact:
            raise ActionRefused(
                f"{removal.path} has other bytes than {removal.keeper}, and a link would replace them: choose "
                "trash or move:DIR"
            )
        if self.action.kind == "hardlink" and photo.status.st_dev != keeper.status.st_dev:
            raise ActionRefused(f"{removal.keeper} is on another volume, where no hard link leads: choose symlink")


def beside(inside: str, name: str) -> str:
    """Return the path of another name in the folder of `inside`."""
    return str(PurePosixPath(inside).with_name(name))


def _siblings(photo: FoundFile, listings: Listings | None) -> list[str]:
    """Return the names in a photo's folder that begin like it; a folder may have a hundred thousand."""
    folder = photo.path.parent
    if listings is None or folder not in listings:
        with reading(photo.inside):
            names = os.listdir(folder)  # noqa: PTH208 - names are what is wanted
        listings = {} if listings is None else listings
        listings[folder] = names
    stem = photo.path.stem
    return [name for name in listings[folder] if name.startswith(stem)]


def only_one_of_its_kind(companion: FoundFile, keeper: FoundFile) -> ActionRefused:
    """Say why a photo is not deleted whose companion would be lost with it."""
    return ActionRefused(
        f"{companion.inside} would be lost with its photo, as {keeper.inside} has no such file: choose trash or "
        "move:DIR"
    )


def _settled(action: Action, root: Path) -> Action:
    """Return the action with its folder absolute. Raises OptionError where an index would find it again."""
    if action.folder is None:
        return action
    folder = Path(os.path.realpath(action.folder))
    if folder.is_relative_to(root) and not any(is_clutter(part) for part in folder.relative_to(root).parts):
        raise OptionError(
            f"{action.folder} is in the photo folder {root}, so that the next index would find the photos again. "
            "Move them elsewhere, or into a folder whose name begins with a dot."
        )
    return Action(action.kind, folder)


def _identity_of_protected(path: Path) -> Identity:
    found = _identity(path)
    if found is None:
        raise OptionError(f"{path} is to be protected, but is not there.")
    return found


def _identity(path: Path) -> Identity | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
