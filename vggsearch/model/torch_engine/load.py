"""Choose among the torch engines: one for a CPU or MPS, one for a card, one for several."""

from functools import partial

import torch

from vggsearch.model.engine import Engine, EngineOptions
from vggsearch.model.layers import DEEPEST
from vggsearch.model.multi_gpu import ManyCardsEngine
from vggsearch.model.spec import EmbeddingSpec
from vggsearch.model.torch_engine.cuda import CudaEngine
from vggsearch.model.torch_engine.engine import TorchEngine, choose_device
from vggsearch.model.weights import WeightsFile, load_weights


def load_torch_engine(spec: EmbeddingSpec, weights: WeightsFile, options: EngineOptions) -> Engine:
    """Load the network onto the device that `options` name: on CUDA, onto all cards that torch sees.

    Raises WeightsError, or OptionError where there is no such device or it has no such precision.
    """
    if choose_device(options.device) != "cuda":
        deeper = partial(load_weights, weights, spec.model, DEEPEST)
        return TorchEngine(spec, load_weights(weights, spec.model, spec.layer), options, load_kernels=deeper)
    load = partial(load_card, spec, weights, options)
    cards = torch.cuda.device_count()
    return load(0) if cards == 1 else ManyCardsEngine(load(0), load, range(cards))


def load_card(spec: EmbeddingSpec, weights: WeightsFile, options: EngineOptions, card: int) -> CudaEngine:
    """Load the network onto the card of this number."""
    kernels = load_weights(weights, spec.model, spec.layer)
    deeper = partial(load_weights, weights, spec.model, DEEPEST)
    return CudaEngine(spec, kernels, options, torch.device("cuda", card), load_kernels=deeper)
