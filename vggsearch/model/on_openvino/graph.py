"""The truncated VGG as an OpenVINO graph, from the same table and the same kernels as the torch one."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from openvino import Model, Node, opset1
from openvino import opset13 as ops

from vggsearch.model.layers import needed_modules, parts
from vggsearch.model.local import find_whitening, local_cells, modules_before_pool5
from vggsearch.model.on_openvino.operations import OpenVinoOperations, integers, numbers
from vggsearch.model.pixels import MEAN, STD
from vggsearch.model.poolings import embedding
from vggsearch.model.spec import EmbeddingSpec
from vggsearch.model.vgg import Module
from vggsearch.model.weights import Kernel

ACTIVATION_LEVELS = 256  # uint8: activations are >= 0
LARGEST_WEIGHT = 127  # int8, symmetric
LARGEST_PIXEL = max(max(mean, 1 - mean) / std for mean, std in zip(MEAN, STD, strict=True))  # normalised


def build_graph(
    spec: EmbeddingSpec, kernels: Mapping[str, Kernel], ranges: Mapping[str, float] | None = None
) -> Model:
    """Return a graph from uint8 (n, size, size, 3), RGB, to float32 (n, dim), rows of unit length.

    With `ranges`, the largest activation behind each convolution, the convolutions run in int8: weights scaled
    by output channel, activations by layer, as in Krishnamoorthi, "Quantizing deep convolutional networks for
    efficient inference", 2018, sections 3.1 and 3.3.
    """
    pixels = ops.parameter([-1, spec.size, spec.size, 3], np.uint8, name="pixels")
    x = normalised(pixels)
    kept: dict[str, Node] = {}
    for module in needed_modules(spec.model, spec.layer):
        x = step(module, x, kernels.get(module.name), ranges)
        kept[module.name] = x
    outputs = [kept[part] for part in parts(spec.layer)]
    return Model([embedding(outputs, spec.layer, spec.pooling, OpenVinoOperations())], [pixels], "vgg")


def build_local_graph(
    spec: EmbeddingSpec, kernels: Mapping[str, Kernel], ranges: Mapping[str, float] | None = None
) -> Model:
    """Return a graph from uint8 (n, side, side, 3) of any side to its cells, as Engine.local returns them."""
    pixels = ops.parameter([-1, -1, -1, 3], np.uint8, name="pixels")
    x = normalised(pixels)
    for module in modules_before_pool5(spec.model):
        x = step(module, x, kernels.get(module.name), ranges)
    cells = local_cells(x, find_whitening(spec.weights_sha256), OpenVinoOperations())
    return Model([cells], [pixels], "local")


def normalised(pixels: Node) -> Node:
    """Return float32 (n, 3, size, size) with ImageNet's mean 0 and deviation 1."""
    channels_first = ops.transpose(ops.convert(pixels, "f32"), integers([0, 3, 1, 2]))
    mean, scale = (np.array(values, np.float32).reshape(1, 3, 1, 1) * 255 for values in (MEAN, STD))
    return ops.multiply(ops.subtract(channels_first, numbers(mean)), numbers(1 / scale))


def step(module: Module, x: Node, kernel: Kernel | None, ranges: Mapping[str, float] | None) -> Node:
    """Return a pooling, or a layer with its bias and ReLU; convolutions are in int8 where there are ranges."""
    if kernel is None:
        return opset1.max_pool(x, strides=[2, 2], pads_begin=[0, 0], pads_end=[0, 0], kernel_shape=[2, 2])
    if module.kind == "linear":
        flat = ops.reshape(x, integers([0, -1]), special_zero=True)
        product = ops.matmul(flat, numbers(kernel.weight), False, True)
        return ops.relu(ops.add(product, numbers(kernel.bias.reshape(1, -1))))
    weight = numbers(kernel.weight) if ranges is None else quantised_weight(kernel.weight)
    if ranges is not None and module.inputs == len(MEAN):
        x = quantised(x, -LARGEST_PIXEL, LARGEST_PIXEL * 127 / 128)  # signed, so that the padding's 0 is exact
    convolved = ops.convolution(x, weight, strides=[1, 1], pads_begin=[1, 1], pads_end=[1, 1], dilations=[1, 1])
    activated = ops.relu(ops.add(convolved, numbers(kernel.bias.reshape(1, -1, 1, 1))))
    return activated if ranges is None else quantised(activated, 0.0, ranges[module.name])


def convolution_graph(*, is_int8: bool) -> tuple[Model, int]:
    """Return large convolutions to measure a processor with, and how many multiply-adds a run of them takes.

    From uint8 (8, 512, 28, 28); one after the other, as int8 is only passed on between convolutions.
    """
    batch, channels, side, depth = 8, 512, 28, 4
    module = Module("conv", "conv", channels, channels, 3)
    random = np.random.default_rng(0)
    weight = random.standard_normal((channels, channels, 3, 3), np.float32) * np.float32(0.01)
    kernel = Kernel(weight, np.zeros(channels, np.float32))
    ranges = {module.name: 255.0} if is_int8 else None
    maps = ops.parameter([batch, channels, side, side], np.uint8)
    x = ops.convert(maps, "f32")
    x = quantised(x, 0.0, 255.0) if is_int8 else x
    for _ in range(depth):
        x = step(module, x, kernel, ranges)
    return Model([x], [maps], "convolutions"), depth * batch * channels**2 * 9 * side**2


def quantised(x: Node, low: float, high: float) -> Node:
    """Round activations to 256 levels; OpenVINO then passes them on as uint8."""
    ends = [numbers(low), numbers(high)]
    return ops.fake_quantize(x, *ends, *ends, ACTIVATION_LEVELS)


def quantised_weight(weight: NDArray[np.float32]) -> Node:
    """Round weights to int8, each output channel with a scale of its own.

    The graph holds the integers and the scales, which compiles several times as fast as rounding in the graph.
    """
    largest = np.abs(weight).max(axis=(1, 2, 3), keepdims=True)
    scale = np.maximum(largest, np.finfo(np.float32).tiny) / LARGEST_WEIGHT
    integers = ops.constant(np.rint(weight / scale).astype(np.int8))
    return ops.multiply(ops.convert(integers, "f32"), numbers(scale))
