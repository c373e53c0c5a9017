"""Run work in a forked child, so that a native crash, a hang or a kill ends one case and is seen.

The process that forks must not have used FAISS, the network or Arrow, whose threads a fork does not copy. So all
that does is run in a child.
"""

import os
import pickle
import resource
import select
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from time import monotonic, sleep
from typing import IO, Generic, NoReturn, TypeVar

import pyarrow.parquet  # noqa: F401 - imported here, once, rather than in each child; used in none but them

from vggsearch.cli.main import COMMANDS, cli
from vggsearch.knn.faiss_import import faiss
from vggsearch.model import openvino_engine  # noqa: F401

T = TypeVar("T")

LIMIT_S = 600.0
OUTLIVES_S = 10.0
MOST_BYTES = 12_000_000_000  # of address space: a child that asks for more gets a MemoryError
faiss()
for lazy in COMMANDS.values():
    lazy.load()

TRACEBACK = "Traceback (most recent call last)"


@dataclass(frozen=True)
class Ended(Generic[T]):
    """How a child ended: its exit status, negative for a signal, what it printed, and the value of its work.

    `seconds` is how long it ran, `peak` the most memory of it or a process that it started, in bytes. It is
    `outlived` if a process that it had started when it was killed goes on for more than ten seconds.
    """

    status: int
    stdout: bytes
    stderr: str
    value: T | None
    seconds: float
    peak: int
    outlived: bool

    def faults(self) -> list[str]:
        """Return what must never happen: a traceback, or the end by a signal."""
        if self.status < 0:
            return [f"died of {signal.Signals(-self.status).name}: {self.stderr[-300:]!r}"]
        return [f"traceback: {self.stderr[-600:]!r}"] if TRACEBACK in self.stderr else []

    def result(self) -> T:
        """Return the value. Raises RuntimeError for another status than 0."""
        if self.status != 0:
            raise RuntimeError(f"a child ended with {self.status}: {self.stderr}")
        return self.value  # type: ignore[return-value]


def in_child(work: Callable[[], T], kill_after: float | None = None, limit: float = LIMIT_S) -> Ended[T]:
    """Run `work` in a child; send it SIGKILL after some seconds, or SIGABRT if it takes longer than the limit."""
    with TemporaryFile() as stdout, TemporaryFile() as stderr, TemporaryFile() as result:
        started = monotonic()
        pid = os.fork()
        if pid == 0:
            _work(work, stdout, stderr, result)
        handle, started_by_it = os.pidfd_open(pid), list[int]()
        try:
            if not select.select([handle], [], [], limit if kill_after is None else kill_after)[0]:
                started_by_it = children_of(pid)
                os.kill(pid, signal.SIGABRT if kill_after is None else signal.SIGKILL)
            _, status, usage = os.wait4(pid, 0)
        finally:
            os.close(handle)
        seconds = monotonic() - started
        for file in (stdout, stderr, result):
            file.seek(0)
        pickled = result.read()
        return Ended(
            os.waitstatus_to_exitcode(status),
            stdout.read(),
            stderr.read().decode("utf-8", "backslashreplace"),
            pickle.loads(pickled) if pickled else None,  # noqa: S301 - our own
            seconds,
            usage.ru_maxrss * 1024,
            any(not has_ended(each) for each in started_by_it),
        )


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += map(int, task.read_text().split())
    return found


def has_ended(pid: int) -> bool:
    """Wait up to ten seconds for a process that is no child of ours to end; return whether it has."""
    until = monotonic() + OUTLIVES_S
    while monotonic() < until:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        sleep(0.01)
    return False


def vggsearch(*words: str, cwd: Path, kill_after: float | None = None, limit: float = LIMIT_S) -> Ended[None]:
    """Run a command in a folder."""
    return in_child(partial(be_command, words, cwd), kill_after, limit)


def be_command(words: tuple[str, ...], cwd: Path) -> None:
    """Be the command, in a child."""
    os.chdir(cwd)
    cli.main(list(words), prog_name="vggsearch")


def _work(work: Callable[[], object], stdout: IO[bytes], stderr: IO[bytes], result: IO[bytes]) -> NoReturn:
    status = 1
    try:
        _redirect(stdout, stderr)
        resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
        value = work()
        pickle.dump(value, result)
        result.flush()
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:  # noqa: BLE001 - shown as Python would
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)


def _redirect(stdout: IO[bytes], stderr: IO[bytes]) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, source in enumerate((nothing, stdout.fileno(), stderr.fileno())):
        os.dup2(source, number)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
