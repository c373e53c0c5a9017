"""A network of the user's own in place of a VGG: what an index needs to know of it, and what it has to do."""

import hashlib
from abc import abstractmethod

import numpy as np
from numpy.typing import NDArray

from vggsearch.errors import OptionError
from vggsearch.model.engine import Description, Engine
from vggsearch.model.local_features import no_cells
from vggsearch.model.spec import OWN, EmbeddingSpec


class OwnEngine(Engine):
    """Base class for a network of your own. Pass an object of it as `engine=` to create, open and update an index.

    `network` is its name, `dim` the number of dimensions of an embedding, and `size` the side, in pixels, of the
    squares that it gets. `version` is any text that changes whenever the embeddings do, such as a hash of the
    weights: an index made with another network or version is not opened with it, since embeddings of two networks
    cannot be compared.

    There are no local features, so re-ranking compares photos by perceptual hashes and keypoints only.

    >>> class MeanColour(OwnEngine):
    ...     def vectors(self, squares):
    ...         return squares.reshape(len(squares), -1, 3).mean(axis=1)
    >>> with ImageIndex.for_photos("photos", "indexes/colours", engine=MeanColour("mean colour", dim=3)) as colours:
    ...     report = colours.update("photos")
    ...     colours.query("photos/a.jpg", count=1).matches[0].path
    'a.jpg'
    """

    name = "own"
    precision = "fp32"
    device = "your code"
    spec: EmbeddingSpec

    def __init__(
        self,
        network: str,
        dim: int,
        *,
        size: int = 224,
        version: str = "",
        resize: str = "squash",
        batch_size: int = 8,
    ) -> None:
        """Describe the network. Raises OptionError for a value that no embedding can have."""
        identity = hashlib.sha256(f"{network}\n{version}".encode()).hexdigest()
        self.spec = EmbeddingSpec(f"{OWN}{network}", str(dim), "flat", (size,), resize, identity)
        self.batch_size = batch_size

    @abstractmethod
    def vectors(self, squares: NDArray[np.uint8]) -> NDArray[np.floating]:
        """Return what the network makes of RGB pixels (n, size, size, 3): (n, dim), of any length but zero.

        Any number of threads may call it at once.
        """

    def embed(self, squares: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the embeddings of RGB pixels: float32 (n, dim), rows of unit length.

        Raises OptionError if the network returns anything else than finite vectors of `dim` dimensions.
        """
        found = np.asarray(self.vectors(squares), np.float32)
        if found.shape != (len(squares), self.spec.dim):
            raise OptionError(
                f"{self.spec.model.removeprefix(OWN)} returned an array of shape {found.shape} for {len(squares)} "
                f"images, not {(len(squares), self.spec.dim)}."
            )
        lengths = np.linalg.norm(found, axis=1, keepdims=True)
        if not (np.isfinite(lengths) & (lengths > 0)).all():
            raise OptionError(
                f"{self.spec.model.removeprefix(OWN)} returned a vector that is zero, infinite or not a number."
            )
        unit: NDArray[np.float32] = found / lengths
        return unit

    def describe(self, squares: NDArray[np.uint8], levels: int = 2) -> Description:
        """Return the embeddings, and local features that resemble nothing."""
        return Description(self.embed(squares), no_cells(len(squares), self.spec.size, levels))

    def multiply_adds_per_s(self, seconds: float) -> float:  # noqa: ARG002 - the interface
        """Raise OptionError: only the inference backends of vggsearch are measured."""
        raise OptionError("The speed of a network of your own is not measured.")
