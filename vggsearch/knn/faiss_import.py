"""Import FAISS, after checking that the environment holds exactly one of it."""

import importlib.metadata
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType

from vggsearch.errors import InstallationError

WAIT_POLICY = "OMP_WAIT_POLICY"
PACKAGES = ("faiss", "faiss-cpu", "faiss-gpu", "faiss-gpu-cu11", "faiss-gpu-cu12", "faiss-gpu-cuvs")


@cache
def faiss() -> ModuleType:
    """Return the faiss module. Raises InstallationError where there is none, or more than one.

    All FAISS packages install the same `faiss` folder, so that with two of them each holds half of the other.
    """
    installed = installed_packages()
    if len(installed) > 1:
        raise InstallationError(
            f"Two FAISS packages are in one environment, {' and '.join(installed)}, and overwrite each other. "
            f"Remove all of them, then install one: pip uninstall {' '.join(installed)}; pip install vggsearch"
        )
    try:
        with _waiting_asleep():
            import faiss as module
    except ImportError as error:
        raise InstallationError(f"FAISS cannot be imported ({error}). Install it: pip install vggsearch") from error
    return module


@contextmanager
def _waiting_asleep() -> Iterator[None]:
    """Let the OpenMP that is loaded meanwhile put threads to sleep that wait for others, unless a person chose.

    By itself it lets them spin. Where other programs want the processors, too, each waits for one that spins:
    learning a thousand vectors took 80 s rather than 3. It asks only when it is loaded; torch's is not to change.
    """
    if WAIT_POLICY in os.environ:
        yield
        return
    os.environ[WAIT_POLICY] = "PASSIVE"
    try:
        yield
    finally:
        del os.environ[WAIT_POLICY]


def reason_of(error: RuntimeError) -> str:
    """Return why FAISS failed, in one line, without where in its source."""
    return str(error).split("failed: ")[-1].strip().splitlines()[0]


def use_threads() -> None:
    """Let FAISS use in the calling thread as many threads as in the one that first asked.

    OpenMP keeps that number for each thread apart, and other libraries in this process change it.
    """
    faiss().omp_set_num_threads(_threads())


@cache
def _threads() -> int:
    return int(faiss().omp_get_max_threads())


def installed_packages() -> list[str]:
    """Return the names of the FAISS packages in this environment."""
    found = []
    for name in PACKAGES:
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        found.append(name)
    return found
