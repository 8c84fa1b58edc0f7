"""A headless Chromium: what tests of pages need of it."""

from __future__ import annotations

import base64
import io
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import axe_selenium_python as axe
from django.http import HttpResponse
from selenium import webdriver

from tests.needs import CHROMIUM, need

PATIENCE = 60  # seconds, for machines that are busy with other tests
PICTURES = Path(__file__).resolve().parent.parent / "docs" / "figures" / "screens"
#: For a page that has no script or style of its own but in files.
POLICY = "default-src 'self'; img-src 'self' data:; form-action 'self'"


@contextmanager
def chromium() -> Iterator[Any]:
    need("chromium")
    options = webdriver.ChromeOptions()
    options.binary_location = next(filter(None, map(shutil.which, CHROMIUM)))
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path=shutil.which("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    try:
        driver.set_page_load_timeout(PATIENCE)
        driver.set_script_timeout(PATIENCE)
        yield driver
    finally:
        driver.quit()


def resize(driver: Any, width: int, height: int) -> None:
    """A headless window does not get as narrow as a telephone by itself."""
    screen = {"width": width, "height": height, "deviceScaleFactor": 1}
    screen["mobile"] = width < 600
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)


def dark(driver: Any, wanted: bool) -> None:
    value = "dark" if wanted else "light"
    features = [{"name": "prefers-color-scheme", "value": value}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    # The colours of links take a moment to change.
    driver.execute_async_script(
        "const done = arguments[0];"
        "const still = () => requestAnimationFrame(() => requestAnimationFrame(() =>"
        "  document.getAnimations().length ? still() : done()));"
        "still()"
    )


def is_too_wide(driver: Any) -> bool:
    """Whether the page scrolls sideways."""
    root = "document.documentElement"
    return bool(
        driver.execute_script(f"return {root}.scrollWidth > {root}.clientWidth")
    )


def findings(driver: Any) -> list[str]:
    """What axe-core has to say about the page."""
    folder = Path(axe.__file__).parent / "node_modules" / "axe-core"
    driver.execute_script((folder / "axe.min.js").read_text("utf-8"))
    found = driver.execute_async_script(
        "const done = arguments[0];"
        # It would load what style sheets import, from the wrong place.
        "axe.run({preload: false}).then(done, e => done({violations: [{id: `${e}`}]}))"
    )
    return [
        f"{v['id']}: {node['target']} {node.get('failureSummary')}"
        for v in found["violations"]
        for node in v.get("nodes", [{"target": "?"}])
    ]


def picture(driver: Any, name: str, width: int, most: int) -> None:
    """The page, down to so many pixels, as a small PNG of the docs."""
    from PIL import Image

    tall = driver.execute_script("return document.documentElement.scrollHeight")
    resize(driver, width, min(tall, most))
    driver.execute_script("document.activeElement.blur(); scrollTo(0, 0)")
    driver.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
    shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})["data"]
    driver.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": False})
    image = Image.open(io.BytesIO(base64.b64decode(shot))).convert("RGB")
    PICTURES.mkdir(parents=True, exist_ok=True)
    # Small spots of a colour keep it.
    method = Image.Quantize.MAXCOVERAGE
    few = image.quantize(255, method, dither=Image.Dither.NONE)
    few.save(PICTURES / f"{name}.png", optimize=True)


def strict(get_response: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A middleware: what is inline on a page is an error in the browser's console."""

    def answer(request: Any) -> Any:
        # A browser asks for it by itself, and reports that there is none.
        icon = request.path == "/favicon.ico"
        response = HttpResponse(status=204) if icon else get_response(request)
        response["Content-Security-Policy"] = POLICY
        return response

    return answer
