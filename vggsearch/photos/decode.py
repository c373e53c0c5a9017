"""Decode image files of any supported format into upright RGB images, or raise ImageError with the reason."""

import errno
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import PurePath
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, JpegImagePlugin, UnidentifiedImageError

from vggsearch.defaults import IMAGE
from vggsearch.errors import ImageError

# Formats that are never opened: EPS and WMF pass the file to an external program, the others contain no image.
EXCLUDED_FORMATS = frozenset({"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG", "IPTC", "MCIDAS", "FITS"})
# Formats without a signature: the suffix must match, or any file that starts with a few zeros would be an image.
FORMATS_BY_SUFFIX = {"TGA": {".tga", ".icb", ".vda", ".vst"}, "PCD": {".pcd"}, "SPIDER": {".spi"}, "IMT": {".imt"}}
# Image suffixes that are not supported, and what to do instead.
UNSUPPORTED_SUFFIXES = {
    ".eps": "PostScript needs an external program to render: export it as PNG",
    ".svg": "a vector drawing, not a photo: export it as PNG",
    ".wmf": "a vector drawing, not a photo: export it as PNG",
    ".emf": "a vector drawing, not a photo: export it as PNG",
}

DECODER_ERRORS = (  # raised by Pillow's and libheif's decoders on damaged files
    ValueError,
    EOFError,
    NotImplementedError,
    SyntaxError,
    RuntimeError,
    TypeError,
    IndexError,
    KeyError,
    OverflowError,
    ZeroDivisionError,
    AttributeError,
    struct.error,
    zlib.error,
)

# A damaged file makes its decoder seek to impossible offsets; any other errno is the fault of the disk.
ERRNOS_OF_DAMAGED_FILES = (errno.EINVAL, errno.EOVERFLOW, errno.EFBIG)

JPEG_START = b"\xff\xd8\xff"

HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")  # ISO/IEC 23008-12

UPRIGHT = {  # EXIF orientation -> the transposition that turns the stored pixels upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

STANDARD_LUMINANCE_SUM = 3688  # of the quantisation table K.1 in ITU-T T.81, annex K

GREYSCALE_MAXIMA = (1.0, 2.0**8 - 1, 2.0**10 - 1, 2.0**12 - 1, 2.0**14 - 1, 2.0**16 - 1, 2.0**32 - 1)


@dataclass(frozen=True)
class DecodedImage:
    """A decoded image file.

    `image` is RGB and upright. It may be smaller than `width` x `height`, the size of the file in pixels, upright.
    `format` is Pillow's name of the file format; `taken` is the local time of the camera, None if not recorded.
    """

    image: Image.Image
    width: int
    height: int
    format: str
    taken: datetime | None


def decode(file: BinaryIO, name: str = "", at_least: int | None = None) -> DecodedImage:
    """Decode the first frame of an open file.

    With `at_least`, a JPEG is decoded at a reduced size that still leaves at least that many pixels per side.
    The suffix of `name` is used only for formats that have no signature. Raises ImageError with the reason.
    """
    with decoder_errors():
        opened = _open(file, name)
        full = opened.size
        taken = taken_at(opened)
        if at_least is not None:
            wanted = round(at_least * IMAGE.reducing_gap)
            opened.draft(None, (wanted, wanted))
        _refuse_bombs(opened.size, full)
        opened.load()
        # Read after loading: PNG may find its EXIF block only then, and TIFF has applied its orientation by then
        # (its size is upright from the start).
        orientation = orientation_of(opened)
        image = _upright(to_rgb(opened), orientation)
    if orientation >= 5:
        full = (full[1], full[0])
    return DecodedImage(image, full[0], full[1], opened.format or "", taken)


def upright_rgb(image: Image.Image) -> Image.Image:
    """Return an image that is already in memory as upright RGB. `image` itself is not changed."""
    with decoder_errors():
        image.load()
        return _upright(to_rgb(image), orientation_of(image))


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else image


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert to RGB: transparency over white, deep greyscale scaled (Pillow would clip it), Lab by ICC profile."""
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return Image.fromarray(_scaled(np.asarray(image))).convert("RGB")
    if image.mode == "LAB":
        return _lab_to_rgb(image)
    if image.has_transparency_data:
        layers = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, layers).convert("RGB")
    return image.convert("RGB")


def _scaled(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Scale greyscale of any depth to 0..255 by the smallest of GREYSCALE_MAXIMA that its brightest pixel fits.

    Files do not reliably state their depth (12 bits in 16, floats in 0..1 or 0..255). Stretching each image from
    its darkest to its brightest pixel instead would make a dim photo differ from its own 8-bit copy.
    """
    grey = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    darkest, brightest = float(grey.min()), float(grey.max())
    fits = [full for full in GREYSCALE_MAXIMA if brightest <= full]
    if np.issubdtype(values.dtype, np.integer):
        fits = [full for full in fits if full >= 255]
    if darkest < 0 or not fits:
        grey, fits = grey - darkest, [max(brightest - darkest, 1e-12)]
    scaled: NDArray[np.uint8] = np.rint(grey * (255.0 / fits[0])).astype(np.uint8)
    return scaled


def _lab_to_rgb(image: Image.Image) -> Image.Image:
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    if converted is None:  # only with inPlace=True
        raise ValueError("Lab colours could not be converted")
    return converted


@cache
def readable_formats() -> tuple[str, ...]:
    """Register the formats of Pillow and libheif, once, and return those that have a signature."""
    Image.init()
    with suppress(ImportError):  # _open names the missing package
        import pillow_heif

        pillow_heif.register_heif_opener()
    return tuple(sorted(set(Image.OPEN) - EXCLUDED_FORMATS - set(FORMATS_BY_SUFFIX)))


class _Jpeg(JpegImagePlugin.JpegImageFile):
    """Pillow's JPEG reader without the resolution from EXIF, where a malformed tag would cost the photo."""

    def _read_dpi_from_exif(self) -> None:
        pass


def _open(file: BinaryIO, name: str) -> Image.Image:
    """Open by content. JPEG bypasses Image.open, which would apply its pixel limit before the reduced decode."""
    formats = readable_formats()
    start = file.read(12)
    file.seek(0)
    if start == b"":
        raise ImageError("the file is empty", "broken")
    if start.startswith(JPEG_START):
        return _Jpeg(file)
    suffix = PurePath(name).suffix.lower()
    named = [format for format, suffixes in FORMATS_BY_SUFFIX.items() if suffix in suffixes]
    try:
        return Image.open(file, formats=[*formats, *named])
    except UnidentifiedImageError as error:
        if "HEIF" not in formats and start[4:8] == b"ftyp" and start[8:] in HEIC_BRANDS:
            raise ImageError("HEIC needs pillow-heif: pip install pillow-heif", "unreadable") from error
        raise _unidentified(suffix) from error


def _unidentified(suffix: str) -> ImageError:
    """Return the error of an unidentified file: one with the suffix of an image is reported as broken."""
    if suffix in UNSUPPORTED_SUFFIXES:
        return ImageError(UNSUPPORTED_SUFFIXES[suffix], "broken")
    if suffix in Image.registered_extensions():
        return ImageError(
            f"has the suffix {suffix} but is damaged or in an unsupported variant of that format", "broken"
        )
    return ImageError("not a picture", "not a picture")


def _refuse_bombs(size: tuple[int, int], full: tuple[int, int]) -> None:
    if size[0] * size[1] > IMAGE.pixel_limit:
        raise ImageError(
            f"{full[0]} x {full[1]} is {full[0] * full[1] / 1e6:,.0f} megapixels to decode; "
            f"the limit is {IMAGE.pixel_limit / 1e6:,.0f}",
            "too large",
        )


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation (1 to 8), 1 if it is missing or EXIF cannot be read."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except (OSError, *DECODER_ERRORS):
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def taken_at(image: Image.Image) -> datetime | None:
    """Return when the photo was taken, None if EXIF does not record it or the value is malformed."""
    try:
        exif = image.getexif()
        camera = exif.get_ifd(ExifTags.IFD.Exif)
        text = camera.get(ExifTags.Base.DateTimeOriginal) or exif.get(ExifTags.Base.DateTime)
        return datetime.strptime(str(text).strip("\0 "), "%Y:%m:%d %H:%M:%S") if text else None
    except (OSError, *DECODER_ERRORS):
        return None


@contextmanager
def decoder_errors() -> Iterator[None]:
    """Turn the exceptions of decoders into ImageError: "broken" for damaged files, "unreadable" for disk errors."""
    try:
        yield
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(str(error), "too large") from error
    except MemoryError as error:
        raise ImageError("not enough memory to decode it", "unreadable") from error
    except OSError as error:
        if error.errno is not None and error.errno not in ERRNOS_OF_DAMAGED_FILES:
            raise ImageError(error.strerror or str(error), "unreadable") from error
        raise ImageError(str(error) or "damaged", "broken") from error
    except DECODER_ERRORS as error:
        raise ImageError(f"damaged ({type(error).__name__}: {error})", "broken") from error


def jpeg_quality(file: BinaryIO) -> int | None:
    """Estimate the quality, 1 to 100, a JPEG was saved with from its quantisation table; None for another format.

    The scale is that of the IJG library, where the table of the standard is quality 50. Raises ImageError.
    """
    with decoder_errors():
        opened = Image.open(file)
        tables = opened.quantization if isinstance(opened, JpegImagePlugin.JpegImageFile) else {}
    if 0 not in tables:
        return None
    percent = 100 * sum(tables[0]) / STANDARD_LUMINANCE_SUM
    quality = 5000 / percent if percent > 100 else (200 - percent) / 2
    return min(100, max(1, round(quality)))
