"""Measure indexing on this machine's GPU: whole `vggsearch index` processes, and each stage alone.

python benchmarks/gpu_indexing.py [--small 6000] [--large 800] [--runs 2] [--device auto] [--no-bench] [--out FILE]

Makes SMALL photos of 500 x 375 pixels and LARGE ones of 4000 x 3000: JPEG, quality 90, 4:2:0, with detail at every
scale as in photos, each file with other bytes. First come whole processes, while nothing else is on the GPU: each
folder is indexed RUNS times, start included; the very first run also compiles the kernels and Python's bytecode.
Then come `vggsearch bench` and each stage alone: reading and hashing, decoding on the CPU, decoding on the GPU, the
network. Only what `make gpu` needs is needed. Without FAISS, an index ends with the embeddings, and `faiss` in the
result is false. The result is one JSON object, printed and written to FILE, for docs/performance.md; before that,
stderr shows each figure once it is measured.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path
from platform import python_version
from typing import Any

import numpy as np
from PIL import Image

from vggsearch.defaults import DEVICES
from vggsearch.evaluation.throughput import counted, multiply_adds, squares, stream
from vggsearch.image_index import ImageIndex
from vggsearch.indexing.decoding import decoded
from vggsearch.model.decoding_engine import DecodingEngine, DeviceDecoder
from vggsearch.model.engine import Engine, EngineOptions
from vggsearch.model.loading import load_engine, load_gpu
from vggsearch.model.spec import EmbeddingOptions
from vggsearch.photos.decoder_pool import default_workers
from vggsearch.photos.hashing import hash_unchanged
from vggsearch.photos.jpeg_header import jpeg_header
from vggsearch.photos.walk import PhotoFile, walk
from vggsearch.system.gpus import cuda_gpus

PICTURES = 32  # different ones of each size; the files are variants of them
SHARE_OF_NEXT_SCALE = 0.8  # in contrast: 2.9 MB at 4000 x 3000, as much as many cameras write
SMALL, LARGE = (500, 375), (4000, 3000)
STAGE_S, LIMIT_S = 4.0, 2.0
MOST_BATCHES = 4  # of files, in memory
PACKAGES = ("torch", "torchvision", "triton", "numpy", "pillow")
NVIDIA_SMI = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]

BICUBIC = Image.Resampling.BICUBIC

Figures = dict[str, Any]


def picture(seed: int, size: tuple[int, int]) -> Image.Image:
    """Return an RGB picture with detail at every scale."""
    random = np.random.default_rng(seed)

    def noise(cells: int) -> Image.Image:
        grid = random.integers(0, 256, (max(1, cells * size[1] // size[0]), cells), dtype=np.uint8)
        return Image.fromarray(grid)

    light, cells, contrast = Image.new("F", (1, 1), 127.5), 4, 0.7
    while cells < size[0]:
        finer = np.asarray(noise(cells), np.float32) - 127.5
        light = Image.fromarray(np.asarray(light.resize(finer.shape[::-1], BICUBIC)) + contrast * finer)
        cells, contrast = 2 * cells, SHARE_OF_NEXT_SCALE * contrast
    channels = (
        light.resize(size, BICUBIC).convert("L"),
        noise(8).resize(size, BICUBIC),
        noise(8).resize(size, BICUBIC),
    )
    return Image.merge("YCbCr", channels).convert("RGB")


def save_variants(folder: Path, size: tuple[int, int], count: int, seed: int) -> None:
    """Write every PICTURES-th of `count` files, from `seed` on: one picture, each time with a patch elsewhere."""
    whole, random = picture(seed, size), np.random.default_rng([seed, 1])
    for number in range(seed, count, PICTURES):
        variant, (left, top) = whole.copy(), random.integers(0, np.array(size) - 16).tolist()
        variant.paste(tuple(random.integers(0, 256, 3).tolist()), (left, top, left + 16, top + 16))
        variant.save(folder / f"{number:06}.jpg", quality=90)


@dataclass(frozen=True)
class Folder:
    """A folder of photos of one size."""

    root: Path
    size: tuple[int, int]
    count: int

    def __str__(self) -> str:
        return f"{self.count:,} photos of {self.size[0]} x {self.size[1]} pixels"

    def make(self) -> Figures:
        """Write the photos, on all CPU cores."""
        self.root.mkdir()
        started = time.perf_counter()
        with ProcessPoolExecutor(default_workers()) as pool:
            list(
                pool.map(partial(save_variants, self.root, self.size, self.count), range(min(PICTURES, self.count)))
            )
        size = sum(file.bytes for file in self.files())
        return {"photos": str(self), "mean_bytes": round(size / self.count), "made_in_s": seconds_since(started)}

    def files(self) -> list[PhotoFile]:
        return [file for file in walk(self.root) if isinstance(file, PhotoFile)]

    def index(self, directory: Path, device: str) -> Figures:
        """Index in a process of its own, timed from start to exit; check that all photos are in the index."""
        command = [sys.executable, "-m", "vggsearch", "index", str(self.root)]
        command += ["--index", str(directory), "--device", device]
        # Containers often keep Python from storing its bytecode; each process then compiles torch and NumPy again.
        stored = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(self.root.parent / "bytecode")}
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(
            command,
            env={**os.environ, **stored},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            check=False,
        )
        seconds, after = seconds_since(started), resource.getrusage(resource.RUSAGE_CHILDREN)
        with ImageIndex.open(directory) as made:
            facts = made.info()
        if facts.photos != self.count or done.returncode != (0 if has_faiss() else 1):
            raise SystemExit(f"{facts.photos:,} of {self}, exit status {done.returncode}:\n{done.stderr}")
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return {
            "seconds": seconds,
            "photos_per_s": round(self.count / seconds, 1),
            "cpu_ms_per_photo": round(1000 * cpu / self.count, 2),
            "engines": facts.made_by,
        }


def has_faiss() -> bool:
    return find_spec("faiss") is not None


def seconds_since(started: float) -> float:
    return round(time.perf_counter() - started, 2)


class Stages:
    """The stages of indexing, each alone, with one network in this process, on the first GPU."""

    def __init__(self, device: str) -> None:
        self.spec, weights = EmbeddingOptions().resolve()
        options = EngineOptions(device=device)
        if device in ("auto", "cuda") and cuda_gpus():
            self.engine: Engine = load_gpu(self.spec, weights, options, 0)
        else:
            self.engine = load_engine(self.spec, weights, options)
        self.decoder = self.engine.square_decoder() if isinstance(self.engine, DecodingEngine) else None

    def of(self, folder: Folder) -> Figures:
        """Return photos per second of the stages before the network."""
        at_once = self.engine.batch_size
        found = {"read_and_hash": self.reading(folder), "decode_on_cpu": counted(self.on_cpu(folder), STAGE_S, 1)}
        if self.decoder is not None:
            found["decode_on_gpu"] = counted(self.on_gpu(folder, self.decoder), STAGE_S, at_once)
        return {f"{stage}_per_s": round(rate, 1) for stage, rate in found.items()}

    def on_gpu(self, folder: Folder, decoder: DeviceDecoder) -> Generator[bool, None, None]:
        """Yield True for each photo that was decoded in this process, from the bytes of its file to a square."""
        at_once = self.engine.batch_size
        data = [(folder.root / file.path).read_bytes() for file in folder.files()[: MOST_BATCHES * at_once]]
        for start in cycle(range(0, len(data), at_once)):
            batch = data[start : start + at_once]
            headers = [header for each in batch if (header := jpeg_header(each, self.spec.size)) is not None]
            _, is_decoded, facts = decoder.squares(batch, headers)
            facts()  # waits for the GPU
            if not is_decoded.any():
                raise SystemExit(f"The GPU decoded none of {len(batch)} photos.")
            yield from is_decoded[is_decoded].tolist()

    def reading(self, folder: Folder) -> float:
        """Read and hash in threads, from the file cache."""
        files = folder.files()
        with ThreadPoolExecutor(default_workers()) as threads:
            started = time.perf_counter()
            list(threads.map(partial(hash_unchanged, folder.root), files))
        return len(files) / (time.perf_counter() - started)

    def on_cpu(self, folder: Folder) -> Generator[object, None, None]:
        """Yield each photo that was decoded in decoder processes, from the file to a square in this process."""
        return decoded(cycle(folder.files()), folder.root, self.spec, ahead=4 * self.engine.batch_size)

    def network(self, folder: Folder) -> Figures:
        """Run the network on pixels in memory, and measure the limit of the device as `vggsearch bench` does."""
        batch = squares(folder.files(), folder.root, self.spec, self.engine.batch_size)
        forward = len(batch) * counted(stream(self.engine, batch), STAGE_S, 1)
        limit = self.engine.multiply_adds_per_s(LIMIT_S) / multiply_adds(self.spec)
        return {
            "engine": str(self.engine),
            "batch_size": self.engine.batch_size,
            "photos_per_s": round(forward, 1),
            "limit_per_s": round(limit, 1),
            "share_of_limit": round(forward / limit, 3),
        }


def bench(device: str) -> Figures:
    """Return what `vggsearch bench` prints."""
    command = [sys.executable, "-m", "vggsearch", "bench", "--device", device, "--format", "json"]
    found: Figures = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return found


def machine() -> Figures:
    """Return the GPUs with driver and memory, the CPU cores that may be used, and the versions that matter."""
    gpus: list[str] = []
    if shutil.which(NVIDIA_SMI[0]):
        gpus = subprocess.run(NVIDIA_SMI, capture_output=True, text=True, check=True).stdout.splitlines()
    return {
        "gpus": gpus,
        "cpu_cores": default_workers(),
        "python": python_version(),
        **{package: installed_version(package) for package in PACKAGES},
    }


def installed_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def say(figures: Figures) -> Figures:
    """Show figures on stderr and return them."""
    print(json.dumps(figures), file=sys.stderr, flush=True)
    return figures


def measure(folders: Sequence[Folder], scratch: Path, options: argparse.Namespace) -> Figures:
    """Make the photos and return all figures."""
    figures: Figures = {"machine": say(machine()), "faiss": has_faiss()}
    of_folders = [say(folder.make()) for folder in folders]
    for folder, found in zip(folders, of_folders, strict=True):
        directories = [scratch / f"{folder.root.name}-{number}" for number in range(options.runs)]
        found["index"] = [say(folder.index(directory, options.device)) for directory in directories]
    if options.bench:
        figures["bench"] = say(bench(options.device))
    stages = Stages(options.device)
    figures["network"] = say(stages.network(folders[0]))
    for folder, found in zip(folders, of_folders, strict=True):
        found |= say(stages.of(folder))
    return {**figures, "folders": of_folders}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", type=int, default=6000)
    parser.add_argument("--large", type=int, default=800)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--device", choices=DEVICES, default="auto")
    parser.add_argument("--bench", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--out", type=Path, default=Path("build", "gpu_indexing.json"))
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vggsearch-gpu-") as directory:
        both = [
            Folder(Path(directory, name), size, count)
            for name, size, count in (("small", SMALL, chosen.small), ("large", LARGE, chosen.large))
            if count
        ]
        result = json.dumps(measure(both, Path(directory), chosen), indent=1)
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(result + "\n", encoding="utf-8")
    print(result)
