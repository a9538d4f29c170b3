"""A headless Chromium that tests steer through its debugging pipe: JSON messages that end with a zero byte.

Source: Chrome DevTools Protocol, https://chromedevtools.github.io/devtools-protocol.
"""

import base64
import json
import os
import pathlib
import select
import shutil
import subprocess
import time
from typing import Any

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-component-update",
    "--disable-background-networking", "--disable-sync", "--disable-dev-shm-usage", "--remote-debugging-pipe",
)  # fmt: skip
# Keys that have no character of their own.
NAMED = {"ArrowLeft": 37, "ArrowRight": 39, "Enter": 13, "Tab": 9}


class Browser:
    """One page in a browser of its own, which ends with the `with` block."""

    def __init__(self, profile: pathlib.Path, timeout: float = 60.0):
        self._timeout, self._number, self._rest = timeout, 0, b""
        self.events: list[dict[str, Any]] = []
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        # The browser reads from descriptor 3 and writes to descriptor 4.
        script = f'exec "$@" 3<&{to_browser} 4>&{from_browser}'
        command = ["bash", "-c", script, "bash", str(PROGRAM), *OPTIONS, f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(
            command, pass_fds=(to_browser, from_browser), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(to_browser)
        os.close(from_browser)
        self._session: str | None = None

    def __enter__(self) -> "Browser":
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        self._process.wait(30)
        os.close(self._write)
        os.close(self._read)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and return its result; events that arrive before it are kept in `events`."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            found = self._message()
            if found.get("id") == self._number:
                assert "error" not in found, (method, found["error"])
                return found["result"]
            self.events.append(found)

    def _message(self) -> dict[str, Any]:
        end = time.monotonic() + self._timeout
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._read], [], [], max(0.0, end - time.monotonic()))
            assert ready, "the browser does not answer"
            piece = os.read(self._read, 2**20)
            assert piece, "the browser has ended"
            self._rest += piece
        content, _, self._rest = self._rest.partition(b"\0")
        return json.loads(content)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, expression: str, wanted: Any = True) -> Any:
        """Wait until the expression has the wanted value."""
        end = time.monotonic() + self._timeout
        while (found := self.evaluate(expression)) != wanted:
            assert time.monotonic() < end, f"{expression} is {found!r}, and {wanted!r} was awaited"
            time.sleep(0.05)
        return found

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        self.wait("document.readyState", "complete")

    def press(self, key: str, *, held: bool = False) -> None:
        """Press and release a key; `held` says that the press repeats one that has not ended."""
        text = {} if key in NAMED else {"text": key}
        code = NAMED.get(key, ord(key.upper()) if len(key) == 1 else 0)
        common = {"key": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", autoRepeat=held, **common, **text)
        if not held:
            self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def resize(self, width: int, height: int, *, mobile: bool = False, dark: bool = False) -> None:
        """Give the page the size of a window or of a phone, and choose between the light and the dark colours."""
        size = {"width": width, "height": height, "deviceScaleFactor": 2 if mobile else 1, "mobile": mobile}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.call("Emulation.setTouchEmulationEnabled", enabled=mobile)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self, path: pathlib.Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def faults(self) -> list[dict[str, Any]]:
        """The errors that the page has reported until now, in its console or as uncaught exceptions."""
        kinds = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
        return [event for event in self.events if event.get("method") in kinds]

    def requested(self) -> set[str]:
        """The addresses that the page has asked for until now."""
        sent = [event for event in self.events if event.get("method") == "Network.requestWillBeSent"]
        return {event["params"]["request"]["url"] for event in sent}
