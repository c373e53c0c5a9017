"""What the store keeps of a photo, and what it is asked for while more are embedded."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from vggsearch.photos.walk import PhotoFile

if TYPE_CHECKING:
    pass


@dataclass(frozen=True, slots=True)
class MadeBy:
    """The engine, and the precision, that made an embedding: "openvino", "int8"."""

    name: str
    precision: str


@dataclass(frozen=True, slots=True)
class Embedded:
    """A photo and its embedding.

    `width` and `height` are the file's own, upright, in pixels; `sha256` is of its bytes; `taken` is the
    camera's local time; `is_blank` says that there is nothing in it to compare; `embedding` is float32 of shape
    (dim,) and unit length. `is_reused` says that it was made for another file, or another time, with the same
    bytes.
    """

    file: PhotoFile
    sha256: str
    width: int
    height: int
    format: str
    taken: datetime | None
    is_blank: bool
    embedding: NDArray[np.float32]
    made_by: MadeBy
    is_reused: bool = False

    def of(self, file: PhotoFile) -> "Embedded":
        """Return it as that of another file with the same bytes."""
        return replace(self, file=file, is_reused=True)


class ContentLookup(Protocol):
    """Photos by the bytes in their files, so that no embedding is made twice."""

    @property
    def may_suffice(self) -> bool:
        """Whether every file to come may be known, so that the network need not be loaded before one is not."""

    def may_hold(self, file: PhotoFile) -> bool:
        """Whether bytes of this file's size are known, so that hashing it first may save decoding it."""

    def find(self, sha256: str) -> Embedded | None:
        """Return the photo with these bytes. Called in several threads at once."""
