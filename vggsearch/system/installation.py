"""What is installed: which of the distributions vggsearch and vggsearch-cpu, and PyTorch or not."""

from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec

from vggsearch.errors import InstallationError, Spelled

DISTRIBUTIONS = ("vggsearch", "vggsearch-cpu")


@cache
def check_distributions() -> None:
    """Raise InstallationError if both distributions are installed in one environment.

    Both install the folder `vggsearch`, so each overwrites files of the other, which may have another version.
    """
    if len(installed(DISTRIBUTIONS)) > 1:
        raise InstallationError(
            "vggsearch and vggsearch-cpu are both installed and overwrite each other. Remove both and install one: "
            "pip uninstall vggsearch vggsearch-cpu faiss-cpu faiss-gpu; pip install vggsearch (for GPUs), or "
            "vggsearch-cpu"
        )


def installed(names: Iterable[str]) -> list[str]:
    """Return which of these distributions are installed."""
    from importlib.metadata import PackageNotFoundError, version  # slow to import: --help does without

    found = []
    for name in names:
        try:
            version(name)
        except PackageNotFoundError:
            continue
        found.append(name)
    return found


def distribution() -> str:
    """Return the name of the installed distribution; vggsearch if the package runs from a checkout."""
    return next(iter(installed(DISTRIBUTIONS)), DISTRIBUTIONS[0])


def has_torch() -> bool:
    """Return whether PyTorch is installed, without importing it, which takes seconds."""
    return find_spec("torch") is not None


def require_torch(*purpose: str | Spelled) -> None:
    """Raise InstallationError if PyTorch is not installed; `purpose` names what needs it, as parts of a message."""
    if not has_torch():
        raise InstallationError(
            *purpose,
            " needs PyTorch. Install vggsearch in place of vggsearch-cpu: "
            "pip uninstall vggsearch-cpu faiss-cpu; pip install vggsearch",
        )
