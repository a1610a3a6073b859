"""A real browser, as a person has one."""

import os
import shutil
from contextlib import contextmanager

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

needs_browser = [
    pytest.mark.skipif(
        CHROMIUM is None and "CI" not in os.environ,
        reason="no Chromium on this machine: install it, as with 'apt install chromium', to see what a person sees",
    ),
    # Of the driver, when it is closed.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@contextmanager
def start_browser():
    from playwright.sync_api import sync_playwright

    assert CHROMIUM is not None, "CI installs Chromium"
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@contextmanager
def open_page(browser, width=1280, height=1000, **options):
    """Open an empty page, as of a new person, whose ``errors`` are what its console says is wrong."""
    with browser.new_context(viewport={"width": width, "height": height}, **options) as context:
        page = context.new_page()
        # A busy machine takes its time.
        page.set_default_timeout(60_000)
        page.errors = []
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.on(
            "console", lambda said: said.type == "error" and page.errors.append(f"{said.text} {said.location['url']}")
        )
        yield page
