"""What runs the network: bytes in, embeddings out. One protocol, so that engines can be exchanged."""

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vggsearch.defaults import DECODE_ON, DEVICES, ENGINES, PRECISIONS
from vggsearch.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    # A JPEG file's bytes, size, resize and EXIF orientation to preprocess.square's pixels; None: not for it.
    SquareJpeg = Callable[[bytes, int, str, int], NDArray[np.uint8] | None]


@dataclass(frozen=True, eq=False)
class Description:
    """What the network says of some pictures: as a whole, and of each place.

    `embeddings` are those of Engine.embed. `levels` are the cells of the map before pool5, of the picture at the
    largest size of the spec and at half of it (local.half_size): float32 (n, side / 16, side / 16, numbers), each
    of unit length; 64 numbers with the packaged weights, else all 512.
    """

    embeddings: "NDArray[np.float32]"
    levels: "tuple[NDArray[np.float32], NDArray[np.float32]]"


class Engine(ABC):
    """Runs one network on one device. Normalisation, pooling and L2 happen inside.

    `name` is the engine's ("torch"), `precision` the number format of the convolutions ("fp32", "bf16", "fp16" or
    "int8"), and `batch_size` how many photos at once suit it.
    """

    name: str
    precision: str
    batch_size: int

    @property
    @abstractmethod
    def device(self) -> str:
        """What it runs on, for a person: "cpu (2 threads)"."""

    def __str__(self) -> str:
        """Return all of it for a person: "torch, cpu (2 threads), bf16"."""
        return f"{self.name}, {self.device}, {self.precision}"

    @abstractmethod
    def embed(self, squares: "NDArray[np.uint8]") -> "NDArray[np.float32]":
        """Take RGB pixels (n, size, size, 3); return rows of unit length, float32 (n, dim), in their order."""

    @abstractmethod
    def describe(self, squares: "NDArray[np.uint8]") -> "Description":
        """Take RGB pixels (n, size, size, 3); return their embeddings and their cells, in their order.

        The first call loads what the embedding does not need. Raises WeightsError where the weights file ends
        before pool5.
        """

    def embed_stream(self, batches: "Iterable[NDArray[np.uint8]]") -> "Iterator[NDArray[np.float32]]":
        """Yield the embeddings of each batch, in order; an empty batch gives an empty array without any work.

        An engine that works while its input crosses to it takes batches ahead of what it yields: two on one GPU,
        four a GPU on several.
        """
        for batch in batches:
            yield self.embed(batch) if len(batch) else no_embeddings()

    def square_jpeg(self) -> "SquareJpeg | None":
        """Return what decodes JPEG on the engine's GPU, in any thread, None where the CPU is to decode."""
        return None

    @abstractmethod
    def multiply_adds_per_s(self, seconds: float) -> float:
        """Measure, for about so many seconds, what the device can do: a large convolution in the same precision.

        A GPU is measured by a matrix product, which is what its makers mean by its rate.
        """


@dataclass(frozen=True)
class EngineOptions:
    """What a person asked for: values of ENGINES, DEVICES, PRECISIONS and DECODE_ON in defaults.

    `batch_size` is how many photos go through the network at once; None leaves it to the engine.
    `decode` says where an update decodes JPEG: "auto" is the GPU where torchvision can, with the CPU for each file
    that it does not take.
    """

    engine: str = "auto"
    device: str = "auto"
    precision: str = "auto"
    decode: str = "auto"
    batch_size: int | None = None

    def __post_init__(self) -> None:
        """Raise OptionError for a value that is not in the tables, or a batch size below 1."""
        tables = {"engine": ENGINES, "device": DEVICES, "precision": PRECISIONS, "decode": DECODE_ON}
        for option, table in tables.items():
            value = getattr(self, option)
            if value not in table:
                raise OptionError(f"There is no {option} {value!r}. Choose one of {', '.join(table)}.")
        if self.batch_size is not None and self.batch_size < 1:
            raise OptionError(f"The batch size must be at least 1, not {self.batch_size}.")


def no_embeddings() -> "NDArray[np.float32]":
    """Return the embeddings of no pictures."""
    import numpy as np

    return np.empty((0, 0), np.float32)


def rate(run: "Callable[[], object]", seconds: float) -> float:
    """Return how often a second `run` runs, measured for about so many seconds; a first run is not counted.

    `run` is to wait for its result: a device that works on its own would only be seen to take orders.
    """
    run()
    started, count = time.perf_counter(), 0
    while (passed := time.perf_counter() - started) < seconds:
        run()
        count += 1
    return count / passed
