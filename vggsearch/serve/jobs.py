"""Work that takes longer than a request: its progress, its result, and how to stop it."""

import asyncio
import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Event, Lock
from typing import Any, Literal

from vggsearch.defaults import SERVE
from vggsearch.errors import Stopped
from vggsearch.progress import OnProgress, Progress, Stop
from vggsearch.serve.answers import as_json, busy, not_found, problem_of

State = Literal["waiting", "running", "done", "failed", "stopped"]
Values = dict[str, object]
Work = Callable[[OnProgress, Stop], Any]  # returns a report, also within a Stopped
Describe = Callable[[Any], Values]  # a report for JSON

POLL_SECONDS = 0.1  # between two looks at a job on behalf of a client
PING_SECONDS = 15.0  # without progress, after which a client is told that the connection is alive
WORKERS = 2  # jobs at once: an update must not keep the duplicates waiting


@dataclass(eq=False)
class Job:
    """One piece of work. `version` grows with each change of the others."""

    id: str
    kind: str
    work: Work = field(repr=False)
    describe: Describe = field(repr=False)
    state: State = "waiting"
    progress: Values = field(default_factory=dict)
    result: Values | None = None
    error: Values | None = None
    version: int = 0
    _asked_to_stop: Event = field(default_factory=Event)
    _stage: tuple[str, float] = ("", 0.0)

    @property
    def has_ended(self) -> bool:
        """Whether there is nothing more to wait for."""
        return self.state in ("done", "failed", "stopped")

    def stop(self) -> None:
        """Ask it to end early; what is finished is kept."""
        self._asked_to_stop.set()

    def run(self) -> None:
        """Do the work."""
        self._become("running")
        try:
            if self._asked_to_stop.is_set():
                raise Stopped
            self.result = self.describe(self.work(self._show, self._asked_to_stop.is_set))
            self._become("done")
        except Stopped as stopped:
            self.result = self.describe(stopped.report) if stopped.report is not None else None
            self.error = problem_of(stopped).values()
            self._become("stopped")
        except Exception as error:  # noqa: BLE001 - the client is told; problem_of logs what was not foreseen
            self.error = problem_of(error).values()
            self._become("failed")

    def _become(self, state: State) -> None:
        self.state = state
        self.version += 1

    def _show(self, progress: Progress) -> None:
        now = time.monotonic()
        if self._stage[0] != progress.stage:
            self._stage = progress.stage, now
        seconds = now - self._stage[1]
        self.progress = {
            "stage": progress.stage,
            "done": progress.done,
            "total": progress.total,
            "unit": progress.unit,
            "note": progress.note,
            "rate": round(progress.done / seconds, 2) if seconds > 0 else None,
        }
        self.version += 1

    def values(self) -> Values:
        """Return the job for JSON."""
        values: Values = {"job": self.id, "kind": self.kind, "state": self.state, "progress": self.progress or None}
        return values | {"result": self.result, "error": self.error}


class Jobs:
    """The jobs that wait, run, or ended not long ago."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._adding = Lock()
        self._is_ending = False
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="job")

    def close(self) -> None:
        """Stop all jobs, and wait until they have ended."""
        self.stop_all()
        self._pool.shutdown()

    def stop_all(self) -> None:
        """Ask all jobs to end early, and tell who follows one at once: a job may take long to end."""
        self._is_ending = True
        for job in list(self._jobs.values()):
            job.stop()

    @property
    def running(self) -> int:
        """The number of jobs that have not ended."""
        return sum(not job.has_ended for job in list(self._jobs.values()))

    def start(self, kind: str, work: Work, describe: Describe) -> Job:
        """Start a job, or let it wait for others; `describe` its report. Raises Problem if too many wait."""
        with self._adding:
            if self.running >= SERVE.jobs:
                raise busy("Too many jobs are waiting. Try again when one has ended.")
            for old in [job.id for job in self._jobs.values() if job.has_ended][: -SERVE.jobs_remembered]:
                del self._jobs[old]
            job = Job(secrets.token_hex(8), kind, work, describe)
            self._jobs[job.id] = job
            self._pool.submit(job.run)
        return job

    def find(self, id: str) -> Job:
        """Return a job. Raises Problem."""
        job = self._jobs.get(id)
        if job is None:
            raise not_found("There is no such job, or it ended long ago.")
        return job

    async def events(self, job: Job) -> AsyncIterator[bytes]:
        """Yield the progress of a job as server-sent events, and at last its `result` or `error`."""
        seen, last = -1, time.monotonic()
        while not (job.has_ended or self._is_ending):
            if job.version != seen:
                seen, last = job.version, time.monotonic()
                yield _event("progress", job.progress | {"state": job.state})
            elif time.monotonic() - last > PING_SECONDS:
                last = time.monotonic()
                yield b": still there\n\n"
            await asyncio.sleep(POLL_SECONDS)
        if job.progress:
            yield _event("progress", job.progress | {"state": job.state})
        yield _event("result", job.result) if job.state == "done" else _event("error", _failure(job))


def _failure(job: Job) -> Values:
    """Return why a job has no result, and what it had done when it was stopped."""
    return (job.error or busy("The server is being stopped.").values()) | {"state": job.state, "result": job.result}


def _event(name: str, values: Values | None) -> bytes:
    return f"event: {name}\ndata: {as_json(values)}\n\n".encode()
