"""Take the pictures of the server's page that docs/serve.md shows, and print how quickly it appears and answers.

make picture        (needs Chromium: apt-get install chromium)
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from make_photos import make_photos
from make_picture import BROWSERS, IMAGES, compressed
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

WINDOW = (1280, 800)  # pixels
QUERY = "photos/originals/chelsea.jpg"
MOST_BYTES = 80_000  # of one picture
TIMES = 7  # that each time is measured; the first is left out
FOUND = "#view-search:not([aria-busy]) #results li"
PAINTED = "performance.getEntriesByName('first-contentful-paint')[0].startTime"


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Index the sample photos below a folder and serve them; the link is the value."""
    environment = {**os.environ, "PYTHONPATH": str(IMAGES.parent.parent), "TZ": "UTC"}
    command = (sys.executable, "-m", "vggsearch")
    make_photos(folder / "photos")
    subprocess.run([*command, "index", "photos", "--index", "index"], cwd=folder, env=environment, check=True)
    serve = [*command, "serve", "--index", "index", "--port", "0"]
    with subprocess.Popen(serve, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None  # noqa: S101 - see Popen
        yield server.stdout.readline().split()[-1]
        server.terminate()


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the browser of the system."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        sys.exit("make_server_pictures: needs Chromium; apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


def seconds_to_paint(page: Page) -> float:
    """Return how long it takes until the page shows something, loaded again."""
    page.reload()
    page.wait_for_selector("#starters li .loaded")
    milliseconds: float = page.evaluate(PAINTED)
    return milliseconds / 1000


def seconds_to_answer(page: Page, photo: Path) -> float:
    """Return how long it takes from choosing a picture until photos are there."""
    page.evaluate("""() => {
      const list = document.querySelector("#results ul");
      list.replaceChildren();
      const input = document.getElementById("choose");
      input.addEventListener("change", () => { window.chosen = performance.now(); }, { capture: true, once: true });
      window.answered = new Promise((resolve) => {
        new MutationObserver(() => resolve(performance.now() - window.chosen)).observe(list, { childList: true });
      });
    }""")
    page.set_input_files("#choose", photo)
    milliseconds: float = page.evaluate("window.answered")
    page.wait_for_selector(FOUND)
    page.wait_for_timeout(200)
    return milliseconds / 1000


def print_figures(page: Page, photo: Path) -> None:
    """Print the median of each time, and the longest."""
    painted = [seconds_to_paint(page) for _ in range(TIMES)][1:]
    answered = [seconds_to_answer(page, photo) for _ in range(TIMES)][1:]
    for name, times in (("first paint", painted), ("search answered", answered)):
        print(f"{name}: {statistics.median(times):.3f} s, at most {max(times):.3f} s")


def take(page: Page, name: str) -> None:
    """Write what the window shows as a picture."""
    page.wait_for_timeout(1500)
    with Image.open(BytesIO(page.screenshot())) as shot:
        data = compressed(shot.convert("RGB"), MOST_BYTES)
    (IMAGES / f"{name}.webp").write_bytes(data)
    print(f"{name}: {len(data):,} bytes")


def take_all(page: Page, photo: Path) -> None:
    """Write the three pictures: a search, a comparison, the duplicates."""
    page.set_input_files("#choose", photo)
    page.wait_for_selector(FOUND)
    take(page, "serve-search")
    page.locator("#results .tile", has=page.get_by_alt_text("chelsea_crop.jpg")).click()
    page.wait_for_selector("#why-lines line", state="attached")
    take(page, "serve-why")
    page.keyboard.press("Escape")
    page.keyboard.press("3")
    page.wait_for_selector("article figure", timeout=300_000)
    page.fill("#text", "astronaut")
    take(page, "serve-duplicates")


def main() -> None:
    """Measure, then write the pictures."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        photo = Path(name) / QUERY
        with served(Path(name)) as link, chromium() as browser:
            page = browser.new_page(viewport={"width": WINDOW[0], "height": WINDOW[1]})
            page.goto(link)
            page.wait_for_selector("#starters li")
            print_figures(page, photo)
            take_all(page, photo)


if __name__ == "__main__":
    main()
