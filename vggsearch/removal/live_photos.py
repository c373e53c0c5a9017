"""Live Photos: which video belongs to which photo, by the identifier that the phone writes into both files.

The identifier is a random UUID: in the photo in Apple's maker note, in the video under KEY (Apple, "QuickTime File
Format", movie metadata). Files are only searched for it, not decoded.
"""

import re
from pathlib import Path

from vggsearch.removal.files import open_to_read

KEY = b"com.apple.quicktime.content.identifier"
UUID = re.compile(rb"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
MOST_BYTES = 64 << 20  # of a photo, or of the index of a video
MOST_BOXES = 1000  # before the index of a video


def is_live_photo(photo: Path, video: Path) -> bool:
    """Return whether both files have the same identifier; False if one cannot be read."""
    try:
        named = identifiers(video)
        with open_to_read(photo) as file:
            return bool(named) and not named.isdisjoint(map(bytes.upper, UUID.findall(file.read(MOST_BYTES))))
    except OSError:
        return False


def identifiers(video: Path) -> set[bytes]:
    """Return what may be the identifier of a video, none if it has none. Raises OSError."""
    index = _movie_box(video)
    return set(map(bytes.upper, UUID.findall(index))) if KEY in index else set()


def _movie_box(video: Path) -> bytes:
    """Return the box `moov` of a QuickTime or MP4 file, at its start or its end; b"" if none is found."""
    with open_to_read(video) as file:
        start = 0
        for _ in range(MOST_BOXES):
            file.seek(start)
            head = file.read(16)
            length = int.from_bytes(head[:4], "big")
            if length == 1:  # the length is in the next eight bytes
                length = int.from_bytes(head[8:], "big")
            if head[4:8] == b"moov":
                file.seek(start)
                return file.read(min(length, MOST_BYTES) if length else MOST_BYTES)
            if len(head) < 16 or length < 8:
                return b""
            start += length
    return b""
