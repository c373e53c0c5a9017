"""Write a sample folder of real photos, and edited copies of each, to try vggsearch on.

The photos come out of the installed scikit-image and scikit-learn packages; nothing is downloaded.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from PIL import Image, ImageOps

INSTALL_HINT = "pip install --no-deps scikit-image scikit-learn"
MIN_PHOTOS = 4
CC0 = "CC0 1.0 (https://creativecommons.org/publicdomain/zero/1.0/)"
CC_BY = "CC BY 2.0 (https://creativecommons.org/licenses/by/2.0/)"
PUBLIC_DOMAIN = "public domain"
SKIMAGE_DOCS = "https://scikit-image.org/docs/stable/api/skimage.data.html"

# Package name on PyPI -> (import name, folder of its pictures).
PICTURE_FOLDERS = {
    "scikit-image": ("skimage", "data"),
    "scikit-learn": ("sklearn", "datasets/images"),
}


class PhotosError(Exception):
    """The sample folder cannot be written; the message says why."""


@dataclass(frozen=True, slots=True)
class Photo:
    """One picture shipped in a package, and who is to be credited for it."""

    name: str
    package: str
    file: str
    title: str
    author: str
    licence: str
    source: str


# Left out although they ship: moon and motorcycle (no licence stated), coins and ihc (only "no known
# copyright restrictions"), medical pictures, text pages, drawings and test patterns.
# SpaceX released its photos under CC0 in March 2015, which cannot be taken back; its Flickr page was
# later seen with another licence (scikit-image issue 5095).
# The scikit-learn note names the author of china.jpg for flower.jpg too, but links to vultilion.
PHOTOS: tuple[Photo, ...] = (
    Photo(
        name="astronaut",
        package="scikit-image",
        file="astronaut.png",
        title="Astronaut Eileen Collins",
        author="NASA",
        licence=PUBLIC_DOMAIN,
        source="https://flic.kr/p/r9qvLn",
    ),
    Photo(
        name="brick",
        package="scikit-image",
        file="brick.png",
        title="Bricks 25",
        author="CC0Textures",
        licence=CC0,
        source="https://cc0textures.com/view.php?tex=Bricks25",
    ),
    Photo(
        name="camera",
        package="scikit-image",
        file="camera.png",
        title="Man with a camera",
        author="Lav Varshney",
        licence=CC0,
        source="https://github.com/scikit-image/scikit-image/issues/3927",
    ),
    Photo(
        name="chelsea",
        package="scikit-image",
        file="chelsea.png",
        title="Chelsea the cat",
        author="Stefan van der Walt",
        licence=CC0,
        source=f"{SKIMAGE_DOCS}#skimage.data.chelsea",
    ),
    Photo(
        name="china",
        package="scikit-learn",
        file="china.jpg",
        title="Pavilion above a lake in China",
        author="danielbuechele",
        licence=CC_BY,
        source="https://www.flickr.com/photos/danielbuechele/6061409035/",
    ),
    Photo(
        name="clock",
        package="scikit-image",
        file="clock_motion.png",
        title="Wall clock, blurred by camera motion",
        author="Stefan van der Walt",
        licence=PUBLIC_DOMAIN,
        source=f"{SKIMAGE_DOCS}#skimage.data.clock",
    ),
    Photo(
        name="coffee",
        package="scikit-image",
        file="coffee.png",
        title="Coffee cup (courtesy of Pikolo Espresso Bar)",
        author="Rachel Michetti",
        licence=CC0,
        source=f"{SKIMAGE_DOCS}#skimage.data.coffee",
    ),
    Photo(
        name="flower",
        package="scikit-learn",
        file="flower.jpg",
        title="Orange dahlia",
        author="vultilion",
        licence=CC_BY,
        source="https://www.flickr.com/photos/vultilion/6056698931/",
    ),
    Photo(
        name="grass",
        package="scikit-image",
        file="grass.png",
        title="Grass 01",
        author="linolafett",
        licence=CC0,
        source="https://www.deviantart.com/linolafett/art/Grass-01-434853879",
    ),
    Photo(
        name="gravel",
        package="scikit-image",
        file="gravel.png",
        title="Gravel 04",
        author="CC0Textures",
        licence=CC0,
        source="https://cc0textures.com/view.php?tex=Gravel04",
    ),
    Photo(
        name="hubble",
        package="scikit-image",
        file="hubble_deep_field.jpg",
        title="Hubble eXtreme Deep Field",
        author="NASA, ESA, G. Illingworth, D. Magee, P. Oesch (UCSC), R. Bouwens (Leiden), HUDF09 Team",
        licence=PUBLIC_DOMAIN,
        source="http://hubblesite.org/newscenter/archive/releases/2012/37/image/a/",
    ),
    Photo(
        name="rocket",
        package="scikit-image",
        file="rocket.jpg",
        title="DSCOVR on Falcon 9",
        author="SpaceX",
        licence="public domain (CC0, as released by SpaceX in March 2015)",
        source="https://www.flickr.com/photos/spacexphotos/16511594820/",
    ),
)


def half(image: Image.Image) -> Image.Image:
    """Return the picture at half its width and height."""
    return image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS)


def crop(image: Image.Image) -> Image.Image:
    """Return 60 % of the width and height, a little off the centre as a hand-made crop would be."""
    left, top = round(image.width * 0.17), round(image.height * 0.22)
    return image.crop((left, top, left + round(image.width * 0.6), top + round(image.height * 0.6)))


def unchanged(image: Image.Image) -> Image.Image:
    """Return the picture as it is: the JPEG quality alone makes the edit."""
    return image


# Edit name -> (the edit, JPEG quality of the copy).
EDITS: dict[str, tuple[Callable[[Image.Image], Image.Image], int]] = {
    "half": (half, 90),
    "jpeg30": (unchanged, 30),
    "crop": (crop, 90),
    "mirror": (ImageOps.mirror, 90),
}


def credits_table() -> str:
    """Return the credits of all photos as a Markdown table."""
    head = ["| Photo | Title | Author | Licence | Source | Taken from |", "|---|---|---|---|---|---|"]
    rows = [
        f"| {p.name} | {p.title} | {p.author} | {p.licence} | {p.source} | {p.package}, {p.file} |" for p in PHOTOS
    ]
    return "\n".join(head + rows)


def picture_folder(package: str) -> Path:
    """Return the folder where an installed package keeps its pictures."""
    module, folder = PICTURE_FOLDERS[package]
    # Only the top-level name is looked up: finding a submodule would import its heavy parents.
    spec = find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise PhotosError(f"{package} is not installed; run: {INSTALL_HINT}")
    return Path(spec.submodule_search_locations[0], folder)


def shipped_photos() -> list[tuple[Photo, Path]]:
    """Return the photos whose files are in the installed packages; name the others on stderr."""
    folders = {package: picture_folder(package) for package in PICTURE_FOLDERS}
    found: list[tuple[Photo, Path]] = []
    for photo in PHOTOS:
        path = folders[photo.package] / photo.file
        if path.is_file():
            found.append((photo, path))
        else:
            print(f"skipped {photo.name}: this {photo.package} has no {photo.file}", file=sys.stderr)
    if len(found) < MIN_PHOTOS:
        raise PhotosError(f"only {len(found)} photos found in the installed packages, need {MIN_PHOTOS}")
    return found


def save_jpeg(image: Image.Image, path: Path, quality: int, note: str) -> None:
    """Write a JPEG that carries its colour profile and, as CC BY asks, its credit."""
    profile = image.info.get("icc_profile")
    image.save(path, "JPEG", quality=quality, icc_profile=profile, comment=note.encode())


def write_photo(photo: Photo, source: Path, folder: Path) -> Path:
    """Write one original and its edited copies; return the path of the original."""
    with Image.open(source) as opened:
        image = opened.convert("RGB")
    note = f"{photo.title} by {photo.author}. {photo.licence}. {photo.source}"
    original = folder / "originals" / f"{photo.name}.jpg"
    save_jpeg(image, original, 95, note)
    for edit_name, (edit, quality) in EDITS.items():
        copy = folder / "edited" / f"{photo.name}_{edit_name}.jpg"
        save_jpeg(edit(image), copy, quality, f"{note} Edited: {edit_name}.")
    return original


def make_photos(folder: Path) -> list[Path]:
    """Write the photos and their edited copies below a folder; return the paths of the originals.

    Files of the same names are overwritten, all others are left alone.
    """
    photos = shipped_photos()
    for name in ("originals", "edited"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return [write_photo(photo, source, folder) for photo, source in photos]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Write a sample folder of real photos and edited copies.")
    parser.add_argument("folder", nargs="?", type=Path, metavar="FOLDER", help="where to write")
    parser.add_argument("--credits", action="store_true", help="print who made the photos, and stop")
    args = parser.parse_args(argv)
    if args.credits:
        print(credits_table())
        return
    if args.folder is None:
        parser.error("name a FOLDER to write to, or use --credits")
    try:
        originals = make_photos(args.folder)
    except (PhotosError, OSError) as error:
        sys.exit(f"make_photos: {error}")
    print(f"{len(originals)} photos and {len(originals) * len(EDITS)} edited copies in {args.folder}")


if __name__ == "__main__":
    main()
