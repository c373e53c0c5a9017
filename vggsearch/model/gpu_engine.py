"""The GPUs of a machine as one engine: in this process for a few photos, in a pool of processes for many."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from itertools import chain, islice
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from vggsearch.model.decoding_engine import DecodingEngine
from vggsearch.model.engine import Description, Engine, no_embeddings
from vggsearch.model.gpu_pool import JOBS_PER_PROCESS, GpuPool
from vggsearch.model.gpu_worker import Load

PROCESSES_PER_GPU = 3  # one reads and decodes 4,800 photos/s (500 x 375, H200), two 10,600 and three 11,300


class GpuEngine(Engine):
    """One network on one or more GPUs of a machine.

    `gpus` are their names. `load` returns the engine of the GPU with a number; `name`, `precision` and `batch_size`
    are those of all of them. The one in this process, on the first GPU, is loaded when it is needed.
    """

    def __init__(self, load: Load, gpus: Sequence[str], *, name: str, precision: str, batch_size: int) -> None:
        self.name, self.precision, self.batch_size = name, precision, batch_size
        self._load, self._gpus = load, gpus
        self._loading = Lock()
        self._loaded: DecodingEngine | None = None
        self._starting = Lock()
        self._started: GpuPool | None = None  # and not yet used

    @property
    def device(self) -> str:
        """See Engine.device."""
        return self._gpus[0] if len(self._gpus) == 1 else f"{len(self._gpus)} x {self._gpus[0]}"

    @property
    def _first(self) -> DecodingEngine:
        with self._loading:
            if self._loaded is None:
                self._loaded = self._load(0)
            return self._loaded

    def embed(self, squares: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See Engine.embed."""
        return self._first.embed(squares)

    def describe(self, squares: NDArray[np.uint8], levels: int = 2) -> Description:
        """See Engine.describe."""
        return self._first.describe(squares, levels)

    def embed_stream(self, batches: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
        """Yield the embeddings of each batch, in order.

        On several GPUs at most four batches per GPU are ahead of what is yielded. If a GPU fails, a warning names
        it and the others take over its work. Raises EngineError when no GPU is left, with the reason of each.
        """
        source = iter(batches)
        begun = list(islice(source, len(self._gpus)))
        if len(self._gpus) == 1 or len(begun) < len(self._gpus):  # not worth starting processes
            yield from self._first.embed_stream(chain(begun, source))
            return
        with GpuPool(self._load, range(len(self._gpus))) as pool:
            yield from _in_order(pool, chain(begun, source))

    def prepare(self, levels: int = 0) -> None:  # noqa: ARG002 - these processes embed only
        """Start the processes that `pool` will return. They take seconds until they can embed."""
        with self._starting:
            self._started = self._started or self._new_pool()

    def pool(self) -> GpuPool:
        """Return processes that embed many files: those that `prepare` has started, or new ones. Close them."""
        with self._starting:
            started, self._started = self._started, None
            return started or self._new_pool()

    def release(self) -> None:
        """End the processes that `prepare` has started, if nothing has used them."""
        with self._starting:
            started, self._started = self._started, None
        if started is not None:
            started.close()

    def _new_pool(self) -> GpuPool:
        return GpuPool(self._load, list(range(len(self._gpus))) * PROCESSES_PER_GPU)

    def multiply_adds_per_s(self, seconds: float) -> float:
        """See Engine.multiply_adds_per_s: that of the first GPU, times the number of GPUs."""
        return self._first.multiply_adds_per_s(seconds) * len(self._gpus)


def _in_order(pool: GpuPool, batches: Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.float32]]:
    ahead: deque[Future[NDArray[np.float32]]] = deque()
    for squares in batches:
        ahead.append(pool.embed(squares) if len(squares) else _nothing())
        while ahead and (ahead[0].done() or len(ahead) >= JOBS_PER_PROCESS * pool.processes):
            yield ahead.popleft().result()
    while ahead:
        yield ahead.popleft().result()


def _nothing() -> "Future[NDArray[np.float32]]":
    future: Future[NDArray[np.float32]] = Future()
    future.set_result(no_embeddings())
    return future
