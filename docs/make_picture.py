"""Take the picture of the duplicates page that the README shows, and write down who made the photos in it.

make picture        (needs Chromium: apt-get install chromium)
"""

import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from make_photos import PHOTOS, make_photos
from PIL import Image

IMAGES = Path(__file__).parent / "images"
SHOWN = "astronaut"  # the sample photo of the first group, which the picture ends with
ALSO_SHOWN = ("chelsea", "coffee")  # in the pictures of make_server_pictures.py
WINDOW = (1600, 1000)  # pixels
BELOW_THE_HEAD = 300  # pixels
MARGIN = 10  # pixels of the gap between two groups
MOST_BYTES = 150_000
SAVED_AT = datetime(2026, 1, 1, 12, tzinfo=UTC).timestamp()  # of every photo, so that the picture stays the same
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--virtual-time-budget=5000",
)
CREDITS = """# Photo credits

`duplicates.webp` is the page that `vggsearch dups --html` writes for the sample photos of
[examples/make_photos.py](../../examples/make_photos.py); `make picture` takes it.
`serve-search.webp`, `serve-why.webp` and `serve-duplicates.webp` are the page of `vggsearch serve` for the same
photos.
They show these photos and edited copies of them:

| photo | author | licence | source |
| --- | --- | --- | --- |
{rows}

[NOTICE](../../NOTICE) credits all sample photos.
"""


def write_page(folder: Path) -> Path:
    """Index the sample photos below `folder`; return the page of their duplicates."""
    make_photos(folder / "photos")
    for photo in (folder / "photos").rglob("*.jpg"):
        os.utime(photo, (SAVED_AT, SAVED_AT))
    for words in (("index", "photos"), ("dups", "--html", "dups.html")):
        environment = {**os.environ, "PYTHONPATH": str(IMAGES.parent.parent), "TZ": "UTC"}
        subprocess.run([sys.executable, "-m", "vggsearch", *words], cwd=folder, env=environment, check=True)
    return folder / "dups.html"


def take_picture(page: Path, folder: Path) -> Image.Image:
    """Return what a browser shows of a page."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit("make_picture: needs Chromium; apt-get install chromium")
    shot = folder / "shot.png"
    size = ",".join(map(str, WINDOW))
    where = (f"--user-data-dir={folder / 'profile'}", f"--window-size={size}", f"--screenshot={shot}")
    command = [browser, *OPTIONS, *where, page.as_uri()]
    subprocess.run(command, env={**os.environ, "TZ": "UTC"}, check=True, capture_output=True, timeout=120)
    with Image.open(shot) as opened:
        picture = opened.convert("RGB")
    return picture.crop((0, 0, picture.width, end_of_first_group(picture) + MARGIN))


def end_of_first_group(picture: Image.Image) -> int:
    """Return the first row of pixels below the first group: the background alone."""
    background = picture.getpixel((0, picture.height - 1))
    rows = range(BELOW_THE_HEAD, picture.height)
    empty = (
        y for y in rows if picture.crop((0, y, picture.width, y + 1)).getcolors(1) == [(picture.width, background)]
    )
    return next(empty)


def compressed(picture: Image.Image, most_bytes: int = MOST_BYTES) -> bytes:
    """Return a picture as WebP, in the best quality that is small enough."""
    for quality in range(90, 30, -5):
        file = io.BytesIO()
        picture.save(file, "WEBP", quality=quality, method=6)
        if len(file.getvalue()) <= most_bytes:
            break
    return file.getvalue()


def credits_page() -> str:
    """Return the page that credits the photos in the pictures."""
    rows = [
        f"| {p.title} | {p.author} | {p.licence} | <{p.source}> |" for p in PHOTOS if p.name in (SHOWN, *ALSO_SHOWN)
    ]
    return CREDITS.format(rows="\n".join(rows))


def main() -> None:
    """Write both files."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        page = write_page(Path(name))
        if not re.search(rf"originals/{SHOWN}\.jpg", page.read_text(encoding="utf-8")):
            sys.exit(f"make_picture: {SHOWN} is in no group")
        data = compressed(take_picture(page, Path(name)))
    (IMAGES / "duplicates.webp").write_bytes(data)
    (IMAGES / "credits.md").write_text(credits_page(), encoding="utf-8")
    print(f"{len(data):,} bytes")


if __name__ == "__main__":
    main()
