"""A real browser: headless Chromium, spoken to over its debugging protocol.

Owns starting and ending it, and what it complains of: what it writes to its console, and each request that a page makes. Refuses
to know what a page is about.
"""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import tempfile
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Self, TypeVar

import aiohttp

from tests.support.worker import WAIT_SECONDS, wait_until

# Nothing of its own goes to the network, and a container has neither a sandbox nor a graphics card for it.
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update"
    " --disable-sync --disable-dev-shm-usage --hide-scrollbars --remote-debugging-port=0"
).split()

T = TypeVar("T")


class Browser:
    """``problems``: what went wrong on the pages so far. ``requests``: the addresses that they loaded."""

    def __init__(self, program: str) -> None:
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self._process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={self._folder.name}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.problems: list[str] = []
        self.requests: list[str] = []
        self._responses: dict[int, asyncio.Future[Any]] = {}
        self._ids = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        port = Path(self._folder.name) / "DevToolsActivePort"
        wait_until(lambda: port.exists() and len(port.read_text().split()) == 2, "the browser listens")
        self._run(self._connect(int(port.read_text().split()[0])))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._session.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()

    def open(self, page: Path, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Returns when the page and its scripts have been loaded."""
        self.problems.clear()
        self.requests.clear()
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.send("Emulation.setEmulatedMedia", features=scheme)
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self._loaded.clear()
        self.send("Page.navigate", url=page.absolute().as_uri())
        assert self._loaded.wait(WAIT_SECONDS), f"the page did not load: {self.problems}"

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression on the page."""
        response = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in response, response["exceptionDetails"]
        return response["result"].get("value")

    def press(self, key: str) -> None:
        """As a person at the keyboard does."""
        codes = {"ArrowDown": 40, "ArrowUp": 38, "Enter": 13, "Escape": 27, "Tab": 9}
        text = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
        about = {"key": key, "windowsVirtualKeyCode": codes.get(key, ord(key[0].upper()))}
        self.send("Input.dispatchKeyEvent", type="keyDown", **about, **text)
        self.send("Input.dispatchKeyEvent", type="keyUp", **about)

    def type(self, text: str) -> None:
        self.send("Input.insertText", text=text)

    def mouse(self, selector: str, *, click: bool = False) -> None:
        """Over the middle of the first such element, which is in view."""
        found = f"document.querySelector({json.dumps(selector)}).getBoundingClientRect()"
        box = self.evaluate(f"(r => [r.x + r.width / 2, r.y + r.height / 2])({found})")
        at = {"x": box[0], "y": box[1]}
        self.send("Input.dispatchMouseEvent", type="mouseMoved", **at)
        if click:
            for type in ("mousePressed", "mouseReleased"):
                self.send("Input.dispatchMouseEvent", type=type, button="left", clickCount=1, **at)

    def screenshot(self, file: Path) -> None:
        file.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))

    def send(self, method: str, **params: Any) -> Any:
        return self._run(self._send(method, params))

    async def _connect(self, port: int) -> None:
        self._session = aiohttp.ClientSession()
        async with self._session.get(f"http://127.0.0.1:{port}/json/list") as reply:
            page = next(target for target in await reply.json(content_type=None) if target["type"] == "page")
        self._socket = await self._session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0)
        self._loaded = threading.Event()
        self._listening = asyncio.create_task(self._listen())
        for domain in ("Page", "Runtime", "Log", "Network", "Audits"):
            await self._send(f"{domain}.enable", {})

    async def _send(self, method: str, params: dict[str, Any]) -> Any:
        self._ids += 1
        self._responses[self._ids] = response = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": self._ids, "method": method, "params": params})
        return await response

    async def _listen(self) -> None:
        async for frame in self._socket:
            message = json.loads(frame.data)
            if "id" in message:
                response = self._responses.pop(message["id"])
                response.set_result(
                    message.get("result") or {"exceptionDetails": message["error"]} if "error" in message else message["result"]
                )
            else:
                self._happened(message["method"], message["params"])

    def _happened(self, method: str, params: dict[str, Any]) -> None:
        match method:
            case "Page.loadEventFired":
                self._loaded.set()
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            case "Runtime.consoleAPICalled" | "Runtime.exceptionThrown" | "Log.entryAdded" | "Audits.issueAdded":
                self.problems.append(f"{method}: {json.dumps(params)[:500]}")

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(WAIT_SECONDS)
