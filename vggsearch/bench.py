"""How fast this machine looks at photos: each stage alone, all together, and next to the machine's own limit."""

import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vggsearch.errors import OptionError, PhotosError
from vggsearch.extract import decoded, default_workers, extract
from vggsearch.model.engine import Engine, EngineOptions, load_engine, rate
from vggsearch.model.layers import needed_modules
from vggsearch.model.spec import EmbeddingSpec
from vggsearch.model.vgg import describe
from vggsearch.model.weights import WeightsFile
from vggsearch.photos import PhotoFile, walk

SECONDS = {"decode": 5.0, "forward": 8.0, "end to end": 15.0, "limit": 4.0}
COMPARE_SECONDS = 4.0
MADE_PHOTOS = 48
MADE_SIZE = (1200, 900)
MOST_PHOTOS = 1000


@dataclass(frozen=True)
class BenchReport:
    """Photos a second: decoding alone, the network alone (`forward`), both together, and the limit.

    `limit_per_s` is what the device could do if the whole network ran as fast as one large convolution does in
    the same precision, measured in the same run.
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
    """One engine and precision: its photos a second, and the mean cosine of its embeddings with torch's fp32."""

    engine: str
    precision: str
    forward_per_s: float
    cosine: float


def bench(
    spec: EmbeddingSpec,
    engine: Engine,
    folder: Path | None = None,
    *,
    batch_size: int | None = None,
    workers: int | None = None,
) -> BenchReport:
    """Measure on a folder's photos, or on pictures made for it, in about half a minute.

    Raises PhotosError where the folder holds no picture that can be used.
    """
    threads = workers or default_workers()
    with photos_of(folder) as (root, files):
        picture = next(decoded(files, root, spec, 1, ahead=1)).pixels
        batch = np.stack([picture] * (batch_size or engine.batch_size))
        forward = len(batch) * rate(lambda: engine.embed(batch), SECONDS["forward"])
        decode = counted(decoded(cycle(files), root, spec, threads, ahead=len(batch)), SECONDS["decode"])
        both = extract(cycle(files), root, spec, engine, batch_size=batch_size, workers=threads)
        end_to_end = counted(both, SECONDS["end to end"])
    limit = engine.multiply_adds_per_s(SECONDS["limit"]) / multiply_adds(spec)
    rates = (round(each, 2) for each in (decode, forward, end_to_end, limit))
    return BenchReport(engine.device, engine.name, engine.precision, *rates)
