"""The header of a JPEG, against Pillow's, and which files a GPU decodes."""

import io
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from tests.helpers.examples import examples
from tests.helpers.jpegs import (
    BASELINE,
    FOR_IT,
    NOT_FOR_IT,
    SCAN,
    SIZE,
    SMALL,
    having,
    photo,
    segment,
    turned,
)
from vggsearch.errors import ImageError
from vggsearch.photos import jpeg_header as module
from vggsearch.photos.capture import Capture
from vggsearch.photos.decode import _Jpeg, decode, orientation_of
from vggsearch.photos.jpeg_header import jpeg_header

APP1, APP13 = b"\xff\xe1", b"\xff\xed"
TIME = "2019:05:04 03:02:01"


def exif_of(orientation: int, camera: str | None = TIME, file: str | None = None) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    if camera is not None:
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = camera
    if file is not None:
        exif[ExifTags.Base.DateTime] = file
    return exif.tobytes()


def xmp_of(orientation: int) -> bytes:
    return b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta tiff:Orientation="%d"/>' % orientation


EXIF = {
    "turned": exif_of(6),
    "no time": exif_of(3, None),
    "a time of the file": exif_of(8, None, "2001:02:03 04:05:06"),
    "no such orientation": exif_of(9),
    "an orientation that is no number": exif_of(6).replace(b"\x12\1\3\0", b"\x12\1\2\0"),
    "no time of day": exif_of(1, "2019:05:04"),
    "cut short": exif_of(6)[:30],
    "not TIFF": b"Exif\0\0" + b"noise" * 9,
    "empty": b"Exif\0\0",
}
BLOCKS = {
    **{name: segment(APP1, block) for name, block in EXIF.items()},
    "XMP": segment(APP1, xmp_of(6)),
    "XMP and EXIF": segment(APP1, xmp_of(6)) + segment(APP1, EXIF["turned"]),
    "XMP and EXIF that is not TIFF": segment(APP1, EXIF["not TIFF"]) + segment(APP1, xmp_of(6)),
    "XMP twice": segment(APP1, xmp_of(6)) + segment(APP1, xmp_of(8)),
    "EXIF twice": segment(APP1, EXIF["turned"]) + segment(APP1, EXIF["no time"]),
    "EXIF in two": segment(APP1, EXIF["turned"][:40]) + segment(APP1, b"Exif\0\0" + EXIF["turned"][40:]),
    "Photoshop": segment(APP13, b"Photoshop 3.0\0" + b"8BIM\x03\xed\0\0\0\0\0\2ab"),
}
BEYOND_PILLOW = {  # segments in which Pillow reads too far
    "JFIF": segment(b"\xff\xe0", b"JFIF\0"),
    "Adobe": segment(b"\xff\xee", b"Adobe"),
    "a profile": segment(b"\xff\xe2", b"ICC_PROFILE\0"),
    "Photoshop": segment(APP13, b"Photoshop 3.0\0" + b"8BIM\x03\xed"),
    "a length of one": b"\xff\xe5\0\1",
    "a length beyond the end": b"\xff\xe5\xff\xff",
}


def assert_as_pillow(data: bytes) -> None:
    """A header says what decoding the file says, which has no error."""
    header = jpeg_header(data, 1)
    if header is not None:
        photo = decode(io.BytesIO(data))
        assert (header.width, header.height) == (photo.width, photo.height) == photo.image.size
        assert (header.format, header.capture) == (photo.format, photo.capture)
        assert header.orientation == orientation_of(_Jpeg(io.BytesIO(data)))


@pytest.mark.parametrize("data", FOR_IT.values(), ids=FOR_IT)
def test_usual_files_have_a_header(data: bytes) -> None:
    assert jpeg_header(data, SIZE) == module.JpegHeader(
        *SMALL, 1, Capture(), 0x21 if data == FOR_IT["4:2:2"] else 0x22
    )
    assert_as_pillow(data)


@pytest.mark.parametrize("data", NOT_FOR_IT.values(), ids=NOT_FOR_IT)
def test_what_a_gpu_might_decode_wrongly_has_none(data: bytes) -> None:
    assert jpeg_header(data, SIZE) is None


@pytest.mark.parametrize("kind", ["no quantisation", "sampling 0 x 0", "lossless"])
def test_some_of_these_the_cpu_rejects(kind: str) -> None:
    with pytest.raises(ImageError):
        decode(io.BytesIO(NOT_FOR_IT[kind]))


@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
@pytest.mark.filterwarnings("ignore")  # Pillow warns of malformed EXIF
def test_orientation_and_time_are_pillows(block: bytes) -> None:
    data = having(photo("smooth", (40, 30)), block)
    assert jpeg_header(data, 30) is not None
    assert_as_pillow(data)


def test_orientation_and_time_are_read() -> None:
    header = jpeg_header(having(BASELINE, BLOCKS["turned"]), SIZE)
    assert header is not None
    assert (header.width, header.height, header.orientation) == (375, 500, 6)
    assert f"{header.capture.taken:%Y:%m:%d %H:%M:%S}" == TIME
    assert [jpeg_header(turned(BASELINE, wanted), SIZE).orientation for wanted in range(1, 9)] == [*range(1, 9)]  # type: ignore[union-attr]


@pytest.mark.parametrize("block", BEYOND_PILLOW.values(), ids=BEYOND_PILLOW)
def test_what_pillow_reads_too_far_in_has_no_header(block: bytes) -> None:
    assert jpeg_header(having(BASELINE, block), SIZE) is None


def test_a_very_large_picture_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PIXEL_LIMIT", 500 * 375)
    assert jpeg_header(BASELINE, SIZE) is not None
    assert jpeg_header(photo("smooth", (501, 375)), SIZE) is None


def test_a_picture_smaller_than_the_square_has_none() -> None:
    assert jpeg_header(BASELINE, 375) is not None
    assert jpeg_header(BASELINE, 376) is None


def test_no_file_cut_short_has_one() -> None:
    data = turned(photo("smooth", (64, 48)), 6)
    assert jpeg_header(data, 48) is not None
    assert not any(jpeg_header(data[:cut], 48) for cut in range(len(data)))


WHOLE = [photo("smooth", (48, 40)), *NOT_FOR_IT.values()]
WHOLE += [having(photo("smooth", (48, 40)), block) for block in [*BLOCKS.values(), *BEYOND_PILLOW.values()]]


@settings(max_examples=examples(1000))
@given(st.sampled_from(WHOLE), st.lists(st.tuples(st.integers(0, 750), st.integers(0, 255)), max_size=8))
@pytest.mark.filterwarnings("ignore")  # Pillow warns of malformed EXIF
def test_a_damaged_header_is_as_pillow_reads_it_or_none(data: bytes, damage: list[tuple[int, int]]) -> None:
    damaged, end = bytearray(data), data.find(SCAN) % (len(data) + 1)
    for place, byte in damage if end > 0 else []:
        damaged[place % end] = byte
    assert_as_pillow(bytes(damaged))


@pytest.mark.filterwarnings("ignore")  # Pillow warns of what it repairs
def test_the_measuring_photos_have_pillows_headers(shared_data: Path) -> None:
    assert_as_pillow_or_odd((shared_data / "odd").iterdir(), fewest=20)
    assert_as_pillow_or_odd(sorted((shared_data / "caltech").rglob("*.jpg"))[::10], fewest=50)


def assert_as_pillow_or_odd(paths: Iterable[Path], fewest: int) -> None:
    files = [path.read_bytes() for path in paths if path.is_file()]
    for data in files:
        assert_as_pillow(data)
    assert sum(jpeg_header(data, 1) is not None for data in files) >= fewest
