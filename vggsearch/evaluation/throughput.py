"""Measure indexing throughput: of each stage alone, of all together, and of the hardware as the upper limit."""

import os
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import cycle, islice, repeat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vggsearch.errors import InstallationError, OptionError, PhotosError
from vggsearch.indexing.decoding import Decoded, decoded
from vggsearch.indexing.extract import extract
from vggsearch.model.engine import Engine, EngineOptions, rate
from vggsearch.model.layers import needed_modules
from vggsearch.model.loading import load_engine
from vggsearch.model.networks import describe
from vggsearch.model.spec import EmbeddingOptions, EmbeddingSpec
from vggsearch.model.weights import WeightsFile
from vggsearch.photos.walk import PhotoFile, Skipped, check_folder, walk
from vggsearch.progress import SILENT, Monitor, OnProgress, Stop

DECODE_S, FORWARD_S, END_TO_END_S, LIMIT_S, COMPARE_S = 5.0, 8.0, 15.0, 4.0, 4.0
MOST_PHOTOS = 1000  # of a folder, evenly spread: more cannot be processed in the time available
COMPARED_PHOTOS = 32
MADE_PHOTOS, MADE_SIZE = 48, (1600, 1200)
STAGES = ("decoding", "network", "decoding and network together", "hardware limit")
ENGINES_COMPARED = (  # the first available one is the reference: fp32, of PyTorch or else of OpenVINO
    EngineOptions("torch", "cpu", "fp32"),
    EngineOptions("torch", "cpu", "bf16"),
    EngineOptions("openvino", "cpu", "fp32"),
    EngineOptions("openvino", "cpu", "bf16"),
    EngineOptions("openvino", "cpu", "int8"),
    EngineOptions("torch", "cuda", "fp32"),
    EngineOptions("torch", "cuda", "bf16"),
    EngineOptions("torch", "cuda", "fp16"),
    EngineOptions("torch", "cuda", "fp8"),
    EngineOptions("torch", "mps", "fp32"),
    EngineOptions("torch", "mps", "fp16"),
)


@dataclass(frozen=True)
class BenchReport:
    """Photos per second: decoding alone, the network alone (`forward`), both together, and the hardware limit.

    `limit_per_s` is the throughput if the whole network ran at the speed of large convolutions in the same
    precision, measured in the same run.

    >>> report = bench("photos")  # doctest: +SKIP
    >>> report.engine, report.end_to_end_per_s  # doctest: +SKIP
    ('openvino', 31.5)
    """

    device: str
    engine: str
    precision: str
    decode_per_s: float
    forward_per_s: float
    end_to_end_per_s: float
    limit_per_s: float


@dataclass(frozen=True)
class EngineReport:
    """One inference backend and precision: photos per second, and agreement with the reference embeddings.

    The reference is fp32 in torch or, without PyTorch, in OpenVINO. `cosine` is the mean cosine similarity with it
    over some photos, `worst_cosine` the smallest.

    >>> for report in compare_engines("photos"):  # doctest: +SKIP
    ...     print(report.engine, report.precision, report.forward_per_s)
    torch fp32 8.6
    openvino int8 39.2
    """

    engine: str
    device: str
    precision: str
    forward_per_s: float
    cosine: float
    worst_cosine: float


def bench(
    folder: str | os.PathLike[str] | None = None,
    options: EmbeddingOptions | None = None,
    *,
    engine_options: EngineOptions | None = None,
    workers: int | None = None,
    progress: OnProgress | None = None,
    stop: Stop | None = None,
) -> BenchReport:
    """Measure how many photos per second this machine indexes, and its hardware limit, in about half a minute.

    Uses the photos in `folder`, or generated images without one. Raises PhotosError if the folder contains no
    photo, OptionError, WeightsError, and Stopped between two stages.

    >>> bench("photos").end_to_end_per_s  # doctest: +SKIP
    31.5
    """
    spec, weights = (options or EmbeddingOptions()).resolve()
    engine = load_engine(spec, weights, engine_options or EngineOptions())
    where = None if folder is None else Path(folder)
    return measure(spec, engine, where, workers=workers, monitor=Monitor(progress, stop))


def compare_engines(
    folder: str | os.PathLike[str] | None = None,
    options: EmbeddingOptions | None = None,
    *,
    progress: OnProgress | None = None,
    stop: Stop | None = None,
) -> list[EngineReport]:
    """Measure every inference backend and precision available here, the fp32 reference first, a few seconds each.

    Raises the errors of `bench`.

    >>> max(compare_engines(), key=lambda report: report.forward_per_s).precision  # doctest: +SKIP
    'int8'
    """
    spec, weights = (options or EmbeddingOptions()).resolve()
    return compare(spec, weights, None if folder is None else Path(folder), Monitor(progress, stop))


def measure(
    spec: EmbeddingSpec,
    engine: Engine,
    folder: Path | None = None,
    *,
    workers: int | None = None,
    monitor: Monitor = SILENT,
) -> BenchReport:
    """Measure one engine on photos of `folder`, or on generated images. Raises PhotosError and Stopped."""
    stages = _Stages(STAGES, monitor)
    with sample(folder) as (root, files):
        at_once = engine.batch_size
        batch = squares(files, root, spec, at_once)
        stages.begin()
        decode = counted(decoded(cycle(files), root, spec, ahead=at_once, workers=workers), DECODE_S, 1, monitor)
        stages.begin()
        forward = len(batch) * counted(stream(engine, batch), FORWARD_S, 1, monitor)
        stages.begin()
        both = extract(cycle(files), root, spec, lambda: engine, workers=workers)
        end_to_end = counted(both, END_TO_END_S, at_once, monitor)
    stages.begin()
    limit = engine.multiply_adds_per_s(LIMIT_S) / multiply_adds(spec)
    stages.end()
    rates = (round(each, 2) for each in (decode, forward, end_to_end, limit))
    return BenchReport(engine.device, engine.name, engine.precision, *rates)


def compare(
    spec: EmbeddingSpec,
    weights: WeightsFile,
    folder: Path | None = None,
    monitor: Monitor = SILENT,
) -> list[EngineReport]:
    """Measure every backend and precision available here, the fp32 reference first, a few seconds each.

    Raises PhotosError and Stopped.
    """
    with sample(folder) as (root, files):
        batch = squares(files, root, spec, COMPARED_PHOTOS)
    reports: list[EngineReport] = []
    expected: NDArray[np.float32] | None = None
    names = [f"{each.engine} {each.device} {each.precision}" for each in ENGINES_COMPARED]
    stages = _Stages(names, monitor)
    for options in ENGINES_COMPARED:
        stages.begin()
        try:
            engine = load_engine(spec, weights, options)
            embeddings = np.concatenate([engine.embed(part) for part in parts(batch, engine.batch_size)])
        except (OptionError, InstallationError):  # unavailable on this machine or for these weights
            continue
        expected = embeddings if expected is None else expected
        cosines = (embeddings * expected).sum(axis=1)
        some = batch[: engine.batch_size]
        forward = len(some) * rate(lambda: engine.embed(some), COMPARE_S)  # noqa: B023 - called immediately
        measured = (round(forward, 2), round(float(cosines.mean()), 5), round(float(cosines.min()), 5))
        reports.append(EngineReport(engine.name, engine.device, engine.precision, *measured))
    stages.end()
    return reports


class _Stages:
    """Reports the current stage of a measurement and the number of finished ones. Raises Stopped."""

    def __init__(self, names: Sequence[str], monitor: Monitor) -> None:
        self._names, self._monitor, self._done = names, monitor, 0

    def begin(self) -> None:
        self._monitor.step("measuring", self._done, len(self._names), "stages", self._names[self._done])
        self._done += 1

    def end(self) -> None:
        self._monitor.show("measuring", len(self._names), len(self._names), "stages")


def multiply_adds(spec: EmbeddingSpec) -> int:
    """Return the number of multiply-adds of the network for one photo, over all its views."""
    needed = len(needed_modules(spec.model, spec.layer))
    reports = [report for size in spec.sizes for report in describe(spec.model, size)[:needed]]
    return (2 if spec.mirror else 1) * sum(report.multiply_adds for report in reports)


@contextmanager
def sample(folder: Path | None) -> Iterator[tuple[Path, list[PhotoFile]]]:
    """Yield a folder and files in it: `folder`, or a temporary folder of generated images."""
    if folder is not None:
        found = [file for file in walk(check_folder(folder)) if isinstance(file, PhotoFile)]
        if not found:
            raise PhotosError(f"{folder} is empty. Choose a folder of photos, or none to use generated images.")
        yield folder, found[:: -(-len(found) // MOST_PHOTOS)]
        return
    with tempfile.TemporaryDirectory(prefix="vggsearch-bench-") as made:
        make_pictures(Path(made))
        yield Path(made), [file for file in walk(Path(made)) if isinstance(file, PhotoFile)]


def make_pictures(folder: Path) -> None:
    """Write JPEG images with detail at every scale, as in photos."""
    random = np.random.default_rng(0)
    for number in range(MADE_PHOTOS):
        pixels = np.zeros((MADE_SIZE[1], MADE_SIZE[0], 3), np.float32)
        for cells in (4, 16, 64, 256):
            noise = random.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
            pixels += np.asarray(Image.fromarray(noise).resize(MADE_SIZE), np.float32)
        Image.fromarray((pixels / 4).astype(np.uint8)).save(folder / f"{number:03}.jpg")


def squares(files: list[PhotoFile], root: Path, spec: EmbeddingSpec, count: int) -> NDArray[np.uint8]:
    """Return the network input of the first photos, repeated if too few: uint8 (count, size, size, 3), RGB."""
    photos = (item for item in decoded(files, root, spec, ahead=count) if isinstance(item, Decoded))
    pixels = [item.square.pixels for item in islice(photos, count)]
    if not pixels:
        raise PhotosError(f"{root} contains no usable photo among {len(files):,} files.")
    return np.stack(list(islice(cycle(pixels), count)))


def parts(batch: NDArray[np.uint8], size: int) -> Iterator[NDArray[np.uint8]]:
    """Split a batch into batches of at most `size`."""
    for start in range(0, len(batch), size):
        yield batch[start : start + size]


def stream(engine: Engine, batch: NDArray[np.uint8]) -> Generator[NDArray[np.float32], None, None]:
    """Yield the embeddings of one batch again and again, through the same stream as an update."""
    yield from engine.embed_stream(repeat(batch))


def counted(items: Generator[object, None, None], seconds: float, at_once: int, monitor: Monitor = SILENT) -> float:
    """Return the number of photos per second, measured for about `seconds`; skipped files do not count.

    Items arrive `at_once` at a time, so the clock starts and stops at the start of a batch. The first item is not
    counted.
    """
    with closing(items):
        next(items)
        started, count = time.perf_counter(), 0
        while time.perf_counter() - started < seconds:
            monitor.check()
            count += sum(not isinstance(item, Skipped) for item in islice(items, at_once))
        return count / (time.perf_counter() - started)
