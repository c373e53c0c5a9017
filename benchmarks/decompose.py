"""Make the weights of a decomposed VGG from those of the VGG that it stands for.

python benchmarks/decompose.py OUT.safetensors PHOTOS... [--model vgg16_half] [--weights FILE] [--photos 1000]
    [--held-out FOLDER] [--device cpu] [--batch 16] [--steps 200] [--seconds N] [--train-from LAYER] [--views N]

Each convolution of 3 x 3 with a rank (vggsearch/model/vgg.py) becomes one with so many outputs, and one of 1 x 1;
one with a width keeps so many of its outputs. PHOTOS are folders of unlabelled photos; of each, every nth is used.
WEIGHTS is any checkpoint of the original that vggsearch reads, by default the weights that it finds itself.
OMP_NUM_THREADS=1 is best on a busy machine. On a GPU: --device cuda --batch 64 --steps 1000000 --seconds 455. On a
CPU, most time goes into the first layers and the original: --batch 32 --steps 1000000 --seconds 1000 --train-from
conv3_1 --views 8000 runs these once for each of 8,000 varied photos, which takes 0.8 MB of memory a photo.

1. Layer by layer, the responses of the original network are regressed, with that rank, on the responses that the
   original layer gives for what the decomposed network has made of the photo so far, so that each layer corrects
   the ones before it. The regression is for the responses after the ReLU: where both are negative, nothing is to be
   explained. Zhang, Zou, He & Sun, "Accelerating very deep convolutional networks for classification and
   detection", 2015, sections 3.1 to 3.3. Of a layer with a width, the outputs are kept that the next layer needs.
2. The whole network is trained without labels for STEPS steps or N seconds, whichever ends first, to make the maps
   of pool4 and pool5, and the embeddings of them, as the original does (decompose_training.py). What is kept is the
   state that was best for the photos of --held-out; by default, they are one in sixteen of PHOTOS, which is then
   not trained on.
3. What lies between the two convolutions is rotated, so that all channels vary alike and one scale of int8 serves
   them, and centred.
"""

import argparse
from pathlib import Path

import torch
from decompose_layers import LAYER, SIZE, Layer, batches, chosen_files, original, squares
from decompose_regression import decomposed
from decompose_training import Schedule, trained
from decompose_variations import SOURCE
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import conv2d

from vggsearch.model.layers import needed_modules
from vggsearch.model.networks import network

REGRESSED = 512  # photos
EVERY = 1_000_000  # photos of a folder
HELD_OUT = 16  # one of so many photos is not trained on, but judged


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
            turn = torch.linalg.qr(torch.randn(len(weight), len(weight), generator=random)).Q.to(weight.device)
            weight = (turn @ weight.flatten(1)).view_as(weight)
            mean = torch.stack(
                [conv2d(some, weight.to(some.dtype), padding=1).float().mean((0, 2, 3)) for some in maps]
            ).mean(0)
            mix = layer.mix @ turn.T
            found |= {f"{module.key}.weight": weight, f"{module.key}.bias": -mean}
            weight, bias, module = mix[:, :, None, None], bias + mix @ mean, next(modules)
        found |= {f"{module.key}.weight": weight, f"{module.key}.bias": bias}
        maps = [layer(some) for some in maps]
    return {name: values.half().cpu().contiguous() for name, values in found.items()}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("folders", type=Path, nargs="+", metavar="PHOTOS")
    parser.add_argument("--model", default="vgg16_half")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--held-out", type=Path, metavar="FOLDER")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--train-from", default="", metavar="LAYER")
    parser.add_argument("--views", type=int)
    return parser.parse_args()


def training_files(files: list[Path], held_out: Path | None) -> tuple[list[Path], list[Path]]:
    """Return the files to train on, and those to judge by: all of a folder, or every HELD_OUTth file."""
    if held_out is not None:
        return files, chosen_files([held_out], EVERY)
    judged = files[::HELD_OUT]
    return sorted(set(files) - set(judged)), judged


def main() -> None:
    given = arguments()
    torch.backends.cudnn.benchmark = True
    row = network(given.model)
    layers = original(row.original, given.weights, given.device)
    files, judged = training_files(chosen_files(given.folders, given.photos), given.held_out)
    few = squares(files[:: -(-len(files) // REGRESSED)], SIZE, given.device)
    with torch.no_grad():
        made = decomposed(layers, dict(row.ranks), dict(row.widths), few)
    if given.steps:
        photos, held_out = squares(files, SOURCE, given.device), squares(judged, SIZE, given.device)
        schedule = Schedule(given.batch, given.steps, given.seconds, given.train_from, given.views)
        made = trained(layers, made, photos, few, held_out, schedule)
    with torch.no_grad():
        save_file(tensors(given.model, made, few), given.out)


if __name__ == "__main__":
    main()
