"""Import FAISS, after checking that exactly one FAISS package is installed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any, TypeAlias

from vggsearch.errors import InstallationError
from vggsearch.system.collecting import without_garbage_collection
from vggsearch.system.forks import native_threads
from vggsearch.system.installation import check_distributions, distribution, installed
from vggsearch.system.limits import check_room

FaissIndex: TypeAlias = Any  # any class of FAISS index: SWIG generates them without type information

WAIT_POLICY = "OMP_WAIT_POLICY"
CUDA_BYTES, CPU_BYTES = 1_600_000_000, 260_000_000  # of address space; 1.66 and 0.35 GB were taken on two cores
THREAD_BYTES = 50_000_000
PACKAGES = ("faiss", "faiss-cpu", "faiss-gpu", "faiss-gpu-cu11", "faiss-gpu-cu12", "faiss-gpu-cuvs")


@cache
def faiss() -> ModuleType:
    """Return the faiss module. Raises InstallationError if no FAISS package is installed, or more than one.

    All FAISS packages install the same `faiss` folder, so two of them overwrite each other's files.
    """
    check_distributions()
    packages = installed(PACKAGES)
    if len(packages) > 1:
        raise InstallationError(
            f"Several FAISS packages are installed, {' and '.join(packages)}, and overwrite each other. "
            f"Remove all, then install one: pip uninstall {' '.join(packages)}; pip install {distribution()}"
        )
    check_room("FAISS", _size(packages))
    try:
        with _passive_waiting(), without_garbage_collection():
            import faiss as module
    except (ImportError, RuntimeError) as error:  # faiss-gpu raises the second for a CUDA library
        raise InstallationError(
            f"FAISS cannot be imported ({error}). Install it: pip install {distribution()}"
        ) from error
    return module


def _size(packages: list[str]) -> int:
    """Return how many bytes of address space FAISS takes: CUDA, and buffers of OpenBLAS for each thread."""
    libraries = CUDA_BYTES if any(package.startswith("faiss-gpu") for package in packages) else CPU_BYTES
    return libraries + THREAD_BYTES * (os.cpu_count() or 1)


@contextmanager
def _passive_waiting() -> Iterator[None]:
    """Make the OpenMP runtime loaded inside the block let waiting threads sleep, unless the user set a policy.

    By default waiting threads spin. When other programs need the CPU as well, threads then wait for spinning ones:
    training on a thousand vectors took 80 s rather than 3 s. OpenMP reads the variable only while it is loaded, so
    it is removed afterwards and does not affect torch's runtime.
    """
    if WAIT_POLICY in os.environ:
        yield
        return
    os.environ[WAIT_POLICY] = "PASSIVE"
    try:
        yield
    finally:
        del os.environ[WAIT_POLICY]


def failure_reason(error: RuntimeError) -> str:
    """Return the reason in an error of FAISS, in one line, without the position in its source code."""
    return str(error).split("failed: ")[-1].strip().splitlines()[0]


def restore_thread_count() -> None:
    """Set the number of OpenMP threads of the calling thread to that of the first caller, before FAISS runs.

    OpenMP keeps this number per thread, and other libraries in this process change it. Raises ForkError.
    """
    native_threads.start()
    faiss().omp_set_num_threads(_threads())


@cache
def _threads() -> int:
    return int(faiss().omp_get_max_threads())
