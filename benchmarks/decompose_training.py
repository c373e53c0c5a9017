"""Train a decomposed network to do as its original does, for benchmarks/decompose.py.

Hinton, Vinyals & Dean, "Distilling the knowledge in a neural network", 2015; of maps: Romero et al., "FitNets:
hints for thin deep nets", 2015. The photos are varied in each step, and the original is run on them as well.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from math import cos, isfinite, pi
from typing import TypeAlias

import torch
from decompose_layers import COMPARED, Layer, batches, compared, embedding, inputs, lost, whitening
from decompose_regression import PLACES, sampled
from decompose_variations import varied_batches
from torch import Tensor
from torch.nn.functional import conv2d

LEARNING_RATE = 2e-3  # of the root mean square of a tensor, for a batch of OF_BATCH
OF_BATCH = 64
WARMING_UP = 0.04  # of the time
Example: TypeAlias = tuple[Tensor, dict[str, Tensor]]  # what the first layer that learns gets, and what is wanted

MEASURED = 64  # photos whose responses the layers' coordinates are chosen for
DAMPING = 0.01  # of the mean variance
ON_EMBEDDING = 1.0  # weight of the loss of the embedding beside that of the maps
REPORT_EVERY = 5.0  # seconds, at least
REPORTING = 0.05  # of the time, at most


@dataclass(frozen=True)
class Schedule:
    """How long a network is trained, and with what.

    The layers before `start` stay as they are; "" is the first that differs. With `views`, so many varied photos
    are made at the beginning, with the maps that are wanted of them, and used again and again.
    """

    batch: int
    steps: int
    seconds: float = float("inf")
    start: str = ""
    views: int | None = None


@dataclass
class Limit:
    """When training ends: after so many steps or seconds, whichever comes first."""

    steps: int
    seconds: float
    _start: float = field(default_factory=time.monotonic)

    def spent(self, step: int) -> float:
        """Return the part of the training that is over after `step` steps."""
        return max(step / self.steps, (time.monotonic() - self._start) / self.seconds)


def learning_rate(spent: float, batch: int) -> float:
    """Return the learning rate when this part of the training is over: a half cosine, after a short rise."""
    highest: float = LEARNING_RATE * (batch / OF_BATCH) ** 0.5
    return highest * min(1.0, spent / WARMING_UP) * (1 + cos(pi * min(1.0, spent))) / 2


class Judge:
    """How far networks are from the original for photos that they were not trained on, and the `best` of them."""

    def __init__(self, layers: list[Layer], photos: Tensor, whiten: Tensor) -> None:
        self._photos = photos
        self._whiten = whiten
        self._exact = self._embeddings(layers)
        self._spread = spread(self._exact, whiten)
        self._least = float("inf")
        self.best: list[Layer] = []

    def _embeddings(self, layers: list[Layer]) -> Tensor:
        return torch.cat([embedding(compared(layers, maps)) for maps in batches(self._photos)])

    @torch.no_grad()
    def report(self, title: str, layers: list[Layer]) -> float:
        """Print, after the title, and return the part of the whitened variance that is lost."""
        found = self._embeddings(layers)
        distance = float(spread_of(found - self._exact, self._whiten) / self._spread)
        cosines = (found * self._exact).sum(1)
        print(
            f"{title}; held out: cosine {cosines.mean():.4f}, least {cosines.min():.4f},"
            f" whitened distance {distance:.4f}",
            flush=True,
        )
        if distance < self._least:
            self._least, self.best = distance, [copied(layer) for layer in layers]
        return distance


def copied(layer: Layer) -> Layer:
    mix = None if layer.mix is None else layer.mix.clone()
    return replace(layer, weight=layer.weight.clone(), bias=layer.bias.clone(), mix=mix)


def spread_of(differences: Tensor, whiten: Tensor) -> Tensor:
    """Return the mean square of whitened differences of embeddings."""
    return ((differences @ whiten) ** 2).sum(1).mean()


def spread(embeddings: Tensor, whiten: Tensor) -> Tensor:
    """Return the variance of whitened embeddings."""
    return spread_of(embeddings - embeddings.mean(0), whiten)


class Learned:
    """A layer as what is learned of it: in coordinates in which what the two convolutions get is uncorrelated.

    Maps after a ReLU have a large mean, and most of their variance lies in few directions. If the weights were
    learned as they are, a step of Adam would change the responses mainly there.
    """

    def __init__(self, layer: Layer, maps: Tensor, random: torch.Generator) -> None:
        self.name, self._pool = layer.name, layer.pool
        places = torch.randint(maps[0, 0].numel(), (PLACES,), generator=random)
        given = sampled(maps, places)
        self._mean = given.mean(0).float()
        self._whiten, colour = (root.float() for root in roots(given))
        weight, self._mix = layer.weight, layer.mix
        if layer.mix is not None:
            between = sampled(conv2d(maps, layer.weight.to(maps.dtype), padding=1), places)
            shrink, grow = (root.float() for root in roots(between))
            weight = (shrink @ weight.flatten(1)).view_as(weight)
            self._mix = layer.mix @ grow
        self._weight = turned(weight, colour)
        self._bias = layer.bias + self._mixed(self._of_mean(weight))
        self.values = [each for each in (self._weight, self._mix, self._bias) if each is not None]

    def _of_mean(self, weight: Tensor) -> Tensor:
        """Return what the convolution makes of maps that are the mean everywhere."""
        return weight.sum((2, 3)) @ self._mean

    def _mixed(self, values: Tensor) -> Tensor:
        return values if self._mix is None else self._mix @ values

    def layer(self) -> Layer:
        weight = turned(self._weight, self._whiten)
        bias = self._bias - self._mixed(self._of_mean(weight))
        return Layer(self.name, weight, bias, self._mix, self._pool)


def roots(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Return the inverse square root and the square root of the covariance of samples, one a row."""
    centred = samples - samples.mean(0)
    values, directions = torch.linalg.eigh(centred.T @ centred / len(samples))
    values = values.clamp(min=0) + DAMPING * values.mean()
    return (directions / values.sqrt()) @ directions.T, (directions * values.sqrt()) @ directions.T


def turned(weight: Tensor, matrix: Tensor) -> Tensor:
    """Return the weights of a convolution for input that `matrix` (channels, channels) has been applied to."""
    return torch.einsum("oikl,ij->ojkl", weight, matrix).contiguous(memory_format=torch.channels_last)


class Distillation:
    """One step after the other in which the layers that differ from the exact ones learn from these."""

    def __init__(self, exact_layers: list[Layer], layers: list[Layer], photos: Tensor, start: str = "") -> None:
        """Begin with `layers`; statistics are of `photos`, (n, 3, SIZE, SIZE).

        The layers before `start` stay as they are; by default, those before the first that differs.
        """
        pairs = enumerate(zip(layers, exact_layers, strict=True))
        first = next(n for n, (layer, exact) in pairs if (layer.name == start if start else layer is not exact))
        self._before, self._exact_layers = layers[:first], exact_layers
        exact = torch.cat([embedding(compared(exact_layers, maps)) for maps in batches(photos)])
        self.whiten = whitening(exact)
        self._spread = spread(exact, self.whiten)
        self._learned = self._prepared(layers[first:], photos)
        self.values = [value for learned in self._learned for value in learned.values]
        groups = [{"params": [value], "scale": float(value.square().mean().sqrt())} for value in self.values]
        self._optimizer = torch.optim.Adam(groups, fused=True)
        self._losses = torch.compile(self._compare) if photos.is_cuda else self._compare

    def _prepared(self, layers: list[Layer], photos: Tensor) -> list[Learned]:
        random = torch.Generator().manual_seed(0)
        maps = self._given(inputs(photos[:: -(-len(photos) // MEASURED)]))
        found = []
        for layer in layers:
            found.append(Learned(layer, maps, random))
            maps = layer(maps)
        return found

    def _given(self, maps: Tensor) -> Tensor:
        """Return what the first layer that learns gets."""
        for layer in self._before:
            maps = layer(maps)
        return maps

    @torch.no_grad()
    def example(self, maps: Tensor) -> Example:
        """Return, for the network's input, what the first layer that learns gets, and the maps that are wanted."""
        return self._given(maps), compared(self._exact_layers, maps)

    @property
    def layers(self) -> list[Layer]:
        """The network as learned so far."""
        return self._before + self._now()

    def _now(self) -> list[Layer]:
        return [learned.layer() for learned in self._learned]

    def _compare(self, given: Tensor, wanted: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the parts that the learned layers lose of the maps and of the whitened variance."""
        found = compared(self._now(), given)
        of_maps = torch.stack([lost(found[name], wanted[name]) for name in COMPARED]).mean()
        return of_maps, spread_of(embedding(found) - embedding(wanted), self.whiten) / self._spread

    def step(self, example: Example, rate: float) -> Tensor:
        """Learn from one batch, and return the parts that were lost of the maps and of the whitened variance.

        `rate` is relative to the root mean square of each tensor.
        """
        of_maps, of_embeddings = self._losses(*example)
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        self._optimizer.zero_grad()
        (of_maps + ON_EMBEDDING * of_embeddings).backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        return torch.stack([of_maps, of_embeddings]).detach()


def examples(distillation: Distillation, photos: Tensor, batch: int, views: int | None) -> Iterator[Example]:
    """Yield batches of examples without end: new ones, or at most so many views of photos again and again."""
    new = (distillation.example(maps) for maps in varied_batches(photos, batch))
    if views is None:
        yield from new
    kept = list(islice(new, -(-(views or 0) // batch)))
    random = torch.Generator().manual_seed(0)
    while True:
        for number in torch.randperm(len(kept), generator=random).tolist():
            yield kept[number]


def trained(
    exact_layers: list[Layer],
    layers: list[Layer],
    photos: Tensor,
    few: Tensor,
    judged: Tensor,
    schedule: Schedule,
) -> list[Layer]:
    """Return the layers, those that the schedule names trained towards what the exact ones make of the photos.

    `photos` are (n, 3, SOURCE, SOURCE), `few` and `judged` (n, 3, SIZE, SIZE), all uint8; statistics are of `few`.
    Of the states that are reported, the one that is best for the judged photos is returned. Training ends early if
    the network's embeddings are no longer finite.
    """
    with torch.no_grad():
        distillation = Distillation(exact_layers, layers, few, schedule.start)
        judge = Judge(exact_layers, judged, distillation.whiten)
    judge.report("start", layers)
    for value in distillation.values:
        value.requires_grad_(True)
    limit = Limit(schedule.steps, schedule.seconds)
    next_report = time.monotonic() + REPORT_EVERY
    for step, example in enumerate(examples(distillation, photos, schedule.batch, schedule.views)):
        spent = limit.spent(step)
        if spent >= 1:
            break
        losses = distillation.step(example, learning_rate(spent, schedule.batch))
        if (begun := time.monotonic()) >= next_report:
            of_maps, of_embeddings = losses.tolist()
            title = f"step {step}, {spent:.0%}: lost {of_maps:.4f} of maps, {of_embeddings:.4f} of embeddings"
            if not isfinite(judge.report(title, distillation.layers)):
                break
            ended = time.monotonic()
            next_report = ended + max(REPORT_EVERY, (ended - begun) / REPORTING)
    judge.report("end", distillation.layers)
    return judge.best
