"""The truncated VGG as an OpenVINO graph, from the same table and the same kernels as the torch one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from openvino import Model, Node, opset1
from openvino import opset13 as ops

from vggsearch.model.layers import needed_modules, parts
from vggsearch.model.local_features import find_whitening, half_size, local_cells, modules_before_pool5
from vggsearch.model.openvino_engine.operations import OpenVinoOperations, integers, numbers
from vggsearch.model.poolings import embedding
from vggsearch.model.spec import EmbeddingSpec
from vggsearch.model.vgg import CONNECTED_SIDE, Module
from vggsearch.model.views import MEAN, STD, embedding_of_views, shrinking
from vggsearch.model.weights import Kernel

WHOLE = 127  # the largest number of int8, symmetric
ACTIVATION_LEVELS = 256  # uint8: activations are >= 0
LARGEST_NORMALIZED = max(max(mean, 1 - mean) / std for mean, std in zip(MEAN, STD, strict=True))


@dataclass(frozen=True)
class Int8:
    """How convolutions run in int8: the largest activation behind each, by name, and the largest weight.

    Weights are scaled by output channel, activations by layer, as in Krishnamoorthi, "Quantizing deep convolutional
    networks for efficient inference", 2018, sections 3.1 and 3.3.
    """

    ranges: Mapping[str, float]
    largest_weight: int = WHOLE


def build_graph(
    spec: EmbeddingSpec,
    kernels: Mapping[str, Kernel],
    int8: Int8 | None = None,
    *,
    with_cells: bool = False,
) -> Model:
    """Return a graph from uint8 (n, size, size, 3), RGB, to float32 (n, dim), rows of unit length.

    `with_cells`, also to the two levels of Description. With `int8`, the convolutions run in it.
    """
    pixels = ops.parameter([-1, spec.size, spec.size, 3], np.uint8, name="pixels")
    pictures = ops.transpose(ops.convert(pixels, "f32"), integers([0, 3, 1, 2]))
    on = OpenVinoOperations()
    needed = needed_modules(spec.model, spec.layer)
    before_pool5 = modules_before_pool5(spec.model) if with_cells else ()
    # Every view runs through the same weights, which may be many. Each has biases of its own: OpenVINO adds them
    # within a convolution only where nothing else reads them, and else takes a tenth longer.
    weights = {
        module.name: weight_of(module, kernels[module.name], int8)
        for module in max(needed, before_pool5, key=len)
        if module.kind != "pool"
    }
    matrices = {size: numbers(shrinking(spec.size, size)) for size in spec.sizes[:-1]}

    def outputs(view: Node, modules: Sequence[Module]) -> dict[str, Node]:
        x = normalised(view)
        found: dict[str, Node] = {}
        for module in modules:
            if module.kind == "pool":
                x = pooled(x)
            else:
                x = step(module, x, weights[module.name], kernels[module.name].bias, int8)
            found[module.name] = x
        return found

    kept: dict[str, Node] = {}

    def embed_view(view: Node) -> Node:
        found = outputs(view, max(needed, before_pool5, key=len) if view is pictures else needed)
        if view is pictures:
            kept.update(found)
        return embedding([found[part] for part in parts(spec.layer)], spec.layer, spec.pooling, on)

    embeddings = embedding_of_views(pictures, spec, matrices, embed_view, on)
    if not with_cells:
        return Model([embeddings], [pixels], "vgg")
    last = before_pool5[-1].name
    half = on.shrink(pictures, numbers(shrinking(spec.size, half_size(spec.size))))
    whitening = find_whitening(spec.weights_sha256)
    levels = [local_cells(maps, whitening, on) for maps in (kept[last], outputs(half, before_pool5)[last])]
    return Model([embeddings, *levels], [pixels], "vgg with cells")


def normalised(pictures: Node) -> Node:
    """Return pictures, float32 (n, 3, size, size) in 0..255, with ImageNet's mean 0 and deviation 1."""
    mean, scale = (np.array(values, np.float32).reshape(1, 3, 1, 1) * 255 for values in (MEAN, STD))
    return ops.multiply(ops.subtract(pictures, numbers(mean)), numbers(1 / scale))


def pooled(x: Node) -> Node:
    """Return the largest of every two by two."""
    return opset1.max_pool(x, strides=[2, 2], pads_begin=[0, 0], pads_end=[0, 0], kernel_shape=[2, 2])


def weight_of(module: Module, kernel: Kernel, int8: Int8 | None) -> Node:
    """Return the weights of a module, those of a convolution in int8 where that is wanted."""
    if int8 is None or module.kind != "conv":
        return numbers(kernel.weight)
    return quantised_weight(kernel.weight, int8.largest_weight)


def step(module: Module, x: Node, weight: Node, bias: NDArray[np.float32], int8: Int8 | None) -> Node:
    """Return a convolution or a linear layer with its bias and ReLU, in int8 where that is wanted."""
    if module.kind == "linear":
        seen = windows(x) if module.name == "fc6" else x
        return ops.relu(ops.add(ops.matmul(seen, weight, False, True), numbers(bias.reshape(1, 1, -1))))
    if int8 is not None and module.inputs == len(MEAN):
        x = quantised(
            x, -LARGEST_NORMALIZED, LARGEST_NORMALIZED * 127 / 128
        )  # signed, so that the padding's 0 is exact
    convolved = ops.convolution(x, weight, strides=[1, 1], pads_begin=[1, 1], pads_end=[1, 1], dilations=[1, 1])
    activated = ops.relu(ops.add(convolved, numbers(bias.reshape(1, -1, 1, 1))))
    return activated if int8 is None else quantised(activated, 0.0, int8.ranges[module.name])


def windows(maps: Node) -> Node:
    """Return every window that fc6 sees of pool5, (n, windows, numbers), each in (channel, row, column) order.

    A product with all of them is what fc6 as a convolution would be, and several times as fast.
    """
    channels, height, width = OpenVinoOperations().shape(maps)
    side = CONNECTED_SIDE
    count = (height - side + 1) * (width - side + 1)
    cut = ops.extract_image_patches(maps, [side, side], [1, 1], [1, 1], "VALID")  # cells before channels
    apart = ops.reshape(cut, integers([0, side**2, channels, count]), special_zero=True)
    return ops.reshape(ops.transpose(apart, integers([0, 3, 2, 1])), integers([0, count, -1]), special_zero=True)


def convolution_graph(*, is_int8: bool) -> tuple[Model, int]:
    """Return large convolutions to measure a processor with, and how many multiply-adds a run of them takes.

    From uint8 (8, 512, 28, 28); one after the other, as int8 is only passed on between convolutions.
    """
    batch, channels, side, depth = 8, 512, 28, 4
    module = Module("conv", "conv", channels, channels, 3)
    random = np.random.default_rng(0)
    weight = random.standard_normal((channels, channels, 3, 3), np.float32) * np.float32(0.01)
    kernel = Kernel(weight, np.zeros(channels, np.float32))
    int8 = Int8({module.name: 255.0}) if is_int8 else None
    maps = ops.parameter([batch, channels, side, side], np.uint8)
    x = ops.convert(maps, "f32")
    x = quantised(x, 0.0, 255.0) if is_int8 else x
    for _ in range(depth):
        x = step(module, x, weight_of(module, kernel, int8), kernel.bias, int8)
    return Model([x], [maps], "convolutions"), depth * batch * channels**2 * 9 * side**2


def quantised(x: Node, low: float, high: float) -> Node:
    """Round activations to 256 levels; OpenVINO then passes them on as uint8."""
    ends = [numbers(low), numbers(high)]
    return ops.fake_quantize(x, *ends, *ends, ACTIVATION_LEVELS)


def quantised_weight(weight: NDArray[np.float32], largest_weight: int) -> Node:
    """Round weights to int8, each output channel with a scale of its own.

    The graph holds the integers and the scales, which compiles several times as fast as rounding in the graph.
    """
    largest = np.abs(weight).max(axis=(1, 2, 3), keepdims=True)
    scale = np.maximum(largest, np.finfo(np.float32).tiny) / largest_weight
    integers = ops.constant(np.rint(weight / scale).astype(np.int8))
    return ops.multiply(ops.convert(integers, "f32"), numbers(scale))
