"""Choose the inference backend and load the network into it."""

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

from vggsearch.defaults import EXTRACT
from vggsearch.errors import InstallationError, OptionError, SpecMismatch, option
from vggsearch.model.engine import Engine, EngineOptions, no_int8_in_torch
from vggsearch.model.gpu_engine import GpuEngine
from vggsearch.model.layers import has_cells, modules_before_cells
from vggsearch.model.ranges import activation_ranges
from vggsearch.model.spec import EmbeddingOptions, EmbeddingSpec
from vggsearch.model.weights import PACKAGED_FILES, WeightsFile, load_kernels, load_weights
from vggsearch.photos.decoder_pool import default_workers
from vggsearch.system.collecting import without_garbage_collection
from vggsearch.system.gpus import cuda_gpus, open_context
from vggsearch.system.installation import has_torch, require_torch

if TYPE_CHECKING:
    from vggsearch.model.local_features import LoadKernels
    from vggsearch.model.torch_engine.cuda import CudaEngine
    from vggsearch.model.weights import Kernel

log = logging.getLogger(__name__)


def load_engine(
    spec: EmbeddingSpec, weights: WeightsFile, options: EngineOptions | None = None, photos: int | None = None
) -> Engine:
    """Load the network that makes embeddings of `spec`, for `photos` photos; None for many.

    Raises WeightsError; OptionError if engine, device, precision and decode cannot be combined; and
    InstallationError if they need PyTorch, which is not installed.
    """
    options = options or EngineOptions()
    if options.decode == "gpu":
        require_torch(option("decode", "gpu"))
    load = load_openvino_engine if choose_engine(options, photos) == "openvino" else load_torch_engine
    engine = load(spec, weights, options)
    if options.engine == "auto" and load is load_torch_engine and engine.device.startswith("cpu"):
        log.warning(
            "OpenVINO is not installed. torch runs the network instead, at less than half the speed on a CPU."
        )
    if options.decode == "gpu" and not isinstance(engine, GpuEngine):
        raise OptionError(
            f"Only a CUDA GPU decodes JPEG; the network runs on {engine.device}. Use ", option("decode", "cpu"), "."
        )
    return engine


def check_no_options(options: EmbeddingOptions | None) -> None:
    """Raise OptionError for options of a VGG beside a network of the user's own."""
    if options not in (None, EmbeddingOptions()):
        raise OptionError(
            "EmbeddingOptions describe a VGG network. A network of your own has none: leave them out."
        )


def check_own(engine: Engine | None, spec: EmbeddingSpec, where: object) -> None:
    """Raise SpecMismatch if a network of the user's own is not that of the index at `where`."""
    found = engine.spec if engine is not None else None
    if found is not None and found != spec:
        raise SpecMismatch(f"{where} contains embeddings of {spec}, which cannot be compared with {found}.")


def without_own(spec: EmbeddingSpec) -> SpecMismatch:
    """Return the error for an index whose network is the user's own, and was not given."""
    return SpecMismatch(
        f"The embeddings are of {spec}, a network of your own. Open the index in Python with that network as its "
        "engine."
    )


def choose_engine(options: EngineOptions, photos: int | None = None) -> str:
    """Return the backend: that of `options`; or torch, if there is a GPU and not just a few photos; else OpenVINO.

    `photos` is how many are to be embedded, None for many. A few are done on the CPU before torch is imported and
    CUDA has started. OpenVINO is chosen without importing torch. Raises InstallationError if the backend is not
    installed.
    """
    if options.engine == "torch":
        require_torch(option("engine", "torch"))
        return "torch"
    if options.engine == "auto" and options.device in ("cuda", "mps"):
        require_torch(option("device", options.device))
        return "torch"
    if options.engine == "auto" and options.device == "auto" and not _is_for_cpu(options, photos) and cuda_gpus():
        return "torch"
    if find_spec("openvino") is not None:
        return "openvino"
    if options.engine == "openvino" or not has_torch():
        raise InstallationError(
            "OpenVINO is not installed: pip install openvino, or use PyTorch with ", option("engine", "torch"), "."
        )
    return "torch"


def _is_for_cpu(options: EngineOptions, photos: int | None) -> bool:
    """Return whether OpenVINO embeds so few photos before a GPU has started, and `options` leave that open."""
    few = EXTRACT.few_per_cpu * default_workers()
    is_open = options.precision == "auto" and options.decode != "gpu"
    return is_open and photos is not None and photos <= few and find_spec("openvino") is not None


def load_openvino_engine(spec: EmbeddingSpec, weights: WeightsFile, options: EngineOptions) -> Engine:
    """Load the network into OpenVINO, which reads the weights when it needs them and may then raise WeightsError.

    Raises OptionError for a device or precision that OpenVINO does not support here.
    """
    with without_garbage_collection():
        from vggsearch.model.openvino_engine.engine import OpenVinoEngine

    load = partial(load_weights, weights, spec.model, spec.layer)
    return OpenVinoEngine(spec, load, options, kernels_for_cells(spec, weights), is_kept=True)


def load_torch_engine(spec: EmbeddingSpec, weights: WeightsFile, options: EngineOptions) -> Engine:
    """Load the network into torch on the device of `options`; for CUDA, once it is needed, on all GPUs.

    Raises WeightsError, or OptionError for a device that is missing or a precision that it does not support.
    """
    if options.device in ("auto", "cuda") and cuda_gpus():
        return load_gpu_engine(spec, weights, options)
    from vggsearch.model.torch_engine.engine import TorchEngine

    kernels = load_weights(weights, spec.model, spec.layer)
    return TorchEngine(spec, kernels, options, load_kernels=kernels_for_cells(spec, weights))


def cpu_engine(spec: EmbeddingSpec, kernels: "dict[str, Kernel]", options: EngineOptions) -> Engine:
    """Return an engine on the CPU with these kernels, wherever they come from. Raises OptionError."""
    if choose_engine(replace(options, device="cpu")) == "openvino":
        from vggsearch.model.openvino_engine.engine import OpenVinoEngine

        return OpenVinoEngine(spec, kernels, options)
    from vggsearch.model.torch_engine.engine import TorchEngine

    return TorchEngine(spec, kernels, replace(options, device="cpu"))


def kernels_for_cells(spec: EmbeddingSpec, weights: WeightsFile) -> "LoadKernels | None":
    """Return a function that loads the kernels for local features, None for a network without them."""
    return partial(_load_cells, spec.model, weights) if has_cells(spec.model) else None


def _load_cells(model: str, weights: WeightsFile) -> "dict[str, Kernel]":
    return load_kernels(weights, model, modules_before_cells(model))


def check_weights(spec: EmbeddingSpec, weights: WeightsFile) -> None:
    """Raise WeightsError if the file does not hold the network of `spec`. The packaged ones do."""
    if weights.path != PACKAGED_FILES.get(spec.model):
        load_weights(weights, spec.model, spec.layer)


def load_gpu_engine(spec: EmbeddingSpec, weights: WeightsFile, options: EngineOptions) -> GpuEngine:
    """Return an engine for all GPUs. This process imports torch only if it runs the network itself."""
    check_weights(spec, weights)  # before a GPU process does
    if options.precision == "int8":
        raise no_int8_in_torch()
    if options.precision == "fp8":
        activation_ranges(spec, "fp8")
    return GpuEngine(
        partial(load_gpu, spec, weights, options),
        cuda_gpus(),
        name="torch",
        precision="fp16" if options.precision == "auto" else options.precision,
        batch_size=options.batch_size or EXTRACT.gpu_batch_size,
    )


def load_gpu(spec: EmbeddingSpec, weights: WeightsFile, options: EngineOptions, gpu: int) -> "CudaEngine":
    """Load the network on the GPU with this number. The GPU and the weights get ready while torch is imported."""
    with ThreadPoolExecutor(2) as threads:
        threads.submit(open_context, gpu)
        kernels = threads.submit(load_weights, weights, spec.model, spec.layer)
        import torch

        from vggsearch.model.torch_engine.cuda import CudaEngine

    deeper = kernels_for_cells(spec, weights)
    return CudaEngine(spec, kernels.result(), options, torch.device("cuda", gpu), load_kernels=deeper)
