"""How the CPU of this machine computes int8."""

from functools import cache

import numpy as np
import openvino
from openvino import Model
from openvino import opset13 as ops

from vggsearch.model.modules import Module
from vggsearch.model.openvino_engine.graph import FULL_RANGE, Int8, quantised, step, weight_of
from vggsearch.model.weights import Kernel

HALF_RANGE = 63  # the sum of two products with 255 fits into 16 bits; that of 64 does too, but was worse on photos
CHANNELS, SIDE = 64, 8
LARGEST_PIXEL = 255


@cache
def largest_weight() -> int:
    """Return the largest weight whose products are summed without saturation: FULL_RANGE or HALF_RANGE.

    CPUs without VNNI add two products in 16 bits, which saturates at 32,767: the embeddings of photos then have a
    cosine of 0.99 to those of float32 rather than 0.999. A convolution of the largest values shows which it is.
    """
    return FULL_RANGE if _is_exact(FULL_RANGE) else HALF_RANGE


def _is_exact(weight: int) -> bool:
    module = Module("conv", "conv", CHANNELS, CHANNELS, 3, padding=1)
    kernel = Kernel(np.ones((CHANNELS, CHANNELS, 3, 3), np.float32), np.zeros(CHANNELS, np.float32))
    expected = LARGEST_PIXEL * CHANNELS * 9
    int8 = Int8({module.name: float(expected)}, weight)
    maps = ops.parameter([1, CHANNELS, SIDE, SIDE], np.uint8)
    x = quantised(ops.convert(maps, "f32"), 0.0, float(LARGEST_PIXEL))
    graph = Model([step(module, x, weight_of(module, kernel, int8), kernel.bias, int8)], [maps], "largest values")
    network = openvino.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = network(np.full((1, CHANNELS, SIDE, SIDE), LARGEST_PIXEL, np.uint8))[0][0, :, 1:-1, 1:-1]
    return bool(np.allclose(found, expected, rtol=0.01))
