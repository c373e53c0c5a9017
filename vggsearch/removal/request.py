"""What to remove: which file, as a copy of which, and how."""

from dataclasses import dataclass
from pathlib import Path

from vggsearch.defaults import ACTIONS, ActionKind
from vggsearch.errors import ActionRefused, OptionError
from vggsearch.system.places import from_home


@dataclass(frozen=True, slots=True)
class Removal:
    """A photo to remove, and the photo kept in its place. Paths are POSIX, relative to the photo folder.

    Both sha256 and `bytes` come from the index. Equal sha256 mean an exact copy, others an edited copy.

    >>> removal = index.plan_removal(index.duplicates(), "trash").removals[0].removal
    >>> removal.path, removal.keeper, removal.is_exact
    ('copy of a.jpg', 'a.jpg', True)
    """

    path: str
    sha256: str
    bytes: int
    keeper: str
    keeper_sha256: str

    @property
    def is_exact(self) -> bool:
        """Whether the keeper has exactly the same bytes."""
        return self.sha256 == self.keeper_sha256


@dataclass(frozen=True, slots=True)
class Action:
    """What happens to a removed file. `folder` is where `move` puts it, None for the other actions.

    >>> str(Action.parse("move:duplicates")), Action("hardlink").makes_links
    ('move:duplicates', True)
    """

    kind: ActionKind
    folder: Path | None = None

    def __post_init__(self) -> None:
        if (self.kind == "move") != (self.folder is not None):
            raise OptionError("move needs a folder, as in move:DIR; no other action takes one.")

    @classmethod
    def parse(cls, text: str) -> "Action":
        """Read `trash`, `move:DIR`, `hardlink`, `symlink` or `delete`. Raises OptionError for anything else."""
        kind, _, folder = text.partition(":")
        for known in ACTIONS:
            if kind == known:
                return cls(known, from_home(folder) if folder else None)
        raise OptionError(f"Unknown action {text!r}. Choose trash, move:DIR, hardlink, symlink or delete.")

    @property
    def makes_links(self) -> bool:
        """Whether the path remains as a link to the keeper."""
        return self.kind in ("hardlink", "symlink")

    def __str__(self) -> str:
        return self.kind if self.folder is None else f"{self.kind}:{self.folder}"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A file that was left alone, and why. `path` is relative to the photo folder.

    `shell_reason` is the same reason with options as the command line spells them.

    >>> plan = index.plan_removal(index.duplicates(), "trash", protect=["photos"])
    >>> [refusal.path for refusal in plan.refusals]
    ['copy of a.jpg']
    """

    path: str
    reason: str
    shell_reason: str

    @classmethod
    def of(cls, path: str, error: ActionRefused) -> "Refusal":
        """Return the refusal that an error describes."""
        return cls(path, str(error), error.for_shell())
