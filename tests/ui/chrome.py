"""Drive headless Chromium over its debugging pipe: open pages, run scripts, hear the console.

The pipe speaks the DevTools protocol as JSON that ends with a zero byte: no port, no library.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")


def browser() -> str | None:
    """Return the path of a Chromium, or None."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Chrome:
    """One browser with one page.

    Attributes:
        console: errors and warnings that the page or the browser has told.
        asked: every address that was asked for.
    """

    def __init__(self, profile: Path) -> None:
        self.console: list[str] = []
        self.asked: list[str] = []
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()
        words = [
            str(browser()), "--headless=new", "--no-sandbox", "--disable-gpu",
            "--disable-dev-shm-usage", "--no-first-run", f"--user-data-dir={profile}",
            "--remote-debugging-pipe", "about:blank",
        ]  # fmt: skip
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{to_read} 4>&{to_write}', "-", *words],
            pass_fds=(to_read, to_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(to_read)
        os.close(to_write)
        self._data, self._last, self._session = b"", 0, ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for part in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{part}.enable")

    def __enter__(self) -> Chrome:
        return self

    def __exit__(self, *exc: object) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._read)
        os.close(self._write)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            found = self._next()
            if found.get("id") == self._last:
                assert "error" not in found, (method, found["error"])
                return found["result"]
            self._hear(found)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._data:
            part = os.read(self._read, 1 << 16)
            assert part, "the browser has ended"
            self._data += part
        message, _, self._data = self._data.partition(b"\0")
        return json.loads(message)

    def _hear(self, found: dict[str, Any]) -> None:
        method, params = found.get("method"), found.get("params", {})
        if method == "Network.requestWillBeSent":
            self.asked.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.console.append(json.dumps(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.console.append(json.dumps(params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.console.append(json.dumps(params["entry"]))

    def open(self, address: str) -> None:
        """Go to an address and wait until the page is there."""
        self.call("Page.navigate", url=address)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def leave(self) -> None:
        """Go nowhere and forget what was heard."""
        self.call("Page.navigate", url="about:blank")
        self.until("location.href === 'about:blank'")
        self.console.clear()
        self.asked.clear()

    def run(self, script: str) -> Any:
        """Return the value of an expression in the page."""
        found = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, (script, found["exceptionDetails"])
        return found["result"].get("value")

    def until(self, script: str, timeout_s: float = 30.0) -> Any:
        """Wait until an expression is true and return its value."""
        end = time.monotonic() + timeout_s
        while True:
            try:
                if found := self.run(script):
                    return found
            except AssertionError:
                pass  # the page is being left
            assert time.monotonic() < end, f"never: {script}\n{self.console}"
            time.sleep(0.05)

    def key(self, name: str) -> None:
        """Press a key."""
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name)

    def picture(self, path: Path) -> None:
        """Keep what is seen."""
        data = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))
