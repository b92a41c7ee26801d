"""A headless Chromium, driven over its DevTools pipe: no driver and no package beside the browser itself."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe",
)  # fmt: skip
PATIENCE_S = 120.0
TALL = 900

Message = dict[str, Any]

CONTRASTS = """
(() => {
  const light = (text) => {
    const parts = text.match(/[\\d.]+/g).map(Number);
    if (parts.length > 3 && parts[3] === 0) return null;
    const [r, g, b] = parts.slice(0, 3).map((part) => part / 255)
      .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (item) => light(getComputedStyle(item).backgroundColor) ?? behind(item.parentElement);
  const texts = [...document.querySelectorAll("main *")].filter((item) => !item.closest("svg")
    && [...item.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim()));
  return texts.map((item) => {
    const [low, high] = [light(getComputedStyle(item).color), behind(item)].sort((a, b) => a - b);
    return [(high + 0.05) / (low + 0.05), item.outerHTML.slice(0, 80)];
  });
})()
"""
"""The contrast of each piece of text with what lies behind it, as WCAG 2 computes it."""

NAMELESS = """
[...document.querySelectorAll("img, svg, audio")].filter((item) => {
  const name = item.alt || item.getAttribute("aria-label") || item.title;
  return !name && !item.closest("[role=img][aria-label]");
}).map((item) => item.outerHTML.slice(0, 80))
"""


def find() -> str | None:
    """Return the path of a Chromium, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """Commands and events over the pipe: JSON, each message ended by a zero byte."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, answers
        self._buffer = b""
        self._count = 0
        self.events: list[Message] = []

    def call(self, method: str, session: str | None = None, /, **params: Any) -> Message:
        """Send a command and return its result; what happens meanwhile is kept in ``events``."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": params} | ({"sessionId": session} if session else {})
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + PATIENCE_S
        while (answer := self._read(deadline)).get("id") != self._count:
            self.events.append(answer)
        assert "error" not in answer, (method, answer["error"])
        result: Message = answer["result"]
        return result

    def wait(self, method: str) -> None:
        """Wait until something has happened since the last `open`."""
        deadline = time.monotonic() + PATIENCE_S
        while not any(event.get("method") == method for event in self.events):
            self.events.append(self._read(deadline))

    def _read(self, deadline: float) -> Message:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._answers], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, "the browser does not answer"
            part = os.read(self._answers, 1 << 20)
            assert part, "the browser has ended"
            self._buffer += part
        text, _, self._buffer = self._buffer.partition(b"\0")
        message: Message = json.loads(text)
        return message

    @contextmanager
    def open(self, address: str, *, width: int = 1200, dark: bool = False) -> Iterator[Page]:
        """Load an address in a page of its own, in a window of this width."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable", session)
        self.call("Emulation.setDeviceMetricsOverride", session, width=width, height=TALL, deviceScaleFactor=1,
                  mobile=False)  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", session, features=[scheme])
        self.events.clear()
        self.call("Page.navigate", session, url=address)
        self.wait("Page.loadEventFired")
        try:
            yield Page(self, session)
        finally:
            self.call("Target.closeTarget", targetId=target)


class Page:
    """A loaded page."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser, self._session = browser, session

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression, as JSON."""
        found = self._browser.call("Runtime.evaluate", self._session, expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def complaints(self) -> list[str]:
        """Return what the console has of errors and warnings: of scripts, of the policy, of loading."""
        self.evaluate("0")  # whatever came before it is in the events now
        return [text for event in self._browser.events if (text := _complaint(event))]

    def requests(self) -> list[str]:
        """Return the addresses that the page asked for, itself included."""
        self.evaluate("0")
        sent = [event for event in self._browser.events if event.get("method") == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in sent]

    def overflow(self) -> int:
        """Return by how many pixels the page is wider than its window."""
        return int(self.evaluate("document.documentElement.scrollWidth - window.innerWidth"))

    def screenshot(self, path: Path) -> None:
        """Write the whole page as a PNG."""
        size = self._browser.call("Page.getLayoutMetrics", self._session)["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        found = self._browser.call("Page.captureScreenshot", self._session, clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))


def _complaint(event: Mapping[str, Any]) -> str | None:
    method, params = event.get("method"), event.get("params", {})
    if method == "Runtime.exceptionThrown":
        return str(params["exceptionDetails"])
    if method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
        return str(params["args"])
    if method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
        return str(params["entry"]["text"])
    return None


def column(page: Page, table: str, number: int) -> list[str]:
    """Return the texts of a column of a table, by its selector."""
    cells = f"[...document.querySelectorAll('{table} tbody tr')].map((row) => row.cells[{number}].textContent.trim())"
    found: list[str] = page.evaluate(cells)
    return found


def press(page: Page, table: str, number: int) -> str:
    """Press a column's head and return its direction."""
    head = f"document.querySelector('{table} thead').rows[0].cells[{number}]"
    page.evaluate(f"{head}.querySelector('button').click()")
    return str(page.evaluate(f"{head}.getAttribute('aria-sort')"))


@contextmanager
def launched(program: str, profile: Path) -> Iterator[Browser]:
    """Start a browser with a profile of its own, and end it with all its processes."""
    to_browser, commands = os.pipe()
    answers, from_browser = os.pipe()
    script = f'exec "$@" 3<&{to_browser} 4>&{from_browser}'
    process = subprocess.Popen(
        ["bash", "-c", script, "bash", program, *FLAGS, f"--user-data-dir={profile}"], start_new_session=True,
        pass_fds=(to_browser, from_browser), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(to_browser)
    os.close(from_browser)
    try:
        yield Browser(commands, answers)
    finally:
        os.close(commands)
        os.close(answers)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
