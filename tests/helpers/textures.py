"""Pictures with the statistics of photos, which tests can tell apart and enlarge."""

from functools import cache

import numpy as np
from PIL import Image


@cache
def scene(seed: int, size: tuple[int, int] = (640, 480), *, is_grey: bool = False) -> Image.Image:
    """Return a picture in which every octave of frequencies holds the same energy, as in photos."""
    width, height = size
    generator = np.random.default_rng(seed)
    distance = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    distance[0, 0] = np.inf
    channels = []
    for _ in range(3):
        noise = generator.normal(size=distance.shape) + 1j * generator.normal(size=distance.shape)
        pixels = np.fft.irfft2(noise / distance, size[::-1])
        channels.append(128 + 45 * pixels / pixels.std())
    picture = Image.fromarray(np.stack(channels, axis=2).clip(0, 255).astype(np.uint8))
    return picture.convert("L").convert("RGB") if is_grey else picture
