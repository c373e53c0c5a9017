"""OpenVINO on the CPU: int8 for the packaged weights, bf16 or fp32 for others."""

from collections.abc import Mapping
from functools import partial
from threading import Lock

import numpy as np
import openvino
from numpy.typing import NDArray

from vggsearch.defaults import EXTRACT
from vggsearch.errors import OptionError, option
from vggsearch.model.engine import Description, Engine, EngineOptions, rate
from vggsearch.model.layers import has_cells
from vggsearch.model.local_features import LoadKernels, no_cells
from vggsearch.model.openvino_engine.compiled import CompiledNetworks
from vggsearch.model.openvino_engine.graph import Int8, build_graph, convolution_graph
from vggsearch.model.openvino_engine.processor import largest_weight
from vggsearch.model.ranges import ACTIVATION_RANGES, activation_ranges
from vggsearch.model.spec import EmbeddingSpec
from vggsearch.model.weights import Kernel

DEVICE = "CPU"
AUTO = (option("precision", "auto"), ".")  # what to use in place of a precision
ARITHMETIC = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}  # outside int8: pooling and L2


class OpenVinoEngine(Engine):
    """The truncated network as a compiled graph from pixels to embeddings, and another that adds local features.

    Each graph is compiled when it first runs, so a query compiles only the one it needs. `kernels` may be a
    function that loads them, which `load_kernels` does for local features in case they end before these. With
    `is_kept`, compiled graphs are kept on disk, and no kernels are loaded for those that are there. Threads take
    turns: one batch uses all cores, and the graph writes its results into the same memory each time.
    """

    name = "openvino"

    def __init__(
        self,
        spec: EmbeddingSpec,
        kernels: Mapping[str, Kernel] | LoadKernels,
        options: EngineOptions,
        load_kernels: LoadKernels | None = None,
        *,
        is_kept: bool = False,
    ) -> None:
        self._spec = spec
        core = openvino.Core()
        if options.device not in ("auto", "cpu"):
            raise OptionError(
                f"OpenVINO runs on the CPU here, not on {options.device}. Use ", option("engine", "torch"), "."
            )
        self.precision = choose_precision(options.precision, spec, core)
        is_int8 = self.precision == "int8"
        self._int8 = Int8(activation_ranges(spec, "int8"), largest_weight()) if is_int8 else None
        # One batch at a time on all cores: more streams and larger batches were no faster (docs/performance.md).
        self._settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": ARITHMETIC[self.precision]}
        self._compile = partial(core.compile_model, device_name=DEVICE, config=self._settings)
        largest = self._int8.largest_weight if self._int8 is not None else None
        self._kept = CompiledNetworks(core, DEVICE, spec, self.precision, largest) if is_kept else None
        self._running = Lock()  # around every use of a graph, its compilation included
        self._networks: dict[int, openvino.CompiledModel] = {}  # by the number of levels of cells
        self._load: LoadKernels = kernels if callable(kernels) else lambda: kernels
        self._load_more: LoadKernels = load_kernels or self._load
        self.batch_size = options.batch_size or EXTRACT.batch_size

    def embed(self, squares: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See Engine.embed."""
        with self._running:
            embeddings: NDArray[np.float32] = self._network()(squares, share_inputs=True)[0]
            return embeddings.copy()  # OpenVINO overwrites them with the next batch

    def describe(self, squares: NDArray[np.uint8], levels: int = 2) -> Description:
        """See Engine.describe."""
        if not has_cells(self._spec.model):
            return Description(self.embed(squares), no_cells(len(squares), self._spec.size, levels))
        with self._running:
            embeddings, *cells = self._network(levels)(squares, share_inputs=True).values()
            return Description(embeddings.copy(), tuple(each.copy() for each in cells))

    @property
    def device(self) -> str:
        """See Engine.device."""
        with self._running:
            network = next(iter(self._networks.values()), None) or self._network()
            return f"cpu ({network.get_property('INFERENCE_NUM_THREADS')} threads)"

    def prepare(self, levels: int = 0) -> None:
        """See Engine.prepare."""
        with self._running:
            self._network(levels if has_cells(self._spec.model) else 0)

    def _network(self, levels: int = 0) -> openvino.CompiledModel:
        """Return the network that gives embeddings and so many levels of cells, compiled at its first use."""
        if levels not in self._networks:
            self._networks[levels] = self._compiled(levels)
        return self._networks[levels]

    def _compiled(self, levels: int) -> openvino.CompiledModel:
        kind = f"embeddings and {levels} levels of cells"
        found = self._kept.find(kind, self._settings) if self._kept is not None else None
        if found is not None:
            return found
        load = self._load_more if levels else self._load
        network = self._compile(build_graph(self._spec, load(), self._int8, levels))
        if self._kept is not None:
            self._kept.keep(kind, network)
        return network

    def multiply_adds_per_s(self, seconds: float) -> float:
        """See Engine.multiply_adds_per_s."""
        graph, work = convolution_graph(is_int8=self.precision == "int8")
        maps = np.full(graph.input(0).shape, 100, np.uint8)
        network = self._compile(graph)
        return work * rate(lambda: network(maps, share_inputs=True), seconds)


def choose_precision(wanted: str, spec: EmbeddingSpec, core: openvino.Core) -> str:
    """Return the number format: the wanted one, or the fastest that leaves results unchanged.

    Raises OptionError for int8 without activation ranges, and for formats that the CPU does not support.
    """
    has_ranges = spec.weights_sha256 in ACTIVATION_RANGES
    capabilities = core.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")
    if wanted == "auto":
        return "int8" if has_ranges else "bf16" if "BF16" in capabilities else "fp32"
    if wanted == "int8":
        activation_ranges(spec, wanted)
    if wanted == "bf16" and "BF16" not in capabilities:
        raise OptionError("This CPU does not support bf16. Use ", *AUTO)
    if wanted in ("fp16", "fp8"):
        raise OptionError(f"OpenVINO does not support {wanted} on a CPU. Use ", *AUTO)
    return wanted
