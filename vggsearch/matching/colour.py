"""Whether a picture is grey, and how much colour it has besides its brightness: a toned one has little."""

import numpy as np
from PIL import Image, ImageChops

from vggsearch.defaults import COLOUR


def is_grey(image: Image.Image) -> bool:
    """Return whether the channels of an RGB picture hardly differ."""
    red, green, blue = image.split()
    highest = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    lowest = ImageChops.darker(ImageChops.darker(red, green), blue)
    return bool(np.asarray(ImageChops.subtract(highest, lowest)).mean() <= COLOUR.grey)


def colour_of(image: Image.Image) -> float:
    """Return the colour of an RGB picture, 0..255: how far the differences of its channels are from their mean
    among pixels of the same brightness, in the mean. It is taken at half the size, where JPEG blurs less of it.

    It is at most twice that of the COLOUR.most of all pixels that have least: a sticker does not colour a photo.
    """
    image = image.reduce(2)
    red, green, blue = (np.asarray(channel, np.float32).ravel() for channel in image.split())
    brightness = np.asarray(image.convert("L")).ravel()
    pixels = np.maximum(np.bincount(brightness, minlength=256), 1)
    spread = np.zeros(len(brightness))
    for difference in (red - green, blue - green):
        means = np.bincount(brightness, difference, minlength=256) / pixels
        spread += np.abs(difference - means[brightness]) / 2
    count = max(1, int(COLOUR.most * len(spread)))
    return min(float(spread.mean()), 2 * float(np.partition(spread, count - 1)[:count].mean()))
