"""Edited copies of a photo, as people and services make them: what a search should find again.

Each edit is a row of EDITS: a picture and a seeded random.Random to a picture. The copy is encoded as a file would
be, so that what is searched has gone through a decoder.
"""

import io
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

QUALITY = 90  # of the JPEG that an edit is saved as, where the edit does not say otherwise
FILTER = Image.Resampling.LANCZOS
CAPTION = "when you find it again"
PHONE = 9 / 19.5  # width to height of a screen
TOOLBAR = (32, 33, 36)


@dataclass(frozen=True)
class Edit:
    """One edit: what it does in words, how, and the JPEG quality that its copies are saved with.

    `is_basic` marks the eighteen of the first measurements, to compare with other tools.
    """

    says: str
    apply: Callable[[Image.Image, random.Random], Image.Image]
    quality: int = QUALITY
    is_basic: bool = True


def edited(photo: Image.Image, edit: Edit, seed: str, others: Sequence[Image.Image] = ()) -> bytes:
    """Return the JPEG file of an edited copy of an RGB picture; the same seed gives the same copy.

    `others` are pictures that a collage puts beside it.
    """
    generator = random.Random(seed)  # noqa: S311 - a repeatable choice is what is wanted
    picture = edit.apply(photo, generator)
    if others:
        picture = beside(picture, others, generator)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=edit.quality)
    return file.getvalue()


def scaled(photo: Image.Image, factor: float) -> Image.Image:
    """Return it with sides `factor` times as long."""
    width, height = (max(1, round(side * factor)) for side in photo.size)
    return photo.resize((width, height), FILTER)


def thumbnail(photo: Image.Image, longer: int) -> Image.Image:
    """Return it with a longer side of `longer` pixels."""
    return scaled(photo, longer / max(photo.size))


def cropped(photo: Image.Image, generator: random.Random, keep: float) -> Image.Image:
    """Keep a share of the area, of the photo's own shape, anywhere in it."""
    width, height = (max(1, round(side * math.sqrt(keep))) for side in photo.size)
    left = generator.randint(0, photo.width - width)
    top = generator.randint(0, photo.height - height)
    return photo.crop((left, top, left + width, top + height))


def bordered(photo: Image.Image, share: float) -> Image.Image:
    """Put a white frame around it, each side a share of the shorter side."""
    return ImageOps.expand(photo, round(min(photo.size) * share), "white")


def turned(photo: Image.Image, degrees: float) -> Image.Image:
    """Turn it counter-clockwise; what comes from outside is black, as editors leave it."""
    return photo.rotate(degrees, Image.Resampling.BICUBIC)


def captioned(photo: Image.Image) -> Image.Image:
    """Write a white caption with a black outline across the lower part, as memes have it."""
    copy = photo.copy()
    draw = ImageDraw.Draw(copy)
    size = max(6, round(photo.width * 0.085))
    font = ImageFont.load_default(size)
    anchor = (photo.width / 2, photo.height * 0.86)
    draw.text(anchor, CAPTION, "white", font, anchor="mm", stroke_width=max(1, size // 12), stroke_fill="black")
    return copy


def stickered(photo: Image.Image, generator: random.Random) -> Image.Image:
    """Put a yellow face on it, about an eighth of the area."""
    side = round(math.sqrt(photo.width * photo.height / 8 * 4 / math.pi))
    left = generator.randint(0, max(0, photo.width - side))
    top = generator.randint(0, max(0, photo.height - side))
    copy = photo.copy()
    draw = ImageDraw.Draw(copy)

    def box(x: float, y: float, width: float, height: float) -> tuple[float, float, float, float]:
        return left + x * side, top + y * side, left + (x + width) * side, top + (y + height) * side

    line = max(1, side // 30)
    draw.ellipse(box(0, 0, 1, 1), "gold", "black", line)
    for x in (0.28, 0.6):
        draw.ellipse(box(x, 0.28, 0.12, 0.18), "black")
    draw.arc(box(0.22, 0.3, 0.56, 0.5), 20, 160, "black", 2 * line)
    return copy


def screenshot(photo: Image.Image) -> Image.Image:
    """Show it on a phone's screen: the photo as wide as the screen, bars and dark above and below."""
    width = photo.width
    height = max(round(width / PHONE), photo.height + width // 3)
    screen = Image.new("RGB", (width, height), "black")
    draw = ImageDraw.Draw(screen)
    bar = width // 8
    draw.rectangle((0, 0, width, bar), TOOLBAR)
    draw.rectangle((0, height - bar, width, height), TOOLBAR)
    font = ImageFont.load_default(max(6, bar // 3))
    draw.text((bar / 3, bar / 2), "12:45", "white", font, anchor="lm")
    for place in range(4):
        x = width * (2 * place + 1) / 8
        draw.ellipse((x - bar / 5, height - bar * 0.7, x + bar / 5, height - bar * 0.3), outline="white")
    screen.paste(photo, (0, (height - photo.height) // 2))
    return screen


def noisy(photo: Image.Image, generator: random.Random, deviation: float) -> Image.Image:
    """Add Gaussian noise, of 255, to every channel of every pixel."""
    noise = np.random.default_rng(generator.getrandbits(64)).normal(0, deviation, (photo.height, photo.width, 3))
    return Image.fromarray(np.clip(np.asarray(photo) + noise, 0, 255).astype(np.uint8))


def recoloured(photo: Image.Image, red: float, green: float, blue: float) -> Image.Image:
    """Scale the channels, as a wrong white balance or a filter does."""
    return Image.fromarray(np.clip(np.asarray(photo) * (red, green, blue), 0, 255).astype(np.uint8))


def beside(photo: Image.Image, others: Sequence[Image.Image], generator: random.Random) -> Image.Image:
    """Put it in one quarter of a collage of two by two, at a random place; three others fill the rest."""
    cell = (max(2, photo.width // 2), max(2, photo.height // 2))
    tiles = [ImageOps.fit(other, cell, FILTER) for other in others[:3]]
    tiles.insert(generator.randrange(4), photo.resize(cell, FILTER))
    collage = Image.new("RGB", (2 * cell[0], 2 * cell[1]))
    for place, tile in enumerate(tiles):
        collage.paste(tile, (place % 2 * cell[0], place // 2 * cell[1]))
    return collage


def strong(photo: Image.Image, generator: random.Random) -> Image.Image:
    """Keep 60 % of it, turn it a little, change its light and colour, write on it, and make it half as large."""
    picture = turned(cropped(photo, generator, 0.6), generator.choice((-4, 4)))
    picture = ImageEnhance.Brightness(picture).enhance(generator.uniform(0.75, 1.3))
    picture = ImageEnhance.Color(picture).enhance(generator.uniform(0.5, 1.5))
    return scaled(captioned(picture), 0.5)


def strongest(photo: Image.Image, generator: random.Random) -> Image.Image:
    """Do the strong mix to the mirrored photo, with a sticker and a frame."""
    return bordered(stickered(strong(ImageOps.mirror(photo), generator), generator), 0.06)


EDITS: dict[str, Edit] = {
    "half": Edit("half as large", lambda photo, _: scaled(photo, 0.5)),
    "thumbnail": Edit("96 pixels wide or high", lambda photo, _: thumbnail(photo, 96)),
    "jpeg30": Edit("JPEG of quality 30", lambda photo, _: photo, quality=30),
    "jpeg8": Edit("JPEG of quality 8", lambda photo, _: photo, quality=8),
    "crop20": Edit("a fifth cut away", lambda photo, generator: cropped(photo, generator, 0.8)),
    "crop50": Edit("half cut away", lambda photo, generator: cropped(photo, generator, 0.5)),
    "crop70": Edit("70 % cut away", lambda photo, generator: cropped(photo, generator, 0.3)),
    "crop80": Edit("80 % cut away", lambda photo, generator: cropped(photo, generator, 0.2)),
    "bright": Edit("1.5 times as bright", lambda photo, _: ImageEnhance.Brightness(photo).enhance(1.5)),
    "contrast": Edit("1.7 times the contrast", lambda photo, _: ImageEnhance.Contrast(photo).enhance(1.7)),
    "grey": Edit("black and white", lambda photo, _: ImageOps.grayscale(photo).convert("RGB")),
    "text": Edit("a caption over it", lambda photo, _: captioned(photo)),
    "border": Edit("a white frame", lambda photo, _: bordered(photo, 0.1)),
    "turn5": Edit("turned by 5 degrees", lambda photo, _: turned(photo, 5)),
    "turn90": Edit("turned by 90 degrees", lambda photo, _: photo.transpose(Image.Transpose.ROTATE_90)),
    "mirror": Edit("mirrored", lambda photo, _: ImageOps.mirror(photo)),
    "blur": Edit(
        "blurred, 1 % of its width", lambda photo, _: photo.filter(ImageFilter.GaussianBlur(photo.width * 0.01))
    ),
    "strong": Edit("cropped, turned, recoloured, written on, half as large", strong, quality=25),
    "dark": Edit("half as bright", lambda photo, _: ImageEnhance.Brightness(photo).enhance(0.5), is_basic=False),
    "colour": Edit("a warm filter", lambda photo, _: recoloured(photo, 1.25, 1.0, 0.7), is_basic=False),
    "larger": Edit("1.5 times as large", lambda photo, _: scaled(photo, 1.5), is_basic=False),
    "sticker": Edit("a face stuck on", stickered, is_basic=False),
    "screenshot": Edit("a phone's screenshot of it", lambda photo, _: screenshot(photo), is_basic=False),
    "noise": Edit("noise added", lambda photo, generator: noisy(photo, generator, 20), is_basic=False),
    "turn180": Edit("upside down", lambda photo, _: photo.transpose(Image.Transpose.ROTATE_180), is_basic=False),
    "collage": Edit("a quarter of a collage", lambda photo, _: photo, is_basic=False),
    "strongest": Edit(
        "the strong mix, mirrored, with a sticker and a frame", strongest, quality=25, is_basic=False
    ),
}
