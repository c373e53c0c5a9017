"""Read the header of a JPEG in memory, and find out whether a GPU decodes it as libjpeg does."""

from dataclasses import dataclass
from functools import lru_cache
from operator import mul
from struct import Struct
from typing import ClassVar

from PIL import Image

from vggsearch.photos import exif
from vggsearch.photos.capture import Capture
from vggsearch.photos.decode import JPEG_START, capture_of, orientation_of

PIXEL_LIMIT = 50_000_000  # 150 MB as RGB; the CPU decodes larger files at reduced size
LONGEST_SIDE = 65_500  # pixels that libjpeg accepts

# Markers of ITU-T T.81, table B.1, without their first byte, FF.
BASELINE, EXTENDED = 0xC0, 0xC1  # frames in one pass with Huffman coding
HUFFMAN, SCAN, QUANTISATION, RESTARTS, COMMENT = 0xC4, 0xDA, 0xDB, 0xDD, 0xFE
FIRST_APPLICATION, LAST_APPLICATION = 0xE0, 0xEF
APP0, APP1, APP2, APP13, APP14 = 0xE0, 0xE1, 0xE2, 0xED, 0xEE
XMP = b"http://ns.adobe.com/xap/1.0/\0"
END, FIRST_RESTART = b"\xff\xd9", b"\xff\xd0"
WHOLE = b"\0\x3f\0"  # the end of the header of a scan: coefficients 0 to 63, all bits

# Sampling factors of the components: 4:4:4, 4:2:2, 4:4:0, 4:2:0, 4:1:1, 4:1:0.
SAMPLINGS = [bytes([luminance, 0x11, 0x11]) for luminance in (0x11, 0x21, 0x12, 0x22, 0x41, 0x42)]

CODES_OF_LENGTH = [
    1 << (16 - length) for length in range(1, 17)
]  # of 16 bits that begin with one code of this length
ALL_CODES = (1 << 16) - 1  # the code of ones alone is not used, so a valid table never reaches 1 << 16

read_uint16 = Struct(">H").unpack_from
read_frame = Struct(">xHHB").unpack_from  # after the precision: height, width, number of components


@dataclass(frozen=True, slots=True)
class JpegHeader:
    """The fields of decode.DecodedImage for a JPEG, without pixels, and the EXIF orientation of its stored pixels.

    `width` and `height` are upright. `orientation` is 1 to 8, 1 if none is recorded. `sampling` are the factors of
    luminance in ITU-T T.81: 0x22 for 4:2:0, 0x21 for 4:2:2, 0x11 for 4:4:4.
    """

    format: ClassVar[str] = "JPEG"
    width: int
    height: int
    orientation: int
    capture: Capture
    sampling: int


def jpeg_header(data: bytes, size: int) -> JpegHeader | None:
    """Return the header of a JPEG file that a GPU decodes for a square of `size` pixels; None if the CPU has to.

    GPU decoders turn some damaged or unusual files into a wrong picture without an error. So a file needs one frame
    of 8 bits with Huffman coding and one scan, of YCbCr in usual sampling; nothing but well-formed segments; every
    table defined before it is used; and an end. Damage within the data of the scan is left to the decoder to find.

    The CPU also decodes progressive files, which nvJPEG's hardware does not, so that one CPU core would read them;
    images of more than PIXEL_LIMIT pixels; and those that would be enlarged, for which the resizes differ most and
    the CPU has least to do.
    """
    header = _Header(data)
    if not (data.startswith(JPEG_START) and header.read_to_scan() and header.is_usual() and header.is_complete()):
        return None
    width, height = header.size
    if min(width, height) < size or width * height > PIXEL_LIMIT or max(width, height) > LONGEST_SIDE:
        return None
    orientation, capture = header.orientation_and_capture()
    if orientation >= 5:
        width, height = height, width
    return JpegHeader(width, height, orientation, capture, header.frame[7])


class _Header:
    """What the segments of a file say, as far as they have been read: up to byte `at`."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 2
        self.coding = 0
        self.frame = b""
        self.scan = b""
        self.quantisation: frozenset[int] = frozenset()
        self.huffman: frozenset[int] = frozenset()
        self.restart_interval = 0
        self.is_jfif = False
        self.is_rgb = False
        self.exif = b""
        self.xmp = b""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as stored."""
        height, width, _ = read_frame(self.frame)
        return width, height

    def read_to_scan(self) -> bool:
        """Read all segments up to the data of the scan. Return whether they are well-formed."""
        data, at, length = self.data, self.at, len(self.data)
        while at + 4 <= length and data[at] == 0xFF:
            marker = data[at + 1]
            if marker == 0xFF:  # fill bytes: any number of them may precede a marker
                at += 1
                continue
            begin, end = at + 4, at + 2 + read_uint16(data, at + 2)[0]
            if not begin <= end <= length or not self._read(marker, begin, end):
                return False
            at = end
            if marker == SCAN:
                self.at = at
                return True
        return False

    def _read(self, marker: int, begin: int, end: int) -> bool:
        if marker == HUFFMAN:
            return self._define_huffman(self.data[begin:end])
        if marker == SCAN:
            self.scan = self.data[begin:end]
            return len(self.scan) >= 6 and len(self.scan) == 4 + 2 * self.scan[0]
        if marker == QUANTISATION:
            return self._define_quantisation(self.data[begin:end])
        if FIRST_APPLICATION <= marker <= LAST_APPLICATION:
            return self._read_application(marker, begin, end)
        if marker in (BASELINE, EXTENDED) and not self.frame:
            self.coding, self.frame = marker, self.data[begin:end]
            return True
        if marker == RESTARTS:
            self.restart_interval = int.from_bytes(self.data[begin:end])
            return end - begin == 2
        return marker == COMMENT

    def _define_huffman(self, content: bytes) -> bool:
        tables = _huffman_tables(content)
        self.huffman |= tables
        return bool(tables)

    def _define_quantisation(self, content: bytes) -> bool:
        tables = frozenset(content[::65])
        self.quantisation |= tables
        return len(content) % 65 == 0 and max(tables, default=4) < 4

    def _read_application(self, marker: int, begin: int, end: int) -> bool:
        """Return False for segments in which Pillow may read beyond their end, and then rejects the file."""
        data = self.data
        if marker == APP1 and data.startswith(exif.PREFIX, begin, end):
            self.exif += data[begin + len(exif.PREFIX) if self.exif else begin : end]
        elif marker == APP1 and data.startswith(XMP, begin, end):
            self.xmp = data[begin + len(XMP) : end]
        elif marker == APP0 and data.startswith(b"JFIF", begin, end):
            self.is_jfif = True
            return end - begin >= 7
        elif marker == APP14 and data.startswith(b"Adobe", begin, end):
            self.is_rgb |= data[begin + 11 : end][:1] != b"\1"
            return end - begin >= 7
        elif marker == APP2 and data.startswith(b"ICC_PROFILE\0", begin, end):
            return end - begin >= 14
        return marker != APP13 or not data.startswith(b"8BIM", end - 6)

    def is_usual(self) -> bool:
        """Return whether a GPU knows this kind of frame and first scan, whose tables must be defined."""
        frame = self.frame
        if len(frame) < 9 or frame[0] != 8:
            return False
        height, width, count = read_frame(frame)
        return (
            min(height, width) > 0
            and len(frame) == 6 + 3 * count
            and frame[7::3] in SAMPLINGS
            and self._is_ycbcr(frame[6::3])
            and self.quantisation.issuperset(frame[8::3])
            and self.scan[1:-3:2] == frame[6::3]
            and self._is_usual_scan()
        )

    def _is_ycbcr(self, names: bytes) -> bool:
        """Return whether all decoders take these components for YCbCr."""
        return not self.is_rgb and (
            names == b"\1\2\3" or (self.is_jfif and names != b"RGB" and len(set(names)) == 3)
        )

    def _is_usual_scan(self) -> bool:
        """Return whether the scan has all coefficients, in all their bits, and its Huffman tables are defined."""
        tables = self.scan[2:-3:2]
        has_tables = all(pair >> 4 in self.huffman and 0x10 | pair & 15 in self.huffman for pair in tables)
        is_usual = self.coding == EXTENDED or not any(pair & 0xEE for pair in tables)
        return self.scan[-3:] == WHOLE and is_usual and has_tables

    def is_complete(self) -> bool:
        """Return whether the file ends as it should."""
        return self.data.rfind(END) >= self.at and self._has_restarts()

    def _has_restarts(self) -> bool:
        if self.restart_interval == 0:
            return True
        width, height = self.size
        across, down = divmod(self.frame[7], 16)
        units = -(-width // (8 * across)) * -(-height // (8 * down))
        return units <= self.restart_interval or self.data.find(FIRST_RESTART, self.at) >= 0

    def orientation_and_capture(self) -> tuple[int, Capture]:
        """Return what Pillow reads from EXIF and XMP."""
        if not self.exif and not self.xmp:
            return 1, Capture()
        try:
            orientation, capture = exif.orientation_and_capture(self.exif)
            if orientation is not None or not self.xmp:
                return exif.valid(orientation), capture
        except exif.NotUsualError:
            pass
        image = Image.Image()
        image.info = {name: block for name, block in (("exif", self.exif), ("xmp", self.xmp)) if block}
        capture = capture_of(image)  # before the orientation, as decode.decode calls them
        return orientation_of(image), capture


@lru_cache(256)  # most encoders use the tables of T.81, annex K
def _huffman_tables(content: bytes) -> frozenset[int]:
    """Return the numbers of the tables of a segment, plus 16 for AC; empty if libjpeg would refuse any of them."""
    tables, at = set(), 0
    while at < len(content):
        table, counts = content[at], content[at + 1 : at + 17]
        end = at + 17 + sum(counts)
        codes = sum(map(mul, counts, CODES_OF_LENGTH))
        is_dc_beyond = table < 16 and max(content[at + 17 : end], default=0) > 15
        if table & ~0x13 or end > len(content) or codes > ALL_CODES or is_dc_beyond:
            return frozenset()
        tables.add(table)
        at = end
    return frozenset(tables)
