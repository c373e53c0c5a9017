"""Decoding in this process, for tests that are not about decoder processes."""

from pathlib import Path
from types import TracebackType

from vggsearch.photos.decode import decode, decoder_errors
from vggsearch.photos.decoder_pool import Square
from vggsearch.photos.hashing import hash_unchanged
from vggsearch.photos.perceptual_hash import perceptual_hash
from vggsearch.photos.resize import is_blank, square
from vggsearch.photos.walk import PhotoFile


class InProcessDecoders:
    """Stands in for Decoders: a process for each of thousands of updates costs minutes of CPU time."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __enter__(self) -> "InProcessDecoders":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        pass

    def lower_priority(self) -> None:
        pass

    def decode(self, root: Path, file: PhotoFile, size: int, resize: str) -> Square:
        with decoder_errors(), (root / file.path).open("rb") as opened:
            photo = decode(opened, file.path, at_least=size)
        pixels = square(photo.image, size, resize)
        facts = (photo.width, photo.height, photo.format, photo.taken, is_blank(pixels))
        return Square(*facts, perceptual_hash(pixels), hash_unchanged(root, file), pixels)
