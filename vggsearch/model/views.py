"""The views of a photo, independent of the backend: one per size, and the mirror image of each."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from vggsearch.model.poolings import Maps
from vggsearch.model.spec import EmbeddingSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class ViewOperations(Protocol):
    """The operations that views consist of, implemented by each backend.

    Images are (n, 3, size, size), uint8 or float32, in 0..255.
    """

    def shrink(self, images: Maps, matrix: Maps) -> Maps:
        """Multiply columns and rows by a matrix of `shrinking`, and clip to 0..255; float32."""

    def mirror(self, images: Maps) -> Maps:
        """Flip left and right."""

    def unit(self, maps: Maps) -> Maps:
        """See poolings.Operations."""


def embedding_of_views(
    images: Maps,
    spec: EmbeddingSpec,
    matrices: Mapping[int, Maps],
    embed: Callable[[Maps], Maps],
    on: ViewOperations,
) -> Maps:
    """Return the embeddings of images of the largest size: the mean over all views, normalised to unit length.

    As in Simonyan & Zisserman, "Very deep convolutional networks for large-scale image recognition", ICLR 2015:
    the mirror image in section 3.2, several sizes in section 4.2, both for descriptors in appendix B. `matrices`
    are those of `shrinking`, by the smaller sizes of the spec; `embed` maps images of one size to (n, dim), rows of
    unit length.
    """
    views = [images if size == spec.size else on.shrink(images, matrices[size]) for size in spec.sizes]
    if spec.mirror:
        views += [on.mirror(view) for view in views]
    total, *others = [embed(view) for view in views]
    if not others:
        return total
    for other in others:
        total = total + other
    return on.unit(total)


def shrinking(size: int, smaller: int) -> "NDArray[np.float32]":
    """Return the matrix (smaller, size) that downscales a column of pixels as Pillow's bicubic filter does.

    Keys, "Cubic convolution interpolation for digital image processing", 1981, with a = -0.5, stretched to the
    width of an output pixel (antialiasing); each row sums to 1. A matrix product is used because some devices of
    torch have no such filter, and so that all backends compute the same.
    """
    import numpy as np

    scale = size / smaller
    centres = (np.arange(smaller)[:, None] + 0.5) * scale
    distance = np.abs(np.arange(size) + 0.5 - centres) / scale
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    weights = np.where(distance < 1, near, np.where(distance < 2, far, 0))
    matrix: NDArray[np.float32] = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return matrix
