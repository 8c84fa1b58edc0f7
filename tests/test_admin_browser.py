"""The admin's pages in a browser: seen, narrow, dark, by keyboard, by screen reader.

``pytest tests/test_admin_browser.py --screenshots`` renews the pictures of the docs.
"""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from weakref import WeakSet

import pytest
from asgiref.sync import async_to_sync
from django import VERSION
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.core.cache import caches
from django.test import Client
from pytest_django.live_server_helper import LiveServer

from cache_memoize import cache_memoize, describe, model_signals, planning
from cache_memoize.admin.overview import format_moment
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
from tests.conftest import FakeClock, close_connections
from tests.models import Post
from tests.needs import need
from tests.servers import SERVERS

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.thorough]
LIST = "/admin/cache_memoize/memoizedfunction/"
WIDTHS = [1920, 1280, 360]
#: What older admins have around our part of the page, and, before 5, in its colours.
DJANGOS: tuple[str, ...] = ()
if VERSION < (6, 0):
    DJANGOS += ("region: ", "landmark-one-main: ", "meta-viewport: ")
if VERSION < (5, 0):
    DJANGOS += ("color-contrast: ",)


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What other tests have left to tell is not told here."""
    monkeypatch.setattr(reporter, "_known", WeakSet())


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
                    shop.checkout.discount(luck.randrange(4))
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

    def tab_to(self, selector: str, *, back: bool = False) -> None:
        from selenium.webdriver.common.keys import Keys

        for _ in range(80):
            self.press(*([Keys.SHIFT, Keys.TAB, Keys.SHIFT] if back else [Keys.TAB]))
            if self.driver.execute_script(
                "return document.activeElement.matches(arguments[0])", selector
            ):
                return
        raise AssertionError(f"{selector} is not reached by the tabulator key")

    def submit(self) -> None:
        """Press Enter, and wait for the next page."""
        from selenium.webdriver.common.keys import Keys

        self.follow(lambda: self.press(Keys.ENTER))

    def click(self, selector: str) -> None:
        """Click on what leads to another page, and wait for that."""
        self.follow(self.driver.find_element("css selector", selector).click)

    def follow(self, action: Callable[[], object]) -> None:
        from selenium.webdriver.support.wait import WebDriverWait

        self.driver.execute_script("document.documentElement.dataset.old = 1")
        action()
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
        keeper.open(LIST)
        assert (
            len(keeper.driver.find_elements("css selector", "#content-main tbody svg"))
            == 7
        )
        assert "7 memoized functions" in keeper.sees("#content-main caption")
        keeper.check()
        region = keeper.driver.find_element("css selector", ".memoize-scroll")
        fits = region.get_property("scrollWidth") <= region.get_property("clientWidth")
        assert fits is (width >= 1280)
        if pictures and width < 1920:
            shoot(keeper, f"admin-list-{width}", width, 1200)

    # On the telephone, the names stay while the figures scroll.
    name = keeper.driver.find_element("css selector", "#result_list tbody th a")
    chart = keeper.driver.find_element("css selector", "#result_list tbody td")
    before = name.rect["x"], chart.rect["x"]
    keeper.driver.execute_script("arguments[0].scrollLeft = 300", region)
    assert name.rect["x"] == before[0] and chart.rect["x"] < before[1]

    # By keyboard: what does not fit is reached, and searched.
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
    keeper.open(LIST + "?q=stock&o=-hits")
    keeper.tab_to(".memoize-windows a[href*='w=15']")
    keeper.submit()
    assert "function of this process, last 15 minutes" in keeper.sees(
        "#content-main caption"
    )
    assert keeper.sees(".memoize-windows [aria-current]") == "Last 15 minutes"
    keeper.tab_to("tbody th a")
    keeper.submit()
    assert "shop.checkout.stock" in keeper.sees("#content h1")


def test_a_function(shop: Any, keeper: Keeper, pictures: bool) -> None:
    for width in WIDTHS:
        resize(keeper.driver, width, 900)
        keeper.open(keeper.page(shop.catalogue.best_sellers))
        keeper.check()
        keeper.tab_to("#id_arguments")
        keeper.press('"tea"')
        keeper.tab_to("#id_language")
        keeper.press("Ger")
        keeper.tab_to("button[formaction$='/refresh/']")
        keeper.submit()
        assert "and its result is stored" in keeper.sees("[role=status]")
        keeper.check()
        runs = shop.catalogue.best_sellers.cache_info().computations
        keeper.driver.refresh()
        assert shop.catalogue.best_sellers.cache_info().computations == runs
        keeper.tab_to("#id_arguments")
        keeper.press('"tea"')
        keeper.tab_to("#id_language")
        keeper.press("Ger")
        keeper.tab_to("#id_arguments", back=True)
        keeper.submit()  # what Enter does in the field: nothing changes by it
        assert "list with 10 items" in keeper.sees("[role=status]")
        field = keeper.driver.find_element("css selector", "#id_arguments")
        assert field.get_property("value") == '"tea"'
        keeper.check()
        if pictures and width == 1280:
            shoot(keeper, f"admin-function-{width}", width, 1500)

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
        keeper.open(keeper.page(shop.catalogue.related_products))
        keeper.tab_to(".memoize-all")
        keeper.submit()
        assert "Invalidate all calls of shop.catalogue.related" in keeper.sees("h1")
        keeper.check()
        keeper.tab_to(".memoize-all")
        keeper.submit()
        assert "All calls of the function are invalidated" in keeper.sees(
            "[role=status]"
        )
        keeper.check()


@pytest.fixture
def outage(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A shop one of whose servers is stopped, and one of whose providers is down."""
    need("valkey")
    servers = {name: SERVERS["valkey"].another() for name in ("default", "prices")}
    settings.CACHES = {
        name: {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": f"redis://127.0.0.1:{server.port}",
        }
        for name, server in servers.items()
    }
    settings.CACHE_MEMOIZE = {"STATS_INTERVAL": 0, "REFRESH": "inline"}
    monkeypatch.setattr(planning, "_functions", type(planning._functions)())
    clock, down = FakeClock(), set()
    clock.started -= 600

    @cache_memoize(60, cache_alias="prices", prefix="stock", _clock=clock)
    def stock(pk: int) -> int:
        return pk

    @cache_memoize(60, stale=3600, prefix="rates", _clock=clock)
    def rates() -> int:
        if down:
            raise ConnectionError
        return 1

    @cache_memoize(60, prefix="report", _clock=clock)
    def report(year: int) -> int:
        clock.tick(2.5)
        return year

    @cache_memoize(600, prefix="card", tags=lambda pk: f"post:{pk}", _clock=clock)
    def card(pk: int) -> str:
        return f"card {pk}"

    @cache_memoize(600, prefix="titles", depends_on="tests.Post", _clock=clock)
    def titles() -> list[str]:
        return list(Post.objects.values_list("title", flat=True))

    card.invalidate_on(Post, lambda post: (post.pk,))
    reporter.add(sitewide.tell)
    try:
        for server in servers.values():
            server.start()
        posts = [Post.objects.create(title=title) for title in ("tea", "pot")]
        for post in posts:
            stock(post.pk), card(post.pk), titles(), rates(), report(post.pk)
        down.add("the bank")
        clock.tick(300)
        rates()
        reporter.flush_stats()
        servers["prices"].stop()
        for _ in range(4):
            stock(1)
        functions = {"stock": stock, "rates": rates, "report": report, "card": card}
        yield SimpleNamespace(**functions, titles=titles, posts=posts, clock=clock)
    finally:
        reporter.remove(sitewide.tell)
        model_signals._registered.clear()
        close_connections()
        for server in servers.values():
            server.stop()


def test_six_questions_of_an_incident(outage: Any, keeper: Keeper) -> None:
    """Each is answered by the list, or two clicks from there."""
    colleague = Client()
    colleague.force_login(User.objects.create_superuser("mira"))
    one, other = outage.posts

    def names() -> list[str]:
        found = keeper.driver.find_elements("css selector", "#result_list tbody th a")
        return [each.text.rpartition(".")[2] for each in found]

    # Which cache is bad?
    keeper.open(LIST)
    assert names()[:2] == ["stock", "rates"]
    row = keeper.sees("#result_list tbody tr:nth-child(1)")
    assert "prices" in row and "not used" in row
    assert "The cache prices does not answer" in keeper.sees(".memoize-warning")
    keeper.click(".memoize-tabs a[href$='/caches/']")
    row = keeper.sees("#memoize-caches tbody tr:nth-child(1)")
    assert row.startswith("prices") and "fails: ConnectionError" in row
    assert "open" in row and "does without the cache" in row
    row = keeper.sees("#memoize-caches tbody tr:nth-child(2)")
    assert re.search(r"default\nRedisCache\n\S+\nin \S+ .s closed yes 0 ", row)
    keeper.check()

    # What is stale, and since when?
    keeper.open(LIST)
    since = outage.rates.site_info().old_since
    moment = f"serving old values since {format_moment(since)}: refreshes fail"
    assert moment in keeper.sees("#result_list tbody tr:nth-child(2)")

    # Why is this page slow?
    assert names()[2] == "report"
    keeper.click("#result_list tbody tr:nth-child(3) a")
    assert "2.5 s" in keeper.sees("#memoize-figures tbody tr")
    keeper.check()

    # Who depends on posts?
    keeper.open(LIST)
    keeper.click(".memoize-tabs a[href$='/dependencies/']")
    row = keeper.sees("#memoize-dependents tbody tr")
    assert row.startswith("tests.Post") and ".card\n" in row and ".titles" in row
    keeper.check()

    # Forget this post everywhere.
    from selenium.webdriver.support.select import Select

    Select(keeper.driver.find_element("id", "id_model")).select_by_value("tests.Post")
    keeper.driver.find_element("id", "id_pk").send_keys(str(one.pk))
    keeper.click("form:has(#id_pk) button")
    assert "this row of tests.Post is invalidated" in keeper.sees("[role=status]")
    assert outage.card.peek(one.pk) is outage.titles.peek() is None
    assert outage.card.peek(other.pk) is not None
    keeper.driver.refresh()
    assert LogEntry.objects.count() == 1
    keeper.check()

    # What did a colleague just do?
    fields = {"arguments": str(other.pk)}
    address = keeper.page(outage.card)
    assert colleague.post(f"{address}invalidate/", fields).status_code == 302
    keeper.open(LIST)
    row = keeper.sees("#memoize-changes tbody tr")
    assert "mira Invalidated one call" in row and ".card" in row
    keeper.click(".memoize-tabs a[href$='/history/']")
    assert keeper.sees("#memoize-changes tbody tr") == row
    keeper.check()


def test_dependencies(shop: Any, keeper: Keeper, pictures: bool) -> None:
    from selenium.webdriver.common.keys import Keys

    for width in WIDTHS:
        resize(keeper.driver, width, 800)
        keeper.open(f"{LIST}dependencies/")
        keeper.check()
        if pictures and width == 1280:
            shoot(keeper, f"admin-dependencies-{width}", width, 800)
        keeper.tab_to("#id_tag")
        keeper.press("search")
        keeper.submit()
        assert "Invalidate all that depends on “search”?" in keeper.sees("h1")
        assert "shop.catalogue.search" in keeper.sees("#memoize-affected")
        keeper.check()
        keeper.tab_to(".memoize-all")
        keeper.submit()
        assert "with this tag are invalidated" in keeper.sees("[role=status]")
        keeper.tab_to("#id_pk")
        keeper.press("1")
        keeper.press(Keys.ENTER)  # the browser asks for the model
        assert keeper.driver.switch_to.active_element.get_attribute("id") == "id_model"


def test_the_caches(shop: Any, keeper: Keeper, pictures: bool) -> None:
    for width in WIDTHS:
        resize(keeper.driver, width, 800)
        keeper.open(f"{LIST}caches/")
        keeper.check()
        if pictures and width == 1280:
            shoot(keeper, f"admin-caches-{width}", width, 800)


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
