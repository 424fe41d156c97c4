"""Chromium without a window, driven over the pipe of its DevTools protocol: no driver and no package is needed."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

#: Debian's names of the program, the smallest first.
PROGRAMS = ("chromium-headless-shell", "chromium", "google-chrome", "chromium-browser")
#: Seconds for an answer on a busy machine.
ANSWER_S = 60


@dataclass
class Page:
    """One tab. ``events`` are all notices of the browser so far: (method, parameters)."""

    _to: int
    _from: int
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    _session: str = ""
    _number: int = 0
    _waiting: bytes = b""

    def ask(self, method: str, **parameters: object) -> dict[str, Any]:
        """Send a command and return its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    def attach(self) -> None:
        """Open a tab and follow what it does."""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.ask(f"{domain}.enable")

    def open(self, path: Path, *, width: int, dark: bool) -> None:
        """Load a file on a screen of this width, and wait until it is complete."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 500)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        self.events.clear()
        self.ask("Page.navigate", url=path.resolve().as_uri())
        while not any(method == "Page.loadEventFired" for method, _ in self.events):
            self._next()

    def value(self, expression: str) -> Any:
        """The value of an expression of JavaScript, or of the promise that it is."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """Write a picture of the whole page as PNG."""
        shot = self.ask("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def requests(self) -> list[str]:
        """The addresses that the page requested, without data in the page itself."""
        sent = [
            parameters["request"]["url"] for method, parameters in self.events if method.endswith("requestWillBeSent")
        ]
        return [address for address in sent if not address.startswith("data:")]

    def complaints(self) -> list[str]:
        """Errors of scripts, and what the page's policy or the browser refused."""
        logged = [parameters["entry"]["text"] for method, parameters in self.events if method == "Log.entryAdded"]
        return logged + [str(parameters) for method, parameters in self.events if method == "Runtime.exceptionThrown"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._waiting:
            received = os.read(self._from, 1 << 20)
            assert received, "the browser ended"
            self._waiting += received
        line, _, self._waiting = self._waiting.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        if "method" in message:
            self.events.append((message["method"], message.get("params", {})))
        return message


@contextmanager
def chromium() -> Iterator[Page]:
    """A new browser with a profile of its own. Skips the test where no Chromium is installed."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip(f"none of {', '.join(PROGRAMS)} is installed")
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--remote-debugging-pipe",
        "--autoplay-policy=no-user-gesture-required",
    ]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        # The browser reads commands from 3 and answers on 4. Its own output would fill the screen.
        words = [program, *options, f"--user-data-dir={profile}"]
        # bash, because dash reads only one digit of a descriptor.
        shell = ["bash", "-c", f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}', "bash", *words]
        browser = subprocess.Popen(
            shell, pass_fds=(theirs_in, theirs_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(theirs_in)
        os.close(theirs_out)
        try:
            page = Page(ours_out, ours_in)
            page.attach()
            yield page
        finally:
            os.close(ours_out)
            browser.kill()
            browser.wait(ANSWER_S)
            os.close(ours_in)
