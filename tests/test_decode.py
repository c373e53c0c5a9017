import errno
import io
import struct
import subprocess
import warnings
import zlib
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pillow_heif
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms

from tests.fakes import picture
from tests.helpers.examples import examples
from vggsearch.defaults import DECODER, IMAGE
from vggsearch.errors import ImageError
from vggsearch.photos import decode as decoding
from vggsearch.photos import upright
from vggsearch.photos.decode import DecodedImage, decode, upright_rgb
from vggsearch.photos.resize import is_blank
from vggsearch.photos.upright import OutsideError, to_rgb

pillow_heif.register_heif_opener()

SIZE = (64, 48)
AS_STORED = {  # EXIF orientation: what the camera did to the upright picture
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95},
    "PNG": {},
    "TIFF": {},
    "WEBP": {"lossless": True},
    "AVIF": {"quality": 95},
    "HEIF": {"quality": 95},
}
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)

ignore_decoder_warnings = pytest.mark.filterwarnings("ignore")  # Pillow warns of what it repairs


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def decoded(data: bytes, name: str = "", at_least: int | None = None) -> DecodedImage:
    return decode(io.BytesIO(data), name, at_least)


def refusal(data: bytes, name: str = "photo.jpg", at_least: int | None = None) -> ImageError:
    with pytest.raises(ImageError) as raised:
        decoded(data, name, at_least)
    assert str(raised.value) == raised.value.reason
    return raised.value


def values(image: Image.Image) -> NDArray[np.int16]:
    return np.asarray(image).astype(np.int16)


def difference(one: Image.Image, other: Image.Image) -> float:
    assert one.size == other.size
    assert one.mode == other.mode == "RGB"
    return float(np.abs(values(one) - values(other)).mean())


def corner(image: Image.Image) -> tuple[int, ...]:
    return tuple(int(value) for value in np.asarray(image)[0, 0])


def grey_bytes(seed: int = 0) -> NDArray[np.uint8]:
    return np.asarray(picture(seed, SIZE).convert("L"))


def grey_rgb(seed: int = 0) -> Image.Image:
    return Image.fromarray(grey_bytes(seed)).convert("RGB")


def exif_of(orientation: int | None = None, taken: str | None = None, changed: str | None = None) -> bytes:
    exif = Image.Exif()
    if orientation is not None:
        exif[ExifTags.Base.Orientation] = orientation
    if changed is not None:
        exif[ExifTags.Base.DateTime] = changed
    if taken is not None:
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = taken
    return exif.tobytes()


def as_stored(orientation: int, format: str, size: tuple[int, int] = SIZE) -> bytes:
    turn = AS_STORED[orientation]
    upright = picture(0, size)
    stored = upright if turn is None else upright.transpose(turn)
    return encoded(stored, format, exif=exif_of(orientation), **SAVE_OPTIONS[format])


def png(width: int, height: int) -> bytes:
    """Return a PNG whose header promises 8-bit greyscale of this size, and which holds one byte."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    )


def limit_pixels(monkeypatch: pytest.MonkeyPatch, pixels: int) -> None:
    monkeypatch.setattr(decoding, "IMAGE", replace(IMAGE, pixel_limit=pixels))


@pytest.mark.parametrize("format", SAVE_OPTIONS)
@pytest.mark.parametrize("orientation", AS_STORED)
def test_every_orientation_is_decoded_upright_in_every_format(format: str, orientation: int) -> None:
    photo = decoded(as_stored(orientation, format))
    assert photo.image.size == SIZE
    assert difference(photo.image, picture(0, SIZE)) < 4
    assert photo.format == format


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("format", SAVE_OPTIONS)
def test_width_and_height_are_those_of_the_upright_image(format: str, orientation: int) -> None:
    photo = decoded(as_stored(orientation, format))
    assert (photo.width, photo.height) == SIZE


@pytest.mark.parametrize("orientation", AS_STORED)
def test_a_jpeg_decoded_small_is_upright_too(orientation: int) -> None:
    photo = decoded(as_stored(orientation, "JPEG", (800, 600)), at_least=64)
    assert photo.image.size == (200, 150)
    assert difference(photo.image, picture(0, (200, 150))) < 4
    assert (photo.width, photo.height) == (800, 600)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_invalid_orientation_is_ignored(orientation: int) -> None:
    photo = decoded(encoded(picture(0, SIZE), "PNG", exif=exif_of(orientation)))
    assert difference(photo.image, picture(0, SIZE)) == 0


@pytest.mark.parametrize("orientation", AS_STORED)
def test_an_image_in_memory_is_turned_upright_by_its_exif(orientation: int) -> None:
    opened = Image.open(io.BytesIO(as_stored(orientation, "PNG")))
    assert difference(upright_rgb(opened), picture(0, SIZE)) == 0


@pytest.mark.parametrize("loaded", [True, False])
@pytest.mark.parametrize("format", SAVE_OPTIONS)
def test_an_image_that_is_not_loaded_yet_is_turned_once(format: str, loaded: bool) -> None:
    opened = Image.open(io.BytesIO(as_stored(3, format)))
    if loaded:
        opened.load()
    assert difference(upright_rgb(opened), picture(0, SIZE)) < 4


def test_a_large_jpeg_is_decoded_small_and_reports_its_full_size() -> None:
    photo = decoded(encoded(picture(0, (4000, 3000)), "JPEG"), at_least=192)
    assert min(photo.image.size) >= 384
    assert max(photo.image.size) < 4000
    assert (photo.width, photo.height) == (4000, 3000)


def test_a_jpeg_is_decoded_in_full_without_a_size() -> None:
    assert decoded(encoded(picture(0, (800, 600)), "JPEG")).image.size == (800, 600)


def test_a_jpeg_that_is_already_small_is_not_shrunk_below_its_size() -> None:
    assert decoded(encoded(picture(0, SIZE), "JPEG"), at_least=192).image.size == SIZE


def test_a_jpeg_decoded_small_shows_the_same_image() -> None:
    data = encoded(picture(0, (1600, 1200)), "JPEG", quality=95)
    small, full = decoded(data, at_least=64).image, decoded(data).image
    assert difference(small.resize(SIZE), full.resize(SIZE)) < 3


def sixteen_bit(levels: NDArray[np.uint8], times: int) -> Image.Image:
    return Image.fromarray(levels.astype(np.uint16) * np.uint16(times))


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_a_16_bit_grey_image_matches_its_8_bit_version(format: str) -> None:
    photo = decoded(encoded(sixteen_bit(grey_bytes(), 257), format))
    assert np.abs(values(photo.image) - values(grey_rgb())).max() <= 1


def test_a_big_endian_16_bit_tiff_matches_its_8_bit_version() -> None:
    deep = Image.frombytes("I;16B", SIZE, (grey_bytes().astype(">u2") * 257).tobytes())
    assert np.abs(values(decoded(encoded(deep, "TIFF")).image) - values(grey_rgb())).max() <= 1


def test_two_different_16_bit_images_stay_different() -> None:
    one, other = (decoded(encoded(sixteen_bit(grey_bytes(seed), 257), "PNG")).image for seed in (0, 1))
    assert difference(one, other) > 20


def test_12_bits_stored_in_16_are_scaled_and_not_black() -> None:
    photo = decoded(encoded(sixteen_bit(grey_bytes(), 16), "PNG"))
    assert np.abs(values(photo.image) - values(grey_rgb())).max() <= 2


def test_a_32_bit_integer_tiff_is_scaled() -> None:
    deep = Image.fromarray(grey_bytes().astype(np.int32) * 257)
    assert np.abs(values(decoded(encoded(deep, "TIFF")).image) - values(grey_rgb())).max() <= 1


def test_a_dim_16_bit_image_stays_dim() -> None:
    dim = sixteen_bit(grey_bytes() // 2, 257)
    assert np.abs(values(decoded(encoded(dim, "PNG")).image) - values(grey_rgb()) // 2).max() <= 1


def test_an_almost_black_16_bit_image_stays_black() -> None:
    assert values(decoded(encoded(sixteen_bit(grey_bytes() // 200, 1), "PNG")).image).max() <= 1


def float_tiff(numbers: NDArray[np.floating[Any]]) -> Image.Image:
    return decoded(encoded(Image.fromarray(numbers.astype(np.float32)), "TIFF")).image


@pytest.mark.parametrize("full", [1.0, 255.0])
def test_floats_up_to_1_or_255_match_their_8_bit_version(full: float) -> None:
    image = float_tiff(grey_bytes() * (full / 255))
    assert np.abs(values(image) - values(grey_rgb())).max() <= 1


def test_floats_below_zero_are_stretched_from_darkest_to_brightest() -> None:
    image = values(float_tiff(np.linspace(-3, 1, 48 * 64).reshape(48, 64)))
    assert (image[0, 0, 0], image[-1, -1, 0]) == (0, 255)
    assert (np.diff(image[:, 0, 0]) > 0).all()


@pytest.mark.parametrize("hole", [np.nan, np.inf, -np.inf])
def test_a_float_that_is_not_a_number_is_black_and_affects_no_other(hole: float) -> None:
    numbers = grey_bytes() / 255
    numbers[0, 0] = hole
    image = values(float_tiff(numbers))
    assert image[0, 0].tolist() == [0, 0, 0]
    assert np.abs(image - values(grey_rgb()))[1:].max() <= 1


def test_a_float_image_of_only_nan_is_black() -> None:
    assert not values(float_tiff(np.full((48, 64), np.nan))).any()


@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize(("alpha", "seen"), [(0, WHITE), (128, (255, 127, 127)), (255, RED)])
def test_transparency_is_composited_over_white(format: str, alpha: int, seen: tuple[int, int, int]) -> None:
    image = Image.new("RGBA", SIZE, (*RED, alpha))
    photo = decoded(encoded(image, format, **SAVE_OPTIONS[format]))
    assert corner(photo.image) == seen


def two_halves(mode: str, left: Any, right: Any) -> Image.Image:
    image = Image.new(mode, SIZE, right)
    image.paste(left, (0, 0, SIZE[0] // 2, SIZE[1]))
    return image


def test_what_would_vanish_on_white_is_composited_over_black() -> None:
    logos = []
    for box in ((2, 2, 9, 9), (12, 4, 30, 20)):
        logo = Image.new("RGBA", (40, 30), (255, 255, 255, 0))
        logo.paste((255, 255, 255, 255), box)
        logos.append(np.asarray(decoded(encoded(logo, "PNG")).image))
        assert logos[-1][box[1], box[0]].tolist() == [255] * 3
        assert logos[-1][0, 0].tolist() == [0] * 3
        assert not is_blank(logos[-1])
    assert (logos[0] != logos[1]).any()


@pytest.mark.parametrize("format", ["PNG", "GIF"])
def test_a_transparent_palette_colour_is_white(format: str) -> None:
    image = two_halves("P", 0, 1)
    image.putpalette([*RED, *BLUE])
    photo = decoded(encoded(image, format, transparency=0))
    assert corner(photo.image) == WHITE
    assert photo.image.getpixel((SIZE[0] - 1, 0)) == BLUE


@pytest.mark.parametrize(
    ("image", "transparent", "other"),
    [
        (two_halves("L", 7, 100), 7, (100, 100, 100)),
        (two_halves("RGB", RED, BLUE), RED, BLUE),
        (two_halves("1", 1, 0), 1, (0, 0, 0)),
    ],
)
def test_a_transparent_colour_of_a_png_is_white(image: Image.Image, transparent: Any, other: Any) -> None:
    photo = decoded(encoded(image, "PNG", transparency=transparent))
    assert corner(photo.image) == WHITE
    assert photo.image.getpixel((SIZE[0] - 1, 0)) == other


def test_grey_with_alpha_is_composited_over_white() -> None:
    assert corner(decoded(encoded(Image.new("LA", SIZE, (0, 0)), "PNG")).image) == WHITE


def test_a_cmyk_jpeg_matches_its_rgb_version() -> None:
    photo = decoded(encoded(picture(0, SIZE).convert("CMYK"), "JPEG", quality=95))
    assert difference(photo.image, picture(0, SIZE)) < 4


def test_a_lab_tiff_matches_its_rgb_version() -> None:
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    image = ImageCms.profileToProfile(picture(0, SIZE), srgb, lab, outputMode="LAB")
    assert image is not None
    photo = decoded(encoded(image, "TIFF"))
    assert difference(photo.image, picture(0, SIZE)) < 4


@pytest.mark.parametrize(("format", "options"), [("PNG", {}), ("TIFF", {"compression": "group4"}), ("BMP", {})])
def test_a_1_bit_image_is_black_and_white(format: str, options: dict[str, str]) -> None:
    photo = decoded(encoded(two_halves("1", 1, 0), format, **options))
    assert corner(photo.image) == WHITE
    assert photo.image.getpixel((SIZE[0] - 1, 0)) == (0, 0, 0)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_several_is_decoded(format: str) -> None:
    first, second = Image.new("RGB", SIZE, GREEN), Image.new("RGB", SIZE, BLUE)
    data = encoded(first, format, save_all=True, append_images=[second], **SAVE_OPTIONS.get(format, {}))
    with Image.open(io.BytesIO(data)) as opened:
        assert getattr(opened, "n_frames", 1) == 2
    assert decoded(data).image.getpixel((5, 5)) == GREEN


def test_the_first_image_of_a_multi_picture_jpeg_is_decoded() -> None:
    data = encoded(picture(0, SIZE), "MPO", save_all=True, append_images=[picture(1, SIZE)], quality=95)
    photo = decoded(data, "photo.jpg")
    assert photo.format == "JPEG"
    assert difference(photo.image, picture(0, SIZE)) < 4


def test_the_format_is_detected_by_content_and_not_by_name() -> None:
    photo = decoded(encoded(picture(0, SIZE), "PNG"), "photo.jpg")
    assert photo.format == "PNG"
    assert difference(photo.image, picture(0, SIZE)) == 0


def test_a_format_without_a_signature_needs_its_suffix() -> None:
    data = encoded(picture(0, SIZE), "TGA")
    assert difference(decoded(data, "photo.TGA").image, picture(0, SIZE)) == 0
    assert refusal(data, "photo.bin").kind == "not a picture"


@pytest.mark.parametrize("name", ["notes.txt", "notes", "clip.mov"])
def test_a_text_file_is_not_an_image(name: str) -> None:
    error = refusal(b"Dear diary,\n" * 100, name)
    assert (error.kind, error.reason) == ("not a picture", "not a picture")


@pytest.mark.parametrize("name", ["a.jpg", "a.HEIC", "sub.folder/a.png"])
def test_a_text_file_with_the_suffix_of_an_image_is_broken_and_its_suffix_is_named(name: str) -> None:
    error = refusal(b"Dear diary,\n" * 100, name)
    assert error.kind == "broken"
    assert Path(name).suffix.lower() in error.reason


def test_an_empty_file_is_broken() -> None:
    error = refusal(b"")
    assert (error.kind, error.reason) == ("broken", "the file is empty")


@pytest.mark.parametrize("format", SAVE_OPTIONS)
def test_a_truncated_file_is_broken(format: str) -> None:
    data = encoded(picture(0, SIZE), format, **SAVE_OPTIONS[format])
    error = refusal(data[: len(data) * 2 // 3], f"photo.{format.lower()}")
    assert error.kind == "broken"
    assert error.reason


def test_a_damaged_heic_is_broken_and_its_suffix_is_named() -> None:
    data = bytearray(encoded(picture(0, SIZE), "HEIF"))
    data[24:] = bytes(len(data) - 24)
    error = refusal(bytes(data), "IMG_0001.HEIC")
    assert error.kind == "broken"
    assert ".heic" in error.reason


@pytest.mark.parametrize(
    ("name", "kind"), [("a.eps", "broken"), ("a.jpg", "broken"), ("a.ps", "broken"), ("a", "not a picture")]
)
def test_postscript_is_never_passed_to_an_external_program(
    monkeypatch: pytest.MonkeyPatch, name: str, kind: str
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        pytest.fail("a program was run")

    data = encoded(picture(0, SIZE), "EPS")
    for call in ("Popen", "check_call", "run"):
        monkeypatch.setattr(subprocess, call, fail)
    assert refusal(data, name).kind == kind


@pytest.mark.parametrize("name", ["a.eps", "a.svg", "a.wmf", "a.emf"])
def test_a_vector_drawing_is_refused_with_a_way_out(name: str) -> None:
    error = refusal(b"<svg xmlns='http://www.w3.org/2000/svg'/>", name)
    assert error.kind == "broken"
    assert "PNG" in error.reason


@ignore_decoder_warnings
@pytest.mark.parametrize("size", [(30000, 30000), (20000, 10000)])
def test_a_header_that_claims_too_many_pixels_is_too_large(size: tuple[int, int]) -> None:
    assert refusal(png(*size), "a.png").kind == "too large"


def test_the_size_limit_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    limit_pixels(monkeypatch, 1_000_000)
    reason = refusal(encoded(picture(0, (2000, 1500)), "PNG")).reason
    assert reason == "2000 x 1500 is 3 megapixels to decode; the limit is 1"


def test_an_image_under_the_limit_is_not_refused_for_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    limit_pixels(monkeypatch, SIZE[0] * SIZE[1])
    assert decoded(encoded(picture(0, SIZE), "PNG")).image.size == SIZE
    limit_pixels(monkeypatch, SIZE[0] * SIZE[1] - 1)
    assert refusal(encoded(picture(0, SIZE), "PNG")).kind == "too large"


def test_a_jpeg_over_the_limit_is_decoded_at_a_reduced_size(monkeypatch: pytest.MonkeyPatch) -> None:
    limit_pixels(monkeypatch, 1_000_000)
    data = encoded(picture(0, (1600, 1200)), "JPEG")
    assert refusal(data).kind == "too large"
    photo = decoded(data, at_least=192)
    assert (photo.width, photo.height) == (1600, 1200)
    assert photo.image.size == (800, 600)


def test_a_panorama_beyond_pillows_own_limit_is_decoded_small() -> None:
    data = encoded(Image.new("L", (24000, 15000), 100), "JPEG", quality=5)
    photo = decoded(data, at_least=192)
    assert (photo.width, photo.height) == (24000, 15000)
    assert photo.image.width < 24000


EXIF_HEADER = b"Exif\0\0MM\0*\0\0\0\x08"
BROKEN_EXIF = {
    "nothing": b"Exif\0\0",
    "no TIFF header": b"Exif\0\0hello world, I am no TIFF",
    "half a header": b"Exif\0\0MM\0*",
    "directory beyond the end": b"Exif\0\0MM\0*\x7f\xff\xff\xff",
    "entries beyond the end": EXIF_HEADER + struct.pack(">HHH", 65535, 274, 3),
    "orientation as text": EXIF_HEADER + struct.pack(">HHHL4sL", 1, 274, 2, 2, b"x", 0),
    "camera directory is text": EXIF_HEADER + struct.pack(">HHHL4sL", 1, 0x8769, 2, 4, b"abc", 0),
    "camera directory is this one": EXIF_HEADER + struct.pack(">HHHLLL", 1, 0x8769, 4, 1, 8, 0),
    "resolution is no fraction": EXIF_HEADER + struct.pack(">HHHLLHHLHHL", 2, 282, 1, 1, 0, 296, 3, 1, 2, 0, 0),
}


@ignore_decoder_warnings
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("damage", BROKEN_EXIF)
def test_a_photo_with_a_broken_exif_block_is_decoded(format: str, damage: str) -> None:
    photo = decoded(encoded(picture(0, SIZE), format, exif=BROKEN_EXIF[damage], **SAVE_OPTIONS[format]))
    assert difference(photo.image, picture(0, SIZE)) < 4
    assert photo.capture.taken is None


@pytest.mark.parametrize("format", SAVE_OPTIONS)
def test_the_date_taken_is_read_in_every_format(format: str) -> None:
    exif = exif_of(taken="2024:02:29 23:59:58")
    photo = decoded(encoded(picture(0, SIZE), format, exif=exif, **SAVE_OPTIONS[format]))
    assert photo.capture.taken == datetime(2024, 2, 29, 23, 59, 58)


def taken_of(taken: str | None, changed: str | None) -> datetime | None:
    return decoded(encoded(picture(0, SIZE), "JPEG", exif=exif_of(taken=taken, changed=changed))).capture.taken


def test_the_date_taken_takes_precedence_over_the_date_changed() -> None:
    assert taken_of("2001:02:03 04:05:06", "2024:01:01 00:00:00") == datetime(2001, 2, 3, 4, 5, 6)


def test_the_date_changed_is_used_without_a_date_taken() -> None:
    assert taken_of(None, "2024:01:01 00:00:00") == datetime(2024, 1, 1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "0000:00:00 00:00:00",
        "2023:02:29 10:00:00",
        "    :  :     :  :  ",
        "2024-02-29",
        "99999:01:01 00:00:00",
    ],
)
def test_a_malformed_date_is_none(text: str) -> None:
    assert taken_of(text, None) is None


def test_without_exif_there_is_no_date() -> None:
    assert decoded(encoded(picture(0, SIZE), "JPEG")).capture.taken is None


class FailingDisk(io.BytesIO):
    """A file whose disk fails from byte `good` on."""

    def __init__(self, data: bytes, good: int) -> None:
        super().__init__(data)
        self.good = good

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if self.tell() > self.good:
            raise OSError(errno.EIO, "Input/output error")
        return data


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
@pytest.mark.parametrize("good", [0.0, 0.5])
def test_a_failing_disk_is_unreadable_and_not_broken(format: str, good: float) -> None:
    data = encoded(picture(0, SIZE), format, **SAVE_OPTIONS[format])
    with pytest.raises(ImageError) as raised:
        decode(FailingDisk(data, int(good * len(data))), "photo.jpg")
    assert (raised.value.kind, raised.value.reason) == ("unreadable", "Input/output error")


def test_a_damaged_offset_in_a_file_on_disk_is_broken(tmp_path: Path) -> None:
    data = bytearray(encoded(picture(0, SIZE), "TIFF", big_tiff=True))
    data[8:16] = b"\xff" * 7 + b"\x7f"
    path = tmp_path / "photo.tif"
    path.write_bytes(data)
    with path.open("rb") as file, pytest.raises(ImageError) as raised:
        decode(file, path.name)
    assert raised.value.kind == "broken"


def with_transparency(image: Image.Image, transparent: int) -> Image.Image:
    image.info["transparency"] = transparent
    return image


IN_MEMORY: dict[str, Callable[[], Image.Image]] = {
    "RGB": lambda: picture(0, SIZE),
    "RGBA": lambda: picture(0, SIZE).convert("RGBA"),
    "L": lambda: picture(0, SIZE).convert("L"),
    "L, transparent": lambda: with_transparency(picture(0, SIZE).convert("L"), 7),
    "LA": lambda: picture(0, SIZE).convert("LA"),
    "La": lambda: picture(0, SIZE).convert("LA").convert("La"),
    "P": lambda: picture(0, SIZE).convert("P"),
    "1": lambda: picture(0, SIZE).convert("1"),
    "CMYK": lambda: picture(0, SIZE).convert("CMYK"),
    "YCbCr": lambda: picture(0, SIZE).convert("YCbCr"),
    "I;16": lambda: sixteen_bit(grey_bytes(), 257),
    "I": lambda: Image.fromarray(grey_bytes().astype(np.int32)),
    "F": lambda: Image.fromarray(grey_bytes().astype(np.float32)),
}


@pytest.mark.parametrize("make", IN_MEMORY.values(), ids=IN_MEMORY)
@pytest.mark.parametrize("convert", [to_rgb, upright_rgb])
def test_converting_does_not_change_the_image(
    make: Callable[[], Image.Image], convert: Callable[[Image.Image], Image.Image]
) -> None:
    image, untouched = make(), make()
    assert convert(image).mode == "RGB"
    assert (image.mode, image.size, image.info) == (untouched.mode, untouched.size, untouched.info)
    assert image.tobytes() == untouched.tobytes()


@cache
def small_files() -> tuple[bytes, ...]:
    one, other = picture(0, (40, 30)), picture(1, (40, 30))
    exif = exif_of(orientation=6, taken="2024:02:29 23:59:58")
    return (
        encoded(one, "JPEG"),
        encoded(one, "JPEG", exif=exif, progressive=True),
        encoded(one, "PNG", exif=exif),
        encoded(one.convert("P"), "PNG", transparency=0),
        encoded(sixteen_bit(np.asarray(one.convert("L")), 257), "PNG"),
        encoded(one, "GIF", save_all=True, append_images=[other]),
        encoded(one, "TIFF", exif=exif),
        encoded(one, "TIFF", compression="tiff_lzw"),
        encoded(one, "TIFF", compression="tiff_adobe_deflate"),
        encoded(one, "BMP"),
        encoded(one.convert("P"), "BMP"),
        encoded(one, "WEBP", exif=exif),
        encoded(one, "WEBP", save_all=True, append_images=[other]),
    )


@st.composite
def damaged_files(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from(small_files())))
    near_start = st.integers(0, 199)
    anywhere = st.integers(0, len(data) - 1)
    for place in draw(st.lists(near_start | anywhere, max_size=8)):
        data[place % len(data)] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.just(len(data)) | anywhere)])


def outcome(data: bytes, at_least: int | None) -> DecodedImage | ImageError:
    with warnings.catch_warnings(), patch.object(decoding, "IMAGE", replace(IMAGE, pixel_limit=4_000_000)):
        warnings.simplefilter("ignore")
        try:
            return decoded(data, "photo.jpg", at_least)
        except ImageError as error:
            return error


@settings(max_examples=examples(500))
@given(data=damaged_files(), at_least=st.none() | st.just(8))
def test_a_damaged_file_is_decoded_or_refused_and_nothing_else(data: bytes, at_least: int | None) -> None:
    result = outcome(data, at_least)
    if isinstance(result, ImageError):
        assert result.reason
        assert result.kind in ("broken", "too large")
    else:
        assert result.image.mode == "RGB"
        assert min(result.width, result.height, *result.image.size) >= 1


@settings(max_examples=examples(200))
@given(data=st.binary(max_size=300))
def test_random_bytes_are_refused(data: bytes) -> None:
    result = outcome(data, None)
    assert isinstance(result, ImageError)
    assert result.kind == "broken"


STORED_AS: dict[str, Callable[[Image.Image], Image.Image]] = {  # modes of pictures as PNG and TIFF store them
    "grey": lambda photo: photo.convert("L"),
    "colour": lambda photo: photo,
    "palette": lambda photo: photo.quantize(64),
    "transparent": lambda photo: photo.convert("RGBA").rotate(20),
    "16 bits": lambda photo: Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 200),
    "floats": lambda photo: Image.fromarray(np.asarray(photo.convert("L")).astype(np.float32) / 255),
}


def in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (decoding, upright):
        monkeypatch.setattr(module, "IMAGE", replace(IMAGE, whole_pixels=100, strip_pixels=300))


@pytest.mark.parametrize("orientation", AS_STORED)
@pytest.mark.parametrize("stored", STORED_AS)
def test_a_very_large_picture_is_converted_in_strips_with_the_same_result(
    stored: str, orientation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    format = "TIFF" if stored == "floats" else "PNG"
    data = encoded(STORED_AS[stored](picture(3, (61, 47))), format, exif=exif)
    whole = {crop: decode(io.BytesIO(data), crop=crop).image for crop in (None, (5, 7, 29, 13))}
    reduced = whole[None].reduce(2)
    in_strips(monkeypatch)
    for crop, expected in whole.items():
        np.testing.assert_array_equal(np.asarray(decode(io.BytesIO(data), crop=crop).image), np.asarray(expected))
    np.testing.assert_array_equal(np.asarray(decode(io.BytesIO(data), at_least=10).image), np.asarray(reduced))


@pytest.mark.parametrize("crop", [(-1, 0, 5, 5), (0, 0, 65, 5), (0, 40, 5, 9), (3, 3, 0, 5)])
def test_a_part_that_is_not_inside_is_refused_with_the_upright_size(crop: tuple[int, int, int, int]) -> None:
    with pytest.raises(OutsideError) as outside:
        decode(io.BytesIO(encoded(picture(0, SIZE), "PNG")), crop=crop)
    assert (outside.value.width, outside.value.height) == SIZE


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_a_picture_that_takes_too_much_memory_is_refused_before_it_is_decoded(
    format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encoded(picture(0, (200, 100)), format)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda _: pytest.fail("it is decoded"))
    with pytest.raises(decoding.MemoryNeededError) as needed:
        decode(io.BytesIO(data), memory=79_999)
    assert needed.value.bytes >= 80_000
    monkeypatch.setattr(decoding, "DECODER", replace(DECODER, picture_bytes=79_999))
    error = refusal(data)
    assert error.kind == "too large"
    assert error.reason.startswith("200 x 100 pixels take 0.0 GB to decode; the limit is 0.0 GB")


def test_the_memory_of_a_progressive_jpeg_is_that_of_its_full_size() -> None:
    photo = picture(0, (1600, 800))
    for options, share in (({"subsampling": 0}, 3.0), ({"subsampling": 2}, 1.5)):
        data = encoded(photo, "JPEG", progressive=True, **options)
        with pytest.raises(decoding.MemoryNeededError) as needed:
            decode(io.BytesIO(data), at_least=32, memory=0)
        assert needed.value.bytes == 200 * 100 * 4 + 1600 * 800 * 2 * share


def test_the_quick_table_for_16_bits_scales_as_the_formula_does() -> None:
    values = np.arange(1 << 16, dtype=np.uint16).reshape(256, 256)
    for tones in ((0.0, 65535.0), (0.0, 4095.0), (100.0, 65000.0)):
        within = values[(values >= tones[0]) & (values <= tones[1])]
        np.testing.assert_array_equal(
            upright._scaled(within, tones), upright._scaled(within.astype(np.int32), tones)
        )
