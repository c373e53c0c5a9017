"""The reference engine: torch on a CPU, a CUDA card or Apple's MPS."""

import numpy as np
import torch
from numpy.typing import NDArray

from vggsearch.defaults import EXTRACT
from vggsearch.errors import OptionError
from vggsearch.model.engine import EngineOptions
from vggsearch.model.network import TruncatedVGG
from vggsearch.model.poolings import embed_maps
from vggsearch.model.spec import EmbeddingSpec
from vggsearch.model.weights import Kernel

MEAN = (0.485, 0.456, 0.406)  # ImageNet's, in 0..1, with which torchvision's weights were trained
STD = (0.229, 0.224, 0.225)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class TorchEngine:
    """A truncated VGG in channels-last layout; pooling and L2 in float32 whatever the precision."""

    name = "torch"

    def __init__(self, spec: EmbeddingSpec, kernels: dict[str, Kernel], options: EngineOptions) -> None:
        self.device = torch.device(choose_device(options.device))
        self.precision = choose_precision(options.precision, self.device.type)
        self._pooling = spec.pooling
        self._dtype = DTYPES[self.precision]
        network = TruncatedVGG(spec.model, spec.layer, kernels)
        self._network = network.to(self.device, self._dtype).to(memory_format=torch.channels_last)
        self._mean = torch.tensor(MEAN, device=self.device).view(1, 3, 1, 1) * 255
        self._scale = 1 / (torch.tensor(STD, device=self.device).view(1, 3, 1, 1) * 255)

    @property
    def description(self) -> str:
        """Engine, device and precision for a person."""
        if self.device.type == "cuda":
            device = torch.cuda.get_device_name(self.device)
        else:
            threads = f" ({torch.get_num_threads()} threads)" if self.device.type == "cpu" else ""
            device = self.device.type + threads
        return f"{self.name}, {device}, {self.precision}"

    @property
    def batch_size(self) -> int:
        """How many photos at once suit the device."""
        return EXTRACT.batch_size if self.device.type == "cpu" else EXTRACT.gpu_batch_size

    @torch.inference_mode()
    def embed(self, squares: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Take RGB pixels (n, size, size, 3); return rows of unit length, float32 (n, dim), in their order."""
        # uint8 crosses to the device. (n, h, w, 3) seen as (n, 3, h, w) is channels-last as it lies in memory.
        pixels = torch.from_numpy(squares).to(self.device).permute(0, 3, 1, 2).float()
        normalised = ((pixels - self._mean) * self._scale).to(self._dtype)
        outputs = self._network(normalised)
        embeddings = embed_maps([output.float() for output in outputs], self._pooling)
        result: NDArray[np.float32] = embeddings.cpu().numpy()
        return result


def choose_device(wanted: str) -> str:
    """Return the device to run on: the wanted one, or the fastest there is. Raises OptionError if it is absent."""
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        return next(device for device in ("cuda", "mps", "cpu") if present[device])
    if not present[wanted]:
        there = ", ".join(device for device, is_there in present.items() if is_there)
        raise OptionError(f"There is no {wanted} device here, only {there}. Use --device auto.")
    return wanted


def choose_precision(wanted: str, device: str) -> str:
    """Return the number format: the wanted one, or the fastest that keeps cosines within 0.0001 of float32."""
    if wanted != "auto":
        return wanted
    if device == "cuda":
        return "fp16"
    return "bf16" if device == "cpu" and has_fast_bfloat16() else "fp32"


def has_fast_bfloat16() -> bool:
    """Say whether this processor multiplies bfloat16 itself (AVX512-BF16 or AMX).

    torch has no public question for it, and where the processor cannot, bfloat16 is slower than float32; so
    its private ones are asked, and a torch without them gets float32.
    """
    questions = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, question, lambda: False)() for question in questions)
