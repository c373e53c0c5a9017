"""Make the weights of a decomposed VGG from those of the VGG that it stands for.

python benchmarks/decompose.py OUT.safetensors PHOTOS... [--model vgg16_half] [--weights FILE] [--photos 1000]
    [--steps 200] [--rates RATE...]

Each convolution of 3 x 3 with a rank (vggsearch/model/vgg.py) becomes one with so many outputs, and one of 1 x 1.
PHOTOS are folders of unlabelled photos; of each, every nth is used. WEIGHTS is any checkpoint of the
original that vggsearch reads, by default the weights that it finds itself. OMP_NUM_THREADS=1 is best on a busy
machine.

1. Layer by layer, the responses of the original network are regressed, with that rank, on the responses that the
   original layer gives for what the decomposed network has made of the photo so far, so that each layer corrects
   the ones before it. The regression is for the responses after the ReLU: where both are negative, nothing is to be
   explained. Zhang, Zou, He & Sun, "Accelerating very deep convolutional networks for classification and
   detection", 2015, sections 3.1 to 3.3.
2. The whole network is trained for STEPS steps, without labels, to make the maps of pool4 and pool5, and the
   embeddings of them, as the original does. Hinton, Vinyals & Dean, "Distilling the knowledge in a neural network",
   2015; of maps: Romero et al., "FitNets: hints for thin deep nets", 2015.
3. What lies between the two convolutions is rotated, so that all channels vary alike and one scale of int8 serves
   them, and centred.

With --rates, it chooses ranks instead, and prints for each rate those with the least loss in the embedding at
1 / rate of the cost. The loss of a rank is measured with only that layer decomposed, as the mean squared distance
of whitened embeddings; the cost is that of CPUs in int8: multiply-adds, and so many for each value written.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import conv2d, max_pool2d, normalize

from vggsearch.defaults import WHITENING
from vggsearch.errors import ImageError
from vggsearch.model.layers import needed_modules
from vggsearch.model.networks import IMAGENET_MEAN, IMAGENET_STD, describe, network
from vggsearch.model.torch_engine.engine import normalised
from vggsearch.model.weights import find_weights, load_weights
from vggsearch.photos.decode import decode
from vggsearch.photos.resize import square
from vggsearch.photos.walk import PhotoFile, walk

LAYER = "pool5"
COMPARED = ("pool4", "pool5")
SIZE = 192
BATCH = 16
PLACES = 80  # of each photo whose responses are regressed
REGRESSED = 256  # photos
JUDGED = 16  # photos that ranks are chosen with
PENALTIES = (0.01, 0.1, 1.0)  # of the ReLU-aware regression, one round each
RIDGE = 1e-3  # of the mean variance
SHRINKAGE = WHITENING.least_shrinkage
FIRST = "conv2_1"  # layer with a rank; those before write so many values that fewer multiply-adds save little time
SHARES = (1 / 8, 1 / 4, 1 / 2)  # of the outputs of a layer: ranks that are measured
STEP = 16  # between ranks; CPUs compute channels in sixteens
PER_VALUE = 200  # multiply-adds that take as long as to write one value: 70 with VNNI, 400 with AMX
SHOWN = 20  # steps
LEARNING_RATE = 1e-4
ON_EMBEDDING = 0.2  # weight of the loss of the embedding beside that of the maps
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


def original(model: str, weights: Path | None) -> list[Layer]:
    kernels = load_weights(find_weights(model, LAYER, weights), model, LAYER)
    layers: list[Layer] = []
    for module in needed_modules(model, LAYER):
        if module.kind == "pool":
            layers[-1].pool = module.name
        else:
            kernel = kernels[module.name]
            weight = torch.from_numpy(kernel.weight).to(memory_format=torch.channels_last)
            layers.append(Layer(module.name, weight, torch.from_numpy(kernel.bias)))
    return layers


def squares(folders: list[Path], count: int) -> Tensor:
    """Return about `count` photos, as many of each folder, evenly: uint8 (photos, 3, SIZE, SIZE)."""
    each = -(-count // len(folders))
    paths: list[Path] = []
    for folder in folders:
        files = [folder / found.path for found in walk(folder) if isinstance(found, PhotoFile)]
        paths += files[:: max(1, len(files) // each)][:each]
    found = []
    for path in paths:
        try:
            with path.open("rb") as opened:
                found.append(square(decode(opened, path.name, at_least=SIZE).image, SIZE, "squash"))
        except ImageError as error:
            print(f"skipped {path.name}: {error}", file=sys.stderr)
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2)


def inputs(photos: Tensor) -> Tensor:
    mean, deviation = (torch.tensor(values).view(1, 3, 1, 1) * 255 for values in (IMAGENET_MEAN, IMAGENET_STD))
    return normalised(photos, mean, 1 / deviation, DTYPE)


def batches(photos: Tensor) -> list[Tensor]:
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


# Regression ---------------------------------------------------------------------------------------------------


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
            torch.eye(len(self._mean), dtype=given.dtype) * self._spread.trace() / len(self._mean) * RIDGE
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


# Ranks --------------------------------------------------------------------------------------------------------


def cost(layer: Layer, side: int, rank: int | None) -> int:
    """Return the multiply-adds of a layer with a rank, None for as it is, and PER_VALUE for each value written."""
    outputs, inputs = layer.weight.shape[:2]
    if rank is None:
        return side**2 * outputs * (9 * inputs + PER_VALUE)
    return side**2 * (rank * (9 * inputs + PER_VALUE) + outputs * (rank + PER_VALUE))


def losses(layers: list[Layer], photos: Tensor) -> dict[str, dict[int, float]]:
    """Return, for each layer and some ranks, the loss in the embedding if only that layer has that rank."""
    random = torch.Generator().manual_seed(0)
    maps = batches(photos)
    exact = torch.cat([embedding(compared(layers, some)) for some in maps])
    whiten = whitening(exact)
    found: dict[str, dict[int, float]] = {}
    known: list[dict[str, Tensor]] = [{} for _ in maps]  # of COMPARED, which later layers do not change
    for number, layer in enumerate(layers):
        responses = [layer.responses(some) for some in maps]
        outputs = layer.weight.shape[0]
        places = torch.randint(responses[0][0, 0].numel(), (PLACES,), generator=random)
        samples = torch.cat([sampled(some, places) for some in responses])
        for share in SHARES if layer.name >= FIRST else ():
            rank = int(outputs * share)
            up, down, offset = (values.float() for values in explained(samples, samples, rank))
            embeddings = []
            for some, before in zip(responses, known, strict=True):
                replaced = conv2d(some, (up @ down)[:, :, None, None].to(DTYPE), offset.to(DTYPE))
                passed = layer.after(replaced)
                here = {layer.pool: passed} if layer.pool in COMPARED else {}
                embeddings.append(embedding({**before, **here, **compared(layers[number + 1 :], passed)}))
            difference = (torch.cat(embeddings) - exact) @ whiten
            found.setdefault(layer.name, {})[rank] = float((difference**2).sum(1).mean())
        print(layer.name, {rank: round(loss, 5) for rank, loss in found.get(layer.name, {}).items()}, flush=True)
        maps = [layer.after(some) for some in responses]
        if layer.pool in COMPARED:
            known = [{**before, layer.pool: some} for before, some in zip(known, maps, strict=True)]
    return found


def chosen(
    layers: list[Layer], found: dict[str, dict[int, float]], sides: dict[str, int], rate: float
) -> dict[str, int]:
    """Return the ranks with the least sum of losses at 1 / `rate` of the cost, by the best exchange each time."""
    by_name = {layer.name: layer for layer in layers}
    options = {
        name: {
            rank: float(np.exp(np.interp(rank, list(of), np.log(list(of.values())))))
            for rank in range(min(of), max(of) + 1, STEP)
        }
        for name, of in found.items()
    }
    ranks: dict[str, int | None] = dict.fromkeys(by_name)
    spent = {name: cost(layer, sides[name], None) for name, layer in by_name.items()}
    lost = dict.fromkeys(by_name, 0.0)
    budget = sum(spent.values()) / rate
    while sum(spent.values()) > budget:
        exchanges = [
            ((loss - lost[name]) / (spent[name] - price), name, rank)
            for name, of in options.items()
            for rank, loss in of.items()
            if (price := cost(by_name[name], sides[name], rank)) < spent[name]
        ]
        _, name, rank = min(exchanges)
        ranks[name], spent[name], lost[name] = rank, cost(by_name[name], sides[name], rank), options[name][rank]
    print(f"at 1/{rate}: expected loss {sum(lost.values()):.4f}", {n: round(v, 4) for n, v in lost.items()})
    return {name: rank for name, rank in ranks.items() if rank is not None}


# Training -----------------------------------------------------------------------------------------------------


def trained(exact_layers: list[Layer], layers: list[Layer], photos: Tensor, steps: int) -> None:
    """Train the layers with a rank for `steps` steps towards what the exact ones make of the photos."""
    random = torch.Generator().manual_seed(0)
    first = next(number for number, layer in enumerate(layers) if layer.mix is not None)
    with torch.no_grad():
        given, wanted = prepared(exact_layers, first, photos)
        exact = embedding(wanted)
        whiten = whitening(exact)
        spread = float((((exact - exact.mean(0)) @ whiten) ** 2).sum(1).mean())
    learned = [
        values for layer in layers[first:] for values in (layer.weight, layer.mix, layer.bias) if values is not None
    ]
    for values in learned:
        values.requires_grad_(True)
    optimizer = torch.optim.Adam(learned, LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, steps, pct_start=0.1)
    rounds = -(-steps * BATCH // len(photos))
    order = torch.cat([torch.randperm(len(photos), generator=random) for _ in range(rounds)])
    history: list[tuple[float, float]] = []
    for places in torch.split(order, BATCH)[:steps]:
        found = compared(layers[first:], given[places])
        of_maps = torch.stack([lost(found[name], wanted[name][places]) for name in COMPARED]).mean()
        of_embeddings = (((embedding(found) - exact[places]) @ whiten) ** 2).sum(1).mean() / spread
        optimizer.zero_grad()
        loss = of_maps + ON_EMBEDDING * of_embeddings
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        history.append((of_maps.item(), of_embeddings.item()))
        if len(history) % SHOWN == 0:
            maps, embeddings = np.mean(history[-SHOWN:], axis=0)
            print(f"step {len(history)}: lost {maps:.4f} of maps, {embeddings:.4f} of embeddings", flush=True)
    for values in learned:
        values.requires_grad_(False)


def prepared(layers: list[Layer], first: int, photos: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the input of the layer with number `first`, and the maps of COMPARED, for all photos."""
    given, wanted = [], []
    for maps in batches(photos):
        for layer in layers[:first]:
            maps = layer(maps)
        given.append(maps)
        wanted.append(compared(layers[first:], maps))
    return torch.cat(given), {name: torch.cat([maps[name] for maps in wanted]) for name in COMPARED}


def lost(found: Tensor, wanted: Tensor) -> Tensor:
    """Return the part of the energy of the wanted maps that the found ones lack."""
    wanted = wanted.float()
    return ((found.float() - wanted) ** 2).sum() / (wanted**2).sum()


# Weights ------------------------------------------------------------------------------------------------------


def tensors(model: str, layers: list[Layer], photos: Tensor) -> dict[str, Tensor]:
    """Return the tensors of `model` by name.

    The channels between the two convolutions are rotated at random, so that all vary alike and one scale of int8
    serves them, and shifted to a mean of zero.
    """
    random = torch.Generator().manual_seed(0)
    modules = iter(module for module in needed_modules(model, LAYER) if module.kind == "conv")
    maps = batches(photos)
    found: dict[str, Tensor] = {}
    for layer in layers:
        module = next(modules)
        weight, bias = layer.weight, layer.bias
        if layer.mix is not None:
            turn = torch.linalg.qr(torch.randn(len(weight), len(weight), generator=random)).Q
            weight = (turn @ weight.flatten(1)).view_as(weight)
            mean = torch.stack(
                [conv2d(some, weight.to(DTYPE), padding=1).float().mean((0, 2, 3)) for some in maps]
            ).mean(0)
            mix = layer.mix @ turn.T
            found |= {f"{module.key}.weight": weight, f"{module.key}.bias": -mean}
            weight, bias, module = mix[:, :, None, None], bias + mix @ mean, next(modules)
        found |= {f"{module.key}.weight": weight, f"{module.key}.bias": bias}
        maps = [layer(some) for some in maps]
    return {name: values.half().contiguous() for name, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("folders", type=Path, nargs="+", metavar="PHOTOS")
    parser.add_argument("--model", default="vgg16_half")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rates", type=float, nargs="+")
    given = parser.parse_args()
    row = network(given.model)
    layers = original(row.original, given.weights)
    photos = squares(given.folders, given.photos)
    few = photos[:: -(-len(photos) // REGRESSED)]
    with torch.no_grad():
        if given.rates:
            found = losses(layers, few[:: -(-len(few) // JUDGED)])
            reports = describe(row.original, SIZE)
            sides = {report.module.name: report.shape[1] for report in reports if report.module.kind == "conv"}
            for rate in given.rates:
                print(chosen(layers, found, sides, rate))
            return
        made = decomposed(layers, dict(row.ranks), few)
    if given.steps:
        trained(layers, made, photos, given.steps)
    with torch.no_grad():
        save_file(tensors(given.model, made, few), given.out)


if __name__ == "__main__":
    main()
