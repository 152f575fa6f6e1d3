"""The real App in a real browser: a fresh server for each test, driven by Playwright.

A test that fails leaves a screenshot and a trace (``playwright show-trace``) in ``test-results``.
"""

from __future__ import annotations

import os
import re
import socket
import time
from pathlib import Path

import pytest

from tests.needs import need, need_command

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


RESULTS = Path("test-results")
PICTURES = os.environ.get("PROMERGE_PICTURES")  # a folder for the pictures of the guides


class App:
    """A page that shows a dataset."""

    def __init__(self, page, session):
        self.page, self.session = page, session

    def __getitem__(self, name):
        return self.page.locator(f'[data-cy="{name}"]').first

    def open(self):
        self.page.goto(self.session.url)
        self["panel-tab-samples"].wait_for(timeout=60_000)
        self.page.locator("canvas").first.wait_for(timeout=60_000)
        dismiss = self.page.get_by_text("Dismiss")
        if dismiss.count():
            dismiss.first.click()
        time.sleep(3)

    def grid(self):
        """The grid of images as it is drawn now: (h, w, 3) uint8."""
        import io

        import numpy as np
        from PIL import Image

        png = self["fo-grid"].screenshot()
        return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))

    def panel(self, label):
        """Open a panel from the menu beside the panels' tabs."""
        self["new-panel-btn"].click()
        time.sleep(1)
        self.page.get_by_text(label, exact=True).first.click()
        time.sleep(3)

    def operator(self, label):
        """Open an operator's form from the operator browser."""
        self.page.mouse.move(700, 700)
        self.page.keyboard.press("`")
        self["operators-browser-search"].wait_for(timeout=10_000)
        self.page.keyboard.type(label)
        time.sleep(1.5)
        self.page.keyboard.press("Enter")
        self.form.wait_for(timeout=30_000)
        time.sleep(2)

    @property
    def form(self):
        return self["operators-prompt-modal"]

    def fill(self, label, text):
        """Type into the input of the form that follows a label; forms react after a pause."""
        self.form.locator(f"xpath=.//p[text()='{label}']/following::input[1]").fill(text)
        time.sleep(2)

    def choose(self, label, option):
        """Take an option of the menu that follows a label of the form."""
        self.form.locator(f"xpath=.//p[text()='{label}']/following::*[@role='combobox'][1]").click()
        self.page.get_by_role("option", name=option).first.click()
        time.sleep(2)

    def execute(self, button="Execute"):
        self.form.get_by_text(button, exact=True).last.click()

    def finish(self, said):
        """Wait until an operator says what it did, and close that; returns all that it says."""
        shown = self.page.get_by_role("dialog").filter(has_text=said)
        shown.get_by_text(said).first.wait_for(timeout=120_000)
        text = shown.inner_text()
        shown.get_by_text(re.compile("^(Done|Close)$")).click()
        shown.wait_for(state="detached", timeout=30_000)
        return text

    def picture(self, name):
        """Keep what is seen, for the guides, where they are being made."""
        if PICTURES:
            self.page.screenshot(path=Path(PICTURES) / f"{name}.png")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.when == "call":
        item.stash[FAILED] = report.failed
    return report


FAILED = pytest.StashKey()


@pytest.fixture
def app(fo, request):
    """Opens the App on a dataset: ``app(dataset)`` gives the page."""
    sync_api = need("playwright.sync_api", "pip install 'promerge-fo[app-tests]'")
    chromium = need_command("chromium", "apt-get install chromium")

    opened = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        context = browser.new_context(viewport={"width": 1400, "height": 900})
        context.tracing.start(screenshots=True, snapshots=True)

        def start(dataset):
            session = fo.launch_app(dataset, remote=True, address="127.0.0.1", port=_free_port())
            opened.append(session)
            made = App(context.new_page(), session)
            made.open()
            return made

        yield start
        if request.node.stash.get(FAILED, False):
            RESULTS.mkdir(exist_ok=True)
            for number, page in enumerate(context.pages):
                page.screenshot(path=RESULTS / f"{request.node.name}-{number}.png")
            context.tracing.stop(path=RESULTS / f"{request.node.name}.zip")
        browser.close()
    for session in opened:
        session.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
