"""The panel in a real toolbar, in a real browser: seen, clean, and for everybody."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import axe_selenium_python as axe
import pytest
from selenium.webdriver.support.wait import WebDriverWait

from tests.browser import PATIENCE, chromium, dark, picture, resize
from tests.servers import free_port

pytestmark = pytest.mark.thorough
ROOT = Path(__file__).resolve().parents[1]
AXE = Path(axe.__file__).parent / "node_modules" / "axe-core" / "axe.min.js"

#: In the newer toolbars everything is in a shadow root.
TOOLBAR = """
const host = document.querySelector("#djDebugRoot");
const root = (host && host.shadowRoot) || document;
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: Any) -> Iterator[str]:
    """A project with the toolbar, served by Django's own server."""
    folder = tmp_path_factory.mktemp("toolbar")
    port = free_port()
    command = [sys.executable, "-m", "django", "runserver", "--noreload"]
    with (
        (folder / "log").open("w+") as log,
        subprocess.Popen(
            [*command, f"127.0.0.1:{port}"],
            env=os.environ
            | {
                "DJANGO_SETTINGS_MODULE": "tests.toolbar_settings",
                "MEMOIZE_FOLDER": str(folder),
                "PYTHONPATH": str(ROOT),
            },
            stdout=log,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        url = f"http://127.0.0.1:{port}/"
        try:
            deadline = time.monotonic() + PATIENCE
            while process.poll() is None and time.monotonic() < deadline:
                try:
                    urlopen(f"{url}nothing/", timeout=PATIENCE).close()
                    break
                except URLError:
                    time.sleep(0.05)
            yield url
        finally:
            process.terminate()
            process.wait(PATIENCE)
            log.seek(0)
            text = log.read()
    assert "Traceback" not in text, text


@pytest.fixture(params=["light", "dark"])
def browser(request: Any) -> Iterator[Any]:
    with chromium() as driver:
        resize(driver, 1280, 800)
        dark(driver, request.param == "dark")
        driver.theme = request.param
        yield driver


def look(driver: Any, script: str) -> Any:
    return driver.execute_script(TOOLBAR + script)


def open_panel(driver: Any, url: str) -> None:
    driver.get(url)
    wait = WebDriverWait(driver, PATIENCE)
    button = wait.until(
        lambda _: look(driver, "return root.querySelector('a.MemoizePanel')")
    )
    wait.until(lambda _: button.is_displayed())
    button.click()
    panel = wait.until(
        lambda _: look(driver, "return root.querySelector('.cache-memoize')")
    )
    wait.until(lambda _: panel.is_displayed())


def test_somebody_opens_the_panel(address: str, browser: Any, pytestconfig: Any):
    with urlopen(address, timeout=PATIENCE):
        pass  # so that there are hits
    open_panel(browser, address)
    text = look(browser, "return root.querySelector('.cache-memoize').innerText")
    assert "tests.toolbar.price" in text
    assert 'local="request" would have saved 2 round trips to the cache.' in text
    assert look(browser, "return root.querySelector('#djDebug').dataset.theme") in (
        browser.theme,
        "auto",  # the older toolbars leave it to the style sheet
    )
    # Nothing of it runs out of the window.
    assert look(
        browser,
        "const panel = root.querySelector('.cache-memoize');"
        "return panel.scrollWidth <= panel.clientWidth;",
    )
    if pytestconfig.getoption("--screenshots"):
        picture(browser, f"panel-{browser.theme}", 1280, 800)
    assert browser.get_log("browser") == []


def findings(browser: Any) -> list[Any]:
    browser.execute_script(AXE.read_text("utf-8"))
    found = browser.execute_async_script(
        TOOLBAR + "const done = arguments[arguments.length - 1];"
        "axe.run(root.querySelector('.cache-memoize')).then("
        "  result => done(result), error => done(String(error)));"
    )
    assert isinstance(found, dict), found
    assert found["passes"]  # it has looked at something
    return [
        (each["id"], [(node["html"], node["any"]) for node in each["nodes"]])
        for each in found["violations"]
    ]


def test_it_is_for_everybody(address: str, browser: Any):
    """No findings of axe-core; and the control, a table without its headers."""
    open_panel(browser, address)
    found = findings(browser)
    assert found == [], json.dumps(found, indent=1)
    look(browser, "root.querySelector('.cache-memoize').innerHTML += '<img src=\"\">'")
    assert [name for name, _ in findings(browser)] == ["image-alt"]
