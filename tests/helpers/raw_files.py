"""RAW files as cameras structure them, with made-up contents: TIFF/EP and its relatives, RAF, CR3."""

import io
import struct
from collections.abc import Mapping

from PIL import Image

from tests.fakes import picture

SIZE = (96, 64)  # of the preview, as stored
TIME, FRACTION, MAKE, MODEL, SERIAL = "2024:05:01 12:30:00", "25", "NIKON CORPORATION", "NIKON D7500", "600123"
CFA, YCBCR = 32803, 6
Value = int | tuple[int, ...] | str | bytes


def jpeg(size: tuple[int, int] = SIZE, seed: int = 1) -> bytes:
    file = io.BytesIO()
    picture(seed, size).save(file, "JPEG", quality=95)
    return file.getvalue()


def lossless(size: tuple[int, int] = (4000, 3000)) -> bytes:
    """The start of the sensor's data as lossless JPEG, which libjpeg does not read."""
    return b"\xff\xd8\xff\xc3\x00\x11\x0e" + struct.pack(">HH", size[1], size[0]) + bytes(40)


class Tiff:
    """Writes directories, each after what it refers to, with offsets from the start of this structure."""

    def __init__(self, order: str = "<", magic: bytes | None = None) -> None:
        self.order = order
        self.content = bytearray((magic or {"<": b"II*\0", ">": b"MM\0*"}[order]) + bytes(12))

    def put(self, content: bytes) -> int:
        at = len(self.content)
        self.content += content + bytes(len(content) % 2)
        return at

    def directory(self, tags: Mapping[int, Value], following: int = 0) -> int:
        """Write a directory: texts, undefined bytes, and numbers, of which all are LONG."""
        entries = b""
        for tag, value in sorted(tags.items()):
            if isinstance(value, str):
                kind, count, content = 2, len(value) + 1, value.encode() + b"\0"
            elif isinstance(value, bytes):
                kind, count, content = 7, len(value), value
            else:
                numbers = value if isinstance(value, tuple) else (value,)
                kind, count, content = 4, len(numbers), struct.pack(f"{self.order}{len(numbers)}I", *numbers)
            if len(content) > 4:
                content = struct.pack(f"{self.order}I", self.put(content))
            entries += struct.pack(f"{self.order}HHI", tag, kind, count) + content.ljust(4, b"\0")
        return self.put(
            struct.pack(f"{self.order}H", len(tags)) + entries + struct.pack(f"{self.order}I", following)
        )

    def finished(self, first: int) -> bytes:
        struct.pack_into(f"{self.order}I", self.content, 4, first)
        return bytes(self.content)


def facts(tiff: Tiff, orientation: int = 1, note: bytes | None = None) -> dict[int, Value]:
    """Orientation, camera and time, as in the first directory."""
    exif: dict[int, Value] = {36867: TIME, 37521: FRACTION, 42033: SERIAL, **({37500: note} if note else {})}
    return {271: MAKE, 272: MODEL, 274: orientation, 306: "2024:06:01 00:00:00", 34665: tiff.directory(exif)}


def tiff_ep(order: str = "<", orientation: int = 1, preview: bytes | None = None, **more: object) -> bytes:
    """A tiny RGB image, the sensor's data and a preview in subdirectories, a smaller preview: NEF, DNG, ARW."""
    tiff, large, small = Tiff(order), jpeg() if preview is None else preview, jpeg((32, 20), 2)
    raw = tiff.directory({254: 0, 256: 4000, 257: 3000, 259: 7, 262: CFA, 273: tiff.put(lossless()), 279: 51})
    sub = tiff.directory({254: 1, 259: 7, 262: YCBCR, 273: tiff.put(large), 279: len(large)})
    thumbnail = tiff.directory({0x201: tiff.put(small), 0x202: len(small)})
    tiny = Image.new("RGB", (16, 12), "red").tobytes()
    first = {254: 1, 256: 16, 257: 12, 258: 8, 259: 1, 262: 2, 273: tiff.put(tiny), 277: 3, 278: 12, 279: len(tiny)}
    return tiff.finished(tiff.directory({**first, 330: (raw, sub), **facts(tiff, orientation)}, thumbnail))


def cr2() -> bytes:
    """The preview is the first image, the sensor's data the last."""
    tiff, large = Tiff(), jpeg()
    tiff.content[8:12] = b"CR\2\0"
    raw = tiff.directory({259: 6, 273: tiff.put(lossless()), 279: 51})
    return tiff.finished(tiff.directory({259: 6, 273: tiff.put(large), 279: len(large), **facts(tiff)}, raw))


def rw2() -> bytes:
    tiff = Tiff(magic=b"IIU\0")
    return tiff.finished(tiff.directory({0x2E: jpeg(), **facts(tiff)}))


def orf() -> bytes:
    """The preview is in the maker note, whose offsets count from its start."""
    note, large = Tiff(magic=b"OLYM"), jpeg()
    note.content[:12] = b"OLYMPUS\0II\3\0"
    start = len(note.content)  # the directory is at byte 12, and refers to one behind it
    settings = 12 + 2 + 12 + 4
    del note.content[12:start]
    note.content += struct.pack("<HHHII", 1, 0x2020, 13, 1, settings) + bytes(4)
    note.content += struct.pack("<H", 2)
    note.content += struct.pack("<HHIIHHII", 0x101, 4, 1, settings + 30, 0x102, 4, 1, len(large)) + bytes(4)
    note.content += large
    tiff = Tiff(magic=b"IIRO")
    return tiff.finished(tiff.directory(facts(tiff, note=bytes(note.content))))


def raf() -> bytes:
    exif = Tiff()
    block = b"Exif\0\0" + exif.finished(exif.directory(facts(exif, 6)))
    large = jpeg()
    large = large[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + large[2:]
    head = b"FUJIFILMCCD-RAW 0201".ljust(84, b"\0") + struct.pack(">II", 160, len(large))
    return head.ljust(160, b"\0") + large + bytes(500)


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", len(content) + 8, kind) + content


def cr3() -> bytes:
    """The facts, a preview, and a larger JPEG as the first sample of the first track."""
    first, exif, small, large = Tiff(), Tiff(), jpeg((48, 32), 2), jpeg()
    cmt1 = first.finished(first.directory({271: MAKE, 272: MODEL, 274: 1}))
    cmt2 = exif.finished(exif.directory({36867: TIME, 37521: FRACTION, 42033: SERIAL}))
    canon = bytes.fromhex("85c0b687820f11e08111f4ce462b6a48") + box(b"CMT1", cmt1) + box(b"CMT2", cmt2)
    prvw = box(
        b"uuid", bytes.fromhex("eaf42b5e1c984b88b9fbb7dc406e4d16") + bytes(8) + box(b"PRVW", bytes(16) + small)
    )

    def moov(at: int) -> bytes:
        sizes = box(b"stsz", bytes(4) + struct.pack(">III", 0, 1, len(large)))
        table = box(b"stbl", sizes + box(b"co64", bytes(4) + struct.pack(">IQ", 1, at)))
        return box(b"moov", box(b"uuid", canon) + box(b"trak", box(b"mdia", box(b"minf", table))))

    before = box(b"ftyp", b"crx \0\0\0\1crx isom")
    at = len(before) + len(moov(0)) + len(prvw) + 8
    return before + moov(at) + prvw + box(b"mdat", large)


RAW_FILES = {
    "a.NEF": tiff_ep(">"),
    "a.dng": tiff_ep(),
    "a.CR2": cr2(),
    "a.RW2": rw2(),
    "a.ORF": orf(),
    "a.RAF": raf(),
    "a.CR3": cr3(),
}
