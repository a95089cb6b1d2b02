"""Opens pages in a real Chromium, and lists everything that a page must not do."""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

# A folder in which screenshots stay, for a person to look at. Without it they go with the test's folder.
SCREENSHOTS = "FINETUNE_SCREENSHOTS"
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
SIZES = {"wide": (1200, 900), "phone": (390, 844)}


@contextlib.contextmanager
def chromium() -> Iterator["Browser"]:
    """A headless Chromium; skips the test, with the reason, where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (.[dev])")
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip("no Chromium is installed; `scripts/browser` installs Debian's")
    with sync_api.sync_playwright() as playwright:
        # A container's user may be root, for whom Chromium's sandbox does not start.
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=program, headless=True, args=options)
        yield browser
        browser.close()


@dataclass
class Opened:
    """A page that is open in the browser."""

    page: "Page"
    found: list[str] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """The problems that the browser found so far."""
        # The browser tells of a problem a little after it found it.
        self.page.evaluate("new Promise((done) => setTimeout(done, 20))")
        return self.found


@contextlib.contextmanager
def opened(browser: "Browser", file: Path, *, size: str = "wide", dark: bool = False) -> Iterator[Opened]:
    """Open ``file`` from the disk. Console messages, errors, violations and requests become problems.

    A request for the file itself, or for a ``data:`` address, is none.
    """
    width, height = SIZES[size]
    scheme = "dark" if dark else "light"
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)  # type: ignore[arg-type]
    found = Opened(context.new_page())
    address = file.resolve().as_uri()
    found.page.on("console", lambda message: found.found.append(f"console: {message.text}"))
    found.page.on("pageerror", lambda error: found.found.append(f"error: {error}"))
    found.page.on("dialog", lambda dialog: found.found.append(f"dialog: {dialog.message}"))
    found.page.on(
        "request",
        lambda request: (
            None
            if request.url.partition("#")[0] == address or request.url.startswith("data:")
            else found.found.append(f"request: {request.url}")
        ),
    )
    found.page.goto(address)
    yield found
    context.close()


def screenshot(opened_page: Opened, name: str, folder: Path) -> Path:
    """Take a picture of the whole page: in ``$FINETUNE_SCREENSHOTS`` if it is set, else in ``folder``."""
    place = Path(os.environ.get(SCREENSHOTS) or folder)
    place.mkdir(parents=True, exist_ok=True)
    path = place / f"{re.sub(r'[^A-Za-z0-9-]', '-', name)}.png"
    error = pytest.importorskip("playwright.sync_api").Error
    with contextlib.suppress(error):
        opened_page.page.screenshot(path=path, full_page=True)
        return path
    # A browser on a busy machine sometimes cannot capture a tall page, and can a moment later.
    opened_page.page.screenshot(path=path, full_page=True)
    return path
