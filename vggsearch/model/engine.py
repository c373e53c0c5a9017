"""The interface of an inference backend, here called an engine: pixels in, embeddings out."""

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vggsearch.defaults import DECODE_ON, DEVICES, ENGINES, PRECISIONS
from vggsearch.errors import OptionError, option

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from vggsearch.model.spec import EmbeddingSpec


@dataclass(frozen=True, eq=False)
class Description:
    """The embeddings of some images, and their local features.

    `embeddings` are those of Engine.embed. `levels` are the cells of the feature map before pool5, of the image at
    the largest size of the spec and, as a second level, at half of it (local_features.half_size): float32
    (n, side / 16, side / 16, dimensions), each of unit length; 64 dimensions with the packaged weights, else all
    512 channels.

    >>> squares = np.zeros((2, 192, 192, 3), np.uint8)
    >>> description = index.engine.describe(squares)
    >>> description.embeddings.shape, [level.shape[:3] for level in description.levels]
    ((2, 1024), [(2, 12, 12), (2, 6, 6)])
    """

    embeddings: "NDArray[np.float32]"
    levels: "tuple[NDArray[np.float32], ...]"


class Engine(ABC):
    """One network on one device. Pixel normalisation, pooling and L2 normalisation are included.

    `name` is that of the backend ("torch"), `precision` the number format of the convolutions ("fp32", "bf16",
    "fp16", "fp8" or "int8"), and `batch_size` the preferred batch size. Any number of threads may call it at once.

    >>> squares = np.zeros((2, 192, 192, 3), np.uint8)
    >>> index.engine.embed(squares).shape
    (2, 1024)
    """

    name: str
    precision: str
    batch_size: int
    spec: "EmbeddingSpec | None" = None  # of a network of the user's own; else the index says what to run

    @property
    @abstractmethod
    def device(self) -> str:
        """The device as shown to the user: "cpu (2 threads)"."""

    def __str__(self) -> str:
        """Return backend, device and precision as shown to the user: "torch, cpu (2 threads), bf16"."""
        return f"{self.name}, {self.device}, {self.precision}"

    @abstractmethod
    def embed(self, squares: "NDArray[np.uint8]") -> "NDArray[np.float32]":
        """Return the embeddings of RGB pixels (n, size, size, 3): float32 (n, dim), rows of unit length."""

    @abstractmethod
    def describe(self, squares: "NDArray[np.uint8]", levels: int = 2) -> "Description":
        """Return the embeddings and one or two levels of local features of RGB pixels (n, size, size, 3).

        The first call loads the layers that embeddings do not need. Raises WeightsError if the weights file ends
        before pool5.
        """

    def prepare(self, levels: int = 0) -> None:  # noqa: B027 - nothing to do for most engines
        """Get ready for `embed` or, with one or two levels, for `describe`: its first call is then a fast one."""

    def embed_stream(self, batches: "Iterable[NDArray[np.uint8]]") -> "Iterator[NDArray[np.float32]]":
        """Yield the embeddings of each batch, in order; an empty batch gives an empty array without any work.

        An engine that transfers the next input while it computes takes batches ahead of what it yields: two on one
        GPU, four per GPU on several.
        """
        for batch in batches:
            yield self.embed(batch) if len(batch) else no_embeddings()

    @abstractmethod
    def multiply_adds_per_s(self, seconds: float) -> float:
        """Measure the throughput of the device, for about `seconds`, by a large convolution in the same precision.

        On a GPU a matrix product is measured, since vendors state the throughput of that.
        """


@dataclass(frozen=True)
class EngineOptions:
    """How to run the network: values of ENGINES, DEVICES, PRECISIONS and DECODE_ON in defaults.

    With "auto" everywhere, many photos run on a GPU, if there is one, and a few on the CPU.
    `batch_size` is the number of photos per batch; None lets the engine choose.
    `decode` is where an update decodes JPEG: "auto" is the GPU if torchvision supports it, and the CPU for files
    that the GPU decoder does not support.

    >>> EngineOptions(engine="openvino", precision="fp32").decode
    'auto'
    """

    engine: str = "auto"
    device: str = "auto"
    precision: str = "auto"
    decode: str = "auto"
    batch_size: int | None = None

    def __post_init__(self) -> None:
        """Raise OptionError for an unknown value or a batch size below 1."""
        tables = {"engine": ENGINES, "device": DEVICES, "precision": PRECISIONS, "decode": DECODE_ON}
        for name, table in tables.items():
            value = getattr(self, name)
            if value not in table:
                raise OptionError(f"Unknown {name} {value!r}. Choose one of {', '.join(table)}.")
        if self.batch_size is not None and self.batch_size < 1:
            raise OptionError(f"The batch size must be at least 1, not {self.batch_size}.")


def no_embeddings() -> "NDArray[np.float32]":
    """Return the embeddings of an empty batch."""
    import numpy as np

    return np.empty((0, 0), np.float32)


def rate(run: "Callable[[], object]", seconds: float) -> float:
    """Return how many times per second `run` runs, measured for about `seconds` after one run that is not counted.

    `run` must wait for its result: otherwise only the time to queue work on an asynchronous device is measured.
    """
    run()
    started, count = time.perf_counter(), 0
    while (passed := time.perf_counter() - started) < seconds:
        run()
        count += 1
    return count / passed


def no_int8_in_torch() -> OptionError:
    """Return the error for int8 in PyTorch."""
    return OptionError(
        "torch does not support int8 here. Use ",
        option("engine", "openvino"),
        ", or ",
        option("precision", "auto"),
        ".",
    )
