"""A headless Chromium, driven over its own debugging pipe (Chrome DevTools Protocol) without a package for it."""

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
OPTIONS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--disable-gpu",
    "--no-first-run",
    "--hide-scrollbars",
    "--disable-background-networking",
    "--disable-dev-shm-usage",
    "--force-color-profile=srgb",
)
KEY_CODES = {"Escape": 27, "ArrowLeft": 37, "ArrowRight": 39, "Tab": 9}
# The browser wants the pipes as its descriptors 3 and 4, which the tests may have open as something else.
LAUNCH = """
import fcntl, os, sys
ours = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3]]
os.dup2(ours[0], 3)
os.dup2(ours[1], 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


def chromium() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)


@dataclass
class Tab:
    """A page in the browser. `requests` are the addresses it asked for, `complaints` what its console says."""

    browser: "Browser"
    session: str
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    loads: int = 0

    def call(self, method: str, **given: object) -> dict[str, Any]:
        return self.browser.call(method, given, self.session)

    def open(self, path: Path) -> None:
        for area in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{area}.enable")
        self._load("Page.navigate", url=path.resolve().as_uri())

    def reload(self) -> None:
        self._load("Page.reload")

    def _load(self, method: str, **given: object) -> None:
        before = self.loads
        self.call(method, **given)
        while self.loads == before:
            self.browser.listen()
        self.settle()

    def evaluate(self, script: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_until(self, condition: str) -> None:
        """Look at every frame whether a condition holds; fail after ten seconds."""
        script = f"""(async () => {{
          const end = performance.now() + 10_000;
          while (!({condition}) && performance.now() < end) await new Promise(requestAnimationFrame);
          return Boolean({condition});
        }})()"""
        assert self.evaluate(script), condition

    def text(self, selector: str) -> str:
        return str(self.evaluate(f"document.querySelector({json.dumps(selector)}).innerText"))

    def count(self, selector: str) -> int:
        return int(self.evaluate(f"document.querySelectorAll({json.dumps(selector)}).length"))

    def settle(self) -> None:
        """Wait until what was asked for is drawn."""
        self.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 50)))")

    def press(self, *keys: str) -> None:
        for key in keys:
            told = {"text": key} if len(key) == 1 else {"windowsVirtualKeyCode": KEY_CODES[key]}
            self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **told)
            self.call("Input.dispatchKeyEvent", type="keyUp", key=key)
        self.settle()

    def click(self, selector: str) -> None:
        self.evaluate(f"document.querySelector({json.dumps(selector)}).click()")
        self.settle()

    def look(self, width: int = 1280, height: int = 900, scheme: str = "light") -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def hear(self, method: str, given: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.requests.append(given["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(given["exceptionDetails"]))
        elif method == "Page.loadEventFired":
            self.loads += 1
        elif method == "Log.entryAdded":
            self.complaints.append(f"{given['entry']['text']} {given['entry'].get('url', '')}")


class Browser:
    """A browser that is ended, and waited for, when the `with` block is left."""

    def __init__(self, program: str, profile: Path) -> None:
        asked, answered = os.pipe(), os.pipe()
        options = [*OPTIONS, f"--user-data-dir={profile}", *(["--no-sandbox"] if os.getuid() == 0 else [])]
        self._process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, str(asked[0]), str(answered[1]), program, *options],
            pass_fds=(asked[0], answered[1]),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(asked[0])
        os.close(answered[1])
        self._to: IO[bytes] = os.fdopen(asked[1], "wb", buffering=0)
        self._from: IO[bytes] = os.fdopen(answered[0], "rb")
        self._number, self._rest = 0, b""
        self._tabs: dict[str, Tab] = {}

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, _kind: type | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        self._to.close()
        self._from.close()
        self._process.terminate()
        self._process.wait(30)

    def call(self, method: str, given: dict[str, Any], session: str | None = None) -> dict[str, Any]:
        self._number += 1
        asked = {"id": self._number, "method": method, "params": given}
        self._to.write(json.dumps(asked | ({"sessionId": session} if session else {})).encode() + b"\0")
        while (told := self.listen()).get("id") != self._number:
            pass
        assert "error" not in told, told
        answer: dict[str, Any] = told["result"]
        return answer

    def listen(self) -> dict[str, Any]:
        """Wait for the next thing the browser says, and let its tab hear it."""
        told = self._read()
        if "method" in told and (tab := self._tabs.get(told.get("sessionId", ""))):
            tab.hear(told["method"], told["params"])
        return told

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            more = os.read(self._from.fileno(), 1 << 20)
            assert more, "the browser ended"
            self._rest += more
        told, self._rest = self._rest.split(b"\0", 1)
        answer: dict[str, Any] = json.loads(told)
        return answer

    @contextmanager
    def tab(self, path: Path, **look: Any) -> Iterator[Tab]:
        target = self.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        session = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        tab = self._tabs[session] = Tab(self, session)
        tab.look(**look)
        tab.open(path)
        yield tab
        self.call("Target.closeTarget", {"targetId": target})
