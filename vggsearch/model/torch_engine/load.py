"""Choose among the torch engines: one for a CPU or MPS, one for a GPU, one for several."""

from functools import partial

import torch

from vggsearch.model.engine import Engine, EngineOptions
from vggsearch.model.layers import DEEPEST
from vggsearch.model.multi_gpu import MultiGpuEngine
from vggsearch.model.spec import EmbeddingSpec
from vggsearch.model.torch_engine.cuda import CudaEngine
from vggsearch.model.torch_engine.engine import TorchEngine, choose_device
from vggsearch.model.weights import WeightsFile, load_weights


def load_torch_engine(spec: EmbeddingSpec, weights: WeightsFile, options: EngineOptions) -> Engine:
    """Load the network onto the device that `options` name: on CUDA, onto all GPUs that torch sees.

    Raises WeightsError, or OptionError where there is no such device or it has no such precision.
    """
    if choose_device(options.device) != "cuda":
        deeper = partial(load_weights, weights, spec.model, DEEPEST)
        return TorchEngine(spec, load_weights(weights, spec.model, spec.layer), options, load_kernels=deeper)
    load = partial(load_gpu, spec, weights, options)
    gpus = torch.cuda.device_count()
    return load(0) if gpus == 1 else MultiGpuEngine(load(0), load, range(gpus))


def load_gpu(spec: EmbeddingSpec, weights: WeightsFile, options: EngineOptions, gpu: int) -> CudaEngine:
    """Load the network onto the GPU of this number."""
    kernels = load_weights(weights, spec.model, spec.layer)
    deeper = partial(load_weights, weights, spec.model, DEEPEST)
    return CudaEngine(spec, kernels, options, torch.device("cuda", gpu), load_kernels=deeper)
