"""The files of a library whose duplicates are known: photos, copies of them, and what only looks like copies."""

import io
import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar

from library_pictures import TEMPLATES, burst, chat, collage, raw_file
from PIL import ExifTags, Image, ImageOps

from vggsearch.photos.edits import COLLAGE, COLLAGE_OTHERS, EDIT_FILTER, EDITS, edited, scaled, screenshot

ORIGINAL, EXACT = "original", "exact"
SPECIAL = 0.4  # of the files that are no copies: what only looks like copies
CAMERAS = {  # maker and model: how it names its files
    "Canon EOS 80D": "IMG_{number:04}.JPG",
    "NIKON D7500": "DSC_{number:04}.JPG",
    "SONY ILCE-6300": "DSC0{number:04}.JPG",
    "Google Pixel 7": "PXL_{taken:%Y%m%d_%H%M%S}{number:03}.jpg",
    "Apple iPhone 12": "IMG_{number:04}.HEIC",
    "": "scan{number:04}.jpg",  # a scanner, which writes no EXIF
}
EVENTS = ("Lisbon", "Christmas", "Garden", "Hiking", "Birthday", "")
RAW_SUFFIXES = (".NEF", ".dng", ".ARW", ".pef", ".tif")
PLACES = ("Edited/{stem}", "Downloads/{number:08x}", "Albums/Best of {taken:%Y}/{stem}", "{folder}/{stem}-edited")
BURST_NAMES = ("DSC{number:05}.JPG", "{taken:%Y%m%d_%H%M%S}.jpg", "{random:016x}.jpg")
WHOLE = ("half", "jpeg30", "bright", "png", "messenger", EXACT)  # copies that leave what is written readable

Item = TypeVar("Item")
Encode = Callable[["Library", "Shot"], tuple[str, bytes]]  # suffix and content of the copy of a shot


@dataclass(frozen=True)
class Entry:
    """A file of a library. Files of one `exposure` are copies of one another.

    `kind` is ORIGINAL, how the copy was made, or what only looks like a copy. `is_copy` marks what may be removed:
    nothing else is.
    """

    path: str
    exposure: str
    kind: str
    is_copy: bool


@dataclass(frozen=True)
class Shot:
    """A file of which copies can be made, by the names `edits`; `hundredths` are those of the second `taken`."""

    path: Path
    exposure: str
    taken: datetime
    camera: str
    edits: Sequence[str]
    hundredths: int


class Library:
    """Writes the files of a library. `sources` are unrelated photos, `views` the files that show each object."""

    def __init__(self, folder: Path, sources: Iterator[Image.Image], views: list[list[Path]], seed: int) -> None:
        self.folder, self.views = folder, views
        self.entries, self.shots = list[Entry](), list[Shot]()
        self.sources = sources
        self.generator = random.Random(seed)  # noqa: S311 - must be repeatable, not secure
        self._number, self._now = self.generator.randrange(100, 2000), datetime(2015, 1, 1, 9)
        self._specials = _endless([each for each in SPECIALS if views or each is not add_views], self.generator)
        self._copies = _endless(list(COPIES), self.generator)
        self.templates = _endless(list(TEMPLATES), self.generator)

    def fill(self, number: int, copies: float) -> None:
        """Write about `number` files, of which the share `copies` are copies."""
        others = number - round(number * copies)
        self.add_photo()
        while len(self.entries) < SPECIAL * others:
            next(self._specials)(self)
        while len(self.entries) < others:
            self.add_photo()
        while len(self.entries) < number:
            self.add_copy()

    def add_photo(self) -> Shot:
        """Add a photo as a camera or a scanner writes it, in the folder of its event."""
        generator = self.generator
        image = scaled(next(self.sources), generator.choice((1, 2)))
        camera, taken = generator.choice(list(CAMERAS)), self.later(generator.randrange(60, 400_000))
        name = CAMERAS[camera].format(number=self.number(), taken=taken)
        hundredths = generator.randrange(100)
        content = encoded(image, Path(name).suffix, 93, exif_of(camera, taken, hundredths))
        event = generator.choice(EVENTS)
        folder = f"{taken:%Y}/{taken:%Y-%m} {event}" if event else f"DCIM/{taken:%Y}/100MEDIA"
        path, exposure = f"{folder}/{name}", self.exposure("photo")
        shot = self.add(path, exposure, ORIGINAL, content, taken, camera=camera, hundredths=hundredths)
        if generator.random() < 0.1:
            shot.path.with_name(f"{name}.xmp").write_text("<x:xmpmeta/>")
        self.shots.append(shot)
        return shot

    def add_copy(self) -> None:
        """Add a copy of a random shot, where people and programs put such copies."""
        shot = self.generator.choice(self.shots)
        name = next(each for each in self._copies if each in (shot.edits or COPIES))
        suffix, content = COPIES[name](self, shot)
        if name != EXACT and suffix == ".jpg" and self.generator.random() < 1 / 3:  # some editors keep the EXIF
            content = with_exif(content, exif_of(shot.camera, shot.taken, shot.hundredths))
        number, folder = self.number(), shot.path.parent.relative_to(self.folder).as_posix()
        place = self.generator.choice(PLACES)
        if name in ("messenger", "forwarded"):
            place = "WhatsApp/Media/Sent/IMG-{taken:%Y%m%d}-WA{number:04}"
        elif "screenshot" in name:
            place = "Pictures/Screenshots/Screenshot_{taken:%Y%m%d}-{number}"
        path = place.format(stem=shot.path.stem, number=number, taken=shot.taken, folder=folder)
        self.add(path + suffix, shot.exposure, name, content, self.later(1), is_copy=True)

    def add(
        self,
        path: str,
        exposure: str,
        kind: str,
        content: bytes,
        modified: datetime,
        *,
        is_copy: bool = False,
        camera: str = "",
        edits: Sequence[str] = (),
        hundredths: int = 0,
    ) -> Shot:
        """Write a file, under another name if there is one already."""
        wanted = file = self.folder / path
        while file.exists():
            file = wanted.with_stem(f"{wanted.stem} ({self.number()})")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        os.utime(file, (modified.timestamp(), modified.timestamp()))
        self.entries.append(Entry(file.relative_to(self.folder).as_posix(), exposure, kind, is_copy))
        return Shot(file, exposure, modified, camera, edits, hundredths)

    def exposure(self, kind: str) -> str:
        """Return a new name of an exposure."""
        return f"{kind} {len(self.entries)}"

    def number(self) -> int:
        """Return the next number that a camera gives to a file."""
        self._number += 1
        return self._number

    def later(self, seconds: float) -> datetime:
        """Return a time that is `seconds` after the last one."""
        self._now += timedelta(seconds=seconds)
        return self._now


def add_burst(library: Library) -> None:
    """Add shots in quick succession: by hand or from a tripod, in a second or seconds apart, some without EXIF."""
    generator = library.generator
    scene, subject, is_fast = next(library.sources), next(library.sources), generator.random() < 0.5
    shots = burst(scene, subject, generator.randrange(3, 7), generator, tripod=generator.random() < 0.5)
    name, start = generator.choice(BURST_NAMES), library.later(5000)
    has_exif = not name.startswith("{taken") and (is_fast or generator.random() < 0.7)
    is_fast &= has_exif
    for index, image in enumerate(shots):
        taken = start if is_fast else library.later(generator.choice((1, 2, 30)))
        file = name.format(number=library.number(), taken=taken, random=generator.getrandbits(64))
        exif = exif_of("SONY ILCE-6300", taken, index * 10) if has_exif else b""
        content = encoded(image, ".jpg", 92, exif)
        library.add(f"{taken:%Y}/{taken:%m-%d} burst/{file}", library.exposure("burst"), "burst", content, taken)


def add_views(library: Library) -> None:
    """Add photos of one object, each taken from another place."""
    has_times = library.generator.random() < 0.5
    for file in library.views.pop(library.generator.randrange(len(library.views)))[
        : library.generator.randrange(2, 5)
    ]:
        taken = library.later(library.generator.randrange(2, 20))
        with Image.open(file) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGB")
        content = encoded(image, ".jpg", 90, exif_of("Canon EOS 80D", taken, 0) if has_times else b"")
        name = f"Things/IMG_{library.number():04}.jpg"
        library.add(name, library.exposure("view"), "second view", content, taken)


def add_template(library: Library) -> None:
    """Add several pages that differ only in what is filled in. Copies can be made of the first."""
    name = next(library.templates)
    for index in range(library.generator.randrange(3, 6)):
        content = encoded(TEMPLATES[name](library.generator), ".png")
        path = f"Documents/{name}s/{name}_{library.number()}.png"
        shot = library.add(
            path, library.exposure(name), f"{name} page", content, library.later(60), camera="", edits=WHOLE
        )
        if index == 0 and name != "logo":
            library.shots.append(shot)


def add_raw(library: Library) -> None:
    """Add the RAW file of a photo: beside it, in another folder, or under another name."""
    shot, generator = library.add_photo(), library.generator
    with Image.open(shot.path) as opened:
        image = opened.convert("RGB")
    taken, hundredths = f"{shot.taken:%Y:%m:%d %H:%M:%S}", f"{shot.hundredths:02}"
    content = raw_file(image, shot.camera or "Leica Q2", taken, hundredths, generator)
    place = generator.choice(("{parent}/{stem}", "RAW/{stem}", "RAW/capture{number}"))
    parent = shot.path.parent.relative_to(library.folder).as_posix()
    path = place.format(parent=parent, stem=shot.path.stem, number=library.number())
    suffix = generator.choice(RAW_SUFFIXES)
    library.add(path + suffix, shot.exposure, "RAW", content, shot.taken)


def add_animations(library: Library) -> None:
    """Add two animations and a still, or two documents of several pages, that begin with the same picture."""
    generator, taken = library.generator, library.later(100)
    frames = [next(library.sources).resize((320, 240), EDIT_FILTER) for _ in range(3)]
    suffix, count = generator.choice(((".gif", "frames"), (".webp", "frames"), (".tif", "pages")))
    for number in (1, 2):
        content = encoded(frames[0], suffix, more=[frames[number], ImageOps.mirror(frames[number])])
        name = f"Stuff/{library.number()}{suffix}"
        library.add(name, library.exposure("animation"), f"{suffix} of several {count}", content, taken)
    content = encoded(frames[0].quantize(256).convert("RGB") if suffix == ".gif" else frames[0], ".png")
    library.add(f"Stuff/{library.number()}.png", library.exposure("still"), "first frame", content, taken)


def add_collage(library: Library) -> None:
    """Add a collage of photos of the library, or a conversation that shows one of them."""
    photos = [library.add_photo() for _ in range(COLLAGE_OTHERS + 1)]
    pictures = [picture(shot.path) for shot in photos]
    kind = library.generator.choice(("collage", "conversation"))
    made = collage(pictures, library.generator) if kind == "collage" else chat(library.generator, pictures[0])
    content, name = encoded(made, ".jpg", 90), f"Pictures/{kind}_{library.number()}.jpg"
    library.add(name, library.exposure(kind), kind, content, library.later(100))


def add_hard_link(library: Library) -> None:
    """Add another name of a photo, which takes no space."""
    shot = library.add_photo()
    path = library.folder / "Linked" / f"{library.number()}{shot.path.suffix}"
    path.parent.mkdir(exist_ok=True)
    path.hardlink_to(shot.path)
    library.entries.append(
        Entry(path.relative_to(library.folder).as_posix(), shot.exposure, "hard link", is_copy=False)
    )


SPECIALS = (add_burst, add_views, add_template, add_raw, add_animations, add_collage, add_hard_link)


def picture(path: Path) -> Image.Image:
    with Image.open(path) as opened:
        return opened.convert("RGB")


def by_edit(library: Library, shot: Shot, name: str) -> tuple[str, bytes]:
    return ".jpg", edited(picture(shot.path), EDITS[name], f"{library.generator.random()}")


def messenger(image: Image.Image) -> bytes:
    return encoded(scaled(image, 0.64), ".jpg", 75)


def forwarded(library: Library, shot: Shot) -> tuple[str, bytes]:
    """Return an edited copy as a messenger passes it on."""
    _, content = by_edit(library, shot, library.generator.choice(("text", "screenshot", "crop20", "contrast")))
    return ".jpg", messenger(Image.open(io.BytesIO(content)))


COPIES: dict[str, Encode] = {
    **{name: partial(by_edit, name=name) for name in EDITS if name != COLLAGE},
    EXACT: lambda _, shot: (shot.path.suffix, shot.path.read_bytes()),
    "messenger": lambda _, shot: (".jpg", messenger(picture(shot.path))),
    "forwarded": forwarded,
    "png": lambda _, shot: (".png", encoded(picture(shot.path), ".png")),
    "grey png": lambda _, shot: (".png", encoded(picture(shot.path).convert("L"), ".png")),
    "webp": lambda _, shot: (".webp", encoded(picture(shot.path), ".webp", 80)),
    "heic": lambda _, shot: (".heic", encoded(picture(shot.path), ".heic", 60)),
    "enlarged": lambda _, shot: (".jpg", encoded(scaled(picture(shot.path), 2), ".jpg", 60)),
    "large screenshot": lambda _, shot: (".png", encoded(screenshot(scaled(picture(shot.path), 1.4)), ".png")),
}


def encoded(
    image: Image.Image, suffix: str, quality: int = 90, exif: bytes = b"", more: Sequence[Image.Image] = ()
) -> bytes:
    """Return an image, or several in one file, in the format of a suffix."""
    file = io.BytesIO()
    formats = {".jpg": "JPEG", ".heic": "HEIF", ".tif": "TIFF"}
    format = formats.get(suffix.lower(), suffix[1:].upper())
    several = {"save_all": True, "append_images": list(more), "duration": 200} if more else {}
    image.save(file, format, quality=quality, **({"exif": exif} if exif else {}), **several)
    return file.getvalue()


def exif_of(camera: str, taken: datetime, hundredths: int) -> bytes:
    """Return the EXIF block that a camera writes, b"" for a scanner. `hundredths` are those of the second."""
    if not camera:
        return b""
    exif = Image.Exif()
    exif[ExifTags.Base.Make], _, exif[ExifTags.Base.Model] = camera.partition(" ")
    times = exif.get_ifd(ExifTags.IFD.Exif)
    times[ExifTags.Base.DateTimeOriginal] = f"{taken:%Y:%m:%d %H:%M:%S}"
    times[ExifTags.Base.SubsecTimeOriginal] = f"{hundredths:02}"
    return exif.tobytes()


def with_exif(jpeg: bytes, exif: bytes) -> bytes:
    """Return a JPEG file with an EXIF block, its pixels unchanged."""
    return jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:] if exif else jpeg


def _endless(items: list[Item], generator: random.Random) -> Iterator[Item]:
    """Yield the items in random order, each once before any comes again."""
    while True:
        yield from generator.sample(items, len(items))
