"""The operations of poolings and views, on torch tensors."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import conv2d, normalize

SPACE = (2, 3)


class TorchOperations:
    """See poolings.Operations and views.ViewOperations."""

    def shape(self, maps: Tensor) -> tuple[int, int, int]:
        _, channels, height, width = maps.shape
        return channels, height, width

    def mean(self, maps: Tensor) -> Tensor:
        return maps.mean(SPACE, keepdim=True)

    def maximum(self, maps: Tensor) -> Tensor:
        return maps.amax(SPACE, keepdim=True)

    def sum(self, maps: Tensor) -> Tensor:
        return maps.sum(SPACE, keepdim=True)

    def sum_channels(self, maps: Tensor) -> Tensor:
        return maps.sum(1, keepdim=True)

    def power(self, maps: Tensor, exponent: float) -> Tensor:
        return maps.pow(exponent)

    def plus(self, maps: Tensor, number: float) -> Tensor:
        return maps + number

    def times(self, maps: Tensor, number: float) -> Tensor:
        return maps * number

    def log(self, maps: Tensor) -> Tensor:
        return maps.log()

    def is_positive(self, maps: Tensor) -> Tensor:
        return (maps > 0).to(maps.dtype)

    def cut(self, maps: Tensor, top: int, left: int, side: int) -> Tensor:
        return maps[:, :, top : top + side, left : left + side]

    def unit(self, maps: Tensor) -> Tensor:
        return normalize(maps, dim=1)

    def mean_windows(self, vectors: Tensor) -> Tensor:
        return vectors.mean(1)

    def project(self, maps: Tensor, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> Tensor:
        kernel, shift = (torch.from_numpy(values).to(maps.device) for values in (weight, bias))
        return conv2d(maps, kernel[:, :, None, None], shift)

    def channels_last(self, maps: Tensor) -> Tensor:
        return maps.permute(0, 2, 3, 1)

    def flatten(self, maps: Tensor) -> Tensor:
        return maps.flatten(1)

    def shrink(self, images: Tensor, matrix: Tensor) -> Tensor:
        return (matrix @ images.float() @ matrix.T).clamp(0, 255)

    def mirror(self, images: Tensor) -> Tensor:
        return images.flip(3)

    def join(self, vectors: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(vectors), dim=1)
