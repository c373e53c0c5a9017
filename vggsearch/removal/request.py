"""What is asked of this room: which file is to go, as a copy of which, and how."""

from dataclasses import dataclass
from pathlib import Path

from vggsearch.defaults import ACTIONS, ActionKind
from vggsearch.errors import OptionError


@dataclass(frozen=True, slots=True)
class Removal:
    """A photo to remove, and the photo that is kept in its place. Paths are POSIX, relative to the photo folder.

    Both sha256 and `bytes` are what the index says. Equal sha256 make it an exact copy; else it is a near one.
    """

    path: str
    sha256: str
    bytes: int
    keeper: str
    keeper_sha256: str

    @property
    def is_exact(self) -> bool:
        """Whether the keeper has the very same bytes."""
        return self.sha256 == self.keeper_sha256


@dataclass(frozen=True, slots=True)
class Action:
    """What happens to a removed file. `folder` is where `move` puts it, None for the others."""

    kind: ActionKind
    folder: Path | None = None

    def __post_init__(self) -> None:
        if (self.kind == "move") != (self.folder is not None):
            raise OptionError("move needs a folder, as in move:DIR; the other actions take none.")

    @classmethod
    def parse(cls, text: str) -> "Action":
        """Read `trash`, `move:DIR`, `hardlink`, `symlink` or `delete`. Raises OptionError for anything else."""
        kind, _, folder = text.partition(":")
        for known in ACTIONS:
            if kind == known:
                return cls(known, Path(folder) if folder else None)
        raise OptionError(f"There is no action {text!r}. Choose trash, move:DIR, hardlink, symlink or delete.")

    @property
    def makes_links(self) -> bool:
        """Whether the path stays, leading to the keeper's bytes."""
        return self.kind in ("hardlink", "symlink")

    def __str__(self) -> str:
        return self.kind if self.folder is None else f"{self.kind}:{self.folder}"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A file that is left alone, and why, in words. `path` is relative to the photo folder."""

    path: str
    reason: str
