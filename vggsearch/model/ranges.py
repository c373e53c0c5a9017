"""Activation ranges for int8 and fp8: for each convolution, the largest output after the ReLU.

Measured by benchmarks/measure_ranges.py: the 99th percentile of the largest activation per photo, over 500 photos
of objects and scenes at 160, 192 and 224 pixels. They hold only for the weights with this sha256. Those of
vgg16_half were measured on 475 photos, and are no less than those of the same layer of VGG16.
"""

from vggsearch.errors import OptionError, option
from vggsearch.model.networks import network
from vggsearch.model.spec import EmbeddingSpec

ACTIVATION_RANGES: dict[str, dict[str, float]] = {
    "44a1e7d7bd5ed81479c75aa4a772e74ef8f062b1cc6a15dd59a67860c52a11ec": {  # the packaged VGG16
        "conv1_1": 19.6,
        "conv1_2": 45.1,
        "conv2_1": 51.2,
        "conv2_2": 78.5,
        "conv3_1": 100.4,
        "conv3_2": 117.3,
        "conv3_3": 178.1,
        "conv4_1": 180.5,
        "conv4_2": 110.6,
        "conv4_3": 85.9,
        "conv5_1": 62.4,
        "conv5_2": 45.8,
        "conv5_3": 35.5,
    },
    "88f86af75e45aecb04a229b7a6ea4da0f032c3fbc99f89c29431ee92fc119f68": {  # the packaged vgg16_half
        "conv1_1": 19.6,
        "conv1_2": 45.1,
        "conv2_1": 51.2,
        "conv2_2": 78.5,
        "conv3_1": 100.4,
        "conv3_2a": 11.9,
        "conv3_2b": 117.3,
        "conv3_3a": 11.9,
        "conv3_3b": 178.1,
        "conv4_1a": 9.7,
        "conv4_1b": 180.5,
        "conv4_2a": 11.7,
        "conv4_2b": 110.6,
        "conv4_3a": 10.9,
        "conv4_3b": 85.9,
        "conv5_1a": 10.7,
        "conv5_1b": 67.5,
        "conv5_2": 50.8,
        "conv5_3": 38.6,
    },
}


def activation_ranges(spec: EmbeddingSpec, precision: str) -> dict[str, float]:
    """Return the ranges for the weights of `spec`, in the order of the network.

    Raises OptionError without any, and for fp8 with a decomposed network, which its kernel does not fit.
    """
    if precision == "fp8" and network(spec.model).original:
        raise OptionError(f"fp8 does not support {spec.model}. Use ", option("precision", "auto"), ".")
    if spec.weights_sha256 not in ACTIVATION_RANGES:
        raise OptionError(
            f"{precision} needs activation ranges, which were measured for the packaged weights only, "
            f"not for {spec.model} with weights {spec.weights_sha256[:8]}. Use ",
            option("precision", "auto"),
            ".",
        )
    return ACTIVATION_RANGES[spec.weights_sha256]
