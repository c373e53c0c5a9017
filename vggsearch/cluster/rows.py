"""What a worker returns for a chunk of files: columns, which take half as many bytes as records."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vggsearch.photos.capture import Capture
from vggsearch.photos.perceptual_hash import BYTES
from vggsearch.photos.walk import PhotoFile, Skipped
from vggsearch.store.records import Embedded, EngineInfo

SHA256_BYTES = 32


@dataclass(frozen=True, slots=True)
class Rows:
    """The photos of a chunk: `at` are their places in it, int32 (n,), and `skipped` the other files.

    `embeddings` are float16 (n, dim), as they are stored. `hashes` are uint8 (n, BYTES), `sizes` int32 (n, 2),
    width and height.
    """

    at: NDArray[np.int32]
    sha256: bytes
    sizes: NDArray[np.int32]
    formats: tuple[str, ...]
    captures: tuple[Capture, ...]
    is_blank: NDArray[np.bool_]
    hashes: NDArray[np.uint8]
    embeddings: NDArray[np.float16]
    made_by: EngineInfo | None
    skipped: tuple[Skipped, ...]

    @classmethod
    def of(cls, items: Sequence[Embedded | Skipped], dim: int) -> "Rows":
        """Return what was found for each file of a chunk, by one engine, in order."""
        found = [(at, item) for at, item in enumerate(items) if isinstance(item, Embedded)]
        photos = [photo for _, photo in found]
        embeddings = np.array([photo.embedding for photo in photos], np.float16).reshape(-1, dim)
        return cls(
            np.array([at for at, _ in found], np.int32),
            bytes.fromhex("".join(photo.sha256 for photo in photos)),
            np.array([(photo.width, photo.height) for photo in photos], np.int32).reshape(-1, 2),
            tuple(photo.format for photo in photos),
            tuple(photo.capture for photo in photos),
            np.array([photo.is_blank for photo in photos], np.bool_),
            np.frombuffer(b"".join(photo.perceptual_hash or b"" for photo in photos), np.uint8).reshape(-1, BYTES),
            embeddings,
            photos[0].made_by if photos else None,
            tuple(item for item in items if isinstance(item, Skipped)),
        )

    def items(self, files: Sequence[PhotoFile]) -> Iterator[Embedded | Skipped]:
        """Yield an Embedded or a Skipped for each file of the chunk, in order."""
        places = {int(at): row for row, at in enumerate(self.at)}
        skipped = iter(self.skipped)
        for at, file in enumerate(files):
            yield self._photo(places[at], file) if at in places else next(skipped)

    def _photo(self, row: int, file: PhotoFile) -> Embedded:
        assert self.made_by is not None  # noqa: S101 - for the type checker: there are photos
        start = row * SHA256_BYTES
        return Embedded(
            file,
            self.sha256[start : start + SHA256_BYTES].hex(),
            int(self.sizes[row, 0]),
            int(self.sizes[row, 1]),
            self.formats[row],
            self.captures[row],
            bool(self.is_blank[row]),
            self.hashes[row].tobytes(),
            self.embeddings[row].astype(np.float32),
            self.made_by,
        )
