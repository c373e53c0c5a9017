"""Fine-tune the last block of VGG16 on your own photos, and save weights for vggsearch index --weights FILE.

python examples/finetune.py ./photos weights.safetensors --truth truth.tsv   # photos of one label come together
python examples/finetune.py ./photos weights.safetensors                     # edited copies come to their photo

The blocks before stay as they are, so what they say of each photo is computed once: a few hundred photos take
minutes on a CPU. Then: vggsearch index ./photos --index indexes/mine --layer pool5 --weights weights.safetensors
"""

import argparse
import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn.functional import normalize
from torchvision.models import vgg16

from vggsearch import EmbeddingOptions
from vggsearch.measures.ground_truth import read_truth
from vggsearch.photos.edits import EDITS, edited

SIZE = 192  # pixels, as vggsearch index
LAST_BLOCK = 24  # the module of torchvision's VGG16 with which block 5 begins
MEAN, DEVIATION = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
TEMPERATURE = 0.1  # of the loss, as in the paper
BATCH = 16  # photos that pass through the fixed blocks at once


def main() -> None:
    parser = argparse.ArgumentParser(description="Fine-tune the last block of VGG16 on your own photos.")
    parser.add_argument("photos", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--truth", type=Path)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    torch.manual_seed(0)
    squares, label = labelled(given.photos, given.truth) if given.truth else with_copies(given.photos)
    network = vgg16(weights=None).features
    packaged = load_file(EmbeddingOptions().resolve()[1].path)
    network.load_state_dict({name.removeprefix("features."): value.float() for name, value in packaged.items()})
    network = network.to(given.device).eval()
    train(network[LAST_BLOCK:], fixed_maps(network[:LAST_BLOCK], squares, given.device), label, given)
    save_file({f"features.{name}": value.cpu() for name, value in network.state_dict().items()}, given.weights)


def labelled(folder: Path, truth: Path) -> tuple[list[Image.Image], torch.Tensor]:
    labels = read_truth(truth)
    names = sorted(set(labels.values()))
    return [square(folder / path) for path in labels], torch.tensor([names.index(each) for each in labels.values()])


def with_copies(folder: Path) -> tuple[list[Image.Image], torch.Tensor]:
    """Return each photo and three edited copies of it, which have one label."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    basic = [edit for edit in EDITS.values() if edit.is_basic]
    squares = []
    for place, path in enumerate(paths):
        with Image.open(path) as photo:
            copies = [
                edited(photo.convert("RGB"), basic[(3 * place + each) % len(basic)], str(path)) for each in range(3)
            ]
        squares += [square(path), *(square(io.BytesIO(copy)) for copy in copies)]
    return squares, torch.arange(len(paths)).repeat_interleave(4)


def square(file: Path | io.BytesIO) -> Image.Image:
    with Image.open(file) as photo:
        return photo.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)


@torch.inference_mode()
def fixed_maps(blocks: torch.nn.Module, squares: list[Image.Image], device: str) -> torch.Tensor:
    """Return what the blocks that are not trained make of each photo: (n, 512, side, side)."""
    maps = []
    for start in range(0, len(squares), BATCH):
        pixels = np.stack([np.asarray(each, np.float32) for each in squares[start : start + BATCH]]) / 255
        images = ((torch.from_numpy(pixels) - MEAN) / DEVIATION).permute(0, 3, 1, 2)
        maps.append(blocks(images.to(device)))
    return torch.cat(maps).clone()  # out of inference mode, so that gradients may pass


def train(block: torch.nn.Module, maps: torch.Tensor, label: torch.Tensor, given: argparse.Namespace) -> None:
    optimizer = torch.optim.Adam(block.parameters(), lr=1e-5)
    label = label.to(maps.device)
    for step in range(given.steps):
        some = torch.randperm(len(maps))[: given.batch]
        loss = contrastive(pooled(block(maps[some])), label[some])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        print(f"step {step + 1}: loss {loss.item():.6f}", flush=True)


def pooled(maps: torch.Tensor) -> torch.Tensor:
    """Return embeddings as vggsearch pools them: the square root of the mean, of unit length."""
    return normalize(maps.mean(dim=(2, 3)).clamp(min=1e-8).sqrt())


def contrastive(embeddings: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Return the supervised contrastive loss (Khosla et al., NeurIPS 2020, equation 2)."""
    itself = torch.eye(len(label), dtype=torch.bool, device=label.device)
    scores = (embeddings @ embeddings.T / TEMPERATURE).masked_fill(itself, -torch.inf)
    chances = scores.log_softmax(dim=1).masked_fill(itself, 0)
    same = (label[:, None] == label) & ~itself
    partners = same.sum(dim=1)
    return -((chances * same).sum(dim=1) / partners.clamp(min=1))[partners > 0].mean()


if __name__ == "__main__":
    main()
