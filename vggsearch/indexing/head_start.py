"""Start the processes of GPUs while a photo folder is still being listed, since they take seconds to be ready."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

from vggsearch.defaults import EXTRACT
from vggsearch.errors import VggsearchError
from vggsearch.model.engine import Engine
from vggsearch.model.gpu_engine import GpuEngine
from vggsearch.photos.decoder_pool import default_workers
from vggsearch.system.gpus import cuda_gpus

Found = TypeVar("Found")


class HeadStart:
    """Starts the processes of GPUs for files that are being found; in the end, those that nothing used are ended.

    `load_engine` returns the network for a number of photos. Its errors are left for the next call to raise.
    """

    def __init__(self, load_engine: Callable[[int], Engine]) -> None:
        self._load_engine = load_engine
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="head start")
        self._engine: GpuEngine | None = None

    def __enter__(self) -> "HeadStart":
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End what nothing has used."""
        self._thread.shutdown()
        if self._engine is not None:
            self._engine.release()

    def during(self, found: Iterable[Found]) -> Iterator[Found]:
        """Yield what is found. Once it is more than a CPU embeds before a GPU has started, start the GPUs."""
        few = EXTRACT.few_per_cpu * default_workers()
        starting: Future[None] | None = None
        for number, each in enumerate(found):
            if number == few:
                starting = self._thread.submit(self._start, number + 1)
            yield each
        if starting is not None:
            starting.result()

    def _start(self, photos: int) -> None:
        if not cuda_gpus():
            return
        try:
            engine = self._load_engine(photos)
        except VggsearchError:
            return
        if isinstance(engine, GpuEngine):
            self._engine = engine
            engine.prepare()
