"""Measure how a grid of 100,000 photos scrolls on the page of vggsearch serve: CPU time of the page for each frame.

    vggsearch serve --index INDEX                 (prints a link)
    python benchmarks/serve_frames.py LINK        (needs Playwright, and Chromium)

The photos of the index stand for 100,000 of four shapes, in 500 folders. The CPU time of a frame does not depend on
what else the machine does: at 60 frames per second, it has 16.7 ms.
"""

import argparse
import json
import shutil
from random import Random

from playwright.sync_api import CDPSession, Page, sync_playwright

PHOTOS, FOLDERS, FRAMES = 100_000, 500, 240
STEPS = (60, 300, 5000)  # pixels per frame: quick reading, a flick, dragging the scroll bar
SHAPES = (3 / 2, 2 / 3, 4 / 3, 1)  # width by height
SCROLL = """async ([step, frames]) => {
  for (let frame = 0; frame < frames; frame += 1) {
    scrollBy(0, step);
    await new Promise(requestAnimationFrame);
  }
}"""


def many(ids: list[str]) -> str:
    """Return the answer of the server to a request for all photos, as if there were PHOTOS of them."""
    random = Random(0)  # noqa: S311 - the same shapes each time
    folders = [{"label": f"folder {place:03}", "start": place * PHOTOS // FOLDERS} for place in range(FOLDERS)]
    shapes = [random.choice(SHAPES) for _ in range(PHOTOS)]
    repeated = [ids[place % len(ids)] for place in range(PHOTOS)]
    return json.dumps({"total": PHOTOS, "ids": repeated, "aspect": shapes, "months": folders})


def task_seconds(session: CDPSession) -> float:
    """Return the CPU time of the page until now, in seconds."""
    metrics = session.send("Performance.getMetrics")["metrics"]
    return float(next(each["value"] for each in metrics if each["name"] == "TaskDuration"))


def measured(page: Page, link: str) -> dict[int, float]:
    """Return the milliseconds of CPU time per frame, for each of STEPS."""
    page.goto(link)
    page.wait_for_selector("#starters li .loaded")
    answer = many(page.evaluate("fetch('/api/browse').then((found) => found.json()).then(({ ids }) => ids)"))
    page.route("**/api/browse*", lambda route: route.fulfill(content_type="application/json", body=answer))
    page.evaluate("location.hash = '#browse?order=path'")
    page.wait_for_selector("#photos li .loaded")
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    found = {}
    for step in STEPS:
        page.evaluate("scrollTo(0, 200000)")
        page.wait_for_timeout(1000)
        before = task_seconds(session)
        page.evaluate(SCROLL, [step, FRAMES])
        found[step] = round(1000 * (task_seconds(session) - before) / FRAMES, 1)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure how the page of vggsearch serve scrolls.")
    parser.add_argument("link")
    given = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        times = measured(browser.new_page(viewport={"width": 1280, "height": 900}), given.link)
        print(json.dumps({"photos": PHOTOS, "ms_per_frame": times}))
