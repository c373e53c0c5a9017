"""How much memory tensors take, on a CPU, as torch.cuda.max_memory_allocated tells it on a GPU."""

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class PeakMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch declares no types here
    """The most bytes, `peak`, of the tensors that were made within this context and were alive at once."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._alive: dict[int, int] = {}  # bytes, by the address of a storage

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for each in made if isinstance(made, tuple | list) else (made,):
            if isinstance(each, torch.Tensor):
                self._count(each.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        address = storage._cdata
        if address not in self._alive:
            self._alive[address] = storage.nbytes()
            weakref.finalize(storage, self._alive.pop, address, None)
            self.peak = max(self.peak, sum(self._alive.values()))
