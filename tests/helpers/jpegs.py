"""JPEG files, of those a GPU decodes and of those it does not, and what the CPU makes of them."""

import io
import re
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image

from tests.fakes import picture
from vggsearch.defaults import EMBEDDING, IMAGE
from vggsearch.model.torch_engine.jpeg import SquareDecoder
from vggsearch.photos import resize as resizing
from vggsearch.photos.decode import decode
from vggsearch.photos.jpeg_header import jpeg_header

Pixels = NDArray[np.uint8]

SIZE = EMBEDDING.map_size
SMALL, TALL, LARGE = (500, 375), (375, 500), (4000, 3000)
GRAIN = 25.0  # levels, standard deviation
TOLERANCE = {"smooth": 0.25, "grain": 0.6}  # levels, mean absolute difference; TorchSquares tells what was measured
LARGEST = 8  # levels, of any pixel
REPEATED_CHROMA = 1.5  # levels more, in the mean, where the decoder does not smooth 4:2:0 as libjpeg does
PREFIX = 2  # bytes before the first segment

FRAME, SCAN, QUANTISATION, HUFFMAN, RESTART = b"\xff\xc0", b"\xff\xda", b"\xff\xdb", b"\xff\xc4", b"\xff\xdd"
JFIF, ADOBE = b"\xff\xe0", b"\xff\xee"


def grainy(image: Image.Image) -> Image.Image:
    grain = np.random.default_rng(0).normal(0, GRAIN, (image.height, image.width, 3)).astype(np.float32)
    return Image.fromarray((np.asarray(image, np.float32) + grain).clip(0, 255).astype(np.uint8))


MAKE: dict[str, Callable[[Image.Image], Image.Image]] = {"smooth": Image.Image.copy, "grain": grainy}


def reduced(image: Image.Image, size: int) -> Image.Image:
    """What libjpeg makes of it if it may reduce: averages of squares, at the end of rows of pixels repeated."""
    wanted = round(size * IMAGE.reducing_gap)
    scale = min(image.width // wanted, image.height // wanted)
    side = next(side for side in (8, 4, 2, 1) if scale >= side or side == 1)
    height, width = -(-image.height // side), -(-image.width // side)
    more = ((0, height * side - image.height), (0, width * side - image.width), (0, 0))
    blocks = np.pad(np.asarray(image).astype(int), more, "edge").reshape(height, side, width, side, 3)
    return Image.fromarray(((blocks.sum(axis=(1, 3)) + side * side // 2) // side**2).astype(np.uint8))


def encoded(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **{"quality": 90, **options})
    return file.getvalue()


@cache
def photo(kind: str, size: tuple[int, int], subsampling: int = 2) -> bytes:
    return encoded(MAKE[kind](picture(1, size)), subsampling=subsampling)


def turned(data: bytes, orientation: int) -> bytes:
    """The same picture, whose EXIF block says how to turn it."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    block = b"Exif\0\0" + exif.tobytes().removeprefix(b"Exif\0\0")
    return data[:PREFIX] + b"\xff\xe1" + (len(block) + 2).to_bytes(2) + block + data[PREFIX:]


def on_cpu(data: bytes, resize: str, size: int = SIZE) -> Pixels:
    return resizing.square(decode(io.BytesIO(data), "photo.jpg", at_least=size).image, size, resize)


def assert_near(ours: Pixels, theirs: Pixels, mean: float, largest: float = LARGEST) -> None:
    difference = np.abs(ours.astype(int) - theirs)
    assert difference.mean() <= mean
    assert difference.max() <= largest


@cache
def cpu(resize: str = "squash", size: int = SIZE) -> SquareDecoder:
    return SquareDecoder(torch.device("cpu"), size, resize)


def squared(data: bytes, decoder: SquareDecoder | None = None, size: int = SIZE) -> Pixels | None:
    """The square of one file, None if the decoder leaves it to the CPU."""
    squares, is_decoded, _ = (decoder or cpu(size=size)).squares([data], [jpeg_header(data, size)])
    pixels: Pixels = squares[0].cpu().numpy()
    return pixels if is_decoded[0] else None


def decoded(data: bytes, decoder: SquareDecoder | None = None, size: int = SIZE) -> Pixels:
    pixels = squared(data, decoder, size)
    assert pixels is not None
    return pixels


def replaced(data: bytes, marker: bytes, after: int, byte: int) -> bytes:
    """The file with another byte so far after the marker. The marker has two bytes, as has the length after it."""
    at = data.index(marker) + after
    return data[:at] + bytes([byte]) + data[at + 1 :]


def extents(data: bytes, marker: bytes) -> list[tuple[int, int]]:
    """Where all such segments begin and end."""
    begins = [found.start() for found in re.finditer(re.escape(marker), data)]
    return [(begin, begin + 2 + int.from_bytes(data[begin + 2 : begin + 4])) for begin in begins]


def without(data: bytes, marker: bytes, *numbers: int) -> bytes:
    """The file without the segments of this marker that have these numbers, counted from 0."""
    for number in sorted(numbers, reverse=True):
        begin, end = extents(data, marker)[number]
        data = data[:begin] + data[end:]
    return data


def segment(marker: bytes, content: bytes) -> bytes:
    return marker + (len(content) + 2).to_bytes(2) + content


def having(data: bytes, added: bytes) -> bytes:
    """The file with one more segment, in front of its frame."""
    at = data.index(FRAME)
    return data[:at] + added + data[at:]


def part(data: bytes, marker: bytes, number: int = 0) -> bytes:
    """The segment of this marker that has this number."""
    begin, end = extents(data, marker)[number]
    return data[begin:end]


def scans_apart(data: bytes) -> bytes:
    """A baseline file whose only scan has one component instead of three."""
    scan = part(data, SCAN)
    return data.replace(scan, segment(SCAN, b"\1" + scan[5:7] + scan[-3:]))


def png() -> bytes:
    file = io.BytesIO()
    picture(1).save(file, "PNG")
    return file.getvalue()


BASELINE = photo("smooth", SMALL)
STORED_RGB = encoded(picture(1), keep_rgb=True)
RESTARTS = encoded(picture(1, SMALL), restart_marker_blocks=4)
CODES_TOO_MANY = b"\0\3" + bytes(15) + b"\0\1\2"  # three codes of one bit

NOT_FOR_IT = {
    "nothing": b"",
    "a start and no more": b"\xff\xd8\xff",
    "a start and noise": b"\xff\xd8\xff" + bytes(range(256)) * 4,
    "a PNG": png(),
    "CMYK": encoded(picture(1).convert("CMYK")),
    "RGB stored as such": STORED_RGB,
    "RGB by the names of its components": without(STORED_RGB, ADOBE, 0),
    "RGB by Adobe's marker": having(BASELINE, segment(ADOBE, b"Adobe\0\x64\0\0\0\0\0")),
    "unknown components": without(replaced(replaced(BASELINE, FRAME, 10, 9), SCAN, 5, 9), JFIF, 0),
    "arithmetic codes": replaced(BASELINE, FRAME, 1, 0xC9),
    "lossless": replaced(BASELINE, FRAME, 1, 0xC3),
    "differential": replaced(BASELINE, FRAME, 1, 0xC5),
    "hierarchical": having(BASELINE, b"\xff\xde" + part(BASELINE, FRAME)[2:]),
    "12 bits": replaced(BASELINE, FRAME, 4, 12),
    "two components": replaced(BASELINE, FRAME, 9, 2),
    "no lines": replaced(replaced(BASELINE, FRAME, 5, 0), FRAME, 6, 0),
    "lines in the end": having(BASELINE, segment(b"\xff\xdc", b"\1\x77")),
    "no frame": without(BASELINE, FRAME, 0),
    "two frames": having(BASELINE, part(BASELINE, FRAME)),
    "no marker after a segment": replaced(BASELINE, FRAME, 3, 18),
    "a reserved marker": having(BASELINE, segment(b"\xff\x02", b"")),
    "no end": BASELINE[:-2],
    "half of it": BASELINE[: len(BASELINE) // 2],
    "half of it, with a whole thumbnail": turned(BASELINE[: len(BASELINE) // 2], 1).replace(b"Exif", b"\xff\xd9if"),
    "no quantisation": without(BASELINE, QUANTISATION, 0, 1),
    "no quantisation for chroma": without(BASELINE, QUANTISATION, 1),
    "a number of no quantisation": replaced(BASELINE, FRAME, 12, 3),
    "quantisation in 16 bits": having(
        without(BASELINE, QUANTISATION, 0), segment(QUANTISATION, b"\x10" + b"\0\7" * 64)
    ),
    "quantisation cut short": having(BASELINE, segment(QUANTISATION, b"\2" + b"\7" * 63)),
    "no Huffman": without(BASELINE, HUFFMAN, 0, 1, 2, 3),
    "no Huffman for DC": without(BASELINE, HUFFMAN, 0),
    "no Huffman for chroma": without(BASELINE, HUFFMAN, 3),
    "a number of no Huffman": replaced(BASELINE, SCAN, 6, 0x13),
    "Huffman with too many codes": having(BASELINE, segment(HUFFMAN, CODES_TOO_MANY)),
    "Huffman cut short": having(BASELINE, segment(HUFFMAN, part(BASELINE, HUFFMAN)[4:-1])),
    "Huffman for differences of more than 15 bits": having(
        BASELINE, segment(HUFFMAN, b"\0\1" + bytes(15) + b"\x10")
    ),
    "a scan of one component": scans_apart(BASELINE),
    "a scan of other components": replaced(BASELINE, SCAN, 5, 9),
    "a scan in another order": replaced(replaced(BASELINE, SCAN, 5, 2), SCAN, 7, 1),
    "a component twice": replaced(replaced(BASELINE, FRAME, 13, 1), SCAN, 7, 1),
    "a progression in a baseline file": replaced(BASELINE, SCAN, 12, 5),
    "bits left for another scan": replaced(BASELINE, SCAN, 13, 1),
    "progressive": encoded(picture(1, SMALL), progressive=True),  # not in nvJPEG's hardware
    "sampling 3 x 1": replaced(BASELINE, FRAME, 11, 0x31),
    "sampling 0 x 0": replaced(BASELINE, FRAME, 11, 0),
    "chroma sampled more than luminance": replaced(BASELINE, FRAME, 14, 0x22),
    "greyscale": encoded(picture(1, SMALL).convert("L")),  # nvJPEG leaves two of three colours undefined
    "restarts without a marker": having(BASELINE, segment(RESTART, b"\0\4")),
    "restarts cut short": having(RESTARTS, segment(RESTART, b"\4")),
    "smaller than the square": photo("smooth", (SIZE - 1, 400)),
    "a side too long for libjpeg": replaced(replaced(BASELINE, FRAME, 7, 0xFF), FRAME, 8, 0xFF),
}

FOR_IT = {
    "4:2:2": photo("smooth", SMALL, 1),
    "restart markers": RESTARTS,
    "restarts beyond its end": having(BASELINE, segment(RESTART, b"\xff\xff")),
    "extended": replaced(BASELINE, FRAME, 1, 0xC1),
    "a profile and a comment": encoded(picture(1, SMALL), icc_profile=b"profile" * 20_000, comment=b"a comment"),
    "something after its end": BASELINE + b"trailer" * 100,
    "fill bytes before a marker": having(BASELINE, b"\xff\xff\xff"),
    "Adobe's YCbCr": having(BASELINE, segment(ADOBE, b"Adobe\0\x64\0\0\0\0\1")),
    "neither JFIF's marker nor Adobe's": without(BASELINE, JFIF, 0),
}
