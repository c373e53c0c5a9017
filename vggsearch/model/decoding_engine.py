"""The interface of an inference backend that also decodes JPEG files, on the device that runs the network."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vggsearch.model.engine import Engine
from vggsearch.photos.jpeg_header import JpegHeader

DevicePixels: TypeAlias = Any  # pixels (n, size, size, 3) on the device of an engine, which its embed_stream takes


@dataclass(frozen=True, slots=True)
class SquareFacts:
    """What is known of n squares beside their pixels.

    `is_blank`, bool (n,), is that of photos.resize, `perceptual_hash`, uint8 (n, BYTES), that of its module.
    """

    is_blank: NDArray[np.bool_]
    perceptual_hash: NDArray[np.uint8]


class DeviceDecoder(Protocol):
    """Decodes JPEG files on the device of an engine."""

    def squares(
        self, files: Sequence[bytes], headers: Sequence[JpegHeader]
    ) -> tuple[DevicePixels, NDArray[np.bool_], Callable[[], SquareFacts]]:
        """Return the pixels of the files, (n, size, size, 3), which were decoded, and what returns their facts.

        The pixels of files that could not be decoded are undefined. The function waits for the device, so call it
        once more work is queued there.
        """


class DecodingEngine(Engine):
    """An Engine on a device that may decode JPEG. Its embed_stream also takes DevicePixels."""

    @abstractmethod
    def square_decoder(self) -> DeviceDecoder | None:
        """Return a decoder on the device of this engine, None if a CPU has to decode."""
