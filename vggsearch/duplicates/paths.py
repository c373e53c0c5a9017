"""Where a photo or a folder that a person names is in the photo folder."""

from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath

from vggsearch.errors import OptionError


def inside(root: Path, named: str) -> str:
    """Return the path in the photo folder of what is named from here, or as the index names it: POSIX, relative.

    Raises OptionError for what is elsewhere.
    """
    path = Path(named)
    if path.exists() and path.resolve().is_relative_to(root.resolve()):
        return path.resolve().relative_to(root.resolve()).as_posix()
    if not path.is_absolute() and ".." not in PurePosixPath(named).parts:
        return PurePosixPath(named).as_posix()
    raise OptionError(f"{named} is not in the photo folder {root}. Name what is in it, as vggsearch dups shows it.")


def photos_named(root: Path, named: Sequence[str], known: Collection[str]) -> list[str]:
    """Return the paths of photos that a person names, each once. Raises OptionError for one that is not known."""
    paths = list(dict.fromkeys(inside(root, each) for each in named))
    for path in paths:
        if path not in known:
            raise OptionError(f"{path} is not in the index. If it is new: vggsearch index {root}")
    if len(paths) < 2:
        raise OptionError("Name two photos or more: what is said is said of each two of them.")
    return paths
