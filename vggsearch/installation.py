"""What the environment holds: one of the two distributions, vggsearch or vggsearch-cpu, with PyTorch or without."""

from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec

from vggsearch.errors import InstallationError, Spelled

DISTRIBUTIONS = ("vggsearch", "vggsearch-cpu")


@cache
def check_distributions() -> None:
    """Raise InstallationError where both distributions are in one environment.

    Both install the folder `vggsearch`, so that each holds files of the other, maybe of another version.
    """
    if len(installed(DISTRIBUTIONS)) > 1:
        raise InstallationError(
            "vggsearch and vggsearch-cpu are both installed and overwrite each other. Remove both and install one: "
            "pip uninstall vggsearch vggsearch-cpu faiss-cpu faiss-gpu; pip install vggsearch (for GPUs), or "
            "vggsearch-cpu"
        )


def installed(names: Iterable[str]) -> list[str]:
    """Return which of these distributions are in the environment."""
    from importlib.metadata import PackageNotFoundError, version  # too slow to import for --help

    found = []
    for name in names:
        try:
            version(name)
        except PackageNotFoundError:
            continue
        found.append(name)
    return found


def distribution() -> str:
    """Return the name of the distribution that is installed; vggsearch where the package runs from a checkout."""
    return next(iter(installed(DISTRIBUTIONS)), DISTRIBUTIONS[0])


def has_torch() -> bool:
    """Return whether PyTorch is installed, without importing it, which takes seconds."""
    return find_spec("torch") is not None


def require_torch(*purpose: str | Spelled) -> None:
    """Raise InstallationError where PyTorch is not installed; `purpose` is what needs it, parts of a message."""
    if not has_torch():
        raise InstallationError(
            *purpose,
            " needs PyTorch. Install vggsearch in place of vggsearch-cpu: "
            "pip uninstall vggsearch-cpu faiss-cpu; pip install vggsearch",
        )
