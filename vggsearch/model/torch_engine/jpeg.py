"""Decode and resize JPEG on the GPU that runs the network, so that a few CPU cores suffice to feed it."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vggsearch.model.decoding_engine import SquareFacts
from vggsearch.model.torch_engine.hashes import perceptual_hashes
from vggsearch.model.torch_engine.jpeg_decoders import BatchDecoder, decode_each, repeats_chroma, working_decoders
from vggsearch.model.torch_engine.squares import are_blank, square_maker
from vggsearch.photos.jpeg_header import JpegHeader

log = logging.getLogger(__name__)

SHARE_OF_MEMORY = 16  # of the GPU; the photos of a batch take a 16th at most, and those before them as much
PIXELS_ON_CPU = 100_000_000  # of the photos of a batch


class SquareDecoder:
    """Decodes and resizes JPEG files on one GPU. Not thread-safe.

    The squares of large photos differ from the CPU's by rounding, since the CPU decodes them at reduced size.
    """

    def __init__(self, gpu: torch.device, size: int, resize: str, decoder: str = "auto") -> None:
        """Test the decoder, one of jpeg_decoders.DECODERS; "auto" measures all with the first files.

        `resize` is one of defaults.RESIZES, `size` the pixels of a side. Raises OptionError if no decoder works,
        such as without a GPU. A CPU in place of the GPU is for tests.
        """
        self._gpu, self._size = gpu, size
        self._decoding, self._resizing = _open_stream(gpu), _open_stream(gpu)
        with torch.cuda.stream(self._decoding):
            self._decoders = working_decoders(gpu, decoder)
            self._repeat_chroma = {each.name for each in self._decoders if repeats_chroma(each)}
        with torch.cuda.stream(self._resizing):
            self._make_squares = square_maker(gpu, size, resize)
        self._most_pixels = _memory(gpu) // (3 * SHARE_OF_MEMORY)
        self._kept: object = None

    @property
    def name(self) -> str:
        """The decoder in use, one of DECODERS; of several, that which the first files were fastest with."""
        return self._decoders[0].name

    def squares(
        self, files: Sequence[bytes], headers: Sequence[JpegHeader | None]
    ) -> tuple[Tensor, NDArray[np.bool_], Callable[[], SquareFacts]]:
        """See DeviceDecoder. The squares are uint8, RGB and upright, and complete in the current stream.

        `headers` are of jpeg_header for this size; a file without one is not decoded. One bad file costs only
        itself: the CPU decodes it, or reports what is wrong with it. The function returns the facts of all rows.
        """
        with torch.cuda.stream(self._resizing):
            squares = torch.empty(len(files), self._size, self._size, 3, dtype=torch.uint8, device=self._gpu)
        is_decoded = np.zeros(len(files), np.bool_)
        for rows in self._parts(headers):
            written = self._write([files[row] for row in rows], [headers[row] for row in rows], rows, squares)
            is_decoded[written] = True
        with torch.cuda.stream(self._resizing):
            facts = torch.cat([are_blank(squares)[:, None].to(torch.uint8), perceptual_hashes(squares)], dim=1)
            downloaded = _downloading(facts)
        self._hand_over(squares)
        return squares, is_decoded, lambda: _facts(downloaded())

    def _parts(self, headers: Sequence[JpegHeader | None]) -> Iterator[list[int]]:
        """Yield the rows of files with a header, as many at once as memory is meant for."""
        rows, pixels = list[int](), 0
        for row, header in enumerate(headers):
            if header is None:
                continue
            pixels += header.width * header.height
            if rows and pixels > self._most_pixels:
                yield rows
                rows, pixels = [], header.width * header.height
            rows.append(row)
        if rows:
            yield rows

    def _write(
        self, files: list[bytes], headers: list[JpegHeader | None], rows: list[int], squares: Tensor
    ) -> list[int]:
        """Queue the work for some files, and return the rows that it writes.

        The nvJPEG hardware writes immediately, without waiting for work queued in a stream. In a stream with other
        work it would be given memory that was freed but is not yet read (pytorch/vision 9606). So photos are
        allocated in a stream of their own, and their memory is kept until the resizing is known to be done.
        """
        with torch.cuda.stream(self._decoding):
            photos = self._decode(files)
        self._release()
        read = [
            (row, photo, header.orientation, header.sampling if self.name in self._repeat_chroma else 0x11)
            for row, photo, header in zip(rows, photos, headers, strict=True)
            if photo is not None and header is not None and _has_size(photo, header)
        ]
        if not read:
            return []
        written, decoded, orientations, samplings = map(list, zip(*read, strict=True))
        if self._resizing is not None and self._decoding is not None:
            self._resizing.wait_stream(self._decoding)
        try:
            with torch.cuda.stream(self._resizing):
                self._kept = photos, self._make_squares(decoded, orientations, samplings, squares, written)
        except torch.OutOfMemoryError:
            return []
        return written

    def _decode(self, files: list[bytes]) -> list[Tensor | None]:
        if len(self._decoders) > 1:
            self._decoders = [min(self._decoders, key=lambda decoder: self._seconds(decoder, files))]
            log.info("JPEG is decoded by %s.", self.name)
        return decode_each(self._decoders[0], files)

    def _seconds(self, decoder: BatchDecoder, files: list[bytes]) -> float:
        """Measure a decoder, the second time that it decodes these files."""
        for _ in range(2):
            started = time.perf_counter()
            decode_each(decoder, files)
            if self._decoding is not None:
                self._decoding.synchronize()
        return time.perf_counter() - started

    def _release(self) -> None:
        """Free the memory of the photos before, which have long been resized."""
        if self._kept is not None and self._resizing is not None:
            self._resizing.synchronize()
        self._kept = None

    def _hand_over(self, squares: Tensor) -> None:
        """Let the current stream wait for the squares, and reuse of their memory for the current stream."""
        if self._resizing is not None:
            current = torch.cuda.current_stream(self._gpu)
            current.wait_stream(self._resizing)
            squares.record_stream(current)


def _open_stream(gpu: torch.device) -> "torch.cuda.Stream | None":
    """Return a stream whose work precedes that of the network; None on a CPU, and without a GPU."""
    if gpu.type != "cuda" or not torch.cuda.is_available():
        return None
    return torch.cuda.Stream(gpu, priority=-1)  # type: ignore[no-untyped-call]


def _facts(columns: NDArray[np.uint8]) -> SquareFacts:
    return SquareFacts(columns[:, 0].astype(np.bool_), columns[:, 1:])


def _downloading(values: Tensor) -> Callable[[], NDArray[np.uint8]]:
    """Queue a copy to the host, and return a function that waits for it."""
    if not values.is_cuda:
        return values.numpy
    copy = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
    copy.copy_(values, non_blocking=True)
    copied = torch.cuda.current_stream(values.device).record_event()

    def wait() -> NDArray[np.uint8]:
        copied.synchronize()
        result: NDArray[np.uint8] = copy.numpy()
        return result

    return wait


def _memory(gpu: torch.device) -> int:
    if gpu.type != "cuda":
        return 3 * SHARE_OF_MEMORY * PIXELS_ON_CPU
    return int(torch.cuda.get_device_properties(gpu).total_memory)


def _has_size(photo: Tensor, header: JpegHeader) -> bool:
    height, width = header.height, header.width
    stored = (width, height) if header.orientation >= 5 else (height, width)
    return photo.shape == (*stored, 3)
