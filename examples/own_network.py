"""Index photos with a torch module of your own instead of a VGG, and find what is similar to the first photo.

python examples/own_network.py ./photos
"""

import sys

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.models import resnet18

from vggsearch import ImageIndex, OwnEngine


class Module(OwnEngine):
    """A torch module as the network of an index."""

    def __init__(self, module: torch.nn.Module, network: str, dim: int, version: str) -> None:
        super().__init__(network, dim, version=version)
        self.module = module.eval()

    @torch.inference_mode()
    def vectors(self, squares: NDArray[np.uint8]) -> NDArray[np.floating]:
        """Return what the module makes of RGB pixels (n, size, size, 3), normalised as it was trained."""
        pixels = torch.from_numpy(squares).permute(0, 3, 1, 2) / 255
        return np.asarray(self.module((pixels - 0.45) / 0.225).flatten(1))


torch.manual_seed(0)  # random weights: load yours into the module instead
backbone = torch.nn.Sequential(*list(resnet18().children())[:-1])
with ImageIndex.for_photos(sys.argv[1], "indexes/own", engine=Module(backbone, "resnet18", 512, "seed 0")) as index:
    index.update(sys.argv[1])
    for match in index.query(f"{sys.argv[1]}/{index.paths()[0]}", count=3).matches:
        print(match.path, match.similarity)
