"""Decode a file into an upright RGB picture, whatever its format, or say why it cannot be done."""

import errno
import io
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

# Formats that are not opened: EPS and WMF hand the file to an outside program, the others hold no picture.
NOT_OPENED = frozenset({"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG", "IPTC", "MCIDAS", "FITS"})
# Formats without a signature: the name must agree, or any file that begins with a few zeros is a picture.
BY_NAME = {"TGA": {".tga", ".icb", ".vda", ".vst"}, "PCD": {".pcd"}, "SPIDER": {".spi"}, "IMT": {".imt"}}
# Named like a picture, and never read: each with the way out.
NOT_READ = {
    ".eps": "PostScript would have to be run by an outside program: export it as PNG",
    ".svg": "a drawing, not a photo: export it as PNG",
    ".wmf": "a drawing, not a photo: export it as PNG",
    ".emf": "a drawing, not a photo: export it as PNG",
}

DECODER_ERRORS = (  # what Pillow's and libheif's decoders raise on damaged files
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

# A damaged file sends its decoder to impossible places; any other errno is the disk's fault.
FILES_OWN_FAULT = (errno.EINVAL, errno.EOVERFLOW, errno.EFBIG)

JPEG_START = b"\xff\xd8\xff"

HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")  # ISO/IEC 23008-12

UPRIGHT = {  # EXIF orientation: how to turn the stored pixels
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

STANDARD_LUMINANCE = 3688  # the sum of table K.1 of ITU-T T.81, annex K

FULL_SCALES = (1.0, 2.0**8 - 1, 2.0**10 - 1, 2.0**12 - 1, 2.0**14 - 1, 2.0**16 - 1, 2.0**32 - 1)


@dataclass(frozen=True)
class DecodedImage:
    """A decoded picture.

    `image` is RGB and upright, perhaps smaller than the file's own `width` x `height` (pixels, upright).
    `format` is Pillow's name of the file format; `taken` is the camera's local time, where it wrote one.
    """

    image: Image.Image
    width: int
    height: int
    format: str
    taken: datetime | None


def decode(file: BinaryIO, name: str = "", at_least: int | None = None) -> DecodedImage:
    """Decode the first frame of an open file. JPEG is decoded small where `at_least` pixels a side suffice.

    `name` is only asked where a format has no signature. Raises ImageError with the reason.
    """
    with decoder_errors():
        opened = _open(file, name)
        full = opened.size
        taken = _taken(opened)
        if at_least is not None:
            wanted = round(at_least * IMAGE.reducing_gap)
            opened.draft(None, (wanted, wanted))
        _refuse_bombs(opened.size, full)
        opened.load()
        # Asked after loading: PNG may only then have found its EXIF block, and TIFF has turned itself by then
        # and gave its size upright from the start.
        turned = _orientation(opened)
        image = _upright(to_rgb(opened), turned)
    if turned >= 5:
        full = (full[1], full[0])
    return DecodedImage(image, full[0], full[1], opened.format or "", taken)


@dataclass(frozen=True)
class JpegHeader:
    """What `decode` says of a JPEG, without its pixels, and the EXIF orientation that they are stored in."""

    width: int
    height: int
    format: str
    taken: datetime | None
    orientation: int


def jpeg_header(data: bytes) -> JpegHeader:
    """Return the header of what begins with JPEG_START. Raises ImageError where it is damaged."""
    with decoder_errors():
        opened = _Jpeg(io.BytesIO(data))
        turned = _orientation(opened)
        width, height = opened.size[::-1] if turned >= 5 else opened.size
        return JpegHeader(width, height, opened.format or "", _taken(opened), turned)


def upright_rgb(image: Image.Image) -> Image.Image:
    """Return a picture that is already in memory as upright RGB; `image` is left as it was."""
    with decoder_errors():
        image.load()
        return _upright(to_rgb(image), _orientation(image))


def _upright(image: Image.Image, turned: int) -> Image.Image:
    return image.transpose(UPRIGHT[turned]) if turned in UPRIGHT else image


def to_rgb(image: Image.Image) -> Image.Image:
    """Return RGB: transparency over white, deep greyscale scaled (Pillow would clip it), Lab converted."""
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
    """Scale greyscale of any depth to 0..255 by the smallest usual full scale that holds its brightest pixel.

    Files say too little of their depth (12 bits in 16, floats in 0..1 or 0..255) to scale by it; stretching
    each picture from its darkest to its brightest would make a dim photo unlike its own 8-bit copy.
    """
    grey = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    darkest, brightest = float(grey.min()), float(grey.max())
    fits = [full for full in FULL_SCALES if brightest <= full]
    if np.issubdtype(values.dtype, np.integer):
        fits = [full for full in fits if full >= 255]
    if darkest < 0 or not fits:
        grey, fits = grey - darkest, [max(brightest - darkest, 1e-12)]
    scaled: NDArray[np.uint8] = np.rint(grey * (255.0 / fits[0])).astype(np.uint8)
    return scaled


def _lab_to_rgb(image: Image.Image) -> Image.Image:
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    if converted is None:  # only where inPlace=True
        raise ValueError("Lab colours could not be converted")
    return converted


@cache
def readable_formats() -> tuple[str, ...]:
    """Register what Pillow and libheif read, once; return those formats but for the ones without a signature."""
    Image.init()
    with suppress(ImportError):  # _open says what is lost
        import pillow_heif

        pillow_heif.register_heif_opener()
    return tuple(sorted(set(Image.OPEN) - NOT_OPENED - set(BY_NAME)))


class _Jpeg(JpegImagePlugin.JpegImageFile):
    """Pillow's JPEG reader without its look for a resolution in EXIF, over which an odd tag costs the photo."""

    def _read_dpi_from_exif(self) -> None:
        pass


def _open(file: BinaryIO, name: str) -> Image.Image:
    """Open by content. JPEG goes straight to its reader: Image.open counts pixels before a reduced decode."""
    formats = readable_formats()
    start = file.read(12)
    file.seek(0)
    if start == b"":
        raise ImageError("the file is empty", "broken")
    if start.startswith(JPEG_START):
        return _Jpeg(file)
    suffix = PurePath(name).suffix.lower()
    named = [format for format, suffixes in BY_NAME.items() if suffix in suffixes]
    try:
        return Image.open(file, formats=[*formats, *named])
    except UnidentifiedImageError as error:
        if "HEIF" not in formats and start[4:8] == b"ftyp" and start[8:] in HEIC_BRANDS:
            raise ImageError("HEIC is read by pillow-heif: pip install pillow-heif", "unreadable") from error
        raise _unidentified(suffix) from error


def _unidentified(suffix: str) -> ImageError:
    """Tell a file that is no picture from one that is named like one, which a person would miss."""
    if suffix in NOT_READ:
        return ImageError(NOT_READ[suffix], "broken")
    if suffix in Image.registered_extensions():
        return ImageError(f"named {suffix} but damaged, or of a kind that cannot be read", "broken")
    return ImageError("not a picture", "not a picture")


def _refuse_bombs(size: tuple[int, int], full: tuple[int, int]) -> None:
    if size[0] * size[1] > IMAGE.pixel_limit:
        raise ImageError(
            f"{full[0]} x {full[1]} is {full[0] * full[1] / 1e6:,.0f} megapixels to decode; "
            f"the limit is {IMAGE.pixel_limit / 1e6:,.0f}",
            "too large",
        )


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 where there is none or the EXIF block cannot be read."""
    try:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1)
    except (OSError, *DECODER_ERRORS):
        return 1
    return turned if isinstance(turned, int) and 1 <= turned <= 8 else 1


def _taken(image: Image.Image) -> datetime | None:
    """Return when the photo was taken, None where EXIF does not say or says nonsense."""
    try:
        exif = image.getexif()
        camera = exif.get_ifd(ExifTags.IFD.Exif)
        text = camera.get(ExifTags.Base.DateTimeOriginal) or exif.get(ExifTags.Base.DateTime)
        return datetime.strptime(str(text).strip("\0 "), "%Y:%m:%d %H:%M:%S") if text else None
    except (OSError, *DECODER_ERRORS):
        return None


@contextmanager
def decoder_errors() -> Iterator[None]:
    """Turn what decoders raise on a bad file into ImageError. A failing disk is "unreadable", not "broken"."""
    try:
        yield
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(str(error), "too large") from error
    except MemoryError as error:
        raise ImageError("not enough memory to decode it", "unreadable") from error
    except OSError as error:
        if error.errno is not None and error.errno not in FILES_OWN_FAULT:
            raise ImageError(error.strerror or str(error), "unreadable") from error
        raise ImageError(str(error) or "damaged", "broken") from error
    except DECODER_ERRORS as error:
        raise ImageError(f"damaged ({type(error).__name__}: {error})", "broken") from error


def jpeg_quality(file: BinaryIO) -> int | None:
    """Return the quality, 1 to 100, that a JPEG was saved with, as its quantisation says; None for another format.

    It is the scale of the IJG library, where the standard's own table is quality 50. Raises ImageError.
    """
    with decoder_errors():
        opened = Image.open(file)
        tables = opened.quantization if isinstance(opened, JpegImagePlugin.JpegImageFile) else {}
    if 0 not in tables:
        return None
    percent = 100 * sum(tables[0]) / STANDARD_LUMINANCE
    quality = 5000 / percent if percent > 100 else (200 - percent) / 2
    return min(100, max(1, round(quality)))
