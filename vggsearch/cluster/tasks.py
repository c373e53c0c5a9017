"""Tasks of a Ray cluster, for knn.tasks: they need no photos and no index, only what they are given."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import vggsearch
from vggsearch.cluster.connection import Connection, first_line, processors_of, ray_module
from vggsearch.defaults import CLUSTER
from vggsearch.errors import ClusterError, VggsearchError
from vggsearch.knn.tasks import HERE, Done, Item, Tasks, Value
from vggsearch.progress import SILENT, Monitor


class RayTasks:
    """Runs pieces of work on the machines of a Ray cluster, to which it connects once there are some.

    `address` is that of ray.init. A piece of work whose worker or machine dies is given to another one by Ray, up
    to CLUSTER.deaths times. So many are under way as there is room for, and two more.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._connected = ExitStack()
        self._ray: Any = None

    def __enter__(self) -> "RayTasks":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connected.close()

    def share(self, rows: int) -> int:
        """Return how many of `rows` rows one piece of work should be about, at most."""
        return min(rows, CLUSTER.task_rows)

    def put(self, value: Value) -> Callable[[], Value]:
        """Keep a value in the object store of Ray; return what gets it on any machine. Raises ClusterError."""
        return _Stored(self._module().put(value))

    def run(self, work: Callable[[Item, Monitor], Done], items: Sequence[Item], monitor: Monitor) -> Iterator[Done]:
        """Yield what `work` returns for each item, in order.

        Raises Stopped, ClusterError, and the errors of vggsearch that `work` raises.
        """
        ray = self._module()
        cpus, _ = processors_of(ray)
        each = max(1, min(min(filter(None, cpus)), sum(cpus) // max(1, len(items))))
        task = ray.remote(_run).options(
            num_cpus=each, max_retries=CLUSTER.deaths - 1, retry_exceptions=False, scheduling_strategy="SPREAD"
        )
        sent, room, waiting = ray.put(work), sum(cpus) // each + 2, deque[Any]()
        try:
            for item in items:
                waiting.append(task.remote(vggsearch.__version__, sent, item))
                if len(waiting) >= room:
                    yield self._result(waiting.popleft(), monitor)
            while waiting:
                yield self._result(waiting.popleft(), monitor)
        finally:
            for reference in waiting:
                ray.cancel(reference, force=True)

    def _module(self) -> Any:
        if self._ray is None:
            ray = ray_module()
            self._connected.enter_context(Connection(ray, self._address))
            self._ray = ray
        return self._ray

    def _result(self, reference: Any, monitor: Monitor) -> Any:
        """Wait for a result."""
        while not self._ray.wait([reference], timeout=CLUSTER.look_seconds)[0]:
            monitor.check()
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, VggsearchError):
                raise error.cause from error
            raise ClusterError(f"A task of the cluster failed: {first_line(error.cause)}") from error
        except self._ray.exceptions.RayError as error:
            raise ClusterError(f"{CLUSTER.deaths} workers died over the same task: {first_line(error)}") from error


@dataclass(frozen=True)
class _Stored:
    """A value in the object store of Ray."""

    reference: Any

    def __call__(self) -> Any:
        return ray_module().get(self.reference)


def _run(version: str, work: Callable[[Item, Monitor], Done], item: Item) -> Done:
    """Do a piece of work on a machine of the cluster."""
    if version != vggsearch.__version__:
        raise ClusterError(f"A machine has vggsearch {vggsearch.__version__}, not {version}: install that one.")
    return work(item, SILENT)


def tasks_on(address: str | None) -> AbstractContextManager[Tasks]:
    """Return the tasks of the cluster with an address; without one, those of this process."""
    return nullcontext(HERE) if address is None else RayTasks(address)
