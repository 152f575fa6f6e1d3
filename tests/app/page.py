"""A page of the App, driven as a user would."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

PICTURES = os.environ.get("PROMERGE_PICTURES")  # a folder for the pictures of the guides

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

ALL_DRAWN = """() => {
    const images = [...document.querySelectorAll('[data-cy="looker"]')];
    return images.length > 0 && images.every(image => image.querySelector('canvas[canvas-loaded]'));
}"""
QUIET_S = 0.6  # longer than the App waits before it tells the server of a change


def wait_until(condition, seconds):
    """Ask again and again until a condition holds; fails where it never does."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"not within {seconds} s"
        time.sleep(0.1)


class App:
    """A page that shows a dataset, at a URL of the App."""

    def __init__(self, page, url):
        self.page, self.url = page, url
        self._asked = set()  # requests to operators and panels that have no answer yet
        self._answered_at = 0.0
        self._params = None  # what the form held when the server was last asked about it
        page.on("request", self._ask)
        page.on("requestfinished", self._answer)
        page.on("requestfailed", self._answer)

    def __getitem__(self, name):
        return self.page.locator(f'[data-cy="{name}"]').first

    def open(self):
        """Load the page, and wait until the grid of images is drawn."""
        self.page.goto(self.url)
        self["panel-tab-samples"].wait_for(timeout=60_000)
        self.drawn()
        dismiss = self.page.get_by_text("Dismiss")
        if dismiss.count():
            dismiss.first.click()

    def drawn(self):
        """Wait until all images of the grid are drawn."""
        self.page.wait_for_function(ALL_DRAWN, timeout=60_000)

    def grid(self):
        """The grid of images as it is drawn now: (h, w, 3) uint8."""
        png = self["fo-grid"].screenshot()
        return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))

    def panel(self, label):
        """Open a panel from the menu beside the panels' tabs, and wait until it is complete."""
        self["new-panel-btn"].click()
        self.page.get_by_text(label, exact=True).first.click()
        self.settle()

    def evaluation(self, key):
        """Open an evaluation in FiftyOne's own panel, and return the text that is shown then."""
        self.panel("Model Evaluation")
        panel = self["panel-content-model_evaluation_panel_builtin"]
        table = self.page.get_by_text("AR100 (masks, %)", exact=True).first
        self.click_until(panel.get_by_text(key, exact=True).first, table)
        return self.page.locator("body").inner_text()

    def click_until(self, button, shown):
        """Click, and wait until something is shown.

        A click between two drawings of a panel goes nowhere, and is made again, as a user would.
        """
        again, until = 0.0, time.monotonic() + 60
        while not shown.is_visible():
            assert time.monotonic() < until, f"{shown} is not shown after clicks on {button}"
            if button.is_visible() and time.monotonic() > again:
                button.click()
                again = time.monotonic() + 10
            self.page.wait_for_timeout(100)

    def operator(self, label):
        """Open an operator's form from the operator browser, and wait until it is complete."""
        self.page.mouse.move(700, 700)
        self.page.keyboard.press("`")
        self["operators-browser-search"].fill(label)
        self["operators-browser"].get_by_text(label, exact=True).click()
        self.form.wait_for(timeout=60_000)
        assert "Required property" not in self.form.inner_text(), "a form opens red"
        self.settle()

    def settle(self):
        """Wait until the server has answered all that operators and panels asked of it."""
        self._answered_at = time.monotonic()
        while self._asked or time.monotonic() < self._answered_at + QUIET_S:
            self.page.wait_for_timeout(50)  # lets the page's events through

    @property
    def form(self):
        return self["operators-prompt-modal"]

    @property
    def runs(self):
        return self["panel-content-promerge_runs"]

    def fill(self, label, text):
        """Type into the input of the form that follows a label."""
        field = self.form.locator(f"xpath=.//p[text()='{label}']/following::input[1]")
        if field.input_value() != text:
            with self._resolved(lambda params: text in _leaves(params)):
                field.fill(text)

    def choose(self, label, option):
        """Take an option of the menu that follows a label of the form."""
        self.form.locator(f"xpath=.//p[text()='{label}']/following::*[@role='combobox'][1]").click()
        choice = self.page.get_by_role("option", name=option).first
        if choice.get_attribute("aria-selected") == "true":
            choice.click()
        else:
            before = self._params
            with self._resolved(lambda params: params != before):
                choice.click()
        choice.wait_for(state="detached")

    def execute(self, button="Execute"):
        self.form.get_by_text(button, exact=True).last.click()

    def finish(self, said, close=False):
        """Wait until the panel of runs says what an operator did, and clear it; or close it, too.

        Returns all that it says.
        """
        self.runs.get_by_text(said).first.wait_for(timeout=120_000)
        self.runs.get_by_text("Stop", exact=True).wait_for(state="detached", timeout=120_000)
        self.runs.get_by_text(said).first.wait_for(timeout=30_000)
        text = self.runs.inner_text()
        self.runs.get_by_text("Clear what has ended").click()
        self.runs.get_by_text("Nothing has run yet").wait_for(timeout=30_000)
        if close:
            self["panel-tab-promerge_runs"].get_by_title("Close").click()
            self.runs.wait_for(state="detached", timeout=30_000)
            self.settle()
        return text

    def picture(self, name):
        """Keep what is seen, for the guides, where they are being made."""
        if PICTURES:
            self.page.screenshot(path=Path(PICTURES) / f"{name}.png")

    @contextmanager
    def _resolved(self, holds) -> Iterator[None]:
        """Wait until the server has answered about a form whose parameters pass a condition."""

        def answers(response):
            request = response.request
            return _is_form(request) and holds(request.post_data_json["params"])

        with self.page.expect_response(answers, timeout=60_000) as response:
            yield
        response.value.finished()

    def _ask(self, request):
        if "/operators/" in request.url:
            self._asked.add(request)
        if _is_form(request):
            self._params = request.post_data_json["params"]

    def _answer(self, request):
        if request in self._asked:
            self._asked.remove(request)
            self._answered_at = time.monotonic()


def _is_form(request) -> bool:
    return request.url.endswith("/operators/resolve-type")


def _leaves(value) -> set[str]:
    """All that a JSON value holds, as text."""
    if isinstance(value, dict | list):
        items = value.values() if isinstance(value, dict) else value
        return set().union(*map(_leaves, items))
    return {str(value)}
