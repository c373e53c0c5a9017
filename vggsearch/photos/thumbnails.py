"""Thumbnails for display, made by a few threads ahead of the reader, in order."""

import io
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from PIL import Image

from vggsearch.defaults import THUMBNAILS
from vggsearch.photos.decoder_pool import Decoders, Source

Item = TypeVar("Item")
Result = TypeVar("Result")


def thumbnail(decoders: Decoders, source: Source, side: int = THUMBNAILS.side) -> Image.Image:
    """Return a picture as upright RGB, its longer side at most `side` pixels. Raises ImageError with the reason."""
    image = decoders.picture(source, side, of_longer=True)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return image


def webp_base64(image: Image.Image) -> str:
    """Return an image as WebP in base64, to embed in HTML."""
    file = io.BytesIO()
    image.save(file, "WEBP", quality=THUMBNAILS.quality, method=THUMBNAILS.effort)
    return b64encode(file.getvalue()).decode()


def in_order(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield `work(item)` for each item, in order. Threads work up to THUMBNAILS.ahead items ahead of the reader."""
    source = iter(items)
    with ThreadPoolExecutor(THUMBNAILS.threads, thread_name_prefix="thumbnail") as pool:
        waiting: deque[Future[Result]] = deque(pool.submit(work, item) for item in islice(source, THUMBNAILS.ahead))
        try:
            while waiting:
                result = waiting.popleft().result()
                waiting.extend(pool.submit(work, item) for item in islice(source, 1))
                yield result
        finally:
            for future in waiting:
                future.cancel()
