"""The operations of poolings and views as nodes of an OpenVINO graph, and helpers to build one."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from openvino import Node
from openvino import opset13 as ops

SPACE = (2, 3)
CHANNELS = (1,)
TINY = 1e-24  # smaller than the square of any length other than zero


def floats(values: ArrayLike) -> Node:
    """Return a float32 constant."""
    return ops.constant(np.ascontiguousarray(values, dtype=np.float32))


def integers(values: Sequence[int]) -> Node:
    """Return an int64 constant, the type of axes and shapes."""
    return ops.constant(np.asarray(values, dtype=np.int64))


class OpenVinoOperations:
    """See poolings.Operations and views.ViewOperations."""

    def shape(self, maps: Node) -> tuple[int, int, int]:
        _, channels, height, width = (side.get_max_length() for side in maps.output(0).partial_shape)
        return channels, height, width

    def mean(self, maps: Node) -> Node:
        return ops.reduce_mean(maps, integers(SPACE), keep_dims=True)

    def maximum(self, maps: Node) -> Node:
        return ops.reduce_max(maps, integers(SPACE), keep_dims=True)

    def sum(self, maps: Node) -> Node:
        return ops.reduce_sum(maps, integers(SPACE), keep_dims=True)

    def sum_channels(self, maps: Node) -> Node:
        return ops.reduce_sum(maps, integers(CHANNELS), keep_dims=True)

    def power(self, maps: Node, exponent: float) -> Node:
        return ops.sqrt(maps) if exponent == 0.5 else ops.power(maps, floats(exponent))

    def plus(self, maps: Node, number: float) -> Node:
        return ops.add(maps, floats(number))

    def times(self, maps: Node, number: float) -> Node:
        return ops.multiply(maps, floats(number))

    def log(self, maps: Node) -> Node:
        return ops.log(maps)

    def is_positive(self, maps: Node) -> Node:
        return ops.convert(ops.greater(maps, floats(0.0)), "f32")

    def cut(self, maps: Node, top: int, left: int, side: int) -> Node:
        stop = integers([top + side, left + side])
        return ops.slice(maps, integers([top, left]), stop, integers([1, 1]), integers(SPACE))

    def unit(self, maps: Node) -> Node:
        return ops.normalize_l2(maps, integers(CHANNELS), TINY, "max")

    def mean_windows(self, vectors: Node) -> Node:
        return ops.reduce_mean(vectors, integers([1]))

    def project(self, maps: Node, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> Node:
        kernel = floats(weight[:, :, None, None])
        projected = ops.convolution(maps, kernel, [1, 1], [0, 0], [0, 0], [1, 1])
        return ops.add(projected, floats(bias.reshape(1, -1, 1, 1)))

    def channels_last(self, maps: Node) -> Node:
        return ops.transpose(maps, integers([0, 2, 3, 1]))

    def flatten(self, maps: Node) -> Node:
        return ops.reshape(maps, integers([0, -1]), special_zero=True)

    def shrink(self, images: Node, matrix: Node) -> Node:
        # The reshapes cost nothing. Without them, OpenVINO 2026.4 fuses the per-channel normalisation that follows
        # into the product, takes its three values for one per column, and fails to compile.
        colours, size, _ = self.shape(images)
        smaller = matrix.output(0).shape[0]
        planes = ops.reshape(images, integers([-1, size, size]), special_zero=False)
        product = ops.matmul(ops.matmul(matrix, planes, False, False), matrix, False, True)
        return ops.reshape(ops.clamp(product, 0.0, 255.0), integers([-1, colours, smaller, smaller]), False)

    def mirror(self, images: Node) -> Node:
        _, _, width = self.shape(images)
        return ops.gather(images, integers(range(width - 1, -1, -1)), integers([3]))

    def join(self, vectors: Sequence[Node]) -> Node:
        return ops.concat(list(vectors), 1)
