"""What runs the network: bytes in, embeddings out. One protocol, so that engines can be exchanged."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vggsearch.defaults import DEVICES, PRECISIONS
from vggsearch.errors import OptionError
from vggsearch.model.spec import EmbeddingSpec
from vggsearch.model.weights import WeightsFile, load_weights


class Engine(Protocol):
    """Runs one network on one device. Normalisation, pooling and L2 happen inside."""

    @property
    def description(self) -> str:
        """Engine, device and precision for a person: "torch, cpu, bf16"."""

    @property
    def name(self) -> str:
        """Name of the engine: "torch"."""

    @property
    def precision(self) -> str:
        """Number format of the convolutions: "fp32", "bf16" or "fp16"."""

    @property
    def batch_size(self) -> int:
        """How many photos at once suit the device."""

    def embed(self, squares: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Take RGB pixels (n, size, size, 3); return rows of unit length, float32 (n, dim), in their order."""


@dataclass(frozen=True)
class EngineOptions:
    """Which device and which precision a person asked for: of defaults.DEVICES and defaults.PRECISIONS."""

    device: str = "auto"
    precision: str = "auto"

    def __post_init__(self) -> None:
        """Raise OptionError for a value that is not in the tables."""
        if self.device not in DEVICES:
            raise OptionError(f"There is no device {self.device!r}. Choose one of {', '.join(DEVICES)}.")
        if self.precision not in PRECISIONS:
            raise OptionError(f"There is no precision {self.precision!r}. Choose one of {', '.join(PRECISIONS)}.")


def load_engine(spec: EmbeddingSpec, weights: WeightsFile, options: EngineOptions | None = None) -> Engine:
    """Load the network that makes embeddings of `spec`. Raises WeightsError, or OptionError for the device."""
    from vggsearch.model.torch_engine import TorchEngine

    return TorchEngine(spec, load_weights(weights, spec.model, spec.layer), options or EngineOptions())
