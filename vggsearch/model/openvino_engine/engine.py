"""OpenVINO on the CPU: int8 for the packaged weights, bf16 or fp32 for any other."""

from collections.abc import Mapping
from functools import cached_property, partial

import numpy as np
import openvino
from numpy.typing import NDArray

from vggsearch.defaults import EXTRACT
from vggsearch.errors import OptionError
from vggsearch.model.engine import Description, Engine, EngineOptions, rate
from vggsearch.model.local_features import LoadKernels
from vggsearch.model.openvino_engine.graph import Int8, build_graph, convolution_graph
from vggsearch.model.openvino_engine.processor import largest_weight
from vggsearch.model.openvino_engine.ranges import ACTIVATION_RANGES
from vggsearch.model.spec import EmbeddingSpec
from vggsearch.model.weights import Kernel

DEVICE = "CPU"
ARITHMETIC = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}  # of what is not int8: pooling and L2


class OpenVinoEngine(Engine):
    """The truncated VGG as one compiled graph, from bytes to embeddings, and to cells once those are asked for.

    A graph is compiled when it is first run, so that a query compiles only the one it needs. `load_kernels` gives
    those of cells, where `kernels` end before them.
    """

    name = "openvino"

    def __init__(
        self,
        spec: EmbeddingSpec,
        kernels: Mapping[str, Kernel],
        options: EngineOptions,
        load_kernels: LoadKernels | None = None,
    ) -> None:
        core = openvino.Core()
        if options.device not in ("auto", "cpu"):
            raise OptionError(f"OpenVINO runs on the CPU here, not on {options.device}. Use --engine torch.")
        self.precision = choose_precision(options.precision, spec, core)
        is_int8 = self.precision == "int8"
        int8 = Int8(ACTIVATION_RANGES[spec.weights_sha256], largest_weight()) if is_int8 else None
        # One batch at a time on all cores: more streams, larger batches and a compiled-model cache were measured,
        # and none was faster (docs/performance.md).
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": ARITHMETIC[self.precision]}
        self._compile = partial(core.compile_model, device_name=DEVICE, config=settings)
        self._build = partial(build_graph, spec, int8=int8)
        self._kernels = kernels
        self._load_kernels: LoadKernels = load_kernels or (lambda: kernels)
        self.batch_size = options.batch_size or EXTRACT.batch_size

    def embed(self, squares: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Take RGB pixels (n, size, size, 3); return rows of unit length, float32 (n, dim), in their order."""
        embeddings: NDArray[np.float32] = self._network(squares, share_inputs=True)[0]
        return embeddings.copy()  # OpenVINO writes the next batch over them

    def describe(self, squares: NDArray[np.uint8]) -> Description:
        """See Engine.describe."""
        embeddings, fine, coarse = self._network_with_cells(squares, share_inputs=True).values()
        return Description(embeddings.copy(), (fine.copy(), coarse.copy()))

    @property
    def device(self) -> str:
        """See Engine.device."""
        return f"cpu ({self._network.get_property('INFERENCE_NUM_THREADS')} threads)"

    @cached_property
    def _network(self) -> openvino.CompiledModel:
        return self._compile(self._build(self._kernels))

    @cached_property
    def _network_with_cells(self) -> openvino.CompiledModel:
        return self._compile(self._build(self._load_kernels(), with_cells=True))

    def multiply_adds_per_s(self, seconds: float) -> float:
        """See Engine.multiply_adds_per_s."""
        graph, work = convolution_graph(is_int8=self.precision == "int8")
        maps = np.full(graph.input(0).shape, 100, np.uint8)
        network = self._compile(graph)
        return work * rate(lambda: network(maps, share_inputs=True), seconds)


def choose_precision(wanted: str, spec: EmbeddingSpec, core: openvino.Core) -> str:
    """Return the number format: the wanted one, or the fastest whose embeddings are those of float32.

    Raises OptionError where the weights have no activation ranges or the processor has no such numbers.
    """
    has_ranges = spec.weights_sha256 in ACTIVATION_RANGES
    capabilities = core.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")
    if wanted == "auto":
        return "int8" if has_ranges else "bf16" if "BF16" in capabilities else "fp32"
    if wanted == "int8" and not has_ranges:
        raise OptionError(
            "int8 needs activation ranges, which are measured for the packaged VGG16 weights only, "
            f"not for {spec.model} with weights {spec.weights_sha256[:8]}. Use --precision auto."
        )
    if wanted == "bf16" and "BF16" not in capabilities:
        raise OptionError("This processor does not multiply bf16. Use --precision auto.")
    if wanted == "fp16":
        raise OptionError("OpenVINO runs no fp16 on a CPU. Use --precision auto, or --engine torch.")
    return wanted
