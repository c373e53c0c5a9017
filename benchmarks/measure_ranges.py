"""Measure the activation ranges that int8 needs, for packaged weights, on folders of ordinary photos.

python benchmarks/measure_ranges.py PHOTOS... [--model vgg16_half] [--each 250]

Prints, for each convolution, the 99th percentile over photos of the largest magnitude in each photo. The table of
these numbers is vggsearch/model/ranges.py. A higher percentile reduces the precision of every photo
for the sake of a few; between the 98th and the 100th the embeddings hardly differ.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vggsearch.defaults import EMBEDDING
from vggsearch.errors import ImageError
from vggsearch.model.engine import EngineOptions
from vggsearch.model.spec import EmbeddingOptions
from vggsearch.model.torch_engine.engine import TorchEngine
from vggsearch.model.weights import load_weights
from vggsearch.photos.decode import decode
from vggsearch.photos.resize import square
from vggsearch.photos.walk import PhotoFile, walk

PERCENTILE = 99
SIZES = (160, 192, 224)


def squares(folder: Path, size: int, count: int) -> Iterator[NDArray[np.uint8]]:
    files = [found for found in walk(folder) if isinstance(found, PhotoFile)]
    for file in files[:: max(1, len(files) // count)]:
        try:
            with (folder / file.path).open("rb") as opened:
                yield square(decode(opened, file.path, at_least=size).image, size, "squash")
        except ImageError as error:
            print(f"skipped {file.path}: {error}", file=sys.stderr)


def largest_activations(model: str, folders: list[Path], each: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = defaultdict(list)
    for size in SIZES:
        spec, file = EmbeddingOptions(model=model, layer="pool5", size=size).resolve()
        engine = TorchEngine(
            spec, load_weights(file, spec.model, spec.layer), EngineOptions("torch", "cpu", "fp32")
        )
        for folder in folders:
            for picture in squares(folder, size, each):
                with torch.inference_mode():
                    x = engine.normalised(picture[None])
                    for name, step in engine.network.steps.items():
                        x = step(x)
                        found[name].append(float(x.abs().amax()))
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="PHOTOS")
    parser.add_argument("--model", default=EMBEDDING.model)
    parser.add_argument("--each", type=int, default=250, help="photos of each folder")
    given = parser.parse_args()
    for name, values in largest_activations(given.model, given.folders, given.each).items():
        if name.startswith("conv"):
            print(f'        "{name}": {np.percentile(values, PERCENTILE):.1f},')
