"""Recognise a TIFF-based RAW file by its content: DNG, and what others derive from TIFF/EP (ISO 12234-2)."""

import struct
from collections.abc import Iterator
from typing import BinaryIO

from PIL import Image, TiffImagePlugin

DNG_VERSION, PHOTOMETRIC, SUBDIRECTORIES = 50706, 262, 330  # tags of TIFF and DNG
SENSOR_DATA = (32803, 34892)  # photometric interpretations: colour filter array (TIFF/EP), linear RAW (DNG)
MOST_SUBDIRECTORIES = 16  # that are looked at
ENTRY_BYTES = 12  # of a directory


def holds_raw_data(image: Image.Image, file: BinaryIO) -> bool:
    """Return whether an opened TIFF file holds the data of a sensor; what Pillow reads is a preview then.

    The position in `file` stays. Raises struct.error for a directory that is cut off.
    """
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return False
    position = file.tell()
    try:
        return DNG_VERSION in image.tag_v2 or any(each in SENSOR_DATA for each in _interpretations(image, file))
    finally:
        file.seek(position)


def _interpretations(image: TiffImagePlugin.TiffImageFile, file: BinaryIO) -> Iterator[int]:
    """Yield the photometric interpretations of the images in the subdirectories of a TIFF file."""
    offsets = image.tag_v2.get(SUBDIRECTORIES, ())
    file.seek(0)
    order = "<" if file.read(2) == b"II" else ">"
    entry = struct.Struct(f"{order}HHIH2x")  # tag, type, count and the first 16 bits of the value
    for offset in (offsets if isinstance(offsets, tuple) else (offsets,))[:MOST_SUBDIRECTORIES]:
        file.seek(offset)
        (count,) = struct.unpack(f"{order}H", file.read(2))
        content = file.read(ENTRY_BYTES * count)
        entries = entry.iter_unpack(content[: len(content) // ENTRY_BYTES * ENTRY_BYTES])
        yield from (value for tag, _, _, value in entries if tag == PHOTOMETRIC)
