"""What the store holds of a photo, and the lookup by content that avoids embedding a file twice."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from vggsearch.photos.capture import Capture
from vggsearch.photos.walk import PhotoFile

if TYPE_CHECKING:
    from vggsearch.store.local_features import StoredFeatures


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """The inference backend that computed an embedding, and its number format: "openvino", "int8"."""

    name: str
    precision: str


@dataclass(frozen=True, slots=True)
class Embedded:
    """A photo and its embedding.

    `sha256` is the hash of the file; `width` and `height` are the size of the upright photo in pixels;
    `capture` is when and by which camera it was taken; `is_blank` means that the photo is one colour and not
    compared; `perceptual_hash` is that of photos.perceptual_hash, None if an older version indexed the photo;
    `embedding` is a float32 unit vector (dim,). `is_reused` means that the embedding was computed for another file,
    or in an earlier run, with the same bytes. `features` are the local features, if they were computed, too.
    """

    file: PhotoFile
    sha256: str
    width: int
    height: int
    format: str
    capture: Capture
    is_blank: bool
    perceptual_hash: bytes | None
    embedding: NDArray[np.float32]
    made_by: EngineInfo
    is_reused: bool = False
    features: "StoredFeatures | None" = None

    def for_file(self, file: PhotoFile) -> "Embedded":
        """Return the record of another file with the same bytes."""
        return replace(self, file=file, is_reused=True)


class ContentLookup(Protocol):
    """Finds photos by the bytes of their files, so that no embedding is computed twice."""

    @property
    def may_know_all(self) -> bool:
        """Whether every remaining file may be known: the network is then loaded only when one is not."""

    def may_know(self, file: PhotoFile) -> bool:
        """Return whether a file of the same size is known."""

    def is_worth_reading(self, file: PhotoFile) -> bool:
        """Return whether a file should be hashed before it is decoded, since that is likely to save decoding it."""

    def look_up(self, file: PhotoFile, hash_it: Callable[[], str]) -> Embedded | None:
        """Return the photo with the bytes of a file that is not decoded yet, None if there is none.

        `hash_it` reads the file. It is called only where that is likely to save decoding it. Called by several
        threads at once.
        """

    def find(self, sha256: str) -> Embedded | None:
        """Return the photo with this hash, None if it is unknown. Called by several threads at once."""
