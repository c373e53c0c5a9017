"""The truncated network as an OpenVINO graph, from the same table and kernels as the torch module."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray
from openvino import Model, Node, opset1
from openvino import opset13 as ops

from vggsearch.model.layers import modules_before_cells, needed_modules, parts
from vggsearch.model.local_features import LEVELS, find_whitening, half_size, local_cells
from vggsearch.model.modules import PARALLEL, Module
from vggsearch.model.networks import IMAGENET_MEAN, IMAGENET_STD, Network, network
from vggsearch.model.openvino_engine.operations import SPACE, OpenVinoOperations, floats, integers
from vggsearch.model.poolings import embedding
from vggsearch.model.spec import EmbeddingSpec
from vggsearch.model.vgg import CONNECTED_SIDE
from vggsearch.model.views import embedding_of_views, shrinking
from vggsearch.model.weights import Kernel

FULL_RANGE = 127  # the largest weight in symmetric int8
ACTIVATION_LEVELS = 256  # uint8: activations are >= 0
LARGEST_NORMALIZED = max(max(mean, 1 - mean) / std for mean, std in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True))
COLOURS = 3


@dataclass(frozen=True)
class Int8:
    """How convolutions run in int8: the range of activations after each, by name, and the largest weight.

    Weights are scaled per output channel, activations per layer, as in Krishnamoorthi, "Quantizing deep
    convolutional networks for efficient inference", 2018, sections 3.1 and 3.3.
    """

    ranges: Mapping[str, float]
    largest_weight: int = FULL_RANGE


def build_graph(
    spec: EmbeddingSpec,
    kernels: Mapping[str, Kernel],
    int8: Int8 | None = None,
    levels: int = 0,
) -> Model:
    """Return a graph from uint8 (n, size, size, 3), RGB, to float32 (n, dim), rows of unit length.

    The first `levels` of the two of Description are outputs, too. With `int8`, convolutions run in that format.
    """
    pixels = ops.parameter([-1, spec.size, spec.size, 3], np.uint8, name="pixels")
    images = ops.transpose(ops.convert(pixels, "f32"), integers([0, 3, 1, 2]))
    on = OpenVinoOperations()
    needed = needed_modules(spec.model, spec.layer)
    before_cells = modules_before_cells(spec.model) if levels else ()
    # All views share the weights, which may be large, but not the biases: OpenVINO fuses a bias into a convolution
    # only if nothing else reads it, and is a tenth slower otherwise.
    weights = {
        inner.name: weight_of(inner, kernels[inner.name], int8)
        for module in max(needed, before_cells, key=len)
        for inner in module.weighted
    }
    matrices = {size: floats(shrinking(spec.size, size)) for size in spec.sizes[:-1]}

    def outputs(view: Node, modules: Sequence[Module]) -> dict[str, Node]:
        x = normalised(view, network(spec.model))
        found: dict[str, Node] = {}
        for module in modules:
            x = output(module, x, weights, kernels, int8)
            found[module.name] = x
        return found

    kept: dict[str, Node] = {}

    def embed_view(view: Node) -> Node:
        found = outputs(view, max(needed, before_cells, key=len) if view is images else needed)
        if view is images:
            kept.update(found)
        return embedding([found[part] for part in parts(spec.layer)], spec.layer, spec.pooling, on)

    embeddings = embedding_of_views(images, spec, matrices, embed_view, on)
    if not levels:
        return Model([embeddings], [pixels], "vgg")
    last = before_cells[-1].name
    maps = [kept[last]]
    if levels == LEVELS:
        half = on.shrink(images, floats(shrinking(spec.size, half_size(spec.size))))
        maps.append(outputs(half, before_cells)[last])
    whitening = find_whitening(spec.weights_sha256)
    return Model([embeddings, *(local_cells(each, whitening, on) for each in maps)], [pixels], "vgg with cells")


def normalised(images: Node, trained: Network) -> Node:
    """Return images, float32 (n, 3, size, size) in 0..255, normalised by the mean and deviation of a network."""
    mean, scale = (np.array(values, np.float32).reshape(1, 3, 1, 1) * 255 for values in (trained.mean, trained.std))
    return ops.multiply(ops.subtract(images, floats(mean)), floats(1 / scale))


def output(
    module: Module, x: Node, weights: Mapping[str, Node], kernels: Mapping[str, Kernel], int8: Int8 | None
) -> Node:
    """Return the output of any module: maps, or vectors (n, windows, channels)."""
    if module.kind == "pool":
        return pooled(module, x)
    if module.kind == "mean":
        return ops.unsqueeze(ops.reduce_mean(x, integers(SPACE)), integers([1]))
    if module.kind not in PARALLEL:
        return step(module, x, weights[module.name], kernels[module.name].bias, int8)
    ends = [x] * len(module.branches)
    for number, branch in enumerate(module.branches):
        for inner in branch:
            ends[number] = output(inner, ends[number], weights, kernels, int8)
    if module.kind == "sum":
        return ops.relu(reduce(ops.add, ends))
    return ops.concat(ends, 1) if len(ends) > 1 else ends[0]


def pooled(module: Module, x: Node) -> Node:
    """Return the maximum of each window."""
    strides, pads, kernel = ([each] * 2 for each in (module.stride, module.padding, module.kernel))
    rounding = "ceil" if module.is_ceil else "floor"
    return opset1.max_pool(x, strides, pads, pads, kernel, rounding)


def weight_of(module: Module, kernel: Kernel, int8: Int8 | None) -> Node:
    """Return the weights of a module, quantised if it is a convolution and `int8` is given."""
    if int8 is None or module.kind != "conv":
        return floats(kernel.weight)
    return quantised_weight(kernel.weight, int8.largest_weight)


def step(module: Module, x: Node, weight: Node, bias: NDArray[np.float32], int8: Int8 | None) -> Node:
    """Return a convolution or linear module with bias and its ReLU; a convolution runs in int8 if that is given."""
    if module.kind == "linear":
        seen = windows(x) if module.name == "fc6" else x
        return ops.relu(ops.add(ops.matmul(seen, weight, False, True), floats(bias.reshape(1, 1, -1))))
    if int8 is not None and module.inputs == COLOURS:
        x = signed(x, LARGEST_NORMALIZED)
    strides, pads = [module.stride] * 2, [module.padding] * 2
    convolved = ops.convolution(x, weight, strides, pads, pads, dilations=[1, 1])
    shifted = ops.add(convolved, floats(bias.reshape(1, -1, 1, 1)))
    activated = ops.relu(shifted) if module.has_relu else shifted
    if int8 is None:
        return activated
    largest = int8.ranges[module.name]
    return quantised(activated, 0.0, largest) if module.has_relu else signed(activated, largest)


def windows(maps: Node) -> Node:
    """Return the windows of pool5 for fc6, (n, windows, values), each in (channel, row, column) order.

    A matrix product of all windows equals fc6 as a convolution, and is several times as fast.
    """
    channels, height, width = OpenVinoOperations().shape(maps)
    side = CONNECTED_SIDE
    count = (height - side + 1) * (width - side + 1)
    cut = ops.extract_image_patches(maps, [side, side], [1, 1], [1, 1], "VALID")  # cells before channels
    apart = ops.reshape(cut, integers([0, side**2, channels, count]), special_zero=True)
    return ops.reshape(ops.transpose(apart, integers([0, 3, 2, 1])), integers([0, count, -1]), special_zero=True)


def convolution_graph(*, is_int8: bool) -> tuple[Model, int]:
    """Return a graph of large convolutions to measure a CPU with, and the number of multiply-adds of one run.

    The input is uint8 (8, 512, 28, 28). Several convolutions follow each other, since int8 activations are passed
    only between convolutions.
    """
    batch, channels, side, depth = 8, 512, 28, 4
    module = Module("conv", "conv", channels, channels, 3, padding=1)
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
    """Quantise activations to 256 levels; OpenVINO then passes them on as uint8."""
    ends = [floats(low), floats(high)]
    return ops.fake_quantize(x, *ends, *ends, ACTIVATION_LEVELS)


def signed(x: Node, largest: float) -> Node:
    """Quantise values of both signs; 0, also that of the padding, stays exact."""
    return quantised(x, -largest, largest * 127 / 128)


def quantised_weight(weight: NDArray[np.float32], largest_weight: int) -> Node:
    """Quantise weights to int8, with one scale per output channel.

    The graph contains integers and scales, which compiles several times as fast as quantisation within the graph.
    """
    largest = np.abs(weight).max(axis=(1, 2, 3), keepdims=True)
    scale = np.maximum(largest, np.finfo(np.float32).tiny) / largest_weight
    integers = ops.constant(np.rint(weight / scale).astype(np.int8))
    return ops.multiply(ops.convert(integers, "f32"), floats(scale))
