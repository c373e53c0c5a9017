"""Small pictures of photos, made in decoder processes and kept in a temporary file of a limited size."""

import io
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

from PIL import Image

from vggsearch.photos.decoder_pool import Decoders, Source

QUALITY = 75  # of WebP and JPEG, 1..100
QUICK = 0  # effort of WebP, 0..6: a page waits for it


class PictureCache:
    """Pictures by key, in a file without a name that ends with this process, however it ends.

    A new picture overwrites the oldest ones once the file has `capacity` bytes.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._file = tempfile.TemporaryFile(prefix="vggsearch-")  # noqa: SIM115 - closed by close()
        self._places: OrderedDict[str, tuple[int, int]] = OrderedDict()  # start and length, the oldest first
        self._next = 0
        self._using = Lock()

    def close(self) -> None:
        """Give up the file."""
        with self._using:
            self._places.clear()
            self._file.close()

    def get(self, key: str, make: Callable[[], bytes]) -> bytes:
        """Return the picture of a key, made if it is not there."""
        with self._using:
            if key in self._places:
                start, length = self._places[key]
                self._file.seek(start)
                return self._file.read(length)
        made = make()
        with self._using:
            if not self._file.closed and key not in self._places and len(made) <= self._capacity:
                self._put(key, made)
        return made

    def _put(self, key: str, picture: bytes) -> None:
        if self._next + len(picture) > self._capacity:
            self._drop_until(self._capacity)
            self._next = 0
        start, end = self._next, self._next + len(picture)
        self._drop_until(end)
        self._file.seek(start)
        self._file.write(picture)
        self._file.flush()
        self._places[key] = start, len(picture)
        self._next = end

    def _drop_until(self, end: int) -> None:
        """Forget the oldest pictures, which lie from the next place on, up to `end`."""
        while self._places:
            start, _ = next(iter(self._places.values()))
            if not self._next <= start < end:
                break
            self._places.popitem(last=False)


def small(decoders: Decoders, source: Source, side: int) -> Image.Image:
    """Return a picture as upright RGB with at most `side` pixels on the longer side. Raises ImageError."""
    image = decoders.picture(source, side, of_longer=True)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return image


def as_webp(image: Image.Image) -> bytes:
    """Return an image as WebP."""
    file = io.BytesIO()
    image.save(file, "WEBP", quality=QUALITY, method=QUICK)
    return file.getvalue()


def as_jpeg(image: Image.Image) -> bytes:
    """Return an image as JPEG."""
    file = io.BytesIO()
    image.convert("RGB").save(file, "JPEG", quality=QUALITY)
    return file.getvalue()
