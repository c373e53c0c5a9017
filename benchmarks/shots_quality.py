"""Count how many pairs of separate shots pass for copies, and how many captioned copies of photos do not.

python benchmarks/shots_quality.py PHOTOS UKBENCH [--thing FOLDER] [--pairs 60] [--seed 1]

Draws frames of bursts in which a thing moves: a picture, a picture on white, a thing that was cut out of its white
background, a blurred thing as in front of the focus, a part of the scene itself. Draws copies with captions,
stickers, stamps and inset pictures of different strength, which are then made smaller or compressed. Views of the
objects of UKBENCH are separate shots, too. FOLDER has the pictures of things, by default PHOTOS.
All are compared by keypoints and pixels as `dups` does, without names and times.
"""

import argparse
import io
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, islice
from pathlib import Path

import cv2
import numpy as np
from library_files import encoded
from library_pictures import shaken, text, words
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageOps
from templates_quality import passes

from vggsearch.matching.keypoints import detect_keypoints
from vggsearch.measures.ground_truth import read_truth
from vggsearch.photos.edits import EDIT_FILTER, captioned, scaled, stickered
from vggsearch.system.threads import single_threaded_blas

SUFFIXES = (".jpg", ".jpeg", ".png")
Pair = tuple[Image.Image, Image.Image]
Thing = tuple[Image.Image, Image.Image]  # and its mask


def opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


def framed(picture: Image.Image, _: random.Random) -> Thing:
    return picture, Image.new("L", picture.size, 255)


def on_white(picture: Image.Image, generator: random.Random) -> Thing:
    """Put a picture on a sheet of nearly white paper."""
    level = generator.randrange(225, 256)
    sheet = Image.new("RGB", picture.size, (level,) * 3)
    inner = scaled(picture, generator.uniform(0.4, 0.8))
    sheet.paste(inner, ((sheet.width - inner.width) // 2, (sheet.height - inner.height) // 2))
    return sheet, Image.new("L", sheet.size, 255)


def rounded(picture: Image.Image, _: random.Random) -> Thing:
    mask = Image.new("L", picture.size, 0)
    ImageDraw.Draw(mask).ellipse((0, 0, *picture.size), fill=255)
    return picture, mask


def out_of_focus(picture: Image.Image, _: random.Random) -> Thing:
    """Blur a round thing and its edge."""
    blur = ImageFilter.GaussianBlur(picture.width / 25)
    mask = Image.new("L", picture.size, 0)
    inset = picture.width // 10
    ImageDraw.Draw(mask).ellipse((inset, inset, picture.width - inset, picture.height - inset), fill=255)
    return picture.filter(blur), mask.filter(blur)


def plain(picture: Image.Image, generator: random.Random) -> Thing:
    """Return a round thing of nearly one tone, such as a ball or a coat, with the shading of a photo."""
    tone = Image.new("RGB", picture.size, tuple(generator.randrange(30, 220) for _ in range(3)))
    soft = picture.filter(ImageFilter.GaussianBlur(picture.width / 8))
    return Image.blend(tone, soft, 0.2), rounded(picture, generator)[1]


THINGS: dict[str, Callable[[Image.Image, random.Random], Thing]] = {
    "picture": framed,
    "on white": on_white,
    "round": rounded,
    "out of focus": out_of_focus,
    "plain": plain,
}


def frames(scene: Image.Image, thing: Thing, generator: random.Random) -> Pair:
    """Return two frames of a scene in which a thing moves, as cameras store them."""
    width, height = scene.size
    share = generator.uniform(0.12, 0.3)
    size = round(width * share), round(height * share)
    picture, mask = (each.resize(size, EDIT_FILTER) for each in thing)
    left, top = generator.randrange(width - size[0]), generator.randrange(height - size[1])
    distance = width * generator.uniform(0.08, 0.4) * (1 if left < (width - size[0]) / 2 else -1)
    moved = min(max(round(left + distance), 0), width - size[0])
    slope = min(max(round(top + height * generator.uniform(-0.1, 0.1)), 0), height - size[1])
    shots = [with_thing(scene, picture, mask, at) for at in ((left, top), (moved, slope))]
    return exposures(shots, generator)


def with_thing(scene: Image.Image, picture: Image.Image, mask: Image.Image, at: tuple[int, int]) -> Image.Image:
    shot = scene.copy()
    shot.paste(picture, at, mask)
    return shot


def of_scene(scene: Image.Image, generator: random.Random) -> Pair:
    """Return two frames of a scene of which a part has moved; what it hid before is filled in around it."""
    width, height = scene.size
    side = round(width * generator.uniform(0.15, 0.3))
    left, top = generator.randrange(width - side), generator.randrange(max(1, height - side))
    mask = Image.new("L", scene.size, 0)
    ImageDraw.Draw(mask).ellipse((left, top, left + side, top + side), fill=255)
    small = scaled(scene, 0.25)
    hidden = np.asarray(mask.resize(small.size).filter(ImageFilter.MaxFilter(5)))
    filled: NDArray[np.uint8] = np.asarray(cv2.inpaint(np.asarray(small), hidden, 5, cv2.INPAINT_TELEA), np.uint8)
    behind = Image.composite(Image.fromarray(filled).resize(scene.size, EDIT_FILTER), scene, mask)
    across = round(side * generator.uniform(0.4, 1.2)) * generator.choice((-1, 1))
    moved = Image.composite(ImageChops.offset(scene, across, 0), behind, ImageChops.offset(mask, across, 0))
    return exposures([scene, moved], generator)


def exposures(shots: Sequence[Image.Image], generator: random.Random) -> Pair:
    """Return shots with sensor noise, from a tripod or by hand, as JPEG."""
    noise = np.random.default_rng(generator.getrandbits(64))
    by_hand, margin = generator.random() < 0.5, shots[0].width // 40
    found = []
    for shot in shots:
        image = shaken(shot, generator) if by_hand else shot
        image = image.crop((margin, margin, image.width - margin, image.height - margin))
        pixels = np.asarray(image) + noise.normal(0, generator.uniform(1, 5), (image.height, image.width, 1))
        found.append(as_jpeg(Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)), 92))
    return found[0], found[1]


def as_jpeg(image: Image.Image, quality: int) -> Image.Image:
    return Image.open(io.BytesIO(encoded(image, ".jpg", quality))).convert("RGB")


def with_caption(photo: Image.Image, generator: random.Random) -> Image.Image:
    """Write words of any size somewhere, in white with an outline, in a colour, or on a bar."""
    style = generator.choice(("meme", "colour", "bar"))
    if style == "meme":
        return captioned(photo)
    copy, size = photo.copy(), round(photo.width * generator.uniform(0.04, 0.11))
    top = round(photo.height * generator.uniform(0.02, 0.85))
    draw = ImageDraw.Draw(copy)
    if style == "bar":
        draw.rectangle((0, top, photo.width, top + 1.4 * size), fill=generator.choice(("white", "black")))
    ink = generator.choice(("red", "yellow", "grey", "orange"))
    text(draw, (photo.width // 20, top), words(generator, generator.randrange(1, 5)), size, ink)
    return copy


def with_sticker(photo: Image.Image, generator: random.Random) -> Image.Image:
    """Put shapes of any size and colour on a photo, some of them seen through."""
    if generator.random() < 0.4:
        return stickered(photo, generator)
    copy = photo.copy()
    for _ in range(generator.randrange(1, 4)):
        side = round(photo.width * generator.uniform(0.06, 0.3))
        at = generator.randrange(max(1, photo.width - side)), generator.randrange(max(1, photo.height - side))
        shape = Image.new("L", (side, side), 0)
        draw, strength = ImageDraw.Draw(shape), generator.randrange(150, 256)
        (draw.ellipse if generator.random() < 0.5 else draw.rectangle)((0, 0, side - 1, side - 1), fill=strength)
        copy.paste(tuple(generator.randrange(256) for _ in range(3)), at, shape)
    return copy


def with_inset(photo: Image.Image, generator: random.Random, other: Image.Image) -> Image.Image:
    """Put another picture, on white or as it is, into a place of a photo."""
    inset, mask = generator.choice((framed, on_white, rounded))(other, generator)
    width, height = (round(side * generator.uniform(0.12, 0.3)) for side in photo.size)
    at = generator.randrange(photo.width - width), generator.randrange(photo.height - height)
    return with_thing(photo, inset.resize((width, height), EDIT_FILTER), mask.resize((width, height)), at)


def passed_on(image: Image.Image, generator: random.Random) -> Image.Image:
    return as_jpeg(scaled(image, generator.choice((1, 1, 0.64, 0.4))), generator.choice((95, 90, 75, 50, 30)))


def pairs(
    photos: list[Path], things: list[Path], views: Path, generator: random.Random
) -> dict[str, Iterator[Pair]]:
    """Return pairs of separate shots and of copies, endlessly, by kind. The kinds of copies end with "copy"."""

    def photo() -> Image.Image:
        return scaled(opened(generator.choice(photos)), generator.choice((1, 2)))

    def thing() -> Image.Image:
        return opened(generator.choice(things))

    def changing() -> Iterator[Pair]:
        while True:
            yield of_scene(photo(), generator)

    def moving(make: Callable[[Image.Image, random.Random], Thing]) -> Iterator[Pair]:
        while True:
            yield frames(photo(), make(thing(), generator), generator)

    def copy_of(edit: Callable[[Image.Image], Image.Image]) -> Iterator[Pair]:
        while True:
            original = photo()
            yield as_jpeg(original, 93), passed_on(edit(original), generator)

    shots = {f"moving thing, {name}": moving(make) for name, make in THINGS.items()}
    shots["moving part of the scene"] = changing()
    shots["another view"] = views_of(views, generator)
    shots["captioned copy"] = copy_of(lambda image: with_caption(image, generator))
    shots["stickered copy"] = copy_of(lambda image: with_sticker(image, generator))
    shots["inset copy"] = copy_of(lambda image: with_inset(image, generator, thing()))
    return shots


def views_of(folder: Path, generator: random.Random) -> Iterator[Pair]:
    truth = read_truth(folder / "truth.tsv")
    labels: dict[str, list[str]] = {}
    for path, label in truth.items():
        labels.setdefault(label, []).append(path)
    found = [pair for paths in labels.values() for pair in combinations(paths, 2)]
    for one, other in generator.sample(found, len(found)):
        yield opened(folder / one), opened(folder / other)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("views", type=Path)
    parser.add_argument("--things", type=Path)
    parser.add_argument("--pairs", type=int, default=60, help="of each kind")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(arguments)
    photos, things = (
        sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
        for folder in (given.photos, given.things or given.photos)
    )
    generator = random.Random(given.seed)  # noqa: S311 - must be repeatable, not secure
    for kind, drawn in pairs(photos, things, given.views, generator).items():
        found = [passes(*map(detect_keypoints, pair)) for pair in islice(drawn, given.pairs)]
        print(f"{kind}: {sum(found)} of {len(found)} pass for copies", flush=True)


if __name__ == "__main__":
    with single_threaded_blas():
        main(sys.argv[1:])
