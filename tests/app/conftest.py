"""The real App in a real browser, driven by Playwright.

One server and one browser serve all tests of a process. A test opens the page of its own dataset;
where the dataset changes, FiftyOne's server closes the panels and forgets view and selection.

A test that fails leaves screenshots in ``test-results``; with PROMERGE_TRACE=1 a trace, too, for
``playwright show-trace``. To trace takes a quarter of the page's time.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.app.page import FLAGS, App
from tests.needs import need, need_command

HERE = Path(__file__).parent
RESULTS = Path("test-results")
TRACE = os.environ.get("PROMERGE_TRACE", "0") != "0"
#: Bars and circles that move while a page waits would take half a core.
STILL = """document.addEventListener("DOMContentLoaded", () => {
    const style = document.createElement("style");
    style.textContent = "* { animation: none !important; transition: none !important }";
    document.head.append(style);
})"""
BROWSER = pytest.StashKey()
FAILED = pytest.StashKey()


class Browser:
    """A window of Chromium, which keeps the App's files from one test to the next.

    It is opened when it is first asked for, and again after it was closed.
    """

    def __init__(self):
        self._window = None
        self._open = ExitStack()

    def window(self):
        """The window, a Playwright context."""
        if self._window is None:
            sync_api = need("playwright.sync_api", "pip install 'promerge-fo[app-tests]'")
            # without a window to draw, it takes less of the CPU than the whole browser
            chromium = shutil.which("chromium-headless-shell") or need_command(
                "chromium", "apt-get install chromium"
            )
            playwright = self._open.enter_context(sync_api.sync_playwright())
            browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
            self._open.callback(browser.close)
            self._window = browser.new_context(viewport={"width": 1400, "height": 900})
            self._window.add_init_script(STILL)
            if TRACE:
                self._window.tracing.start(snapshots=True, screenshots=True)
        return self._window

    def close(self):
        self._open.close()
        self._window = None


@pytest.fixture(scope="session")
def browser(request):
    request.config.stash[BROWSER] = Browser()
    yield request.config.stash[BROWSER]
    request.config.stash[BROWSER].close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item, nextitem):
    """Close the browser before tests of other folders: Playwright keeps asyncio's loop running."""
    result = yield
    if BROWSER in item.config.stash and (nextitem is None or HERE not in nextitem.path.parents):
        item.config.stash[BROWSER].close()
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.when == "call":
        item.stash[FAILED] = report.failed
    return report


@pytest.fixture(scope="session")
def plugin(fo) -> Path:
    """The folder of the plugin, where FiftyOne looks for it."""
    from promerge_fo.install.plugin import install_plugin

    return install_plugin()


@pytest.fixture(scope="session")
def server(plugin) -> Iterator[str]:
    """The address of the App's server."""
    from fiftyone.core.service import ServerService

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    service = ServerService(port, "127.0.0.1", do_not_track=True)
    yield f"http://127.0.0.1:{port}"
    service.stop()


@pytest.fixture(scope="session")
def made(fo, photographs):
    """What ``segmented`` copies."""
    from promerge_fo import dataset as pfo
    from promerge_fo.config import ProMergeConfig

    model = pfo.load_model(
        encoder="texture", config=ProMergeConfig(image_size=160, min_refined_iou=0)
    )
    dataset = fo.Dataset()
    dataset.add_samples([fo.Sample(filepath=path) for path in photographs])
    dataset.apply_model(model, label_field="promerge", batch_size=4, num_workers=0)
    return dataset


@pytest.fixture
def segmented(made, copy_of, plugin):
    """The photographs with masks."""
    return copy_of(made)


@pytest.fixture
def app(dataset, copy_of, server, browser, request):
    """Opens the App on a dataset: ``app(dataset)`` gives the page."""
    window = browser.window()
    if TRACE:
        window.tracing.start_chunk()

    def start(dataset):
        made = App(window.new_page(), f"{server}/datasets/{dataset.name}")
        made.open()
        return made

    yield start
    failed = request.node.stash.get(FAILED, False)
    if failed:
        RESULTS.mkdir(exist_ok=True)
        for number, page in enumerate(window.pages):
            page.screenshot(path=RESULTS / f"{request.node.name}-{number}.png")
    if TRACE:
        window.tracing.stop_chunk(path=RESULTS / f"{request.node.name}.zip" if failed else None)
    for page in window.pages:
        page.evaluate("localStorage.clear()")
        page.close()
