"""A headless Chromium that fetches nothing by itself, and pages in it that keep what they did."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Browser, Page, Request, sync_playwright

ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


def chromium() -> str | None:
    """$CHROMIUM, else Debian's on PATH; None where there is none."""
    return os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


def artifacts(folder: str) -> Path:
    """Where pictures are kept for people to look at: in $ARTIFACTS, else in the repository's `artifacts/`."""
    root = Path(os.environ.get("ARTIFACTS") or Path(__file__).parents[2] / "artifacts")
    (root / folder).mkdir(parents=True, exist_ok=True)
    return root / folder


@contextlib.contextmanager
def started(program: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Visit:
    """A page, and what went on in it."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    """Of the console, of scripts, and dialogs."""


@contextlib.contextmanager
def visit(browser: Browser, path: Path, *, width: int = 1200, scheme: str = "light") -> Iterator[Visit]:
    """Every request but for the page itself is kept from leaving, and recorded."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    seen = Visit(context.new_page())
    context.route(lambda url: url != path.as_uri(), lambda route: route.abort())

    def asked(request: Request) -> None:
        seen.requests.append(request.url)

    seen.page.on("request", asked)
    seen.page.on("console", lambda message: seen.complaints.append(f"{message.type}: {message.text}"))
    seen.page.on("pageerror", lambda error: seen.complaints.append(f"error: {error}"))
    seen.page.on("dialog", lambda dialog: (seen.complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    try:
        seen.page.goto(path.as_uri())
        yield seen
    finally:
        context.close()
