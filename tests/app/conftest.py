"""The real App in a real browser: a fresh server for each test, driven by Playwright."""

from __future__ import annotations

import socket
import time

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

    def execute(self, button="Execute"):
        self.form.get_by_text(button, exact=True).last.click()


@pytest.fixture
def app(fo):
    """Opens the App on a dataset: ``app(dataset)`` gives the page."""
    sync_api = need("playwright.sync_api", "pip install 'promerge-fo[app-tests]'")
    chromium = need_command("chromium", "apt-get install chromium")

    opened = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)

        def start(dataset):
            session = fo.launch_app(dataset, remote=True, address="127.0.0.1", port=_free_port())
            opened.append(session)
            made = App(browser.new_page(viewport={"width": 1400, "height": 900}), session)
            made.open()
            return made

        yield start
        browser.close()
    for session in opened:
        session.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
