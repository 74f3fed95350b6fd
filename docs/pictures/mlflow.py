"""Five questions about a family, asked of MLflow's pages alone: ``python docs/pictures/mlflow.py HOME FOLDER``.

Chromium, without a window, opens the registered model and clicks as a person would. For each question the clicks are
counted, what must be read is looked for, and a picture goes into FOLDER. The home is that of ``make demo``. ``--look``
only takes pictures of the pages, as of a home that an earlier ladder wrote. Chromium is spoken to in its own protocol
over aiohttp, which Ray brings, so this needs no package of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from urllib.request import urlopen

import aiohttp
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
SIZE = (1440, 900)
MOST_CLICKS = 3
PATIENCE = 60.0
"""Seconds to wait for a page."""
_QUIET = """
localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true');
localStorage.setItem('mlflow.assistant.panelOpen_v1', 'false');
"""
"""MLflow's assistant stays closed."""
_FIND = """
(kind, text, which) => {
  const all = [...document.querySelectorAll(kind)].filter(e => e.getClientRects().length && e.innerText !== undefined);
  const found = all.filter(e => text === null || e.innerText.trim() === text || e.innerText.startsWith(text));
  return found.at(which);
}
"""


class Page:
    """One page of Chromium."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._asked = 0
        self.clicks = 0

    async def call(self, method: str, **params: object) -> dict:
        """What Chromium answers to a command of its protocol."""
        self._asked += 1
        await self._socket.send_json({"id": self._asked, "method": method, "params": params})
        async for message in self._socket:
            answer = json.loads(message.data)
            if answer.get("id") == self._asked:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
        raise RuntimeError("Chromium has ended")

    async def evaluate(self, script: str, frame: str | None = None) -> object:
        """The value of an expression in the page, or in a frame of it; None where it cannot be had yet."""
        place = {}
        if frame is not None:  # MLflow shows a page among artifacts in a frame that its own scripts cannot look into.
            world = await self.call("Page.createIsolatedWorld", frameId=frame)
            place = {"contextId": world["executionContextId"]}
        answer = await self.call("Runtime.evaluate", expression=script, returnByValue=True, **place)
        return answer["result"].get("value")

    async def frames(self) -> list[str]:
        """The frames within the page."""
        tree = (await self.call("Page.getFrameTree"))["frameTree"]
        return [child["frame"]["id"] for child in tree.get("childFrames", [])]

    async def open(self, address: str) -> None:
        """Go to an address; what is clicked from here on is counted anew."""
        await self.call("Page.navigate", url="about:blank")
        await self.call("Page.navigate", url=address)
        self.clicks = 0

    async def reads(self, *texts: str) -> None:
        """Wait until the page says all of these.

        Raises:
            AssertionError: it never does.
        """
        ends = time.monotonic() + PATIENCE
        said = ""
        while time.monotonic() < ends:
            frames = [None, *await self.frames()]
            said = "\n".join([str(await self.evaluate("document.body?.innerText", frame)) for frame in frames])
            if all(text in said for text in texts):
                await asyncio.sleep(1.5)  # Pictures and tables move into place.
                return
            await asyncio.sleep(0.5)
        raise AssertionError(f"the page never says {[text for text in texts if text not in said]}: {said[:2000]}")

    async def click(self, kind: str, text: str | None, which: int = 0) -> None:
        """Click the ``which``-th element of a kind whose words begin with a text, once it is there."""
        element = f"({_FIND})({json.dumps(kind)}, {json.dumps(text)}, {which})"
        ends = time.monotonic() + PATIENCE
        while time.monotonic() < ends and not await self.evaluate(f"Boolean({element})"):
            await asyncio.sleep(0.5)
        # Links of a description open a page of their own; here they stay in this one.
        await self.evaluate(f"(e => {{ e.closest('a')?.removeAttribute('target'); e.click() }})({element})")
        self.clicks += 1
        await asyncio.sleep(0.7)

    async def show(self, kind: str, text: str, block: str = "start") -> None:
        """Scroll something to a place of the window: its start or its center."""
        element = f"({_FIND})({json.dumps(kind)}, {json.dumps(text)}, -1)"
        for frame in [None, *await self.frames()]:
            await self.evaluate(f"{element}?.scrollIntoView({{block: '{block}'}})", frame)
        await asyncio.sleep(0.5)

    async def picture(self, file: Path) -> None:
        """Write what is seen as a small PNG."""
        data = (await self.call("Page.captureScreenshot", format="png"))["data"]
        image = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")
        image.quantize(224, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(file, optimize=True)


async def ask(page: Page, address: str, family: str, folder: Path) -> list[tuple[str, int]]:
    """The five questions; gives each with the clicks that it took."""
    model, asked = f"{address}/#/models/{family}", []

    async def answered(question: str, name: str) -> None:
        await page.picture(folder / f"mlflow-{name}.png")
        asked.append((question, page.clicks))

    await page.open(model)
    await page.reads(f"HEAD is {family}-G004")
    await answered("which generation is HEAD", "family")

    await page.reads(f"The last child, {family}-G005, was ✗ rejected by recall: recall 0.000, its bound is 0.9")
    await page.click("a", f"{family}-G005")
    await page.reads("✗ REJECTED by recall")
    await answered("why G005 was rejected", "rejected")

    await page.open(model)
    await page.click("a", "which answers it lost")
    await page.reads("report.html", f"{family}-G005 rejected by recall", "Answers that were lost", "expected: ")
    await page.show("h2", "Answers that were lost")
    await answered("which answers it lost", "lost")

    await page.open(model)
    await page.reads("Versions", "Version 4")
    for version in ("Version 5", "Version 4"):
        row = f"[...document.querySelectorAll('[role=row]')].find(r => r.innerText.includes('{version}'))"
        await page.evaluate(f"{row}.querySelector('input[type=checkbox]').click()")
        page.clicks += 1
        await asyncio.sleep(0.5)
    await page.click("[data-testid=compareButton]", None)
    await page.reads("Comparing 2 Versions", "gates/recall")
    await page.show("*", "gates/recall", "center")
    await answered("G003 against G004", "compared")

    await page.open(model)
    await page.click("a", "run and data")
    await page.reads("Datasets", "training_params")
    await page.click("[data-testid^=dataset], a, button, span", "data/", 0)
    await page.reads("data/")
    await answered("which data taught HEAD", "data")
    return asked


async def look(page: Page, address: str, family: str, folder: Path, prefix: str) -> None:
    """Pictures of the pages where the questions begin."""
    await page.open(f"{address}/#/models/{family}")
    await page.reads("Versions", "Version 4")
    await page.picture(folder / f"{prefix}-family.png")
    await page.open(f"{address}/#/experiments/1/runs")
    await page.reads(f"{family}-G005", f"{family}-G000")
    await page.picture(folder / f"{prefix}-runs.png")


async def runs_and_charts(page: Page, address: str, family: str, folder: Path) -> None:
    """Pictures of what the description leads to besides."""
    await page.open(f"{address}/#/models/{family}")
    await page.click("a", "all runs")
    await page.reads(f"{family}-G005 rejected: recall", "ladder.verdict", "gates/recall")
    await page.picture(folder / "mlflow-runs.png")
    await page.open(f"{address}/#/models/{family}")
    await page.click("a", "charts")
    await page.reads("gates/recall", "gates/generalize")
    await page.picture(folder / "mlflow-charts.png")


@contextmanager
def served(home: Path) -> Iterator[str]:
    """The address of MLflow's pages of a home."""
    port = _free()
    command = [sys.executable, "-m", "ladder", "ui", "--home", str(home), "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
    try:
        _wait(f"http://127.0.0.1:{port}/health", server)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)


@asynccontextmanager
async def browser(program: str) -> AsyncIterator[Page]:
    """A page of Chromium that reaches this machine alone."""
    port = _free()
    with tempfile.TemporaryDirectory(prefix="ladder-chromium-") as profile:
        command = [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
        # Frames without rights stay in the process of their page, where they can be read.
        command += ["--disable-features=IsolateSandboxedIframes,IsolateOrigins,site-per-process"]
        command += [
            f"--remote-debugging-port={port}",
            f"--user-data-dir={profile}",
            f"--window-size={SIZE[0]},{SIZE[1]}",
        ]
        command += ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "about:blank"]
        chromium = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            _wait(f"http://127.0.0.1:{port}/json", chromium)
            with urlopen(f"http://127.0.0.1:{port}/json") as answer:
                target = next(one for one in json.load(answer) if one["type"] == "page")
            async with (
                aiohttp.ClientSession() as session,
                session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as spoken,
            ):
                page = Page(spoken)
                await page.call("Page.enable")
                await page.call("Page.addScriptToEvaluateOnNewDocument", source=_QUIET)
                shape = {"width": SIZE[0], "height": SIZE[1], "deviceScaleFactor": 1, "mobile": False}
                await page.call("Emulation.setDeviceMetricsOverride", **shape)
                yield page
        finally:
            os.killpg(chromium.pid, signal.SIGTERM)
            chromium.wait(30)


def _free() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _wait(address: str, process: subprocess.Popen[bytes]) -> None:
    ends = time.monotonic() + 2 * PATIENCE
    while time.monotonic() < ends and process.poll() is None:
        try:
            with urlopen(address):
                return
        except OSError:
            time.sleep(0.5)
    raise SystemExit(f"nothing answers at {address}")


async def main() -> int:
    """Ask, and print a table of clicks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("home", type=Path)
    parser.add_argument("folder", type=Path, help="where pictures go")
    parser.add_argument("--family", default="Luna")
    parser.add_argument("--look", metavar="PREFIX", help="only pictures of the pages, under this prefix")
    parser.add_argument("--chromium", default="chromium")
    given = parser.parse_args()
    with served(given.home) as address:
        async with browser(given.chromium) as page:
            if given.look:
                await look(page, address, given.family, given.folder, given.look)
                return 0
            asked = await ask(page, address, given.family, given.folder)
            await runs_and_charts(page, address, given.family, given.folder)
    for question, clicks in asked:
        print(f"{question:<30} {clicks} {'click' if clicks == 1 else 'clicks'}")
    return 0 if all(clicks <= MOST_CLICKS for _, clicks in asked) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
