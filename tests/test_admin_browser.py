"""The admin's pages in a browser: seen, narrow, dark, by keyboard, by screen reader.

``pytest tests/test_admin_browser.py --screenshots`` renews the pictures of the docs.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django import VERSION
from django.contrib.auth.models import User
from django.core.cache import caches
from django.test import Client
from pytest_django.live_server_helper import LiveServer

from cache_memoize import cache_memoize, describe, planning
from cache_memoize.stats import sitewide
from cache_memoize.stats.reporter import reporter
from tests.browser import (
    PATIENCE,
    chromium,
    dark,
    findings,
    is_too_wide,
    picture,
    resize,
)

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.thorough]
LIST = "/admin/cache_memoize/memoizedfunction/"
WIDTHS = [1280, 360]
#: What older admins have around our part of the page, and, before 5, in its colours.
DJANGOS: tuple[str, ...] = ()
if VERSION < (6, 0):
    DJANGOS += ("region: ", "landmark-one-main: ", "meta-viewport: ")
if VERSION < (5, 0):
    DJANGOS += ("color-contrast: ",)


@pytest.fixture
def shop(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A busy hour of a shop, which has its own functions and no others."""
    local = "django.core.cache.backends.locmem.LocMemCache"
    settings.CACHES = {
        name: {"BACKEND": local, "LOCATION": f"shop {name}"}
        for name in ("default", "prices")
    }
    settings.CACHE_MEMOIZE = {"STATS_INTERVAL": 0, "REFRESH": "inline"}
    monkeypatch.setattr(planning, "_functions", type(planning._functions)())
    monkeypatch.syspath_prepend(Path(__file__).parent / "bookshop")
    modules = ["shop.catalogue", "shop.checkout", "shop.clock"]
    shop = SimpleNamespace(**{m[5:]: import_module(m) for m in modules})
    reporter.add(sitewide.tell)
    try:
        visit(shop, monkeypatch)
        yield shop
    finally:
        reporter.remove(sitewide.tell)
        for cache in caches.all():
            cache.clear()
        for module in ["shop", *modules]:
            del sys.modules[module]


def visit(shop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real calls; only the minute in which they are counted is made up."""
    luck = random.Random(7)
    now = sitewide.time.time()
    shop.clock.CLOCK.started = now - 60 * 60

    class Then:
        minute = 0
        monotonic = staticmethod(sitewide.time.monotonic)

        @classmethod
        def time(cls) -> float:
            return now - 60.0 * (59 - cls.minute)

    clock = shop.clock.CLOCK
    rate, carrier = async_to_sync(shop.checkout.exchange_rate), shop.checkout.Carrier()
    with monkeypatch.context() as patch:
        patch.setattr(sitewide, "time", Then)
        for Then.minute in range(60):
            started = clock.offset
            if Then.minute in (20, 21, 22):
                shop.checkout.stock._memoized.stats.errors += 3
            if Then.minute == 44:
                shop.clock.DOWN.add("search")
            busy = 8 + Then.minute // 4 + luck.randrange(12)
            for _ in range(busy):
                product = int(luck.paretovariate(0.9)) % 400
                shop.catalogue.related_products(product)
                shop.checkout.stock(product)
                if luck.random() < 0.4:
                    words = luck.choice(["tea", "pot", "green tea", "mug"])
                    shop.catalogue.search(words)
                if luck.random() < 0.2:
                    shop.catalogue.best_sellers(luck.choice(["tea", "mugs", None]))
                if luck.random() < 0.15:
                    rate(luck.choice(["NOK", "EUR", "CHF"]))
                    carrier.quote(luck.choice(["NO", "CH"]), 500)
            clock.offset = max(clock.offset, started + 60)
            reporter.flush_stats()


@pytest.fixture
def address(settings: Any, transactional_db: None) -> Iterator[str]:
    settings.ALLOWED_HOSTS = ["*"]
    settings.MIDDLEWARE = ["tests.browser.strict", *settings.MIDDLEWARE]
    server = LiveServer("127.0.0.1")
    try:
        yield server.url
    finally:
        server.stop()


class Keeper:
    """Somebody who looks after the shop, in front of the browser."""

    def __init__(self, driver: Any, address: str) -> None:
        self.driver = driver
        self.address = address
        client = Client()
        client.force_login(User.objects.create_superuser("keeper"))
        driver.get(f"{address}/admin/login/")
        driver.add_cookie({"name": "sessionid", "value": client.session.session_key})

    def open(self, path: str) -> None:
        self.driver.get(self.address + path)

    def page(self, memoized: Any) -> str:
        return f"{LIST}{describe.info_of(memoized).id}/"

    def check(self) -> None:
        """What has to be right on every page, in either theme."""
        assert self.driver.get_log("browser") == []
        for wanted in (True, False):
            dark(self.driver, wanted)
            found = findings(self.driver)
            assert [f for f in found if not f.startswith(DJANGOS)] == []
        assert not is_too_wide(self.driver)
        assert self.driver.get_log("browser") == []

    def sees(self, selector: str) -> str:
        return str(self.driver.find_element("css selector", selector).text)

    def press(self, *keys: str) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def tab_to(self, selector: str) -> None:
        from selenium.webdriver.common.keys import Keys

        for _ in range(80):
            self.press(Keys.TAB)
            if self.driver.execute_script(
                "return document.activeElement.matches(arguments[0])", selector
            ):
                return
        raise AssertionError(f"{selector} is not reached by the tabulator key")

    def submit(self) -> None:
        """Press Enter, and wait for the next page."""
        from selenium.webdriver.common.keys import Keys
        from selenium.webdriver.support.wait import WebDriverWait

        self.driver.execute_script("document.documentElement.dataset.old = 1")
        self.press(Keys.ENTER)
        new = (
            "return document.readyState === 'complete' "
            "&& !document.documentElement.dataset.old"
        )
        WebDriverWait(self.driver, PATIENCE).until(lambda d: d.execute_script(new))


@pytest.fixture
def keeper(address: str) -> Iterator[Keeper]:
    with chromium() as driver:
        yield Keeper(driver, address)


@pytest.fixture
def pictures(request: Any) -> bool:
    return bool(request.config.getoption("--screenshots"))


def shoot(keeper: Keeper, name: str, width: int, most: int) -> None:
    for theme in ("light", "dark"):
        dark(keeper.driver, theme == "dark")
        picture(keeper.driver, f"{name}-{theme}", width, most)


def test_the_list(shop: Any, keeper: Keeper, pictures: bool) -> None:
    for width in WIDTHS:
        resize(keeper.driver, width, 800)
        keeper.open(LIST + "?o=-saved")
        assert (
            len(keeper.driver.find_elements("css selector", "#content-main tbody svg"))
            == 6
        )
        assert "6 memoized functions" in keeper.sees("#content-main caption")
        keeper.check()
        if pictures and width == 1280:
            shoot(keeper, f"admin-list-{width}", width, 800)

    # By keyboard, on the telephone: what does not fit is reached, and searched.
    keeper.tab_to("#searchbar")
    keeper.press("stock")
    keeper.submit()
    assert "1 memoized function" in keeper.sees("#content-main caption")
    region = keeper.driver.find_element("css selector", ".memoize-scroll")
    keeper.tab_to(".memoize-scroll")
    assert region.get_property("scrollWidth") > region.get_property("clientWidth")
    keeper.tab_to("th a[href*='o=-hits']")
    keeper.submit()
    assert keeper.sees("[aria-sort=descending]").lower().startswith("hits")
    assert "1 memoized function" in keeper.sees("#content-main caption")
    keeper.tab_to("tbody th a")
    keeper.submit()
    assert "shop.checkout.stock" in keeper.sees("#content h1")


def test_a_function(shop: Any, keeper: Keeper, pictures: bool) -> None:
    for width in WIDTHS:
        resize(keeper.driver, width, 900)
        keeper.open(keeper.page(shop.catalogue.related_products))
        keeper.check()
        keeper.tab_to("#id_arguments")
        keeper.press('42, lang="en"')
        keeper.tab_to("button[formaction$='/refresh/']")
        keeper.submit()
        assert "and its result is stored" in keeper.sees("[role=status]")
        keeper.tab_to("#id_arguments")
        keeper.submit()  # what Enter does in the field: nothing changes by it
        assert "list with 5 items" in keeper.sees("[role=status]")
        keeper.check()
        if pictures:
            shoot(keeper, f"admin-function-{width}", width, 1400)

        keeper.tab_to("#id_arguments")
        keeper.press("1 2")
        keeper.submit()
        field = keeper.driver.switch_to.active_element
        assert field.get_attribute("id") == "id_arguments"
        described = field.get_attribute("aria-describedby").split()
        assert "not Python" in keeper.sees(f"#{described[1]}")
        assert field.get_attribute("aria-invalid") == "true"
        assert keeper.driver.title.startswith("Error: ")
        keeper.check()

        keeper.open(keeper.page(shop.catalogue.related_products))
        keeper.tab_to("summary")
        keeper.press(" ")
        assert keeper.driver.find_element(
            "css selector", "details tbody"
        ).is_displayed()
        keeper.tab_to(".memoize-all")
        keeper.submit()
        assert "All calls of the function are invalidated" in keeper.sees(
            "[role=status]"
        )
        keeper.check()


def test_what_goes_wrong(keeper: Keeper, settings: Any, monkeypatch: Any) -> None:
    nowhere = {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": "redis://127.0.0.1:1",
    }
    settings.CACHES = {**settings.CACHES, "nowhere": nowhere}
    monkeypatch.setattr(planning, "_functions", type(planning._functions)())

    class Shop:
        @cache_memoize(60, cache_alias="nowhere")
        def silent(self) -> None: ...

        @cache_memoize(60, cache_alias="unknown")
        def uncounted(self) -> None: ...

    for width in WIDTHS:
        resize(keeper.driver, width, 800)
        keeper.open(LIST)
        assert "nowhere does not answer" in keeper.sees(".memoize-warning")
        assert keeper.sees("#content-main table").count("no figures") == 2
        keeper.check()
        keeper.open(keeper.page(Shop.silent))
        keeper.check()
        keeper.open(LIST + "?q=nothing+like+it")
        keeper.check()
        keeper.open("/admin/")
        assert LIST in keeper.driver.page_source
    keeper.open(f"{LIST}0123/")
    assert "This function is not known" in keeper.sees("#content h1")
    (log,) = keeper.driver.get_log("browser")
    assert "404" in log["message"]
    keeper.check()
