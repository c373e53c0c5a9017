"""Fit linear maps of low rank to the responses of a layer, for benchmarks/decompose.py.

Zhang, Zou, He & Sun, "Accelerating very deep convolutional networks for classification and detection", 2015.
"""

import numpy as np
import torch
from decompose_layers import Layer, batches, lost
from torch import Tensor

PLACES = 80  # of each photo whose responses are regressed
PENALTIES = (0.01, 0.1, 1.0)  # of the ReLU-aware regression, one round each
RIDGE = 1e-3  # of the mean variance


def sampled(responses: Tensor, places: Tensor) -> Tensor:
    """Return the responses of a batch at these places, (photos x places, channels)."""
    found: Tensor = responses.flatten(2)[:, :, places].permute(0, 2, 1).flatten(0, 1).double()
    return found


class Regression:
    """Least squares of any target, rows of outputs, by linear maps of a rank of `given`, rows of channels."""

    def __init__(self, given: Tensor) -> None:
        self._mean = given.mean(0)
        self._centred = given - self._mean
        self._spread = self._centred.T @ self._centred / len(given)
        self._spread += (
            torch.eye(len(self._mean), dtype=given.dtype, device=given.device)
            * self._spread.trace()
            / len(self._mean)
            * RIDGE
        )

    def __call__(self, target: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return U (outputs, rank), P (rank, channels) and b (outputs) of target = U P given + b."""
        mean = target.mean(0)
        full = torch.linalg.solve(self._spread, self._centred.T @ (target - mean) / len(target)).T
        directions = torch.linalg.eigh(full @ self._spread @ full.T).eigenvectors.flip(1)[:, :rank]
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
    return Layer(
        layer.name,
        weight.to(memory_format=torch.channels_last),
        offset.float(),
        up.float(),
        layer.pool,
    )


def decomposed(layers: list[Layer], ranks: dict[str, int], photos: Tensor) -> list[Layer]:
    """Return the network with the ranks, each layer regressed in turn."""
    random = torch.Generator().manual_seed(0)
    theirs = batches(photos)
    ours = theirs  # until the first layer with a rank
    found: list[Layer] = []
    for layer in layers:
        new = layer
        targets, givens = [], []
        if layer.name in ranks and ours is theirs:
            ours = list(theirs)
        for number, (maps, approximated) in enumerate(zip(theirs, ours, strict=True)):
            responses = layer.responses(maps)
            if layer.name in ranks:
                places = torch.randint(responses[0, 0].numel(), (PLACES,), generator=random)
                targets.append(sampled(responses, places))
                givens.append(sampled(layer.responses(approximated), places) - layer.bias.double())
            theirs[number] = layer.after(responses)
        if layer.name in ranks:
            new = factored(layer, torch.cat(targets), torch.cat(givens), ranks[layer.name])
        found.append(new)
        if ours is theirs:
            continue
        ours = [new(maps) for maps in ours]
        parts = [float(lost(*maps)) for maps in zip(ours, theirs, strict=True)]
        print(f"{layer.name}: lost {np.mean(parts):.4f} of its maps", flush=True)
    return found
