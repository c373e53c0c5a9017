"""Read files again to find out whether they are still the ones in the index."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vggsearch.errors import ImageError
from vggsearch.photos.decoder_pool import default_workers
from vggsearch.photos.hashing import hash_unchanged
from vggsearch.photos.walk import PhotoFile
from vggsearch.progress import Monitor

AT_ONCE = 64  # files that are read between two looks at the stop signal


def hash_files(
    files: Sequence[PhotoFile], root: Path, workers: int | None, monitor: Monitor
) -> Iterator[tuple[PhotoFile, str | None]]:
    """Yield each file with the sha256 of its bytes, None if it cannot be read. Raises Stopped."""

    def hashed(file: PhotoFile) -> str | None:
        try:
            return hash_unchanged(root, file)
        except ImageError:
            return None

    with ThreadPoolExecutor(workers or default_workers(), thread_name_prefix="hash") as threads:
        for start in range(0, len(files), AT_ONCE):
            monitor.check()
            batch = files[start : start + AT_ONCE]
            yield from zip(batch, threads.map(hashed, batch), strict=True)
            monitor.show("reading photos again", start + len(batch), len(files))
