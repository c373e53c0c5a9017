"""One writer at a time. The lock is the operating system's, so it ends with its process, however that ends."""

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from vggsearch.errors import IndexLocked
from vggsearch.store.contents import LOCK, LOCK_HOLDER
from vggsearch.store.files import writing_to


@contextmanager
def only_writer(directory: Path) -> Iterator[None]:
    """Be the one process that writes to the index. Raises IndexLocked where another is, IndexNotWritable."""
    lock, holder = FileLock(directory / LOCK, timeout=0), directory / LOCK_HOLDER
    with writing_to(directory):
        try:
            lock.acquire()
        except Timeout as error:
            who = _holder(holder)
            raise IndexLocked(f"{directory} is being written by {who}. Wait for it, or stop it.") from error
    try:
        with writing_to(holder):
            holder.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield
    finally:
        with suppress(OSError):
            holder.unlink(missing_ok=True)
        lock.release()


def _holder(holder: Path) -> str:
    """Return who holds the lock, as far as that is known.

    A writer that was killed leaves its name behind, and the next one needs a moment to write its own.
    """
    try:
        text = holder.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return "another process"
    named = re.fullmatch(r"process (\d+) on (.+)", text, re.DOTALL)
    if named is None or (named[2] == socket.gethostname() and not _is_running(int(named[1]))):
        return "another process"
    return text


def _is_running(process: int) -> bool:
    if os.name == "nt":
        return True  # there, os.kill would end it
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
