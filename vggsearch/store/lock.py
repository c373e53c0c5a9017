"""A lock for one writer at a time. The operating system releases it when its process ends, in whatever way."""

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
from vggsearch.store.own_files import check_links, delete


@contextmanager
def only_writer(directory: Path) -> Iterator[None]:
    """Hold the write lock of an index. Raises IndexLocked if another process holds it, and IndexNotWritable.

    Raises IndexLinked for a link in the index, also in place of the lock, which opening might empty.
    """
    check_links(directory)
    lock, holder = FileLock(directory / LOCK, timeout=0), directory / LOCK_HOLDER
    with writing_to(directory):
        try:
            lock.acquire()
        except Timeout as error:
            raise IndexLocked(
                f"{directory} is being written by {_holder(holder)}. Wait until it has finished, or stop it."
            ) from error
    try:
        with writing_to(holder):
            delete(directory, holder)  # of a killed writer
            with holder.open("x", encoding="utf-8") as file:
                file.write(f"process {os.getpid()} on {socket.gethostname()}")
        yield
    finally:
        with suppress(OSError):
            delete(directory, holder)
        lock.release()


def _holder(holder: Path) -> str:
    """Return which process holds the lock, if known.

    A killed writer leaves its entry behind, and the next writer needs a moment to replace it.
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
        return True  # on Windows, os.kill would end it
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
