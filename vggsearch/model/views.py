"""What the network sees of a photo, written once for every engine: each size, and the mirror image of each."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from vggsearch.model.poolings import Maps
from vggsearch.model.spec import EmbeddingSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MEAN = (0.485, 0.456, 0.406)  # of ImageNet, with which the weights were trained: red, green and blue in 0..1
STD = (0.229, 0.224, 0.225)


class ViewOperations(Protocol):
    """What views are made of, as each engine does it. Pictures are (n, 3, size, size), float32, in 0..255."""

    def shrink(self, pictures: Maps, matrix: Maps) -> Maps:
        """Multiply columns and rows by a matrix of `shrinking`, and cut off what leaves 0..255."""

    def mirror(self, pictures: Maps) -> Maps:
        """Exchange left and right."""

    def unit(self, maps: Maps) -> Maps:
        """See poolings.Operations."""


def embedding_of_views(
    pictures: Maps,
    spec: EmbeddingSpec,
    matrices: Mapping[int, Maps],
    embed: Callable[[Maps], Maps],
    on: ViewOperations,
) -> Maps:
    """Return the embeddings of pictures of the largest size: the mean over all views, of unit length again.

    As Simonyan & Zisserman do, "Very deep convolutional networks for large-scale image recognition", ICLR 2015:
    the mirror image in section 3.2, several sizes in section 4.2, both for descriptors in appendix B. `matrices`
    are those of `shrinking`, by the smaller sizes of the spec; `embed` takes pictures of one size and returns
    (n, dim), rows of unit length.
    """
    views = [pictures if size == spec.size else on.shrink(pictures, matrices[size]) for size in spec.sizes]
    if spec.mirror:
        views += [on.mirror(view) for view in views]
    total, *others = [embed(view) for view in views]
    if not others:
        return total
    for other in others:
        total = total + other
    return on.unit(total)


def shrinking(size: int, smaller: int) -> "NDArray[np.float32]":
    """Return the matrix (smaller, size) that shrinks a column of pixels as Pillow's bicubic filter does.

    Keys, "Cubic convolution interpolation for digital image processing", 1981, with a = -0.5, stretched to what a
    smaller pixel covers, so that nothing is skipped; each row sums to 1. A matrix, since not every device that
    torch runs on has such a filter, and since all engines then do the same.
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
