"""Measure the activation ranges that int8 needs, for the packaged weights, on a folder of ordinary photos.

python benchmarks/measure_ranges.py PHOTOS...

Prints, for each convolution, the 99th percentile over photos of the largest activation in each photo. The table of
these numbers is vggsearch/model/openvino_engine/ranges.py. A higher percentile reduces the precision of every photo
for the sake of a few; between the 98th and the 100th the embeddings hardly differ.
"""

import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vggsearch.errors import ImageError
from vggsearch.model.engine import EngineOptions
from vggsearch.model.spec import EmbeddingOptions
from vggsearch.model.torch_engine.engine import TorchEngine
from vggsearch.model.weights import load_weights
from vggsearch.photos.decode import decode
from vggsearch.photos.resize import square
from vggsearch.photos.walk import PhotoFile, walk

PERCENTILE = 99
PHOTOS_EACH = 250
SIZES = (160, 192, 224)


def squares(folder: Path, size: int) -> Iterator[NDArray[np.uint8]]:
    files = [found for found in walk(folder) if isinstance(found, PhotoFile)]
    for file in files[:: max(1, len(files) // PHOTOS_EACH)]:
        try:
            with (folder / file.path).open("rb") as opened:
                yield square(decode(opened, file.path, at_least=size).image, size, "squash")
        except ImageError as error:
            print(f"skipped {file.path}: {error}", file=sys.stderr)


def largest_activations(folders: list[Path]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = defaultdict(list)
    for size in SIZES:
        spec, file = EmbeddingOptions(layer="pool5", size=size).resolve()
        engine = TorchEngine(
            spec, load_weights(file, spec.model, spec.layer), EngineOptions("torch", "cpu", "fp32")
        )
        for folder in folders:
            for picture in squares(folder, size):
                with torch.inference_mode():
                    x = engine.normalised(picture[None])
                    for name, step in engine.network.steps.items():
                        x = step(x)
                        found[name].append(float(x.amax()))
    return found


if __name__ == "__main__":
    for name, values in largest_activations([Path(word) for word in sys.argv[1:]]).items():
        if name.startswith("conv"):
            print(f'        "{name}": {np.percentile(values, PERCENTILE):.1f},')
