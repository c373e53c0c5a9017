"""Motion photos: a JPEG or HEIC file of an Android phone that also holds a short video, behind the picture.

https://developer.android.com/media/platform/motion-photo-format, and, with a mark at the end, those of Samsung.
"""

import io
import re
from typing import BinaryIO

HEAD_BYTES = 256 << 10  # which hold the XMP of a JPEG
BLOCK_BYTES = 1 << 20
MARKS = (b"MotionPhoto", b"MicroVideo")  # in XMP; editors keep them when they drop the video
SAMSUNG_END = b"SEFT"
VIDEO = re.compile(rb"\0\0\0.ftyp(?:mp4|iso|qt|avc|M4V|3gp)", re.DOTALL)  # how the file format of MP4 starts
LONGEST_START = 12  # bytes that VIDEO matches
JPEG_START = b"\xff\xd8"
VIDEO_BOX = b"mpvd"  # of a HEIC file, which consists of boxes: size, kind, content
MOST_BOXES = 100  # a photo has some five


def holds_video(file: BinaryIO) -> bool:
    """Return whether a video lies behind the picture of a JPEG or HEIC file. Nothing of it is decoded."""
    head = file.read(HEAD_BYTES)
    if not head.startswith(JPEG_START):
        return _has_box(file, VIDEO_BOX)
    is_marked = any(mark in head for mark in MARKS) or _ends_with(file, SAMSUNG_END)
    return is_marked and _has_video_start(file)


def _has_video_start(file: BinaryIO) -> bool:
    file.seek(0)
    kept = b""
    while block := file.read(BLOCK_BYTES):
        if VIDEO.search(kept + block):
            return True
        kept = block[-LONGEST_START:]
    return False


def _has_box(file: BinaryIO, wanted: bytes) -> bool:
    """Return whether one of the outermost boxes is of this kind, by reading their headers alone."""
    place = 0
    for _ in range(MOST_BOXES):
        file.seek(place)
        size, kind, large = (file.read(length) for length in (4, 4, 8))
        if kind == wanted:
            return True
        length = int.from_bytes(large if size == b"\0\0\0\1" else size, "big")
        if len(kind) < 4 or length < 8:  # the end, or a box up to the end
            return False
        place += length
    return False


def _ends_with(file: BinaryIO, end: bytes) -> bool:
    length = file.seek(0, io.SEEK_END)
    file.seek(max(0, length - len(end)))
    return file.read() == end
