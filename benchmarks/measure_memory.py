"""Measure the peak memory of every command on pictures that are small as files and huge once decoded.

python benchmarks/measure_memory.py [FOLDER]

Two folders of photos are made in FOLDER, by default a temporary one. `bombs` has PNGs of 177 megapixels, 16-bit
grey, RGB and RGBA, and a progressive JPEG of 144 megapixels; `panorama` has JPEGs of 12000 x 3000 pixels; both have
some ordinary photos. For each command, the largest resident memory of the main process and of all its processes
together is printed, in MB. Shared pages count in each process, so the sum is an upper bound.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

SIDE, CELL = 13_312, 256  # 177 megapixels, in uniform cells, which compress well
PROGRESSIVE = (16_000, 9_000)
PANORAMA, PANORAMAS = (12_000, 3_000), 6
ORDINARY, ORDINARY_SIZE = 12, (1_600, 1_200)
BETWEEN_S = 0.01
PAGE = os.sysconf("SC_PAGE_SIZE")
COMMANDS = {
    "index": ["index", "photos"],
    "query of the largest": ["query", "photos/large.png"],
    "query of an ordinary one": ["query", "photos/0.jpg"],
    "dups find": ["dups", "find"],
    "dups find --html": ["dups", "find", "--html", "page.html"],
    "dups remove trash": ["dups", "remove", "trash"],
    "verify": ["verify"],
}


def cells(seed: int, dtype: str, highest: int, channels: int = 1) -> np.ndarray:
    """Return random cells of CELL pixels: (SIDE, SIDE) or (SIDE, SIDE, channels)."""
    shape = (SIDE // CELL, SIDE // CELL, channels)
    few = np.random.default_rng(seed).integers(0, highest, shape).astype(dtype)
    return few.repeat(CELL, 0).repeat(CELL, 1).squeeze()


def picture(seed: int, size: tuple[int, int]) -> Image.Image:
    """Return a smooth, colourful picture."""
    colours = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return Image.fromarray(colours).resize(size, Image.Resampling.BICUBIC)


def make(folder: Path) -> None:
    """Write both folders of photos."""
    Image.MAX_IMAGE_PIXELS = None
    for name in ("bombs", "panorama"):
        photos = folder / name / "photos"
        photos.mkdir(parents=True)
        for seed in range(ORDINARY):
            picture(seed, ORDINARY_SIZE).save(photos / f"{seed}.jpg")
        picture(0, ORDINARY_SIZE).resize((800, 600)).save(photos / "smaller.jpg")
    for number in range(PANORAMAS):
        picture(100 + number, PANORAMA).save(folder / "panorama" / "photos" / f"wide{number}.jpg", quality=80)
    os.link(folder / "panorama/photos/wide0.jpg", folder / "panorama/photos/large.png")
    photos = folder / "bombs" / "photos"
    grey = cells(1, "uint16", 60_000)
    for number in range(3):
        grey[0, number] ^= 1
        Image.fromarray(grey).save(photos / f"grey{number}.png", compress_level=1)
    del grey
    for name, channels in (("large", 3), ("large copy", 3), ("transparent", 4)):
        Image.fromarray(cells(2, "uint8", 256, channels)).save(photos / f"{name}.png", compress_level=1)
    picture(3, PROGRESSIVE).save(photos / "progressive.jpg", progressive=True)


def resident(process: int) -> int:
    """Return the resident bytes of a process, 0 if it has ended."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * PAGE
    except (OSError, IndexError):
        return 0


def children(process: int) -> list[int]:
    """Return the processes that a process has started, and those that they have."""
    try:
        threads = list(Path(f"/proc/{process}/task").iterdir())
        direct = [int(word) for thread in threads for word in (thread / "children").read_text().split()]
    except OSError:
        return []
    return direct + [grandchild for child in direct for grandchild in children(child)]


def run(arguments: Sequence[str], folder: Path) -> tuple[int, int, float, int]:
    """Run a command; return the peak of the main process and of all, in bytes, the seconds and the exit status."""
    command = [sys.executable, "-m", "vggsearch", *arguments]
    started, main, together = time.monotonic(), 0, 0
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while process.poll() is None:
            own = resident(process.pid)
            main, together = max(main, own), max(together, own + sum(map(resident, children(process.pid))))
            time.sleep(BETWEEN_S)
    return main, together, time.monotonic() - started, process.returncode


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else scratch)
        make(folder)
        print(f"{'':36} main MB   all MB  seconds  status")
        for name in ("bombs", "panorama"):
            for title, arguments in COMMANDS.items():
                own, together, seconds, status = run(arguments, folder / name)
                print(f"{name + ', ' + title:36} {own / 1e6:7.0f} {together / 1e6:8.0f} {seconds:8.1f} {status:7}")


if __name__ == "__main__":
    main()
