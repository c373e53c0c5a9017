"""Pages in a headless Chromium, by Playwright. The browser is that of the system; Playwright downloads none."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
OPTIONS = ("--disable-gpu", "--disable-dev-shm-usage", "--force-color-profile=srgb")
SECONDS = 20  # that anything may take, on a busy machine
ACCESSIBILITY = """async () => (await axe.run()).violations.map(({ id, help, nodes }) =>
    [id, help, ...nodes.slice(0, 5).map((node) => `${node.html}: ${node.failureSummary}`)])"""
FADED = "Promise.allSettled(document.getAnimations().map(({ finished }) => finished))"


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the browser. Where there is none, the test is skipped; in CI it fails."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        no_browser = pytest.fail if os.environ.get("CI") else pytest.skip
        no_browser("needs Chromium: apt-get install chromium")
    sandbox = ("--no-sandbox",) if os.getuid() == 0 else ()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=[*OPTIONS, *sandbox])
        yield browser
        browser.close()


@dataclass
class Tab:
    """A page, the addresses it asked for, and what its console complains about."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)
        self.settle()

    def settle(self) -> None:
        """Wait until what was asked for is drawn."""
        self.page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 50)))")

    def wait_until(self, condition: str, seconds: float = SECONDS) -> None:
        """Look at every frame whether a condition holds; fail after `seconds`. A page may forbid eval otherwise."""
        script = f"""(async () => {{
          const end = performance.now() + {seconds * 1000};
          while (!({condition}) && performance.now() < end) await new Promise(requestAnimationFrame);
          return Boolean({condition});
        }})()"""
        assert self.page.evaluate(script), condition

    def count(self, selector: str) -> int:
        return self.page.locator(selector).count()

    def violations(self) -> list[Any]:
        """Return what axe-core finds once nothing fades any more: rule, meaning, and the elements concerned."""
        if not self.page.evaluate("'axe' in globalThis"):
            self.page.evaluate(axe_core())
        self.settle()  # a pointer at rest is over another element once the page has moved below it
        self.page.evaluate(FADED)
        found: list[Any] = self.page.evaluate(ACCESSIBILITY)
        return found


@contextmanager
def opened(browser: Browser, address: str, width: int = 1280, height: int = 900, **look: Any) -> Iterator[Tab]:
    """Open a page in a browser without a past. `look` are options of a context, such as `color_scheme`."""
    context = browser.new_context(viewport={"width": width, "height": height}, **look)
    context.set_default_timeout(SECONDS * 1000)
    tab = Tab(context.new_page())
    tab.page.on("request", lambda request: tab.requests.append(request.url))
    tab.page.on("pageerror", lambda error: tab.complaints.append(str(error)))
    tab.page.on("console", tab.hear)
    tab.page.goto(address)
    tab.settle()
    yield tab
    context.close()


def axe_core() -> str:
    """Return axe-core, the script, from the package that ships it."""
    return (files("axe_playwright_python") / "axe.min.js").read_text("utf-8")
