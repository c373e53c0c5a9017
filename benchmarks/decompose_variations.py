"""Vary the photos that benchmarks/decompose.py trains on: parts, turned, other colours, less sharp, two in one.

Two photos in one make many more inputs of few photos, which long training needs: Beyer et al., "Knowledge
distillation: a good teacher is patient and consistent", 2022.
"""

from collections.abc import Iterator

import torch
from decompose_layers import SIZE, inputs
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate

SOURCE = 224  # side of the photos of which parts are taken
LEAST_PART = 0.6  # of a side
LEAST_BLUR = 0.3  # of the resolution that a blurred batch keeps
BLURRED = 0.2  # of the batches
GREY = 0.1  # of the photos
PASTED = 0.2  # of the photos: a rectangle shows another one
BLENDED = 0.2  # of the photos: another one shines through
LARGEST_PASTED = 0.7  # of a side
CHANGE = 0.3  # of brightness, contrast and saturation, at most


def parts(photos: Tensor, random: torch.Generator) -> Tensor:
    """Return a random part of each photo, (n, 3, SIZE, SIZE) in 0..255, mirrored, turned or both at random."""
    count, device = len(photos), photos.device
    scale = LEAST_PART + (1 - LEAST_PART) * torch.rand(count, 2, generator=random, device=device)
    shift = (2 * torch.rand(count, 2, generator=random, device=device) - 1) * (1 - scale)
    sign = torch.randint(2, (count, 2), generator=random, device=device) * 2 - 1
    turned = (torch.rand(count, 1, 1, generator=random, device=device) < 1 / 4).float()
    straight = torch.diag_embed(scale * sign)
    matrix = straight * (1 - turned) + straight.flip(2) * turned
    grid = affine_grid(torch.cat([matrix, shift[:, :, None]], 2), [count, 3, SIZE, SIZE], align_corners=False)
    return grid_sample(photos.float(), grid, padding_mode="reflection", align_corners=False)


def recoloured(photos: Tensor, random: torch.Generator) -> Tensor:
    """Return the photos with other brightness, contrast and saturation, some in grey."""
    count, device = len(photos), photos.device
    change = 1 + CHANGE * (2 * torch.rand(3, count, 1, 1, 1, generator=random, device=device) - 1)
    coloured = torch.rand(count, 1, 1, 1, generator=random, device=device) >= GREY
    grey = photos.mean(1, keepdim=True)
    photos = grey + (photos - grey) * change[0] * coloured
    mean = photos.mean((1, 2, 3), keepdim=True)
    return (mean * change[1] + (photos - mean) * change[2]).clamp(0, 255)


def mixed(photos: Tensor, random: torch.Generator) -> Tensor:
    """Return the photos, some with another of the batch pasted on a rectangle or shining through."""
    count, device = len(photos), photos.device
    chance, low, high = torch.rand(3, count, 2, generator=random, device=device)
    side = LARGEST_PASTED * high
    start = low * (1 - side)
    places = (torch.arange(SIZE, device=device) + 0.5) / SIZE
    inside = [(places >= start[:, axis, None]) & (places < (start + side)[:, axis, None]) for axis in range(2)]
    pasted = (inside[0][:, :, None] & inside[1][:, None, :])[:, None] & (chance[:, 0, None, None, None] < PASTED)
    blended = (chance[:, 0] >= 1 - BLENDED) * chance[:, 1] / 2
    share = pasted + blended[:, None, None, None]
    return torch.lerp(photos, photos.roll(1, 0), share)


def blurred(photos: Tensor, random: torch.Generator) -> Tensor:
    """Return the photos, in some of all calls as if they had been small."""
    kept, chance = torch.rand(2, generator=random).tolist()
    if chance >= BLURRED:
        return photos
    side = int(SIZE * (LEAST_BLUR + (1 - LEAST_BLUR) * kept))
    small = interpolate(photos, size=(side, side), mode="bilinear", antialias=True)
    return interpolate(small, size=(SIZE, SIZE), mode="bilinear")


def varied_batches(photos: Tensor, batch: int) -> Iterator[Tensor]:
    """Yield the network's input for batches of the photos without end, in a new order and varied each time.

    Batches are of one size, so that compiled code fits all; some photos are left out of each round.
    """
    random = torch.Generator(photos.device).manual_seed(0)
    of_batches = torch.Generator().manual_seed(0)
    while True:
        order = torch.randperm(len(photos), generator=random, device=photos.device)
        for some in torch.split(order[: max(1, len(order) // batch) * batch], batch):
            varied = mixed(recoloured(parts(photos[some], random), random), random)
            yield inputs(blurred(varied, of_batches))
