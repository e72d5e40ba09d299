"""A browser under test: it fails a test that leaves an error in the console or asks any other host for anything."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import axe_playwright_python
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

AXE = Path(axe_playwright_python.__file__).parent / "axe.min.js"
PLACES = ("chromium", "chromium-browser", "google-chrome")
TIME_ZONE = "Asia/Kolkata"
"""Of the browser; half an hour off the whole ones, so that no other zone is taken for it."""


PATIENCE_MILLISECONDS = 30_000
expect.set_options(timeout=PATIENCE_MILLISECONDS)


def chromium_path() -> str:
    found = next((path for name in PLACES if (path := shutil.which(name))), None)
    if found is None:
        pytest.fail(f"none of {', '.join(PLACES)} is on the PATH; install Debian's chromium")
    return found


@contextmanager
def running_browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # Containers run as root, which Chromium's sandbox refuses.
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


class Watched:
    """A page of one gateway, and all that was said and asked while it was open."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.errors: list[str] = []
        self.elsewhere: list[str] = []
        page.set_default_timeout(PATIENCE_MILLISECONDS)
        page.on("console", lambda said: self.errors.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", self._asked)

    def _asked(self, request: Any) -> None:
        if urlsplit(request.url).netloc != urlsplit(self.url).netloc:
            self.elsewhere.append(request.url)

    def open(self, path: str) -> Page:
        """Go to a page, and wait until it is whole: parts loaded, charts drawn."""
        self.page.goto(self.url + path)
        self.wait_until_whole()
        return self.page

    def wait_until_whole(self) -> None:
        self.page.wait_for_selector("html[data-whole]", state="attached")

    def violations(self) -> list[str]:
        """What axe finds wrong with the page as it stands, for people who do not see or do not use a mouse."""
        self.page.evaluate(AXE.read_text(encoding="utf-8"))
        found = self.page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
        return [
            f"{each['id']}: {node['html'][:160]} {node['failureSummary']}"
            for each in found["violations"]
            for node in each["nodes"]
        ]

    def width(self) -> int:
        width: int = self.page.evaluate("document.documentElement.scrollWidth")
        return width


@contextmanager
def watched(browser: Browser, url: str, *, allow_errors: bool = False, **context: Any) -> Iterator[Watched]:
    """A page in a context of its own, which must end without errors unless they are what is tested."""
    made = browser.new_context(**{"timezone_id": TIME_ZONE, "viewport": {"width": 1280, "height": 900}, **context})
    found = Watched(made.new_page(), url)
    try:
        yield found
        assert found.elsewhere == []
        assert allow_errors or found.errors == []
    finally:
        made.close()
