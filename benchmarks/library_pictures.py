"""The pictures that `library.py` makes itself: pages of one template, bursts, RAW files, collages."""

import io
import random
import struct
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vggsearch.photos.edits import EDIT_FILTER, in_collage

WORDS = ("lorem", "ipsum", "dolor", "sit", "amet", "elit", "sed", "do", "eiusmod", "tempor", "ut", "labore")
FIELDS = ("Surname", "First name", "Street", "Town", "Customer number", "Amount due", "Account", "Remarks")
PREVIEW = (160, 120)  # pixels of the first directory of a TIFF-based RAW file
SAMPLES = 40_000  # of the sensor, 16 bits each
CFA, RGB, YCBCR = 32803, 2, 6  # photometric interpretations of TIFF/EP and DNG
ASCII, SHORT, LONG = 2, 3, 4  # types of values in TIFF
ENTRY = struct.Struct("<HHI4s")
Entry: TypeAlias = tuple[int, int, int | str | tuple[int, ...]]  # tag, type and value


def words(generator: random.Random, count: int) -> str:
    return " ".join(generator.choices(WORDS, k=count))


def text(draw: ImageDraw.ImageDraw, at: tuple[int, int], written: str, size: int, ink: str = "black") -> None:
    draw.text(at, written, ink, ImageFont.load_default(size))


def form(generator: random.Random) -> Image.Image:
    """Draw a form that somebody filled in: the same form each time, but other entries."""
    page = Image.new("RGB", (620, 877), "white")
    draw = ImageDraw.Draw(page)
    text(draw, (45, 40), "MUNICIPAL WATER BOARD - FORM 27b", 24)
    text(draw, (45, 72), "Application for connection, please fill in block letters", 14)
    for row, field in enumerate(FIELDS):
        top = 130 + row * 85
        draw.rectangle((30, top, 590, top + 65), outline="black", width=2)
        text(draw, (38, top + 4), field, 13)
        entry = words(generator, 3) if row % 3 else str(generator.randrange(10**8))
        text(draw, (210, top + 22), entry, 20, "navy")
    return page


def chat(generator: random.Random, photo: Image.Image | None = None) -> Image.Image:
    """Draw a screenshot of a conversation, with `photo` in it if there is one."""
    screen = Image.new("RGB", (540, 1100), (236, 229, 221))
    draw = ImageDraw.Draw(screen)
    draw.rectangle((0, 0, 540, 90), fill=(7, 94, 84))
    text(draw, (80, 30), "Family group", 26, "white")
    top = 115
    if photo is not None:
        shown = photo.resize((400, max(1, 400 * photo.height // photo.width)), EDIT_FILTER)
        screen.paste(shown.crop((0, 0, 400, min(520, shown.height))), (20, top))
        top += min(520, shown.height) + 20
    while top < 980:
        height, left = 60 + 30 * generator.randrange(3), generator.choice((20, 150))
        draw.rounded_rectangle((left, top, left + 360, top + height), 10, fill="white")
        for line in range(height // 30):
            text(draw, (left + 12, top + 6 + line * 28), words(generator, 4), 18)
        top += height + 15
    return screen


def sudoku(generator: random.Random) -> Image.Image:
    page = Image.new("RGB", (540, 540), "white")
    draw = ImageDraw.Draw(page)
    for line in range(10):
        width = 2 if line % 3 else 5
        draw.line((0, line * 60, 540, line * 60), "black", width)
        draw.line((line * 60, 0, line * 60, 540), "black", width)
    for field in range(81):
        if generator.random() < 0.4:
            text(draw, (field % 9 * 60 + 20, field // 9 * 60 + 12), str(generator.randrange(1, 10)), 34)
    return page


def ticket(generator: random.Random) -> Image.Image:
    page = Image.new("RGB", (700, 300), (250, 240, 200))
    draw = ImageDraw.Draw(page)
    draw.rectangle((0, 0, 700, 60), fill=(180, 30, 40))
    text(draw, (20, 14), "CITY RAILWAY   SINGLE TICKET", 28, "white")
    text(draw, (20, 90), f"No. {generator.randrange(10**9):09}", 36)
    text(draw, (20, 150), f"Coach {generator.randrange(1, 30)}   Seat {generator.randrange(1, 99)}", 30)
    text(draw, (20, 210), f"{generator.randrange(1, 29)} June   {generator.randrange(24):02}:15", 30)
    for bar in range(60):
        if generator.random() < 0.5:
            draw.rectangle((470 + bar * 3, 80, 472 + bar * 3, 270), fill="black")
    return page


def plot(generator: random.Random) -> Image.Image:
    page = Image.new("RGB", (700, 500), "white")
    draw = ImageDraw.Draw(page)
    text(draw, (220, 10), "Training run, validation accuracy", 20)
    draw.rectangle((60, 45, 680, 450), outline="black", width=2)
    for tick in range(11):
        text(draw, (55 + 62 * tick, 458), str(tick * 10), 14)
        draw.line((60, 450 - 40 * tick, 680, 450 - 40 * tick), (225, 225, 225))
    noise = np.random.default_rng(generator.getrandbits(32)).normal(0, 4, 120)
    rise, top = generator.uniform(5, 40), generator.uniform(150, 380)
    heights = 450 - top * (1 - np.exp(-np.arange(120) / rise)) + noise
    draw.line([(60 + 5.2 * x, float(y)) for x, y in enumerate(heights)], (30, 90, 200), 3)
    return page


def logo(generator: random.Random) -> Image.Image:
    """Draw a white logo on transparency: only its alpha shows anything."""
    page = Image.new("RGBA", (300, 300), (255, 255, 255, 0))
    draw = ImageDraw.Draw(page)
    for _ in range(6):
        left, top = generator.randrange(220), generator.randrange(220)
        draw.ellipse((left, top, left + 40 + generator.randrange(60), top + 60), (255, 255, 255, 255))
    return page


TEMPLATES: dict[str, Callable[[random.Random], Image.Image]] = {
    "form": form,
    "chat": chat,
    "sudoku": sudoku,
    "ticket": ticket,
    "plot": plot,
    "logo": logo,
}


def burst(
    scene: Image.Image, subject: Image.Image, frames: int, generator: random.Random, *, tripod: bool
) -> list[Image.Image]:
    """Return frames of a scene through which a subject moves, with sensor noise and, without a tripod, shake."""
    width, height = scene.size
    small = subject.resize((width // 5, height // 5), EDIT_FILTER)
    noise = np.random.default_rng(generator.getrandbits(64))
    shots = []
    for number in range(frames):
        shot = scene.copy()
        shot.paste(small, (round(width * (0.08 + 0.6 * number / frames)), round(height * (0.4 + 0.03 * number))))
        if not tripod:
            shot = shaken(shot, generator)
        margin = min(width, height) // 40
        shot = shot.crop((margin, margin, width - margin, height - margin))
        pixels = np.asarray(shot) + noise.normal(0, 4, (shot.height, shot.width, 1))
        shots.append(Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)))
    return shots


def shaken(image: Image.Image, generator: random.Random) -> Image.Image:
    """Move the corners of an image by up to 1 % of its width, as a hand that holds a camera does."""
    width, height = image.size
    corners = [(0, 0), (0, height), (width, height), (width, 0)]
    reach = width / 100
    moved = [coordinate + generator.uniform(-reach, reach) for corner in corners for coordinate in corner]
    return image.transform(image.size, Image.Transform.QUAD, moved, Image.Resampling.BICUBIC)


def collage(photos: Sequence[Image.Image], generator: random.Random) -> Image.Image:
    """Return a 2 x 2 collage of four photos, each at half to full size."""
    first, *others = photos
    share = generator.choice((1.0, 1.4, 2.0))
    size = round(first.width * share), round(first.height * share)
    return in_collage(first.resize(size, EDIT_FILTER), others, generator)


def raw_file(photo: Image.Image, camera: str, taken: str, sub_seconds: str, generator: random.Random) -> bytes:
    """Return a RAW file as cameras write it: a TIFF of a tiny first image, the sensor's data and a JPEG preview.

    The layout is that of TIFF/EP (ISO 12234-2): directories of the sensor's data and of the preview are SubIFDs.
    `camera` is maker and model.
    """
    tiff = _Tiff()
    preview = io.BytesIO()
    photo.save(preview, "JPEG", quality=92)
    side = round(SAMPLES**0.5)
    tiny = photo.resize(PREVIEW, EDIT_FILTER).tobytes()
    raw = tiff.image((side, side), CFA, 1, 16, generator.randbytes(2 * side * side), is_reduced=False)
    large = tiff.image(photo.size, YCBCR, 7, 8, preview.getvalue(), is_reduced=True)
    times = tiff.directory([(0x9003, ASCII, taken), (0x9291, ASCII, sub_seconds)])
    make, model = camera.split(" ", 1)
    facts: list[Entry] = [(271, ASCII, make), (272, ASCII, model), (330, LONG, (raw, large)), (34665, LONG, times)]
    return tiff.finished(tiff.image(PREVIEW, RGB, 1, 8, tiny, is_reduced=True, more=facts))


class _Tiff:
    """Writes a TIFF file of any directories, each after what it refers to."""

    def __init__(self) -> None:
        self._file = io.BytesIO()
        self._put(bytes(8))

    def image(
        self,
        size: tuple[int, int],
        photometric: int,
        compression: int,
        bits: int,
        data: bytes,
        *,
        is_reduced: bool,
        more: Sequence[Entry] = (),
    ) -> int:
        """Write the data and the directory of an image, and return where its directory is."""
        samples = 1 if photometric == CFA else 3
        return self.directory(
            [
                *((254, LONG, int(is_reduced)), (256, LONG, size[0]), (257, LONG, size[1])),
                *((258, SHORT, (bits,) * samples), (259, SHORT, compression), (262, SHORT, photometric)),
                *(
                    (273, LONG, self._put(data)),
                    (277, SHORT, samples),
                    (278, LONG, size[1]),
                    (279, LONG, len(data)),
                ),
                *more,
            ]
        )

    def directory(self, entries: Sequence[Entry]) -> int:
        """Write a directory, and return where it is."""
        packed = [(tag, kind, *self._value(kind, value)) for tag, kind, value in sorted(entries)]
        return self._put(struct.pack("<H", len(packed)) + b"".join(ENTRY.pack(*each) for each in packed) + bytes(4))

    def finished(self, first: int) -> bytes:
        """Return the file whose first directory is there."""
        return b"II*\0" + struct.pack("<I", first) + self._file.getvalue()[8:]

    def _value(self, kind: int, value: int | str | tuple[int, ...]) -> tuple[int, bytes]:
        """Return the number of values of an entry, and the values or where they are."""
        if isinstance(value, str):
            count, content = len(value) + 1, value.encode() + b"\0"
        else:
            values = value if isinstance(value, tuple) else (value,)
            count, content = len(values), struct.pack(f"<{len(values)}{'H' if kind == SHORT else 'I'}", *values)
        return count, content if len(content) <= 4 else struct.pack("<I", self._put(content))

    def _put(self, content: bytes) -> int:
        at = self._file.tell()
        self._file.write(content + bytes(len(content) % 2))
        return at
