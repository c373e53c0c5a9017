"""Turn pixels as a file stores them, in any mode and EXIF orientation, into upright RGB, whole or in parts."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from vggsearch.defaults import IMAGE

UPRIGHT = {  # EXIF orientation -> the transposition that turns the stored pixels upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# EXIF orientation -> whether x and y of a stored pixel are exchanged, and which of the stored axes runs backwards.
STORED_AXES = {
    1: (False, False, False),
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}

VISIBLE_ON_WHITE = 250  # of 255, in the darkest channel of the darkest pixel: a white logo would vanish

GREYSCALE_MAXIMA = (1.0, 2.0**8 - 1, 2.0**10 - 1, 2.0**12 - 1, 2.0**14 - 1, 2.0**16 - 1, 2.0**32 - 1)

Box = tuple[int, int, int, int]  # left, top, width, height, in pixels
Edges = tuple[int, int, int, int]  # left, top, right, bottom
Tones = tuple[float, float]  # of deep greyscale: what is black, and what is white


class OutsideError(Exception):
    """The wanted part of a picture is not inside it: `width` x `height` is the upright picture."""

    def __init__(self, width: int, height: int) -> None:
        super().__init__(width, height)
        self.width, self.height = width, height


def edges_inside(crop: Box, size: tuple[int, int]) -> Edges:
    """Return the edges of a part of a picture of this size. Raises OutsideError."""
    left, top, width, height = crop
    is_inside = min(left, top) >= 0 and left + width <= size[0] and top + height <= size[1]
    if not is_inside or min(width, height) < 1:
        raise OutsideError(*size)
    return left, top, left + width, top + height


def reduced_upright_rgb(image: Image.Image, orientation: int, tones: Tones | None, factor: int = 1) -> Image.Image:
    """Return a stored picture as upright RGB, reduced by `factor`. A very large one is never copied as a whole."""
    if image.width * image.height <= IMAGE.whole_pixels:
        return upright(to_rgb(image, tones), orientation)
    width, height = upright_size(image, orientation)
    reduced = Image.new("RGB", (-(-width // factor), -(-height // factor)))
    for top, strip in upright_strips(image, orientation, tones, factor):
        reduced.paste(strip.reduce(factor), (0, top // factor))
    return reduced


def upright_strips(
    image: Image.Image, orientation: int, tones: Tones | None = None, multiple: int = 1
) -> Iterator[tuple[int, Image.Image]]:
    """Yield a stored picture in upright RGB strips, as `stored_strips`.

    `tones` are those of the whole picture that `image` is a part of.
    """
    tones = tones or tones_of(image)
    for top, strip in stored_strips(image, orientation, multiple):
        yield top, to_rgb(strip, tones, is_part=True)


def stored_strips(image: Image.Image, orientation: int, multiple: int = 1) -> Iterator[tuple[int, Image.Image]]:
    """Yield a stored picture in upright strips of full width, in its own mode, each with the row at its top.

    All strips but the last have a multiple of `multiple` rows.
    """
    width, height = upright_size(image, orientation)
    rows = max(1, IMAGE.strip_pixels // (width * multiple)) * multiple
    for top in range(0, height, rows):
        edges = stored_edges(image, orientation, (0, top, width, min(height, top + rows)))
        yield top, upright(image.crop(edges), orientation)


def upright_size(image: Image.Image, orientation: int) -> tuple[int, int]:
    """Return width and height of a stored picture, once upright."""
    return (image.height, image.width) if orientation >= 5 else image.size


def stored_edges(image: Image.Image, orientation: int, edges: Edges) -> Edges:
    """Return where a part of the upright picture is in the stored one."""
    left, top, right, bottom = edges
    are_exchanged, x_backwards, y_backwards = STORED_AXES[orientation]
    (x, end_x), (y, end_y) = ((top, bottom), (left, right)) if are_exchanged else ((left, right), (top, bottom))
    if x_backwards:
        x, end_x = image.width - end_x, image.width - x
    if y_backwards:
        y, end_y = image.height - end_y, image.height - y
    return x, y, end_x, end_y


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """Turn a stored picture upright."""
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image


def to_rgb(image: Image.Image, tones: Tones | None = None, *, is_part: bool = False) -> Image.Image:
    """Convert to RGB: transparency over white, deep greyscale scaled (Pillow would clip it), Lab by ICC profile.

    What would vanish on white, such as a white logo, is put over black instead. `tones` are those of a larger
    picture that this is a part of; a part (`is_part`) is always put over white, as the other parts may be.
    """
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    tones = tones or tones_of(image)
    if tones is not None:
        return Image.fromarray(_scaled(np.asarray(image), tones)).convert("RGB")
    if image.mode == "LAB":
        return _lab_to_rgb(image)
    if image.mode == "La":  # Pillow knows no direct way
        image = image.convert("LA")
    if image.has_transparency_data:
        layers = image.convert("RGBA")
        on_white = _over("white", layers)
        if is_part or np.asarray(on_white).min() < VISIBLE_ON_WHITE:
            return on_white
        on_black = _over("black", layers)
        return on_black if on_black.getbbox() is not None else on_white
    return image.convert("RGB")


def _over(colour: str, layers: Image.Image) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", layers.size, colour), layers).convert("RGB")


def tones_of(image: Image.Image) -> Tones | None:
    """Return which values of deep greyscale are black and white, None for a picture of 8 bits.

    Greyscale of any depth is scaled by the smallest of GREYSCALE_MAXIMA that its brightest pixel fits. Files do not
    reliably state their depth (12 bits in 16, floats in 0..1 or 0..255). Stretching each image from its darkest to
    its brightest pixel instead would make a dim photo differ from its own 8-bit copy.
    """
    if tones_are_8_bit(image):
        return None
    rows = max(1, IMAGE.strip_pixels // image.width)
    darkest, brightest = np.inf, -np.inf
    for top in range(0, image.height, rows):
        strip = _finite(np.asarray(image.crop((0, top, image.width, min(image.height, top + rows)))))
        darkest, brightest = min(darkest, float(strip.min())), max(brightest, float(strip.max()))
    fits = [full for full in GREYSCALE_MAXIMA if brightest <= full and (full >= 255 or image.mode == "F")]
    if darkest < 0 or not fits:
        return darkest, darkest + max(brightest - darkest, 1e-12)
    return 0.0, fits[0]


def tones_are_8_bit(image: Image.Image) -> bool:
    """Return whether a picture is none of deep greyscale."""
    return not image.mode.startswith("I;16") and image.mode not in ("I", "F")


def _scaled(values: NDArray[Any], tones: Tones) -> NDArray[np.uint8]:
    """Scale greyscale of any depth to 0..255."""
    if values.dtype == np.uint16:  # by a table, which is ten times as fast
        scaled: NDArray[np.uint8] = _scaled(np.arange(1 << 16), tones)[values]
    else:
        black, white = tones
        exact = (_finite(values).astype(np.float64) - black) * (255.0 / (white - black))
        scaled = np.rint(exact).astype(np.uint8)
    return scaled


def _finite(values: NDArray[Any]) -> NDArray[Any]:
    is_finite = not np.issubdtype(values.dtype, np.floating)
    return values if is_finite else np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)


def _lab_to_rgb(image: Image.Image) -> Image.Image:
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    if converted is None:  # only with inPlace=True
        raise ValueError("Lab colours could not be converted")
    return converted
