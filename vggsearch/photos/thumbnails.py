"""Photos made small to be shown: read in threads, in order, a few ahead."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeVar

from PIL import Image

from vggsearch.defaults import THUMBNAILS
from vggsearch.photos.decode import decode, decoder_errors

Item = TypeVar("Item")
Made = TypeVar("Made")


def thumbnail(root: Path, path: str, side: int = THUMBNAILS.side) -> Image.Image:
    """Return a photo, upright RGB, its longer side at most `side` pixels. Raises ImageError with the reason."""
    with decoder_errors(), (root / path).open("rb") as file:
        picture = decode(file, path, at_least=side // 2).image
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    return picture


def in_order(work: Callable[[Item], Made], items: Iterable[Item]) -> Iterator[Made]:
    """Yield what `work` makes of each item, in order. Threads work on the next ones, THUMBNAILS.ahead at most."""
    source = iter(items)
    with ThreadPoolExecutor(THUMBNAILS.threads, thread_name_prefix="thumbnail") as pool:
        waiting: deque[Future[Made]] = deque(pool.submit(work, item) for item in islice(source, THUMBNAILS.ahead))
        try:
            while waiting:
                made = waiting.popleft().result()
                waiting.extend(pool.submit(work, item) for item in islice(source, 1))
                yield made
        finally:
            for future in waiting:
                future.cancel()
