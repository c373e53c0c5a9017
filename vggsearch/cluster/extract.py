"""Embed photos on the machines of a Ray cluster: a second implementation of indexing.extract.

Ray places the workers and carries what they return. What is tried again is decided here: a chunk of files belongs
to no worker, and goes to any other if its worker dies.
"""

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import vggsearch
from vggsearch.cluster.connection import Connection, first_line, processors_of, ray_module
from vggsearch.cluster.rows import Rows
from vggsearch.cluster.worker import Refusal, Worker
from vggsearch.defaults import CLUSTER, EXTRACT
from vggsearch.errors import ClusterError, OptionError, PhotosError, option
from vggsearch.indexing.extract import unless_known
from vggsearch.model.engine import Engine, EngineOptions
from vggsearch.model.loading import load_engine
from vggsearch.model.spec import EmbeddingSpec
from vggsearch.model.weights import find_again
from vggsearch.photos.addresses import is_address
from vggsearch.photos.walk import PhotoFile, Skipped
from vggsearch.store.records import ContentLookup, Embedded

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster and how to load the network there.

    `address` is that of ray.init, such as "auto" on a machine of the cluster. `workers` is their number, None for
    one per GPU or, without GPUs, one per machine. `weights` is the weights file if it is not a packaged one: it has
    the same path on every machine. `engine`, if given, is sent to the workers in place of what `options` choose.
    """

    address: str
    workers: int | None
    weights: Path | None
    options: EngineOptions
    engine: Engine | None = None

    def extract(
        self,
        files: Iterable[PhotoFile],
        root: Path,
        spec: EmbeddingSpec,
        _load_engine: Callable[[], Engine],
        *,
        known: ContentLookup | None = None,
        workers: int | None = None,
        with_features: bool = False,  # noqa: ARG002 - they are computed afterwards
    ) -> Generator[Embedded | Skipped, None, None]:
        """Yield an Embedded or a Skipped for each file, in the order of `files`; see indexing.extract.extract.

        Content that is `known` takes the embedding that it has, as on one machine: workers hash the files that are
        likely to be known first, and embed only the others. Raises ClusterError if the
        cluster cannot be reached, has no room for workers, or if a chunk was the last of several workers;
        PhotosError for a worker that does not see the photos; InstallationError without Ray.
        """
        todo = list(files)
        if not todo:
            return
        root = place_of(root)
        load = partial(_load, spec, self.weights, self.options, self.engine)
        ray = ray_module()
        with Connection(ray, self.address):
            plan = _plan_workers(ray, self.workers, spec)
            sample = todo[:: max(1, len(todo) // CLUSTER.sample)][: CLUSTER.sample]
            make = partial(
                _start, ray, plan, root, spec, load, workers, sample, known is not None and known.may_know_all
            )
            pool = _Pool(ray, make, plan)
            try:
                for chunk in pool.run(_chunks(todo, plan.count, known)):
                    for item in chunk.items():
                        yield unless_known(item, known)
            finally:
                pool.close()


@dataclass(frozen=True)
class _Plan:
    """How many workers there are, what each takes of its machine, and how many chunks it has at once."""

    count: int
    cpus: int
    gpus: int
    chunks: int


@dataclass
class _Chunk:
    """Some files; those that are likely to be known are hashed first. `found` are known photos by place."""

    number: int
    files: Sequence[PhotoFile]
    known: ContentLookup | None = None
    deaths: int = 0
    is_hashed: bool = False
    hashing: list[int] = field(default_factory=list)  # places of files
    found: dict[int, Embedded] = field(default_factory=dict)
    rows: Rows | None = None

    @property
    def others(self) -> list[PhotoFile]:
        """The files that are to be embedded."""
        return [file for at, file in enumerate(self.files) if at not in self.found]

    def ask(self, actor: Any) -> Any:
        """Ask a worker for what is missing, and return the reference of its answer."""
        if not self.is_hashed and self.known is not None:
            self.hashing = [at for at, file in enumerate(self.files) if self.known.is_worth_reading(file)]
            if self.hashing:
                return actor.hash.remote([self.files[at] for at in self.hashing])
        self.is_hashed = True
        return actor.embed.remote(self.others)

    def take(self, answer: Rows | list[str | None]) -> bool:
        """Take the answer of a worker; return whether nothing is missing."""
        if isinstance(answer, Rows):
            self.rows = answer
            return True
        for at, sha256 in zip(self.hashing, answer, strict=True):
            self._look_up(at, sha256)
        self.is_hashed = True
        return len(self.found) == len(self.files)

    def _look_up(self, at: int, sha256: str | None) -> None:
        if sha256 is None or self.known is None:
            return
        same = self.known.look_up(self.files[at], lambda: sha256)
        if same is not None:
            self.found[at] = same.for_file(self.files[at])

    def items(self) -> Iterator[Embedded | Skipped]:
        """Yield what was found in each file, in order."""
        embedded = iter(()) if self.rows is None else self.rows.items(self.others)
        for at in range(len(self.files)):
            yield self.found[at] if at in self.found else next(embedded)


@dataclass
class _Running:
    """A worker, and the chunks it was given, in order: by what Ray calls the reference of their result."""

    actor: Any
    chunks: dict[Any, _Chunk] = field(default_factory=dict)


class _Pool:
    """Workers that are replaced when they die; `start` starts one and returns it with the reference of `ready`."""

    def __init__(self, ray: Any, start: Callable[[], tuple[Any, Any]], plan: _Plan) -> None:
        self._ray, self._start, self._plan = ray, start, plan
        self._starting: dict[Any, Any] = {}  # workers by the reference of `ready`
        self._running: list[_Running] = []
        self._todo: deque[_Chunk] = deque()
        self._done: dict[int, _Chunk] = {}
        self._at_once = plan.chunks
        self._failed_starts = 0

    def run(self, chunks: Iterator[_Chunk]) -> Iterator[_Chunk]:
        """Yield chunks in order, with what was found in their files."""
        for _ in range(self._plan.count):
            self._add()
        following, ahead = 0, 2 * self._at_once * self._plan.count
        self._todo.extend(islice(chunks, ahead))
        while True:
            while following in self._done:
                yield self._done.pop(following)
                following += 1
                self._todo.extend(islice(chunks, 1))
            if not self._todo and not any(worker.chunks for worker in self._running):
                return  # whoever is starting is no longer needed, and may never find room
            self._hand_out()
            self._wait()

    def close(self) -> None:
        """End all workers."""
        for actor in (*self._starting.values(), *(worker.actor for worker in self._running)):
            self._ray.kill(actor)

    def _add(self) -> None:
        actor, is_ready = self._start()
        self._starting[is_ready] = actor

    def _hand_out(self) -> None:
        """Give chunks to workers, first to those that have least to do."""
        for worker in sorted(self._running, key=lambda each: len(each.chunks)):
            while self._todo and len(worker.chunks) < self._at_once:
                chunk = self._todo.popleft()
                worker.chunks[chunk.ask(worker.actor)] = chunk

    def _wait(self) -> None:
        """Wait for whatever comes first."""
        awaited = [*self._starting, *(reference for worker in self._running for reference in worker.chunks)]
        if not awaited:
            return
        limit = None if self._running else CLUSTER.start_seconds
        references, _ = self._ray.wait(awaited, num_returns=1, timeout=limit)
        if not references:
            raise ClusterError(
                f"No worker has started in {CLUSTER.start_seconds:.0f} s. Each needs {self._plan.cpus} CPUs"
                f"{' and a GPU' if self._plan.gpus else ''} on a machine of the cluster: see ray status."
            )
        (reference,) = references
        if reference in self._starting:
            self._started(reference)
        else:
            self._finished(next(worker for worker in self._running if reference in worker.chunks), reference)

    def _started(self, reference: Any) -> None:
        actor = self._starting.pop(reference)
        try:
            refusal = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            self._failed_starts += 1
            if self._failed_starts >= CLUSTER.deaths:
                raise ClusterError(f"Workers of the cluster fail when they start: {first_line(error)}") from error
            self._add()
            return
        if refusal is not None:
            raise PhotosError(refusal.message)
        self._failed_starts = 0
        self._running.append(_Running(actor))

    def _finished(self, worker: _Running, reference: Any) -> None:
        try:
            answer = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            raise ClusterError(f"A worker failed: {first_line(error.cause)}") from error
        except self._ray.exceptions.RayError as error:
            self._lost(worker, error)
            return
        if isinstance(answer, Refusal):
            raise PhotosError(answer.message)
        chunk = worker.chunks.pop(reference)
        if chunk.take(answer):
            self._done[chunk.number] = chunk
        else:
            self._todo.appendleft(chunk)

    def _lost(self, worker: _Running, error: Exception) -> None:
        """Ask others for the chunks of a worker that died. The first was under way, and may be the reason."""
        self._running.remove(worker)
        with suppress(self._ray.exceptions.RayError):
            self._ray.kill(worker.actor)
        chunks = sorted(worker.chunks.values(), key=lambda chunk: chunk.number)
        first = next(iter(worker.chunks.values()))
        first.deaths += 1
        log.warning("A worker was lost; others take over its %d chunks (%s).", len(chunks), first_line(error))
        if first.deaths >= CLUSTER.deaths:
            names = ", ".join(file.path for file in first.files[:3])
            log.error("The files of the last chunk: %s", "\n".join(file.path for file in first.files))
            raise ClusterError(
                f"{first.deaths} workers died while they had the same {len(first.files)} files: {names}, ... "
                "What was committed before is kept."
            )
        self._todo.extendleft(reversed(chunks))
        self._add()


def place_of(root: Path) -> Path:
    """Return the photos as every machine of the cluster names them."""
    return root if is_address(root) else root.resolve()


def _load(spec: EmbeddingSpec, weights: Path | None, options: EngineOptions, engine: Engine | None) -> Engine:
    """Load the network in a worker."""
    if engine is not None:
        return engine
    return load_engine(spec, find_again(spec.model, spec.layer, spec.weights_sha256, None, weights), options)


def _plan_workers(ray: Any, wanted: int | None, spec: EmbeddingSpec) -> _Plan:
    """Return how many workers to start: one per GPU, else one per machine, or as many as are wanted."""
    cpus, gpus = processors_of(ray)
    count = wanted or sum(gpus) or sum(map(bool, cpus))
    if count > (sum(gpus) or sum(cpus)):
        raise OptionError(
            option("ray_workers", count),
            f" is more than the cluster has room for: {sum(gpus)} GPUs, {sum(cpus)} CPUs.",
        )
    smallest = min(cpu for cpu in cpus if cpu)
    per_worker, has_gpus = max(1, min(smallest, sum(cpus) // count)), any(gpus)
    return _Plan(count, per_worker, int(has_gpus), chunks_at_once(spec, has_gpus=has_gpus))


def chunks_at_once(spec: EmbeddingSpec, *, has_gpus: bool) -> int:
    """Return how many chunks a worker has at once.

    With a GPU, they are more than Feed takes ahead: it would come to the end of its files, and end its processes.
    """
    ahead = EXTRACT.decoded_bytes // (spec.size**2 * 3) if has_gpus else 0
    return CLUSTER.chunks + -(-ahead // CLUSTER.chunk)


def _start(
    ray: Any,
    plan: _Plan,
    root: Path,
    spec: EmbeddingSpec,
    load: Callable[[], Engine],
    decoders: int | None,
    sample: Sequence[PhotoFile],
    may_need_none: bool,
) -> tuple[Any, Any]:
    """Start a worker, wherever there is room; return it and the reference of its `ready`."""
    actor = (
        ray.remote(Worker)
        .options(
            num_cpus=plan.cpus,
            num_gpus=plan.gpus,
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=plan.chunks,
            scheduling_strategy="SPREAD",
        )
        .remote(root, spec, load, decoders or plan.cpus, sample, may_need_none=may_need_none)
    )
    return actor, actor.ready.remote(vggsearch.__version__)


def _chunks(files: Sequence[PhotoFile], workers: int, known: ContentLookup | None) -> Iterator[_Chunk]:
    """Yield the chunks of files. Of few files they are smaller, so that every worker has some."""
    share = len(files) // (4 * workers) // CLUSTER.least_chunk * CLUSTER.least_chunk
    size = min(CLUSTER.chunk, max(CLUSTER.least_chunk, share))
    for number, start in enumerate(range(0, len(files), size)):
        yield _Chunk(number, files[start : start + size], known)
