"""Measure what a precision costs in quality: the same queries on an index in int8 and on one in fp32.

python benchmarks/precision_quality.py LABELLED PHOTOS

LABELLED is a folder with a truth.tsv (path, label) in which labels come in fours, as in UKBench. N-S counts how
many of the four photos nearest to each have its label. Every fifth of PHOTOS is edited in the ways below and
searched among all of them; the benchmark counts how often the original comes first.
"""

import csv
import io
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageEnhance, ImageOps

from vggsearch import EngineOptions, ImageIndex

PRECISIONS = ("fp32", "bf16", "int8")
EVERY = 5


def as_jpeg(quality: int) -> Callable[[Image.Image], Image.Image]:
    def edit(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.open(file).convert("RGB")

    return edit


def cropped(kept: float) -> Callable[[Image.Image], Image.Image]:
    def edit(image: Image.Image) -> Image.Image:
        width, height = (round(side * kept**0.5) for side in image.size)
        left, top = (image.width - width) // 3, (image.height - height) // 3
        return image.crop((left, top, left + width, top + height))

    return edit


EDITS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "half size": lambda image: image.resize((image.width // 2, image.height // 2)),
    "96 pixels": lambda image: ImageOps.contain(image, (96, 96)),
    "JPEG 8": as_jpeg(8),
    "crop to 80 %": cropped(0.8),
    "crop to 50 %": cropped(0.5),
    "crop to 30 %": cropped(0.3),
    "grey": lambda image: ImageOps.grayscale(image).convert("RGB"),
    "dark": lambda image: ImageEnhance.Brightness(image).enhance(0.5),
    "mirror": ImageOps.mirror,
    "turned 5 degrees": lambda image: image.rotate(5),
    "border": lambda image: ImageOps.expand(image, image.width // 8, "white"),
    "small, cropped, JPEG 20": lambda image: as_jpeg(20)(ImageOps.contain(cropped(0.6)(image), (160, 160))),
}


def n_s(folder: Path, precision: str) -> float:
    with (folder / "truth.tsv").open(newline="") as file:
        label = {row["path"]: row["label"] for row in csv.DictReader(file, delimiter="\t")}
    with tempfile.TemporaryDirectory() as made, new_index(Path(made), precision) as index:
        index.update(folder)
        found = {path: index.query(folder / path, 4).matches for path in label}
        right: int = sum(label[match.path] == label[path] for path in label for match in found[path])
        return right / len(label)


def recall_of_copies(folder: Path, precision: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as made, new_index(Path(made), precision) as index:
        index.update(folder)
        asked = index.paths()[::EVERY]
        first = dict.fromkeys(EDITS, 0)
        for path in asked:
            with Image.open(folder / path) as opened:
                original = opened.convert("RGB")
            for name, edit in EDITS.items():
                first[name] += index.query(edit(original), 1).matches[0].path == path
        return {name: count / len(asked) for name, count in first.items()}


def new_index(folder: Path, precision: str) -> ImageIndex:
    return ImageIndex.create(folder / "index", engine_options=EngineOptions("openvino", "cpu", precision))


if __name__ == "__main__":
    labelled, photos = (Path(word) for word in sys.argv[1:])
    for precision in PRECISIONS:
        recalls = recall_of_copies(photos, precision)
        mean = sum(recalls.values()) / len(recalls)
        each = ", ".join(f"{name} {recall:.2f}" for name, recall in recalls.items())
        print(
            f"{precision}: N-S {n_s(labelled, precision):.3f}, copies found first {mean:.4f} ({each})", flush=True
        )
