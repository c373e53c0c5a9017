"""Recognise RAW files by their content, and find the largest JPEG preview in them by the structure of the format.

Most RAW formats are TIFF/EP (ISO 12234-2) or close to it: DNG, CR2, NEF, ARW, PEF, SRW; ORF and RW2 with another
magic number. Their directories refer to the previews. RAF has the place of its preview in a header. CR3 is an ISO
base media file (ISO/IEC 14496-12), with the preview in a box of its own and the largest JPEG as the first sample of
a track. Whatever a file says, only so much of it is read.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple

from vggsearch.photos.capture import Capture, capture, parsed_time
from vggsearch.photos.exif import valid
from vggsearch.photos.raw_formats import is_raw

TIFF_MAGIC = {b"II*\0": "<", b"MM\0*": ">"}
OTHER_MAGIC = {b"IIRO": "<", b"IIRS": "<", b"MMOR": ">", b"IIU\0": "<"}  # Olympus; Panasonic and Leica
RAF_MAGIC, CR3_MAGIC, CR2_MARK = b"FUJIFILMCCD-RAW", b"ftypcrx ", b"CR"
RAF_PREVIEW = 84  # byte at which offset and length of the preview are, big-endian
BOX = struct.Struct(">I4s")
BOXES = (b"moov", b"trak", b"mdia", b"minf", b"stbl")  # that hold only boxes
CANON_METADATA = bytes.fromhex("85c0b687820f11e08111f4ce462b6a48")
CANON_PREVIEW = bytes.fromhex("eaf42b5e1c984b88b9fbb7dc406e4d16")
UUID_BYTES, PREVIEW_HEADER, BEFORE_PREVIEW = 16, 16, 8  # bytes of a uuid, of PRVW up to its JPEG, before PRVW

# Tags of TIFF, EXIF and DNG.
WIDTH, COMPRESSION, PHOTOMETRIC, MAKE, MODEL, STRIPS = 256, 259, 262, 271, 272, 273
ORIENTATION, STRIP_BYTES, DATE_TIME, SUBDIRECTORIES = 274, 279, 306, 330
JPEG_OFFSET, JPEG_BYTES, JPEG_FROM_RAW = 0x0201, 0x0202, 0x002E
EXIF, DATE_TIME_ORIGINAL, SUBSECOND, MAKER_NOTE, SERIAL = 34665, 36867, 37521, 37500, 42033
DNG_VERSION = 50706
OLYMPUS_SETTINGS, OLYMPUS_OFFSET, OLYMPUS_BYTES = 0x2020, 0x0101, 0x0102
OLYMPUS_NOTES = {b"OLYMPUS\0": 12, b"OM SYSTE": 16}  # start of a maker note: byte of its directory

SENSOR_DATA = (32803, 34892)  # photometric interpretations: colour filter array (TIFF/EP), linear RAW (DNG)
JPEG_COMPRESSIONS = (6, 7)  # old and new JPEG in TIFF
SIZES = {1: "B", 2: "s", 3: "H", 4: "I", 7: "s", 13: "I"}  # types of TIFF that are read
UNDEFINED = 7
MOST_DIRECTORIES, MOST_ENTRIES, MOST_VALUES, MOST_BOXES, MOST_SEGMENTS = 64, 1000, 16, 200, 200
LONGEST_TEXT = 256  # bytes
MOST_PREVIEW_BYTES = 64_000_000
LARGEST_FILE = 1 << 62  # bytes; a seek beyond is an error

FRAMES = (0xC0, 0xC1, 0xC2)  # of a JPEG that libjpeg reads; the sensor's data is often lossless JPEG, which is C3
OTHER_FRAMES = (0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)
START_OF_SCAN = 0xDA

Values = dict[int, tuple[int, ...] | bytes]  # the values of a directory by tag


class Place(NamedTuple):
    """Where a JPEG is in a file, in bytes."""

    at: int
    length: int


@dataclass
class RawContent:
    """What a RAW file says: where its largest preview is, None if it has none, its orientation and its capture."""

    preview: Place | None
    orientation: int
    capture: Capture


@dataclass
class _Found:
    """What the directories of a file say."""

    is_raw: bool = False
    places: list[Place] = field(default_factory=list)
    facts: Values = field(default_factory=dict)


def raw_content(file: BinaryIO, name: str = "") -> RawContent | None:
    """Return what a RAW file says, None for another file. A TIFF is RAW by its content or the suffix of `name`.

    The position in `file` is the start afterwards.
    """
    try:
        return _raw_content(file, name)
    finally:
        file.seek(0)


def _raw_content(file: BinaryIO, name: str) -> RawContent | None:
    start = file.read(16)
    found = _Found()
    try:
        if start[:4] in TIFF_MAGIC or start[:4] in OTHER_MAGIC:
            found.is_raw = start[:4] in OTHER_MAGIC or start[8:10] == CR2_MARK or is_raw(name)
            _Tiff(file, 0, found).read()
        elif start.startswith(RAF_MAGIC):
            found.is_raw = True
            found.places.append(Place(*struct.unpack(">II", _read(file, RAF_PREVIEW, 8))))
        elif start[4:12] == CR3_MAGIC:
            found.is_raw = True
            _read_boxes(file, found)
    except (struct.error, ValueError, OverflowError, OSError):
        pass  # damaged from there on: what has been found so far counts
    if not found.is_raw:
        return None
    orientation = found.facts.get(ORIENTATION)
    largest = max(found.places, key=lambda place: _pixels(file, place), default=None)
    preview = largest if largest is not None and _pixels(file, largest) else None
    return RawContent(preview, valid(orientation[0] if orientation else None), _capture(found.facts))


def _read(file: BinaryIO, at: int, count: int) -> bytes:
    file.seek(at)
    return file.read(count)


class _Tiff:
    """Reads the directories of a TIFF structure that begins at byte `base` of a file."""

    def __init__(self, file: BinaryIO, base: int, found: _Found) -> None:
        self._file, self._base, self._found = file, base, found
        magic = _read(file, base, 4)
        self._order = TIFF_MAGIC.get(magic) or OTHER_MAGIC[magic]
        self._seen = set[int]()

    def read(self) -> None:
        """Read the directories and those that they refer to. Raises struct.error if one is cut off."""
        self._follow(self._number(self._base + 4))

    def _follow(self, offset: int) -> None:
        """Read a directory, its subdirectories and the next ones."""
        while offset and offset not in self._seen and len(self._seen) < MOST_DIRECTORIES:
            self._seen.add(offset)
            try:
                values, offset = self._directory(self._base + offset, self._base)
            except (struct.error, ValueError, OverflowError):
                return  # damaged; the others may be fine
            self._look_at(values)
            for tag in (SUBDIRECTORIES, EXIF):
                for each in values.get(tag, ()):
                    self._follow(each)
            if isinstance(note := values.get(MAKER_NOTE), tuple):
                self._look_at_note(note[0])

    def _look_at(self, values: Values) -> None:
        """Remember what a directory says, and where it has a JPEG."""
        found = self._found
        is_sensor = self._first(values, PHOTOMETRIC) in SENSOR_DATA
        found.is_raw |= is_sensor or DNG_VERSION in values
        found.facts = values | found.facts
        self._add(values.get(JPEG_OFFSET), values.get(JPEG_BYTES))
        jpeg = values.get(JPEG_FROM_RAW)
        if isinstance(jpeg, tuple) and len(jpeg) == 2:
            found.places.append(Place(self._base + jpeg[0], jpeg[1]))
        if self._first(values, COMPRESSION) in JPEG_COMPRESSIONS and not is_sensor:
            self._add(values.get(STRIPS), values.get(STRIP_BYTES))

    def _look_at_note(self, offset: int) -> None:
        """Find the preview in the maker note of an Olympus camera, whose offsets count from its start."""
        start = self._base + offset
        directory = OLYMPUS_NOTES.get(_read(self._file, start, 8))
        if directory is None:
            return
        values, _ = self._directory(start + directory, start)
        for settings in values.get(OLYMPUS_SETTINGS, ()):
            inner, _ = self._directory(start + settings, start)
            self._add(inner.get(OLYMPUS_OFFSET), inner.get(OLYMPUS_BYTES), start - self._base)

    def _add(self, offsets: object, lengths: object, after: int = 0) -> None:
        if isinstance(offsets, tuple) and isinstance(lengths, tuple) and len(offsets) == len(lengths) == 1:
            self._found.places.append(Place(self._base + after + offsets[0], lengths[0]))

    def _first(self, values: Values, tag: int) -> int | None:
        return next(iter(values.get(tag, ())), None)

    def _directory(self, at: int, base: int) -> tuple[Values, int]:
        """Return the values of a directory by tag, and the offset of the next one."""
        (count,) = struct.unpack(f"{self._order}H", _read(self._file, at, 2))
        if count > MOST_ENTRIES:
            raise ValueError("too many entries")
        content = _read(self._file, at + 2, 12 * count)
        values: Values = {}
        for tag, kind, number, value in struct.iter_unpack(f"{self._order}HHI4s", content):
            if kind in SIZES:
                values.setdefault(tag, self._values(kind, number, value, base))
        return values, self._number(at + 2 + 12 * count)

    def _values(self, kind: int, number: int, value: bytes, base: int) -> tuple[int, ...] | bytes:
        """Return the first numbers of an entry, or the bytes of a text. Of undefined bytes, place and size."""
        letter = SIZES[kind]
        (offset,) = struct.unpack(f"{self._order}I", value)
        size = number * struct.calcsize(letter)
        if kind == UNDEFINED:
            return (offset, number)
        if letter == "s":
            return value[:number] if size <= 4 else _read(self._file, base + offset, min(size, LONGEST_TEXT))
        number = min(number, MOST_VALUES)
        size = number * struct.calcsize(letter)
        content = value[:size] if size <= 4 else _read(self._file, base + offset, size)
        return struct.unpack(f"{self._order}{number}{letter}", content)

    def _number(self, at: int) -> int:
        (number,) = struct.unpack(f"{self._order}I", _read(self._file, at, 4))
        return int(number)


def _read_boxes(file: BinaryIO, found: _Found) -> None:
    """Find the previews and the facts in a CR3 file."""
    end = file.seek(0, os.SEEK_END)
    sizes, offsets = list[int](), list[int]()  # of the first sample of each track, in the order of the tracks
    for kind, at, length in _boxes(file, 0, end):
        if kind in (b"CMT1", b"CMT2"):
            _Tiff(file, at, found).read()
        elif kind == b"PRVW":
            found.places.append(Place(at + PREVIEW_HEADER, length - PREVIEW_HEADER))
        elif kind == b"stsz":
            size, count, first = struct.unpack(">III", _read(file, at + 4, 12))
            sizes.append(size or (first if count else 0))
        elif kind == b"co64":
            offsets += struct.unpack(">Q", _read(file, at + 8, 8))
        elif kind == b"stco":
            offsets += struct.unpack(">I", _read(file, at + 8, 4))
    found.places += map(Place, offsets, sizes)


def _boxes(file: BinaryIO, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, place and length of the content of each box, those inside other boxes too."""
    todo = [(at, end)]
    for _ in range(MOST_BOXES):
        while todo and todo[-1][0] + BOX.size > todo[-1][1]:
            todo.pop()
        if not todo:
            return
        at, end = todo.pop()
        size, kind = BOX.unpack(_read(file, at, BOX.size))
        begin = at + BOX.size
        if size == 1:
            (size,) = struct.unpack(">Q", _read(file, begin, 8))
            begin += 8
        stop = end if size == 0 else at + size
        if not begin <= stop <= end:
            return
        todo.append((stop, end))
        yield kind, begin, stop - begin
        if kind in BOXES:
            todo.append((begin, stop))
        elif kind == b"uuid":
            uuid = _read(file, begin, UUID_BYTES)
            if uuid == CANON_METADATA:
                todo.append((begin + UUID_BYTES, stop))
            elif uuid == CANON_PREVIEW:
                todo.append((begin + UUID_BYTES + BEFORE_PREVIEW, stop))


def _pixels(file: BinaryIO, place: Place) -> int:
    """Return how many pixels a JPEG has that libjpeg reads, 0 if there is none at this place."""
    is_possible = 0 < place.at < LARGEST_FILE and 0 < place.length <= MOST_PREVIEW_BYTES
    if not is_possible or _read(file, place.at, 2) != b"\xff\xd8":
        return 0
    at = place.at + 2
    for _ in range(MOST_SEGMENTS):
        header = _read(file, at, 9)
        if len(header) < 9 or header[0] != 0xFF or header[1] in (*OTHER_FRAMES, START_OF_SCAN):
            return 0
        if header[1] == 0xFF:  # a fill byte
            at += 1
            continue
        if header[1] in FRAMES:
            height, width = struct.unpack(">HH", header[5:9])
            return int(height * width)
        at += 2 + int.from_bytes(header[2:4])
    return 0


def _capture(facts: Values) -> Capture:
    """Return when and by which camera a RAW file was taken."""
    original, fraction, saved, make, model, serial = (
        str(value, "latin-1") if isinstance(value := facts.get(tag), bytes) else None
        for tag in (DATE_TIME_ORIGINAL, SUBSECOND, DATE_TIME, MAKE, MODEL, SERIAL)
    )
    return capture(parsed_time(original), fraction, parsed_time(saved), make, model, serial)
