"""Damage picture files of every format that can be written here, and give them to `index`, `query` and `dups`.

A case is a file: cut off, changed in some bytes, spliced with another, under another header or suffix, with a huge
size or offset written over a small one, extended, repeated, or random. Five hundred lie in a folder with twenty
good photos. Each command must end in bounded time and memory. Every file must be a photo or skipped with a reason,
and the good photos must have the embeddings that they have alone.
"""

import io
import json
import shutil
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from random import Random

import pillow_heif
from campaign import Result, Settings
from children import Ended, in_child, vggsearch
from pictures import pictures
from PIL import Image

from vggsearch import ImageIndex

BATCH = 500
GOOD = 20
SIDE = 56
LIMIT_S = 600  # for a command on a batch, on a busy machine
MOST_BYTES = 2_000_000_000  # of memory of a command or a decoder
QUERIED = 5  # files of a batch that are re-ranked, which takes long
MODEL = ("--layer", "pool1", "--size", "32")
FORMATS: dict[str, tuple[str, dict[str, object]]] = {
    "baseline.jpg": (
        "JPEG",
        {"quality": 85, "exif": b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0"},
    ),
    "progressive.jpg": ("JPEG", {"progressive": True, "icc_profile": b"profile" * 50}),
    "grey.jpg": ("JPEG", {"mode": "L"}),
    "cmyk.jpg": ("JPEG", {"mode": "CMYK"}),
    "rgb.png": ("PNG", {}),
    "grey16.png": ("PNG", {"mode": "I;16"}),
    "palette.png": ("PNG", {"mode": "P"}),
    "alpha.png": ("PNG", {"mode": "RGBA"}),
    "animated.png": ("PNG", {"frames": 3}),
    "palette.gif": ("GIF", {"mode": "P"}),
    "animated.gif": ("GIF", {"mode": "P", "frames": 3}),
    "lossy.webp": ("WEBP", {}),
    "lossless.webp": ("WEBP", {"lossless": True}),
    "animated.webp": ("WEBP", {"frames": 3}),
    "plain.tif": ("TIFF", {}),
    "lzw.tif": ("TIFF", {"compression": "tiff_lzw"}),
    "jpeg.tif": ("TIFF", {"compression": "jpeg"}),
    "deflate.tif": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    "pages.tif": ("TIFF", {"frames": 3}),
    "fax.tif": ("TIFF", {"mode": "1", "compression": "group4"}),
    "photo.heic": ("HEIF", {}),
    "photo.avif": ("AVIF", {}),
    "photo.jp2": ("JPEG2000", {}),
    "photo.bmp": ("BMP", {}),
    "photo.ppm": ("PPM", {}),
    "photo.pgm": ("PPM", {"mode": "L"}),
    "photo.tga": ("TGA", {"compression": "tga_rle"}),
    "photo.ico": ("ICO", {}),
    "photo.icns": ("ICNS", {}),
    "photo.pcx": ("PCX", {}),
    "photo.sgi": ("SGI", {}),
    "photo.dds": ("DDS", {}),
    "photo.im": ("IM", {}),
    "photo.xbm": ("XBM", {"mode": "1"}),
    "photo.mpo": ("MPO", {"frames": 2}),
    "photo.spi": ("SPIDER", {"mode": "F"}),
    "photo.msp": ("MSP", {"mode": "1"}),
    "photo.qoi": ("QOI", {}),
}
HUGE = (
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\0\0\xff\xff",
    b"\x00\x01\x00\x00",
    b"\x80\0\0\0",
    b"\xff\xff",
)


def written(picture: Image.Image, format: str, options: dict[str, object]) -> bytes:
    """Return a picture as a file of a format; b"" if this Pillow cannot write it."""
    given = dict(options)
    shown = (
        picture.convert("L").convert("I").point(lambda value: value * 256).convert("I;16")
        if given.get("mode") == "I;16"
        else picture.convert(str(given.get("mode", picture.mode)))
    )
    given.pop("mode", None)
    frames = given.pop("frames", 1)
    if isinstance(frames, int) and frames > 1:
        given |= {"save_all": True, "append_images": [shown.rotate(90 * turn) for turn in range(1, frames)]}
    file = io.BytesIO()
    try:
        shown.save(file, format, **given)
    except (OSError, ValueError, KeyError):
        return b""
    return file.getvalue()


def samples(source: Iterator[Image.Image]) -> dict[str, bytes]:
    """Return a small file of each format."""
    pillow_heif.register_heif_opener()
    made = {name: written(next(source), *how) for name, how in FORMATS.items()}
    return {name: data for name, data in made.items() if data}


def damaged(samples: dict[str, bytes], random: Random) -> tuple[str, str, bytes]:
    """Return how a file was damaged, a suffix for it, and its content."""
    name = random.choice(sorted(samples))
    data, other = bytearray(samples[name]), samples[random.choice(sorted(samples))]
    size, suffix = len(data), Path(name).suffix
    how = random.choices(list(KINDS), list(KINDS.values()))[0]
    at = random.choice((random.randrange(size), random.randrange(min(size, 200))))
    if how == "cut":
        del data[random.choice((at, size - random.randint(1, 20))) :]
    elif how == "flips":
        for _ in range(random.choice((1, 1, 2, 5, 20, 100))):
            data[random.choice((random.randrange(size), random.randrange(min(size, 200))))] = random.randrange(256)
    elif how == "spliced":
        data[at:] = other[random.randrange(len(other)) :]
    elif how == "another header":
        data[: random.randint(2, 40)] = other[: random.randint(2, 40)]
    elif how == "huge numbers":
        for _ in range(random.choice((1, 1, 2, 4))):
            spot, number = random.randrange(min(size, 300)), random.choice(HUGE)
            data[spot : spot + len(number)] = number
    elif how == "loops":  # offsets that lead back, as in a TIFF's list of directories
        spot = random.randrange(max(1, size - 4))
        data[spot : spot + 4] = random.choice((0, 8, spot, at)).to_bytes(4, random.choice(("little", "big")))
    elif how == "repeated":
        piece = data[at : at + random.randint(1, 500)]
        data[at:at] = piece * random.choice((1, 10, 200))
    elif how == "longer":
        data += random.choice((bytes(1000), random.randbytes(1000), other))
    elif how == "zeroed":
        data[at : at + 64] = bytes(64)
    elif how == "another suffix":
        suffix = random.choice(
            (".jpg", ".png", ".tif", ".heic", ".tga", ".pcd", ".spi", ".webp", ".nef", ".dng", ".psd", ".txt")
        )
    elif how == "random":
        data = bytearray(
            random.choice((b"", samples[name][:4], samples[name][:16])) + random.randbytes(random.randint(0, 2000))
        )
    else:
        data.clear()
    return how, suffix, bytes(data)


KINDS = {
    "cut": 15,
    "flips": 30,
    "spliced": 8,
    "another header": 6,
    "huge numbers": 15,
    "loops": 8,
    "repeated": 5,
    "longer": 3,
    "zeroed": 3,
    "another suffix": 3,
    "random": 3,
    "empty": 1,
}  # how often


def embeddings(directory: Path, names: Sequence[str]) -> dict[str, bytes]:
    """Return the embeddings of some photos of an index."""
    with ImageIndex.open(directory) as index:
        rows, found = {path: row for row, path in enumerate(index.paths())}, index.embeddings()
        return {name: found[rows[name]].tobytes() for name in names if name in rows}


class Batch:
    """A folder of damaged files and good photos, and what is wrong with the commands on it."""

    def __init__(self, work: Path, good: dict[str, bytes], files: dict[str, bytes]) -> None:
        self.work, self.good, self.files = work, good, files
        self.faults: list[str] = []
        self.by_name: dict[str, list[str]] = {}
        shutil.rmtree(work, ignore_errors=True)
        (work / "photos").mkdir(parents=True)
        for name, data in (good | files).items():
            (work / "photos" / name).write_bytes(data)

    def run(self, *words: str, status: Sequence[int] = (0,)) -> Ended[None]:
        """Run a command; its end, time and memory are checked."""
        ended = vggsearch(*words, "--index", "index", cwd=self.work, limit=LIMIT_S)
        faults = ended.faults()
        if ended.status not in status:
            faults.append(f"status {ended.status}: {ended.stderr[-500:]}")
        if ended.peak > MOST_BYTES:
            faults.append(f"took {ended.peak / 1e9:.1f} GB")
        self.faults += [f"{words[:2]}: {fault}" for fault in faults]
        return ended

    def check(self, expected: dict[str, bytes], random: Random) -> None:
        """Index, query and search for duplicates."""
        self.run("index", "photos", *MODEL)
        skipped = {
            row["path"]: row["reason"]
            for row in json.loads(self.run("info", "--skipped", "--format", "json").stdout)
        }
        indexed = {
            pick["path"] for pick in json.loads(self.run("query", "--random", "10000", "--format", "json").stdout)
        }
        for name in self.good | self.files:
            if (name in skipped) == (name in indexed) or not skipped.get(name, "a reason").strip():
                self.by_name[name] = [
                    f"{name} is {skipped.get(name)!r} and {'indexed' if name in indexed else 'not indexed'}"
                ]
        found = in_child(partial(embeddings, self.work / "index", sorted(self.good))).result()
        self.faults += [f"another embedding of {name}" for name in self.good if found.get(name) != expected[name]]
        paths = [f"photos/{name}" for name in self.files]
        self.run("query", "--no-rerank", "-k", "1", "--format", "jsonl", *paths, status=(0, 1))
        self.run("query", "-k", "1", *random.sample(paths, QUERIED), status=(0, 1))
        self.run("dups", "--threshold", "0.97", "--format", "json")


def files(settings: Settings) -> Result:
    """Run the campaign."""
    result = Result()
    source = pictures(settings.photos, SIDE)
    made = samples(source)
    good = {
        f"good{number:02}.png": written(picture, "PNG", {}) for number, picture in enumerate(islice(source, GOOD))
    }
    alone = Batch(settings.scratch / "alone", good, {})
    alone.run("index", "photos", *MODEL)
    expected = in_child(partial(embeddings, alone.work / "index", sorted(good))).result()
    for numbers in settings.batches(BATCH):
        cases = {number: damaged(made, settings.random(number)) for number in numbers}
        names = {number: f"{number}{suffix}" for number, (_, suffix, _) in cases.items()}
        batch = Batch(
            settings.scratch / "files", good, {names[number]: data for number, (_, _, data) in cases.items()}
        )
        batch.check(expected, settings.random(-1 - numbers[0]))
        for number, (how, _, _) in cases.items():
            result.add(number, how, batch.by_name.get(names[number], []))
        result.add(numbers[0], "folders", batch.faults)
    return result
