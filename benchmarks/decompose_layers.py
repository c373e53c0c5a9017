"""What benchmarks/decompose.py works on: the layers of a VGG, photos, their maps and embeddings."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv2d, max_pool2d, normalize

from vggsearch.defaults import WHITENING
from vggsearch.errors import ImageError
from vggsearch.model.layers import needed_modules
from vggsearch.model.networks import IMAGENET_MEAN, IMAGENET_STD
from vggsearch.model.torch_engine.engine import normalised
from vggsearch.model.weights import find_weights, load_weights
from vggsearch.photos.decode import decode
from vggsearch.photos.resize import square
from vggsearch.photos.walk import PhotoFile, walk

LAYER = "pool5"
COMPARED = ("pool4", "pool5")
SIZE = 192
BATCH = 16
SHRINKAGE = WHITENING.least_shrinkage
DTYPE = torch.bfloat16  # of maps; statistics and weights are in more


@dataclass(eq=False)
class Layer:
    """A convolution, weight (outputs, inputs, 3, 3) or, decomposed, (rank, inputs, 3, 3) and `mix` (outputs, rank).

    `pools` is whether a max-pooling follows, whose name is `pool`.
    """

    name: str
    weight: Tensor
    bias: Tensor
    mix: Tensor | None = None
    pool: str = ""

    def responses(self, maps: Tensor) -> Tensor:
        """Return the output before the ReLU."""
        if self.mix is None:
            return conv2d(maps, self.weight.to(maps.dtype), self.bias.to(maps.dtype), padding=1)
        between = conv2d(maps, self.weight.to(maps.dtype), padding=1)
        return conv2d(between, self.mix.to(maps.dtype)[:, :, None, None], self.bias.to(maps.dtype))

    def __call__(self, maps: Tensor) -> Tensor:
        return self.after(self.responses(maps))

    def after(self, responses: Tensor) -> Tensor:
        """Return what the next layer gets, in the memory of the responses."""
        maps = torch.relu_(responses)
        return max_pool2d(maps, 2, 2) if self.pool else maps


def original(model: str, weights: Path | None, device: str) -> list[Layer]:
    """Return the layers of `model` up to LAYER with these weights, by default those that vggsearch finds."""
    kernels = load_weights(find_weights(model, LAYER, weights), model, LAYER)
    layers: list[Layer] = []
    for module in needed_modules(model, LAYER):
        if module.kind == "pool":
            layers[-1].pool = module.name
        else:
            kernel = kernels[module.name]
            weight = torch.from_numpy(kernel.weight).to(device, memory_format=torch.channels_last)
            layers.append(Layer(module.name, weight, torch.from_numpy(kernel.bias).to(device)))
    return layers


def chosen_files(folders: Sequence[Path], count: int) -> list[Path]:
    """Return the files of about `count` photos, as many of each folder, evenly."""
    each = -(-count // len(folders))
    paths: list[Path] = []
    for folder in folders:
        files = [folder / found.path for found in walk(folder) if isinstance(found, PhotoFile)]
        paths += files[:: max(1, len(files) // each)][:each]
    return paths


def squares(paths: Sequence[Path], side: int, device: str) -> Tensor:
    """Return the photos that can be decoded, squashed to squares: uint8 (photos, 3, side, side)."""
    found = []
    for path in paths:
        try:
            with path.open("rb") as opened:
                found.append(square(decode(opened, path.name, at_least=side).image, side, "squash"))
        except ImageError as error:
            print(f"skipped {path.name}: {error}", file=sys.stderr)
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).to(device)


def inputs(photos: Tensor) -> Tensor:
    """Return what the first layer gets for photos, (n, 3, side, side) in 0..255."""
    mean, deviation = (
        torch.tensor(values, device=photos.device).view(1, 3, 1, 1) * 255
        for values in (IMAGENET_MEAN, IMAGENET_STD)
    )
    return normalised(photos, mean, 1 / deviation, DTYPE)


def batches(photos: Tensor) -> list[Tensor]:
    """Return what the first layer gets, BATCH photos at a time."""
    return [inputs(some) for some in torch.split(photos, BATCH)]


def compared(layers: list[Layer], maps: Tensor) -> dict[str, Tensor]:
    """Return the maps of COMPARED that `layers`, the last of a network, make of their input."""
    found = {}
    for layer in layers:
        maps = layer(maps)
        if layer.pool in COMPARED:
            found[layer.pool] = maps
    return found


def embedding(maps: dict[str, Tensor]) -> Tensor:
    """Return pool4+pool5 as spoc pools them: mean, square root, unit length, joined, unit length."""
    parts = [normalize(maps[name].float().mean((2, 3)).clamp(min=1e-12).sqrt()) for name in COMPARED]
    joined: Tensor = torch.cat(parts, 1) / len(parts) ** 0.5
    return joined


def whitening(embeddings: Tensor) -> Tensor:
    """Return the matrix that whitens differences of embeddings as the search does, but keeps all directions."""
    centred = (embeddings - embeddings.mean(0)).double()
    values, directions = torch.linalg.eigh(centred.T @ centred / len(centred))
    floor = values.sum() / WHITENING.dim
    scaled: Tensor = directions / (values.clamp(min=0) * (1 - SHRINKAGE) + floor * SHRINKAGE).sqrt()
    return scaled.float()


def lost(found: Tensor, wanted: Tensor) -> Tensor:
    """Return the part of the energy of the wanted maps that the found ones lack."""
    wanted = wanted.float()
    return ((found.float() - wanted) ** 2).sum() / (wanted**2).sum()
