"""Read orientation, time and camera from a well-formed EXIF block, for which Pillow takes half a millisecond."""

import struct
from datetime import datetime
from typing import Literal, TypeAlias

from vggsearch.photos.capture import Capture, capture

Order: TypeAlias = Literal["little", "big"]
Entry: TypeAlias = tuple[int, int, bytes]  # the type, the number of values, and the values or where they are

PREFIX = b"Exif\0\0"
ORDERS: dict[bytes, Order] = {b"II*\0": "little", b"MM\0*": "big"}
ENTRIES = {"little": struct.Struct("<HHI4s"), "big": struct.Struct(">HHI4s")}
BYTES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
}  # of a value, by its type in TIFF 6.0
TEXT, UINT16, UINT32 = 2, 3, 4
UNKNOWN = 1 << 32  # more bytes than any block has

MAKE, MODEL, ORIENTATION, DATE_TIME, CAMERA = 0x010F, 0x0110, 0x0112, 0x0132, 0x8769
DATE_TIME_ORIGINAL, SUBSECOND, SERIAL = 0x9003, 0x9291, 0xA431  # in the directory of the camera
WANTED = frozenset({MAKE, MODEL, ORIENTATION, DATE_TIME, CAMERA, DATE_TIME_ORIGINAL, SUBSECOND, SERIAL})


class NotUsualError(Exception):
    """The block is malformed, or has something unusual in it: Pillow then decides what it says."""


def orientation_and_capture(block: bytes) -> tuple[int | None, Capture]:
    """Return the orientation, None if there is none, and what decode.capture_of returns.

    `block` begins with PREFIX. Raises NotUsualError.
    """
    tiff = block[len(PREFIX) :]
    order = ORDERS.get(tiff[:4])
    if order is None or len(tiff) < 8:
        raise NotUsualError
    first = _directory(tiff, int.from_bytes(tiff[4:8], order), order)
    camera = {}
    if CAMERA in first:
        camera = _directory(tiff, _number(first[CAMERA], UINT32, order), order)
    orientation = _number(first[ORIENTATION], UINT16, order) if ORIENTATION in first else None
    times = camera.get(DATE_TIME_ORIGINAL), first.get(DATE_TIME)
    original, saved = (None if time is None else _time(tiff, time, order) for time in times)
    texts = camera.get(SUBSECOND), first.get(MAKE), first.get(MODEL), camera.get(SERIAL)
    fraction, *others = (None if text is None else _text(tiff, text, order) for text in texts)
    return orientation, capture(original, fraction, saved, *others)


def valid(orientation: int | None) -> int:
    """Return the orientation, 1 to 8, or 1 for none and for any other number."""
    return orientation if orientation is not None and 1 <= orientation <= 8 else 1


def _directory(tiff: bytes, at: int, order: Order) -> dict[int, Entry]:
    """Return the wanted entries of the directory at this byte."""
    begin, length = at + 2, len(tiff)
    end = begin + 12 * int.from_bytes(tiff[at:begin], order)
    if end + 4 > length:
        raise NotUsualError
    found, total = dict[int, Entry](), 0
    for tag, type, count, value in ENTRIES[order].iter_unpack(tiff[begin:end]):
        size = count * BYTES.get(type, UNKNOWN)
        if size > 4:
            total += size
            if int.from_bytes(value, order) + size > length:
                raise NotUsualError
        if tag in WANTED:
            if tag in found or size == 0:
                raise NotUsualError
            found[tag] = type, count, value
    if total > length:  # entries overlap
        raise NotUsualError
    return found


def _number(entry: Entry, wanted: int, order: Order) -> int:
    type, count, value = entry
    if (type, count) != (wanted, 1):
        raise NotUsualError
    return int.from_bytes(value[: BYTES[type]], order)


def _text(tiff: bytes, entry: Entry, order: Order) -> str:
    """Return the text of an entry as Pillow does."""
    type, count, value = entry
    if type != TEXT:
        raise NotUsualError
    at = int.from_bytes(value, order)
    return (value[:count] if count <= len(value) else tiff[at : at + count]).decode("latin-1")


def _time(tiff: bytes, entry: Entry, order: Order) -> datetime | None:
    """Return the time of a text such as 2019:05:04 03:02:01, None if there is no such time."""
    text = _text(tiff, entry, order).strip("\0 ").encode("latin-1")
    numbers = text[:4], text[5:7], text[8:10], text[11:13], text[14:16], text[17:]
    if len(text) != 19 or text[4::3] != b":: ::" or not b"".join(numbers).isdigit():
        raise NotUsualError
    try:
        return datetime(*map(int, numbers))  # type: ignore[arg-type]
    except ValueError:
        return None
