"""Fit linear maps of low rank to the responses of a layer, for benchmarks/decompose.py.

Zhang, Zou, He & Sun, "Accelerating very deep convolutional networks for classification and detection", 2015.
"""

from dataclasses import replace

import numpy as np
import torch
from decompose_layers import Layer, batches, lost
from torch import Tensor
from torch.nn.functional import pad

PLACES = 80  # of each photo whose responses are regressed
PENALTIES = (0.01, 0.1, 1.0)  # of the ReLU-aware regression, one round each
RIDGE = 1e-3  # of the mean variance
SIDES = (3, 3)  # of a convolution


def sampled(responses: Tensor, places: Tensor) -> Tensor:
    """Return the responses of a batch at these places, (photos x places, channels)."""
    found: Tensor = responses.flatten(2)[:, :, places].permute(0, 2, 1).flatten(0, 1).double()
    return found


class Regression:
    """Least squares of any target, rows of outputs, by linear maps of a rank of `given`, rows of channels."""

    def __init__(self, given: Tensor) -> None:
        self._mean = given.mean(0)
        self._centred = given - self._mean
        self.spread = self._centred.T @ self._centred / len(given)
        self.spread += (
            torch.eye(len(self._mean), dtype=given.dtype, device=given.device)
            * self.spread.trace()
            / len(self._mean)
            * RIDGE
        )

    def products(self, target: Tensor) -> Tensor:
        """Return the covariance of `given` with a target, (channels, outputs)."""
        return self._centred.T @ (target - target.mean(0)) / len(target)

    def __call__(self, target: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return U (outputs, rank), P (rank, channels) and b (outputs) of target = U P given + b."""
        mean = target.mean(0)
        full = torch.linalg.solve(self.spread, self.products(target)).T
        directions = torch.linalg.eigh(full @ self.spread @ full.T).eigenvectors.flip(1)[:, :rank]
        projection = directions.T @ full
        return directions, projection, mean - directions @ (projection @ self._mean)


def explained(target: Tensor, given: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return U, P, b as Regression does, for least squares after the ReLU: section 3.2, equations 9 to 13."""
    regression = Regression(given)
    up, down, offset = regression(target, rank)
    wanted = torch.relu(target)
    for penalty in PENALTIES:
        guess = (given @ down.T) @ up.T + offset
        negative = guess.clamp(max=0)
        positive = ((wanted + penalty * guess) / (1 + penalty)).clamp(min=0)
        cost_negative = wanted**2 + penalty * (negative - guess) ** 2
        cost_positive = (positive - wanted) ** 2 + penalty * (positive - guess) ** 2
        up, down, offset = regression(torch.where(cost_negative < cost_positive, negative, positive), rank)
    return up, down, offset


def factored(layer: Layer, target: Tensor, given: Tensor, rank: int) -> Layer:
    """Return the layer with a rank, for samples of responses: those it should have, and its own without bias."""
    up, down, offset = explained(target, given, rank)
    weight = (down.float() @ layer.weight.flatten(1)).view(rank, *layer.weight.shape[1:])
    return _layer(layer, weight, offset, up)


def refitted(layer: Layer, target: Tensor, given: Tensor, rank: int | None) -> Layer:
    """Return the layer for maps of fewer channels, with a rank or without.

    `target` are samples of the responses it should have, `given` the `patches` of the maps at the same places.
    """
    up, down, offset = explained(target, given, target.shape[1] if rank is None else rank)
    if rank is None:
        return _layer(layer, (up @ down).view(len(up), -1, *SIDES), offset, None)
    return _layer(layer, down.view(len(down), -1, *SIDES), offset, up)


def _layer(layer: Layer, weight: Tensor, bias: Tensor, mix: Tensor | None) -> Layer:
    weight = weight.float().contiguous(memory_format=torch.channels_last)
    return Layer(layer.name, weight, bias.float(), None if mix is None else mix.float(), layer.pool)


def patches(maps: Tensor, places: Tensor) -> Tensor:
    """Return what a 3 x 3 convolution sees of a batch at these places, (photos x places, channels x 9)."""
    width = maps.shape[3]
    rows, columns = places // width, places % width
    padded = pad(maps, (1, 1, 1, 1))
    seen = torch.stack([padded[:, :, rows + y, columns + x] for y in range(3) for x in range(3)], 2)
    return seen.flatten(1, 2).permute(0, 2, 1).flatten(0, 1).double()


def kept_channels(given: Tensor, target: Tensor, count: int) -> list[int]:
    """Return the `count` channels of `given`, from `patches`, that explain `target` best, by elimination.

    Each time, the channel goes without which least squares loses least: ThiNet's goal (Luo, Wu & Lin, 2017) with
    the exact loss. `target` are responses of the next layer, (samples, outputs).
    """
    regression = Regression(given)
    products = regression.products(target)
    cells = torch.arange(given.shape[1]).view(-1, SIDES[0] * SIDES[1])
    kept = list(range(len(cells)))
    while len(kept) > count:
        columns = cells[kept].flatten()
        inverse = torch.linalg.inv(regression.spread[columns][:, columns])
        weights = (inverse @ products[columns]).view(len(kept), cells.shape[1], -1)
        own = inverse.view(len(kept), cells.shape[1], len(kept), -1).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
        losses = (weights * torch.linalg.solve(own, weights)).sum((1, 2))
        kept.pop(int(losses.argmin()))
    return kept


def narrowed(layer: Layer, maps: list[Tensor], wanted: list[Tensor], width: int) -> Layer:
    """Return the layer with the `width` outputs that the next one needs most, whose responses are `wanted`.

    `maps` are what the layer gets.
    """
    random = torch.Generator().manual_seed(0)
    places = torch.randint(wanted[0][0, 0].numel(), (PLACES,), generator=random)
    given = torch.cat([patches(layer(some), places) for some in maps])
    kept = kept_channels(given, torch.cat([sampled(some, places) for some in wanted]), width)
    if layer.mix is not None:
        return replace(layer, mix=layer.mix[kept], bias=layer.bias[kept])
    return replace(layer, weight=layer.weight[kept], bias=layer.bias[kept])


def fitted(
    layer: Layer, theirs: list[Tensor], ours: list[Tensor], rank: int | None, random: torch.Generator
) -> Layer:
    """Return the layer with a rank, or for maps of fewer channels, so that `ours` give what `theirs` do."""
    is_narrow = ours[0].shape[1] < layer.weight.shape[1]
    if rank is None and not is_narrow:
        return layer
    targets, givens = [], []
    for wanted, approximated in zip(theirs, ours, strict=True):
        places = torch.randint(wanted[0, 0].numel(), (PLACES,), generator=random)
        targets.append(sampled(layer.responses(wanted), places))
        if is_narrow:
            givens.append(patches(approximated, places))
        else:
            givens.append(sampled(layer.responses(approximated), places) - layer.bias.double())
    target, given = torch.cat(targets), torch.cat(givens)
    if rank is None or is_narrow:
        return refitted(layer, target, given, rank)
    return factored(layer, target, given, rank)


def decomposed(layers: list[Layer], ranks: dict[str, int], widths: dict[str, int], photos: Tensor) -> list[Layer]:
    """Return the network with these ranks and widths, each layer regressed in turn."""
    random = torch.Generator().manual_seed(0)
    theirs = batches(photos)
    ours = theirs  # until the first layer that differs
    found: list[Layer] = []
    for number, layer in enumerate(layers):
        new = fitted(layer, theirs, ours, ranks.get(layer.name), random)
        passed = [layer(maps) for maps in theirs]
        if layer.name in widths:
            wanted = [layers[number + 1].responses(maps) for maps in passed]
            new = narrowed(new, ours, wanted, widths[layer.name])
        is_exact = new is layer and ours is theirs
        theirs, ours = passed, passed if is_exact else [new(maps) for maps in ours]
        if not is_exact and layer.name not in widths:
            parts = [float(lost(*maps)) for maps in zip(ours, theirs, strict=True)]
            print(f"{layer.name}: lost {np.mean(parts):.4f} of its maps", flush=True)
        found.append(new)
    return found
