"""The limits that a shell or a service manager sets for a process."""

import mmap

from vggsearch.errors import InstallationError
from vggsearch.system.units import decimal

LEAST_ADDRESS_SPACE = 1_000_000_000  # bytes; with 0.7 GB, a thread of a library aborts the process now and then


def address_space() -> int | None:
    """Return to how many bytes the address space of this process is limited, None if it is not."""
    try:
        import resource  # not on Windows, which has no such limit
    except ImportError:
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if limit == resource.RLIM_INFINITY else limit


def check_address_space() -> None:
    """Raise InstallationError if the address space is limited to less than every command needs.

    Libraries that run out of memory while they are loaded crash, or fail with an error that does not tell why.
    """
    limit = address_space()
    if limit is not None and limit < LEAST_ADDRESS_SPACE:
        raise InstallationError(
            f"The memory of this process is limited to {decimal(limit)}, and vggsearch needs at least "
            f"{decimal(LEAST_ADDRESS_SPACE)} to start. Raise the limit: ulimit -v unlimited"
        )


def check_room(library: str, size: int) -> None:
    """Raise InstallationError if a limit of the address space leaves less than the `size`, in bytes, of a library.

    It would crash while it is loaded.
    """
    limit = address_space()
    if limit is None:
        return
    try:
        mmap.mmap(-1, size).close()
    except (OSError, ValueError):
        raise InstallationError(
            f"{library} needs {decimal(size)} of memory to be loaded, and the limit of {decimal(limit)} of this "
            f"process does not leave as much. Raise the limit: ulimit -v unlimited"
        ) from None
