"""Decode image files of any supported format into upright RGB images, or raise ImageError with the reason."""

import errno
import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import PurePath
from typing import BinaryIO

from PIL import ExifTags, Image, ImageFile, JpegImagePlugin, UnidentifiedImageError

from vggsearch.defaults import DECODER, IMAGE
from vggsearch.errors import ImageError
from vggsearch.photos.capture import Capture, capture, parsed_time
from vggsearch.photos.raw_content import Place, raw_content
from vggsearch.photos.raw_formats import RAW_FORMAT
from vggsearch.photos.upright import (
    Box,
    edges_inside,
    reduced_upright_rgb,
    stored_edges,
    to_rgb,
    tones_are_8_bit,
    tones_of,
    upright,
    upright_size,
)

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


STANDARD_LUMINANCE_SUM = 3688  # of the quantisation table K.1 in ITU-T T.81, annex K


# Whose files may show more than one picture. The layers of a PSD and the previews of an MPO are no frames.
FORMATS_WITH_FRAMES = ("GIF", "WEBP", "PNG", "TIFF", "HEIF", "AVIF", "FLI", "DCX")


# Bytes per pixel that a decoder takes beside the picture it returns: these keep several copies of all pixels.
BYTES_ASIDE = {"WEBP": 12, "AVIF": 8, "HEIF": 8, "JPEG2000": 16, "TIFF": 3}
BYTES_OF_COEFFICIENT = 2  # a progressive JPEG keeps them all, at full size


@dataclass(frozen=True)
class DecodedImage:
    """A decoded image file.

    `image` is RGB and upright. It may be smaller than `width` x `height`, the size of the file in pixels, upright.
    `format` is Pillow's name of the file format, or RAW_FORMAT; `capture` is when and by which camera it was taken.
    """

    image: Image.Image
    width: int
    height: int
    format: str
    capture: Capture


@dataclass(frozen=True)
class LoadedImage:
    """A picture in memory, as its file stores it, with its EXIF orientation; else the fields of DecodedImage."""

    image: Image.Image
    orientation: int
    width: int
    height: int
    format: str
    capture: Capture
    is_reduced: bool = False  # to 8 bits per channel, from more

    @property
    def upright_size(self) -> tuple[int, int]:
        """Return width and height of `image`, once upright."""
        return upright_size(self.image, self.orientation)


class MemoryNeededError(Exception):
    """Decoding needs more memory than was allowed: `bytes`."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.bytes = count


def decode(
    file: BinaryIO,
    name: str = "",
    at_least: int | None = None,
    *,
    of_longer: bool = False,
    crop: Box | None = None,
    memory: int | None = None,
) -> DecodedImage:
    """Decode the first frame of an open file.

    Of a RAW file, that is its largest preview, if it has one. With `at_least`, a JPEG is decoded at a reduced size
    that still leaves at least that many pixels per side, or of the longer side alone; very large pictures of other
    formats are reduced afterwards. `crop` is the part to return, in pixels of the whole picture, upright. The
    suffix of `name` is used only for RAW files and formats that have no signature. `memory` is the number of bytes
    to get by with.

    Raises ImageError with the reason, OutsideError for the crop, and MemoryNeededError.
    """
    loaded = load_image(file, name, at_least if crop is None else None, of_longer=of_longer, memory=memory)
    with decoder_errors():
        tones = tones_of(loaded.image)
        stored, orientation = loaded.image, loaded.orientation
        if crop is not None:
            stored = stored.crop(stored_edges(stored, orientation, edges_inside(crop, loaded.upright_size)))
        image = reduced_upright_rgb(stored, orientation, tones, _spare_factor(stored.size, at_least, of_longer))
    return DecodedImage(image, loaded.width, loaded.height, loaded.format, loaded.capture)


def load_image(
    file: BinaryIO,
    name: str = "",
    at_least: int | None = None,
    *,
    of_longer: bool = False,
    memory: int | None = None,
) -> LoadedImage:
    """Read the first frame of an open file into memory, with the parameters of `decode`.

    Raises ImageError and MemoryNeededError.
    """
    with decoder_errors():
        raw = raw_content(file, name)
        opened = _open(file, name) if raw is None or raw.preview is None else _preview(file, raw.preview)
        full, is_reduced = opened.size, _has_deep_colours(opened)  # before EXIF, for which PNG is loaded
        if at_least is not None:
            wanted = round(at_least * IMAGE.reducing_gap)
            opened.draft(None, _drafted(full, wanted, of_longer=of_longer))
        _refuse_bombs(opened.size, full)
        _check_memory(opened, full, memory)
        capture = capture_of(opened)  # after the checks, since a PNG is loaded to look for EXIF at its end
        if raw is not None and raw.capture.taken is not None:
            capture = raw.capture
        opened.load()
        # Read after loading: PNG may find its EXIF block only then, and TIFF has applied its orientation by then
        # (its size is upright from the start).
        orientation = orientation_of(opened)
        if raw is not None and raw.preview is not None and ExifTags.Base.Orientation not in opened.getexif():
            orientation = raw.orientation
        format = RAW_FORMAT if raw is not None else opened.format or ""
    if orientation >= 5:
        full = (full[1], full[0])
    return LoadedImage(opened, orientation, *full, format, capture, is_reduced)


def _preview(file: BinaryIO, place: Place) -> Image.Image:
    """Open the preview of a RAW file, a JPEG."""
    file.seek(place.at)
    return _Jpeg(io.BytesIO(file.read(place.length)))


def _has_deep_colours(opened: Image.Image) -> bool:
    """Return whether Pillow will reduce an opened image, still to be loaded, from 16 bits per channel to 8."""
    tiles = opened.tile if isinstance(opened, ImageFile.ImageFile) else []
    is_deep = any(";16" in str(tile.args) for tile in tiles) or opened.info.get("bit_depth", 8) > 8
    return is_deep and tones_are_8_bit(opened)


def later_frames(loaded: LoadedImage, memory: int | None = None) -> Iterator[Image.Image]:
    """Load and yield the frames or pages after the first, each in place of the one before, as the file stores them.

    The file must still be open. Raises ImageError and MemoryNeededError.
    """
    image = loaded.image
    while loaded.format in FORMATS_WITH_FRAMES:
        with decoder_errors():
            try:
                image.seek(image.tell() + 1)
            except EOFError:
                return
            _refuse_bombs(image.size, image.size)
            _check_memory(image, image.size, memory)
            image.load()
        yield image


def has_frames(file: BinaryIO, name: str = "") -> bool:
    """Return whether a file shows more than one picture, as an animation or a document. Raises ImageError."""
    with decoder_errors():
        opened = _open(file, name)
        if opened.format not in FORMATS_WITH_FRAMES:
            return False
        try:
            opened.seek(1)
        except EOFError:
            return False
        return True


def _drafted(full: tuple[int, int], wanted: int, *, of_longer: bool) -> tuple[int, int]:
    """Return what to request of a JPEG's reduced size: this much of both sides, or of the longer one."""
    if not of_longer:
        return wanted, wanted
    return (wanted, 1) if full[0] >= full[1] else (1, wanted)


def _check_memory(opened: Image.Image, full: tuple[int, int], memory: int | None) -> None:
    needed = memory_needed(opened, full)
    if needed > DECODER.picture_bytes:
        raise ImageError(
            f"{full[0]} x {full[1]} pixels take {needed / 1e9:.1f} GB to decode; "
            f"the limit is {DECODER.picture_bytes / 1e9:.1f} GB",
            "too large",
        )
    if memory is not None and needed > memory:
        raise MemoryNeededError(needed)


def memory_needed(opened: Image.Image, full: tuple[int, int]) -> int:
    """Return about how many bytes it takes to load an opened image, of `full` pixels before it was reduced."""
    pixels = opened.size[0] * opened.size[1]
    needed = pixels * (_bytes_per_pixel(opened.mode) + BYTES_ASIDE.get(opened.format or "", 0))
    if opened.info.get("progressive") and isinstance(opened, JpegImagePlugin.JpegImageFile):
        samples = sum(across * down for _, across, down, _ in opened.layer)
        largest = max(across * down for _, across, down, _ in opened.layer)
        needed += BYTES_OF_COEFFICIENT * full[0] * full[1] * samples // largest
    return needed


def _bytes_per_pixel(mode: str) -> int:
    """Return how many bytes a pixel of a mode takes in Pillow."""
    if mode in ("1", "L", "P"):
        return 1
    return 2 if mode.startswith("I;16") else 4


def _spare_factor(size: tuple[int, int], at_least: int | None, of_longer: bool) -> int:
    """Return by how much a very large picture can be reduced at once; 1 for others, which are resized precisely."""
    if at_least is None or size[0] * size[1] <= IMAGE.whole_pixels:
        return 1
    return max(1, int((max(size) if of_longer else min(size)) / (at_least * IMAGE.reducing_gap)))


def upright_rgb(image: Image.Image) -> Image.Image:
    """Return an image that is already in memory as upright RGB. `image` itself is not changed."""
    with decoder_errors():
        image.load()
        return upright(to_rgb(image), orientation_of(image))


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


def capture_of(image: Image.Image) -> Capture:
    """Return when and by which camera a photo was taken, as far as EXIF records it in well-formed values."""
    try:
        exif = image.getexif()
        camera = exif.get_ifd(ExifTags.IFD.Exif)
        texts = camera.get(ExifTags.Base.DateTimeOriginal), exif.get(ExifTags.Base.DateTime)
        make, model = exif.get(ExifTags.Base.Make), exif.get(ExifTags.Base.Model)
        fraction, serial = camera.get(ExifTags.Base.SubsecTimeOriginal), camera.get(ExifTags.Base.BodySerialNumber)
    except (OSError, *DECODER_ERRORS):
        return Capture()
    original, saved = map(parsed_time, texts)
    return capture(original, fraction, saved, make, model, serial)


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
