"""Choose the inference backend and load the network into it."""

import ctypes
import logging
import sys
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

from vggsearch.errors import OptionError
from vggsearch.model.engine import Engine, EngineOptions
from vggsearch.model.layers import DEEPEST
from vggsearch.model.spec import EmbeddingSpec
from vggsearch.model.weights import WeightsFile, load_weights

if TYPE_CHECKING:
    from vggsearch.model.torch_engine.cuda import CudaEngine

log = logging.getLogger(__name__)


def load_engine(spec: EmbeddingSpec, weights: WeightsFile, options: EngineOptions | None = None) -> Engine:
    """Load the network that makes embeddings of `spec`.

    Raises WeightsError, or OptionError where engine, device, precision and decode do not go together.
    """
    options = options or EngineOptions()
    load = load_openvino_engine if choose_engine(options) == "openvino" else load_torch_engine
    engine = load(spec, weights, options)
    if options.decode == "gpu" and engine.square_jpeg() is None:
        raise OptionError(f"Only a CUDA GPU decodes JPEG; the network runs on {engine.device}. Use --decode cpu.")
    return engine


def choose_engine(options: EngineOptions) -> str:
    """Return the engine: the wanted one; torch where there is a GPU; else OpenVINO, without importing torch."""
    if options.engine != "auto":
        if options.engine == "openvino" and find_spec("openvino") is None:
            raise OptionError("OpenVINO is not installed: pip install openvino, or use --engine torch.")
        return options.engine
    if options.device in ("cuda", "mps") or (options.device == "auto" and has_cuda()):
        return "torch"
    if find_spec("openvino") is None:
        log.warning("OpenVINO is not installed, so torch runs the network, at less than half the speed on a CPU.")
        return "torch"
    return "openvino"


def has_cuda() -> bool:
    """Say whether torch can run on a GPU. The driver is asked first, since importing torch takes seconds."""
    names = {"linux": "libcuda.so.1", "win32": "nvcuda.dll"}
    try:
        driver = ctypes.CDLL(names[sys.platform])
    except (KeyError, OSError):
        return False
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        return False
    import torch

    return torch.cuda.is_available()


def load_openvino_engine(spec: EmbeddingSpec, weights: WeightsFile, options: EngineOptions) -> Engine:
    """Load the network into OpenVINO.

    Raises WeightsError, or OptionError where device or precision are none of OpenVINO's.
    """
    from vggsearch.model.openvino_engine.engine import OpenVinoEngine

    load = partial(load_weights, weights, spec.model)
    return OpenVinoEngine(spec, load(spec.layer), options, partial(load, DEEPEST))


def load_torch_engine(spec: EmbeddingSpec, weights: WeightsFile, options: EngineOptions) -> Engine:
    """Load the network into torch, onto the device that `options` name: on CUDA, onto all GPUs that torch sees.

    Raises WeightsError, or OptionError where there is no such device or it has no such precision.
    """
    import torch

    from vggsearch.model.multi_gpu import MultiGpuEngine
    from vggsearch.model.torch_engine.engine import TorchEngine, choose_device

    if choose_device(options.device) != "cuda":
        deeper = partial(load_weights, weights, spec.model, DEEPEST)
        return TorchEngine(spec, load_weights(weights, spec.model, spec.layer), options, load_kernels=deeper)
    load = partial(load_gpu, spec, weights, options)
    gpus = torch.cuda.device_count()
    return load(0) if gpus == 1 else MultiGpuEngine(load(0), load, range(gpus))


def load_gpu(spec: EmbeddingSpec, weights: WeightsFile, options: EngineOptions, gpu: int) -> "CudaEngine":
    """Load the network onto the GPU of this number."""
    import torch

    from vggsearch.model.torch_engine.cuda import CudaEngine

    kernels = load_weights(weights, spec.model, spec.layer)
    deeper = partial(load_weights, weights, spec.model, DEEPEST)
    return CudaEngine(spec, kernels, options, torch.device("cuda", gpu), load_kernels=deeper)
