"""Locks on open files, where the system and the file system have them. They end with the process."""

import sys
import time
from typing import IO, Any

if sys.platform != "win32":
    import fcntl

ATTEMPTS, PAUSE_S = 20, 0.05  # `is_locked` holds a lock for a moment


def lock(file: IO[Any]) -> bool:
    """Lock an open file until it is closed. Return False if it is locked elsewhere, also in this process."""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(PAUSE_S)
        if _flock(file, is_shared=False):
            return True
    return False


def is_locked(file: IO[Any]) -> bool:
    """Return whether an open file is locked elsewhere. Close it soon: until then, nobody can lock it."""
    return not _flock(file, is_shared=True)


def _flock(file: IO[Any], *, is_shared: bool) -> bool:
    """Try to lock a file; True also where files cannot be locked."""
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True
