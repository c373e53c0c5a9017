"""Count how often an enlarged copy of a soft photo seems to show more detail, and a photo more than a reduced copy.

python benchmarks/detail_quality.py PHOTOS [--photos 30] [--seed 1]

Photos of 185 to 900 pixels are blurred by 0 to 2.5 pixels, with the noise of a sensor or without, and saved as
JPEG. Of each, copies are made at 1.3 to 4 times the size and at 1 / 1.3 to 1/4 of it, and saved as JPEG of quality
60 to 100.
"""

import argparse
import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image, ImageFilter
from shots_quality import SUFFIXES, as_jpeg, opened

from vggsearch.matching.detail import detail_of
from vggsearch.photos.edits import noisy, thumbnail

SIZES, BLURS, RATIOS = (185, 260, 400, 640, 900), (0.0, 0.6, 1.0, 1.6, 2.5), (1.3, 1.5, 2.0, 3.0, 4.0)
FILTERS = Image.Resampling.LANCZOS, Image.Resampling.BICUBIC
PART = 768  # pixels of the part that is looked at


def soft(photo: Image.Image, blur: float, generator: random.Random) -> Image.Image:
    """Return a photo as a camera out of focus or a scanner stores it."""
    blurred = photo.filter(ImageFilter.GaussianBlur(blur))
    noise = generator.choice((0, 0, 2, 4))
    return as_jpeg(noisy(blurred, generator, noise) if noise else blurred, generator.choice((85, 93, 97)))


def copies(photo: Image.Image, generator: random.Random) -> Iterator[tuple[bool, bool]]:
    """Yield for each copy whether it is enlarged, and whether the larger of the two seems to show more."""
    for ratio in RATIOS:
        for factor in (ratio, 1 / ratio):
            size = round(photo.width * factor), round(photo.height * factor)
            copy = as_jpeg(photo.resize(size, generator.choice(FILTERS)), generator.choice((60, 80, 90, 95, 100)))
            larger = max(photo, copy, key=lambda each: each.width)
            detail = detail_of(larger.crop((0, 0, min(PART, larger.width), min(PART, larger.height))))
            if detail is not None:
                yield factor > 1, detail.is_real(ratio)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(arguments)
    files = sorted(path for path in given.folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    generator = random.Random(given.seed)  # noqa: S311 - must be repeatable, not secure
    made, real = (Counter[tuple[float, bool]]() for _ in range(2))
    for path in generator.sample(files, given.photos):
        photo = thumbnail(opened(path), generator.choice(SIZES))
        for blur in BLURS:
            for is_enlarged, is_real in copies(soft(photo, blur, generator), generator):
                made[blur, is_enlarged] += 1
                real[blur, is_enlarged] += is_real
    for blur in BLURS:
        enlarged, reduced = ((real[blur, is_enlarged], made[blur, is_enlarged]) for is_enlarged in (True, False))
        print(
            f"blurred by {blur}: {enlarged[0]} of {enlarged[1]} enlarged copies seem to show more, "
            f"{reduced[0]} of {reduced[1]} photos show more than a reduced copy"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
