"""Edited copies of a photo, as users and online services make them, to measure which edits a search still finds.

Each edit is an entry of EDITS: a function of an image and a seeded random.Random that returns an image. The copy is
encoded as a JPEG file, so that it passes through a decoder like any photo.
"""

import io
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

DEFAULT_QUALITY = 90  # JPEG quality of an edited copy
EDIT_FILTER = Image.Resampling.LANCZOS
COLLAGE = "collage"  # the one edit that needs other photos
COLLAGE_OTHERS = 3
CAPTION = "when you find it again"
PHONE_ASPECT_RATIO = 9 / 19.5  # width to height of the screen
TOOLBAR_COLOUR = (32, 33, 36)


@dataclass(frozen=True)
class Edit:
    """One edit: its description, the function that applies it, and the JPEG quality of its copies.

    `is_basic` marks the eighteen edits that comparisons with other tools use.
    """

    description: str
    apply: Callable[[Image.Image, random.Random], Image.Image]
    quality: int = DEFAULT_QUALITY
    is_basic: bool = True


def edited(photo: Image.Image, edit: Edit, seed: str, others: Sequence[Image.Image] = ()) -> bytes:
    """Return an edited copy of an RGB image as the bytes of a JPEG file; the same seed gives the same copy.

    With `others`, COLLAGE_OTHERS images, the copy becomes one quarter of a collage with them.
    """
    generator = random.Random(seed)  # noqa: S311 - must be repeatable, not secure
    image = edit.apply(photo, generator)
    if others:
        image = in_collage(image, others, generator)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=edit.quality)
    return file.getvalue()


def scaled(photo: Image.Image, factor: float) -> Image.Image:
    """Resize both sides by `factor`."""
    width, height = (max(1, round(side * factor)) for side in photo.size)
    return photo.resize((width, height), EDIT_FILTER)


def thumbnail(photo: Image.Image, longer: int) -> Image.Image:
    """Resize to `longer` pixels on the longer side."""
    return scaled(photo, longer / max(photo.size))


def cropped(photo: Image.Image, generator: random.Random, keep: float) -> Image.Image:
    """Crop at a random position to the share `keep` of the area, with the same aspect ratio."""
    width, height = (max(1, round(side * math.sqrt(keep))) for side in photo.size)
    left = generator.randint(0, photo.width - width)
    top = generator.randint(0, photo.height - height)
    return photo.crop((left, top, left + width, top + height))


def bordered(photo: Image.Image, share: float) -> Image.Image:
    """Add a white border; `share` is its width relative to the shorter side."""
    return ImageOps.expand(photo, round(min(photo.size) * share), "white")


def rotated(photo: Image.Image, degrees: float) -> Image.Image:
    """Rotate counter-clockwise; the corners become black, as in photo editors."""
    return photo.rotate(degrees, Image.Resampling.BICUBIC)


def captioned(photo: Image.Image) -> Image.Image:
    """Write a white caption with a black outline across the lower part, like a meme."""
    copy = photo.copy()
    draw = ImageDraw.Draw(copy)
    size = max(6, round(photo.width * 0.085))
    font = ImageFont.load_default(size)
    anchor = (photo.width / 2, photo.height * 0.86)
    draw.text(anchor, CAPTION, "white", font, anchor="mm", stroke_width=max(1, size // 12), stroke_fill="black")
    return copy


def stickered(photo: Image.Image, generator: random.Random) -> Image.Image:
    """Add a yellow smiley that covers about an eighth of the area, at a random position."""
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
    """Show the photo in full width on a black phone screen, with toolbars at the top and bottom."""
    width = photo.width
    height = max(round(width / PHONE_ASPECT_RATIO), photo.height + width // 3)
    screen = Image.new("RGB", (width, height), "black")
    draw = ImageDraw.Draw(screen)
    bar = width // 8
    draw.rectangle((0, 0, width, bar), TOOLBAR_COLOUR)
    draw.rectangle((0, height - bar, width, height), TOOLBAR_COLOUR)
    font = ImageFont.load_default(max(6, bar // 3))
    draw.text((bar / 3, bar / 2), "12:45", "white", font, anchor="lm")
    for button in range(4):
        x = width * (2 * button + 1) / 8
        draw.ellipse((x - bar / 5, height - bar * 0.7, x + bar / 5, height - bar * 0.3), outline="white")
    screen.paste(photo, (0, (height - photo.height) // 2))
    return screen


def noisy(photo: Image.Image, generator: random.Random, deviation: float) -> Image.Image:
    """Add Gaussian noise of standard `deviation` (pixel values are 0 to 255) to every channel of every pixel."""
    noise = np.random.default_rng(generator.getrandbits(64)).normal(0, deviation, (photo.height, photo.width, 3))
    return Image.fromarray(np.clip(np.asarray(photo) + noise, 0, 255).astype(np.uint8))


def recoloured(photo: Image.Image, red: float, green: float, blue: float) -> Image.Image:
    """Scale the channels, like a wrong white balance or a colour filter."""
    return Image.fromarray(np.clip(np.asarray(photo) * (red, green, blue), 0, 255).astype(np.uint8))


def in_collage(photo: Image.Image, others: Sequence[Image.Image], generator: random.Random) -> Image.Image:
    """Put it in a random quarter of a 2 x 2 collage; the first three of `others` fill the rest."""
    cell = (max(2, photo.width // 2), max(2, photo.height // 2))
    tiles = [ImageOps.fit(other, cell, EDIT_FILTER) for other in others[:COLLAGE_OTHERS]]
    tiles.insert(generator.randrange(4), photo.resize(cell, EDIT_FILTER))
    collage = Image.new("RGB", (2 * cell[0], 2 * cell[1]))
    for index, tile in enumerate(tiles):
        collage.paste(tile, (index % 2 * cell[0], index // 2 * cell[1]))
    return collage


def strongly_edited(photo: Image.Image, generator: random.Random) -> Image.Image:
    """Crop to 60 %, rotate by 4 degrees, change brightness and saturation, add a caption, and halve the size."""
    image = rotated(cropped(photo, generator, 0.6), generator.choice((-4, 4)))
    image = ImageEnhance.Brightness(image).enhance(generator.uniform(0.75, 1.3))
    image = ImageEnhance.Color(image).enhance(generator.uniform(0.5, 1.5))
    return scaled(captioned(image), 0.5)


def most_strongly_edited(photo: Image.Image, generator: random.Random) -> Image.Image:
    """Apply the strong edit to the mirrored photo, then add a sticker and a border."""
    return bordered(stickered(strongly_edited(ImageOps.mirror(photo), generator), generator), 0.06)


EDITS: dict[str, Edit] = {
    "half": Edit("half the size", lambda photo, _: scaled(photo, 0.5)),
    "thumbnail": Edit("96 pixels on the longer side", lambda photo, _: thumbnail(photo, 96)),
    "jpeg30": Edit("JPEG quality 30", lambda photo, _: photo, quality=30),
    "jpeg8": Edit("JPEG quality 8", lambda photo, _: photo, quality=8),
    "crop20": Edit("20 % cropped away", lambda photo, generator: cropped(photo, generator, 0.8)),
    "crop50": Edit("50 % cropped away", lambda photo, generator: cropped(photo, generator, 0.5)),
    "crop70": Edit("70 % cropped away", lambda photo, generator: cropped(photo, generator, 0.3)),
    "crop80": Edit("80 % cropped away", lambda photo, generator: cropped(photo, generator, 0.2)),
    "bright": Edit("1.5 times the brightness", lambda photo, _: ImageEnhance.Brightness(photo).enhance(1.5)),
    "contrast": Edit("1.7 times the contrast", lambda photo, _: ImageEnhance.Contrast(photo).enhance(1.7)),
    "grey": Edit("black and white", lambda photo, _: ImageOps.grayscale(photo).convert("RGB")),
    "text": Edit("caption added", lambda photo, _: captioned(photo)),
    "border": Edit("white border", lambda photo, _: bordered(photo, 0.1)),
    "turn5": Edit("rotated by 5 degrees", lambda photo, _: rotated(photo, 5)),
    "turn90": Edit("rotated by 90 degrees", lambda photo, _: photo.transpose(Image.Transpose.ROTATE_90)),
    "mirror": Edit("mirrored", lambda photo, _: ImageOps.mirror(photo)),
    "blur": Edit(
        "blurred, radius 1 % of the width",
        lambda photo, _: photo.filter(ImageFilter.GaussianBlur(photo.width * 0.01)),
    ),
    "strong": Edit("cropped, rotated, recoloured, captioned, half the size", strongly_edited, quality=25),
    "dark": Edit(
        "half the brightness", lambda photo, _: ImageEnhance.Brightness(photo).enhance(0.5), is_basic=False
    ),
    "colour": Edit("warm colour filter", lambda photo, _: recoloured(photo, 1.25, 1.0, 0.7), is_basic=False),
    "larger": Edit("1.5 times the size", lambda photo, _: scaled(photo, 1.5), is_basic=False),
    "sticker": Edit("sticker added", stickered, is_basic=False),
    "screenshot": Edit("phone screenshot", lambda photo, _: screenshot(photo), is_basic=False),
    "noise": Edit("noise added", lambda photo, generator: noisy(photo, generator, 20), is_basic=False),
    "turn180": Edit("upside down", lambda photo, _: photo.transpose(Image.Transpose.ROTATE_180), is_basic=False),
    COLLAGE: Edit("one quarter of a collage", lambda photo, _: photo, is_basic=False),
    "strongest": Edit(
        "strong, mirrored, with sticker and border", most_strongly_edited, quality=25, is_basic=False
    ),
}
