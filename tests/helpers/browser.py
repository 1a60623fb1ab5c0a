"""A Chromium that a test drives, where one is installed."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}


def why_not() -> str:
    """Why no browser can be driven here; empty where one can."""
    try:
        import playwright  # noqa: F401
    except ImportError:
        return "playwright is not installed (pip install playwright)"
    return "" if path_of() else f"none of {', '.join(NAMES)} is installed"


def path_of() -> str | None:
    """Where the browser is."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """A browser without a window; make contexts of it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        # Inside a container a browser has no right to a sandbox of its own.
        browser = driver.chromium.launch(executable_path=path_of(), args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


class Watched:
    """A page whose requests, errors and refusals are kept: none may go elsewhere, none may fail."""

    def __init__(self, page: Any, base: str) -> None:
        self.page = page
        self.base = base
        self.urls: list[str] = []
        self.errors: list[str] = []
        page.on("request", lambda request: self.urls.append(request.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        page.set_default_timeout(30_000)

    def open(self, view: str = "chat") -> Any:
        """Show a view of the page."""
        self.page.goto(f"{self.base}/#{view}")
        return self.page

    @property
    def elsewhere(self) -> set[str]:
        """What was asked of others than the node."""
        return {url for url in self.urls if not url.startswith((self.base + "/", "blob:", "data:"))}
