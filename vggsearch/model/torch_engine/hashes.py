"""The perceptual hashes of many squares on a GPU, equal to those of the CPU but for rounding."""

from functools import cache

import torch
from torch import Tensor

from vggsearch.photos.perceptual_hash import BITS, BYTES, NOISE, dct_matrix, reducing_matrix

GREY = (0.299, 0.587, 0.114)  # of red, green and blue: ITU-R BT.601, as Pillow
PLACES = (128, 64, 32, 16, 8, 4, 2, 1)  # of the bits of a byte, as in numpy.packbits


def perceptual_hashes(squares: Tensor) -> Tensor:
    """Return photos.perceptual_hash of each of the squares, uint8 (n, size, size, 3): uint8 (n, BYTES).

    It does not wait for the device.
    """
    matrix, places = _constants(squares.shape[1], squares.device)
    red, green, blue = (squares[..., channel].float() * share for channel, share in enumerate(GREY))
    grey = red + green + blue
    coefficients = (matrix @ grey @ matrix.T).flatten(1)
    is_varied = (coefficients.abs() > NOISE).sum(dim=1, keepdim=True) >= BITS // 2
    bits = ((coefficients > 0) & is_varied).reshape(-1, BYTES, len(PLACES))
    hashes: Tensor = (bits * places).sum(dim=2, dtype=torch.uint8)
    return hashes


@cache
def _constants(size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the matrix that makes coefficients of `size` pixels, and PLACES, on the device."""
    matrix = torch.from_numpy(dct_matrix() @ reducing_matrix(size))
    return matrix.to(device), torch.tensor(PLACES, dtype=torch.uint8, device=device)
