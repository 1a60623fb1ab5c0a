"""The pictures of docs/page.md, made anew: three devices here, the page in front of them, one of them killed.

    python -m tools.page_pictures [FOLDER]

Needs Playwright and a Chromium (pip install playwright; apt install chromium). About a minute.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from swarm import config
from swarm.store.naming import resolve
from tests.helpers.browser import PHONE, chromium, why_not
from tools.demo import NAMES, PATIENCE_S, Device

QUESTION = "Write a Python function that adds up a list of prices, and say in a table what each part does."
STORY = "Tell me a long story about a lighthouse keeper, with many chapters."
MAX_PNG_BYTES = 150_000


def main() -> int:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "docs"
    if reason := why_not():
        raise SystemExit(reason)
    model = resolve(None, settings=config.load())
    homes = Path(tempfile.mkdtemp(prefix="swarm-pictures-"))
    (homes / "models").mkdir()
    (homes / "models" / model.name).symlink_to(model)
    devices = [Device(homes, name, homes / "models") for name in NAMES]
    try:
        begin(devices, model)
        with chromium() as browser:
            take(browser, devices, folder)
    finally:
        for device in devices:
            device.end()
        shutil.rmtree(homes, ignore_errors=True)
    return 0


def begin(devices: list[Device], model: Path) -> None:
    """Three devices in one swarm; the first has the model."""
    first, *others = devices
    first.join()
    for device in others:
        invitation = first.node.post("/swarm/invite", {}, PATIENCE_S)
        device.join(str(invitation["code"]), "--peer", f"127.0.0.1:{invitation['port']}")
    first.node.post("/swarm/models", {"path": str(model)}, PATIENCE_S)


def take(browser: Any, devices: list[Device], folder: Path) -> None:
    """All pictures, one after the other."""
    first = devices[0]
    base = f"http://127.0.0.1:{first.node.api_port}"
    wide = {"viewport": {"width": 1120, "height": 720}}
    light = browser.new_context(**wide, color_scheme="light").new_page()
    code = first.node.post("/swarm/page", {})["code"]
    light.goto(f"{base}/#enter={code}")
    choose(light, temperature=0.3, max_tokens=300)
    ask(light, QUESTION)
    until(light.locator(".turn.answer .md").last.text_content, 350)
    picture(light, folder / "page-chat.png")
    light.wait_for_selector("button.send:not(.stop)", timeout=120_000)

    light.goto(f"{base}/#plan")
    light.wait_for_selector(".card .big", timeout=60_000)
    time.sleep(0.5)
    picture(light, folder / "page-plan.png")

    phone = browser.new_context(**{**PHONE, "device_scale_factor": 1}, color_scheme="light").new_page()
    phone.goto(base)
    choose(phone, temperature=0.3, max_tokens=200)
    ask(phone, "Name three things that bees do, as a list.")
    phone.wait_for_selector(".turn.answer .figures >> text=tok/s", timeout=120_000)
    picture(phone, folder / "page-phone.png")

    dark = browser.new_context(**wide, color_scheme="dark").new_page()
    dark.goto(f"{base}/#chat")
    choose(dark, max_tokens=400)
    ask(dark, STORY)
    until(dark.locator(".turn.answer .md").last.text_content, 60)
    dark.click("#tab-devices")
    dark.wait_for_selector(".way.flows", state="attached")  # a straight line has no height to be seen by
    lose(devices[-1])
    dark.wait_for_selector(".cell.gone")
    time.sleep(2.0)
    picture(dark, folder / "page-devices.png")


def ask(page: Any, text: str) -> None:
    page.fill("#question", text)
    page.keyboard.press("Enter")


def choose(page: Any, **choices: object) -> None:
    page.wait_for_selector("#question")
    page.evaluate("value => localStorage.setItem('swarm-choices', value)", json.dumps(choices))


def until(text: Callable[[], str], chars: int) -> None:
    """Wait for so much text."""
    deadline = time.monotonic() + PATIENCE_S
    while len(text()) < chars and time.monotonic() < deadline:
        time.sleep(0.05)


def lose(device: Device) -> None:
    assert device.process is not None
    os.kill(device.process.pid, signal.SIGKILL)
    device.process.wait()


def picture(page: Any, path: Path) -> None:
    page.screenshot(path=path)
    if path.stat().st_size > MAX_PNG_BYTES:
        raise SystemExit(f"{path} is larger than {MAX_PNG_BYTES} bytes")
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    sys.exit(main())
