"""Small pictures to attack with: reduced copies of photos, or drawn ones."""

from collections.abc import Iterator
from pathlib import Path
from random import Random

from PIL import Image

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


def pictures(folder: Path | None, side: int) -> Iterator[Image.Image]:
    """Yield RGB pictures of at most `side` pixels a side: the photos of a folder, by name, then drawn ones."""
    if folder is not None:
        for path in sorted(each for each in folder.rglob("*") if each.suffix.lower() in SUFFIXES):
            with Image.open(path) as photo:
                photo.draft("RGB", (side, side))
                small = photo.convert("RGB")
            small.thumbnail((side, side))
            yield small
    random = Random(0)  # noqa: S311 - pictures, not secrets
    while True:
        yield drawn(random, side)


def drawn(random: Random, side: int) -> Image.Image:
    """Return a smooth, colourful picture with detail."""
    coarse = Image.frombytes("RGB", (5, 4), random.randbytes(60)).resize((side, side * 3 // 4))
    fine = Image.frombytes("RGB", (side // 4, side // 4), random.randbytes(3 * (side // 4) ** 2))
    return Image.blend(coarse, fine.resize(coarse.size), 0.3)


def save(picture: Image.Image, path: Path) -> None:
    """Write a picture in the format of the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
