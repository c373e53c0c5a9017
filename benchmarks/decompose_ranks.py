"""Choose the ranks of a decomposed network: the part of benchmarks/decompose.py that --rates runs."""

import numpy as np
import torch
from decompose_layers import COMPARED, Layer, batches, compared, embedding, whitening
from decompose_regression import PLACES, explained, sampled
from torch import Tensor
from torch.nn.functional import conv2d

FIRST = "conv2_1"  # layer with a rank; those before write so many values that fewer multiply-adds save little time
SHARES = (1 / 8, 1 / 4, 1 / 2)  # of the outputs of a layer: ranks that are measured
STEP = 16  # between ranks; CPUs compute channels in sixteens
PER_VALUE = 200  # multiply-adds that take as long as to write one value: 70 with VNNI, 400 with AMX


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
                replaced = conv2d(some, (up @ down)[:, :, None, None].to(some.dtype), offset.to(some.dtype))
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
