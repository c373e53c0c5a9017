"""What this machine's processor does with int8."""

from functools import cache

import numpy as np
import openvino
from openvino import Model
from openvino import opset13 as ops

from vggsearch.model.openvino_engine.graph import WHOLE, Int8, quantised, step, weight_of
from vggsearch.model.vgg import Module
from vggsearch.model.weights import Kernel

HALVED = 63  # two products of it with 255 fit in 16 bits; those of 64 do, too, and were worse on photos
CHANNELS, SIDE = 64, 8
LARGEST_PIXEL = 255


@cache
def largest_weight() -> int:
    """Return the largest weight whose products are added right: WHOLE, or HALVED.

    Processors without VNNI add two products in 16 bits, and give 32,767 for whatever is more: the embeddings of
    photos then are 0.99 similar to those of float32, not 0.999. So one convolution of the largest numbers is tried.
    """
    return WHOLE if _is_right(WHOLE) else HALVED


def _is_right(weight: int) -> bool:
    module = Module("conv", "conv", CHANNELS, CHANNELS, 3)
    kernel = Kernel(np.ones((CHANNELS, CHANNELS, 3, 3), np.float32), np.zeros(CHANNELS, np.float32))
    expected = LARGEST_PIXEL * CHANNELS * 9
    int8 = Int8({module.name: float(expected)}, weight)
    maps = ops.parameter([1, CHANNELS, SIDE, SIDE], np.uint8)
    x = quantised(ops.convert(maps, "f32"), 0.0, float(LARGEST_PIXEL))
    graph = Model([step(module, x, weight_of(module, kernel, int8), kernel.bias, int8)], [maps], "largest numbers")
    network = openvino.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = network(np.full((1, CHANNELS, SIDE, SIDE), LARGEST_PIXEL, np.uint8))[0][0, :, 1:-1, 1:-1]
    return bool(np.allclose(found, expected, rtol=0.01))
