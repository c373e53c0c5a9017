"""Put the networks side by side: size, work and reach of each, and the photos per second that it embeds here."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from vggsearch.defaults import EMBEDDING
from vggsearch.model.engine import EngineOptions, rate
from vggsearch.model.layers import needed_modules
from vggsearch.model.loading import cpu_engine
from vggsearch.model.modules import Module
from vggsearch.model.networks import NETWORKS, describe, modules
from vggsearch.model.spec import EmbeddingSpec
from vggsearch.model.weights import Kernel
from vggsearch.progress import Monitor, OnProgress, Stop

MEASURE_S = 3.0  # for one network
FLOAT32 = 4  # bytes
NORM = "_bn"  # a batch normalisation is part of its convolution once loaded, so such a network costs the same


@dataclass(frozen=True)
class NetworkReport:
    """One network, and the embedding that it makes by default.

    `depth` is the number of layers with weights that follow each other, `connected_share` the share of all
    `parameters` that lie in fully connected layers, and `multiply_adds` those of the whole network for one photo of
    224 x 224 pixels.

    The rest concerns the embedding of `layer` for inputs of `size` pixels: its `dimensions`, the multiply-adds of
    one photo, the `receptive_field` in pixels of the deepest layer, and the bytes of the weights in float32.
    `photos_per_s` was measured on this CPU by `engine`; it is None, and `engine` is empty, if it was not asked for.

    >>> [report.depth for report in compare_networks() if report.model == "resnet50"]
    [50]
    """

    model: str
    depth: int
    parameters: int
    connected_share: float
    multiply_adds: int
    layer: str
    size: int
    dimensions: int
    embedding_multiply_adds: int
    receptive_field: int
    weight_bytes: int
    photos_per_s: float | None = None
    engine: str = ""


def compare_networks(
    *, measure: bool = False, progress: OnProgress | None = None, stop: Stop | None = None
) -> list[NetworkReport]:
    """Describe every network, in the order of the table.

    With `measure`, the photos per second of each are measured on the CPU, for a few seconds each, at the fastest
    precision that all networks support. No weights are needed, since random ones take the same time. Raises
    Stopped, and InstallationError without an inference backend.

    >>> {report.model: report.parameters for report in compare_networks()}["vgg16"]
    138357544
    """
    monitor = Monitor(progress, stop)
    models = [model for model in NETWORKS if not model.endswith(NORM)]
    reports = []
    for done, model in enumerate(models):
        monitor.check()
        report = described(model)
        if measure:
            monitor.step("measuring", done, len(models), "stages", model)
            report = measured(report)
        reports.append(report)
    return reports


def described(model: str) -> NetworkReport:
    """Return the report of a network, without its speed."""
    whole, row = modules(model), NETWORKS[model]
    needed = needed_modules(model, row.layer)
    reports = describe(model, row.size)[: len(needed)]
    parameters = _parameters(whole)
    return NetworkReport(
        model=model,
        depth=sum(module.depth for module in whole),
        parameters=parameters,
        connected_share=_parameters([module for module in whole if module.kind == "linear"]) / parameters,
        multiply_adds=sum(report.multiply_adds for report in describe(model, EMBEDDING.trained_size)),
        layer=row.layer,
        size=row.size,
        dimensions=spec_of(model, row.layer, row.size).dim,
        embedding_multiply_adds=sum(report.multiply_adds for report in reports),
        receptive_field=reports[-1].receptive_field,
        weight_bytes=FLOAT32 * sum(math.prod(shape) for module in needed for shape in module.shapes.values()),
    )


def _parameters(modules: Sequence[Module]) -> int:
    return sum(module.parameters for module in modules)


def spec_of(model: str, layer: str, size: int) -> EmbeddingSpec:
    """Return the spec of embeddings with default pooling, with no particular weights."""
    return EmbeddingSpec(model, layer, EMBEDDING.map_pooling, (size,), EMBEDDING.resize, weights_sha256="")


def measured(report: NetworkReport, seconds: float = MEASURE_S) -> NetworkReport:
    """Return the report with the photos per second of this CPU, measured for about `seconds`."""
    import numpy as np

    spec, kernels = spec_of(report.model, report.layer, report.size), random_kernels(report.model, report.layer)
    engine = cpu_engine(spec, kernels, EngineOptions())
    shape = (engine.batch_size, report.size, report.size, 3)
    squares = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    photos_per_s = len(squares) * rate(lambda: engine.embed(squares), seconds)
    return replace(report, photos_per_s=round(photos_per_s, 2), engine=str(engine))


def random_kernels(model: str, layer: str) -> dict[str, Kernel]:
    """Return kernels of the right shapes, He-initialised, so that activations neither vanish nor explode."""
    import numpy as np

    random = np.random.default_rng(0)
    kernels = {}
    for module in (inner for step in needed_modules(model, layer) for inner in step.weighted):
        shape = module.shapes[f"{module.key}.weight"]
        weight = random.standard_normal(shape, np.float32) * np.float32(np.sqrt(2 / np.prod(shape[1:])))
        kernels[module.name] = Kernel(weight, random.standard_normal(module.outputs, np.float32) * np.float32(0.1))
    return kernels
