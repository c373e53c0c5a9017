"""Compare the time of `vggsearch index`, by default and with --fast, with that of a plain loop around torchvision.

python benchmarks/index_time.py PHOTOS [--photos 500] [--rounds 2] [--without-plain] [--networks]

The plain loop is what a user would write by hand: torchvision's VGG16 in float32 under a DataLoader with two
workers, pool5 averaged at 224 x 224, timed without start-up. vggsearch is timed as whole processes, with start-up,
hashing, writing and the FAISS index. Best of the rounds; the networks alone alternate batch by batch in one
process, best of many; --networks measures nothing else, and ONEDNN_MAX_CPU_ISA=AVX512_CORE_VNNI makes a processor
with AMX do as one without. On 500 photos and two idle CPU cores it takes about four minutes.
"""

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import models, transforms

from vggsearch.defaults import EMBEDDING
from vggsearch.evaluation.throughput import squares
from vggsearch.model.engine import Engine
from vggsearch.model.loading import load_engine
from vggsearch.model.spec import EmbeddingOptions
from vggsearch.model.weights import load_weights
from vggsearch.photos.walk import PhotoFile, walk

MODELS = {"defaults": EMBEDDING.model, "--fast": EMBEDDING.fast_model}
BATCHES = 12  # of each network, alternating
PREPARE = transforms.Compose(
    [
        transforms.Resize((224, 224)),
        transforms.ToTensor(),
        transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ]
)


class Photos(Dataset[torch.Tensor]):
    """All photos of a folder, as a plain program would read them."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.iterdir())

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> torch.Tensor:
        prepared: torch.Tensor = PREPARE(Image.open(self.paths[number]).convert("RGB"))
        return prepared


def plain(folder: Path) -> float:
    """Return the seconds of the plain loop."""
    network = models.vgg16(weights=None).features.eval()
    spec, weights = EmbeddingOptions(layer="pool5").resolve()
    kernels = iter(load_weights(weights, spec.model, spec.layer).values())
    for layer in network:
        if isinstance(layer, torch.nn.Conv2d):
            kernel = next(kernels)
            layer.load_state_dict(
                {"weight": torch.from_numpy(kernel.weight), "bias": torch.from_numpy(kernel.bias)}
            )
    started = time.perf_counter()
    with torch.inference_mode():
        for batch in DataLoader(Photos(folder), batch_size=32, num_workers=2):
            network(batch).mean((2, 3))
    return time.perf_counter() - started


def indexing(folder: Path, *options: str) -> float:
    """Return the seconds of a whole process that makes an index."""
    with tempfile.TemporaryDirectory() as made:
        command = [sys.executable, "-m", "vggsearch", "index", str(folder), "--index", f"{made}/index", *options]
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - started


def networks(folder: Path) -> dict[str, tuple[float, float]]:
    """Return the least seconds a photo of each network, and of CPU time. They take turns."""
    engines: dict[str, Engine] = {}
    for name, model in MODELS.items():
        spec, weights = EmbeddingOptions(model=model).resolve()
        engines[name] = load_engine(spec, weights)
        print(f"{name}: {spec} on {engines[name]}")
    files = [found for found in walk(folder) if isinstance(found, PhotoFile)]
    pixels = squares(files, folder, spec, engines["defaults"].batch_size)
    best = dict.fromkeys(engines, (np.inf, np.inf))
    for _ in range(BATCHES):
        for name, engine in engines.items():
            started, used = time.perf_counter(), time.process_time()
            engine.embed(pixels)
            used, seconds = time.process_time() - used, time.perf_counter() - started
            best[name] = min(best[name][0], seconds / len(pixels)), min(best[name][1], used / len(pixels))
    for name, (seconds, used) in best.items():
        print(f"{name}, the network alone: {1 / seconds:.1f} photos/s, {used * 1000:.1f} ms of CPU a photo")
    (slow, most), (fast, least) = best.values()
    print(f"--fast: {slow / fast:.2f} times the rate, 1 / {most / least:.2f} of the CPU time")
    return best


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="PHOTOS")
    parser.add_argument("--photos", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--without-plain", action="store_true")
    parser.add_argument("--networks", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        files = [found for found in walk(given.folder) if isinstance(found, PhotoFile)][: given.photos]
        for number, file in enumerate(files):
            shutil.copy(given.folder / file.path, folder / f"{number:05}{Path(file.path).suffix}")
        cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
        print(f"{len(files)} photos, {processor()}, {cores} CPU cores, load {load:.1f}")
        if given.networks:
            networks(folder)
            return
        ways: dict[str, Callable[[], float]] = {"defaults": lambda: indexing(folder)}
        ways["--fast"] = lambda: indexing(folder, "--fast")
        if not given.without_plain:
            ways = {"plain torchvision": lambda: plain(folder), **ways}
        best = dict.fromkeys(ways, np.inf)
        for _ in range(given.rounds):
            for name, run in ways.items():
                best[name] = min(best[name], run())
        alone = networks(folder)
    slowest = max(best.values())
    print("| | s | photos/s | times plain | network alone, photos/s | share of it |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, seconds in best.items():
        rate, times = len(files) / seconds, slowest / seconds
        of_network = f"{1 / alone[name][0]:.1f} | {rate * alone[name][0]:.0%}" if name in alone else "|"
        print(f"| {name} | {seconds:.1f} | {rate:.1f} | {times:.1f} | {of_network} |")


if __name__ == "__main__":
    main()
