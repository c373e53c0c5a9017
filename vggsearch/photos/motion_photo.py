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


def holds_video(file: BinaryIO) -> bool:
    """Return whether a video lies behind the picture of a JPEG or HEIC file. Nothing of it is decoded."""
    head = file.read(HEAD_BYTES)
    is_marked = any(mark in head for mark in MARKS) or _ends_with(file, SAMSUNG_END)
    if head.startswith(JPEG_START) and not is_marked:
        return False
    file.seek(LONGEST_START)  # HEIC itself starts like a video
    kept = b""
    while block := file.read(BLOCK_BYTES):
        if VIDEO.search(kept + block):
            return True
        kept = block[-LONGEST_START:]
    return False


def _ends_with(file: BinaryIO, end: bytes) -> bool:
    length = file.seek(0, io.SEEK_END)
    file.seek(max(0, length - len(end)))
    return file.read() == end
