"""A headless browser through the WebDriver protocol, with the standard library only."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
KEYS = {"Tab": "\ue004", "Enter": "\ue007", "Down": "\ue015", "Left": "\ue012", "Right": "\ue014", "Space": "\ue00d"}


def missing() -> str:
    """Which program is not there; empty when the browser can be driven."""
    browsers = ("chromium", "chromium-browser", "google-chrome")
    found = any(map(shutil.which, browsers)) and shutil.which("chromedriver")
    return "" if found else "chromium and chromedriver are not installed"


class Browser:
    """One window."""

    def __init__(self, port: int, width: int, height: int) -> None:
        self.base = f"http://127.0.0.1:{port}"
        binary = next(p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n)))
        flags = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            f"--window-size={width},{height}",
        ]
        metrics = {"width": width, "height": height, "pixelRatio": 1}
        options = {"binary": binary, "args": flags, "mobileEmulation": {"deviceMetrics": metrics}}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        opened = self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self.base += f"/session/{opened['sessionId']}"

    def open(self, url: str) -> None:
        self._call("POST", "/url", {"url": url})

    def run(self, script: str, *arguments: Any) -> Any:
        """Value of a JavaScript function body."""
        return self._call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def press(self, *keys: str) -> None:
        """Keys to whatever has the focus."""
        steps = [{"type": t, "value": KEYS.get(k, k)} for k in keys for t in ("keyDown", "keyUp")]
        self._call("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": steps}]})

    def click(self, selector: str) -> None:
        found = self._call("POST", "/element", {"using": "css selector", "value": selector})
        self._call("POST", f"/element/{found[_ELEMENT]}/click", {})

    def console(self) -> list[str]:
        """Errors and warnings since the last call."""
        entries = self._call("POST", "/se/log", {"type": "browser"})
        return [e["message"] for e in entries if e["level"] in ("SEVERE", "WARNING")]

    def prefer_dark(self) -> None:
        """The page sees prefers-color-scheme: dark."""
        self._emulate("setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])

    def forbid_scripts(self) -> None:
        """Pages opened from now on have no JavaScript; `run` still works."""
        self._emulate("setScriptExecutionDisabled", value=True)

    def picture(self) -> bytes:
        """PNG of the window."""
        return base64.b64decode(self._call("GET", "/screenshot"))

    def close(self) -> None:
        self._call("DELETE", "")

    def _emulate(self, command: str, **parameters: Any) -> None:
        self._call("POST", "/goog/cdp/execute", {"cmd": f"Emulation.{command}", "params": parameters})

    def _call(self, verb: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, {"Content-Type": "application/json"}, method=verb)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]


@contextmanager
def browser(*, width: int, height: int = 900) -> Iterator[Browser]:
    """A window of this size in CSS pixels; needs `missing()` to be empty."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    driver = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        window = Browser(port, width, height)
        try:
            yield window
        finally:
            window.close()
    finally:
        driver.terminate()
        driver.wait()
