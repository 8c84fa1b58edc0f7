"""The panel for django-debug-toolbar: what one request asked of memoized functions."""

from __future__ import annotations

import asyncio
import functools
import html.parser
import importlib
import re
import sys
import threading
from collections import Counter

import pytest
from asgiref.sync import async_to_sync
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured
from django.test import AsyncClient, Client, override_settings

from cache_memoize import cache_memoize, panels, planning, signals
from cache_memoize.cache import connections
from cache_memoize.protocol import threads as pool
from cache_memoize.protocol.call import Call
from tests import toolbar_settings
from tests.conftest import FakeClock, close_connections

SETTINGS = {
    name: getattr(toolbar_settings, name)
    for name in dir(toolbar_settings)
    if name.isupper() and name not in ("DATABASES", "FOLDER", "SECRET_KEY")
}
APPS = SETTINGS.pop("INSTALLED_APPS")
TOOLBAR = {name: SETTINGS.pop(name) for name in [*SETTINGS] if "TOOLBAR" in name}
FUNCTIONS = "Memoized functions of this request"
DUPLICATES = "Calls that were read more than once"
EVENTS = "Events in order"
USERS = "Tables and tags of these functions"
MADE_OF = "What results of these functions were made of, in this process"


@pytest.fixture(autouse=True)
def project():
    # One after the other: when apps are made ready they look at their settings, and the
    # toolbar's own settings need its models.
    with (
        override_settings(**SETTINGS),
        override_settings(INSTALLED_APPS=APPS),
        override_settings(**TOOLBAR),
    ):
        caches["default"].clear()
        yield
        caches["default"].clear()
    assert not panels._recordings and panels._current.get() is None
    assert not any(signal.receivers for signal in signals.ALL.values())


@pytest.fixture
def views(project):
    from tests import toolbar

    return toolbar


class Tables(html.parser.HTMLParser):
    """{aria-label: rows of cells}, without the headers."""

    def __init__(self, text):
        super().__init__()
        self.found, self.rows, self.cell = {}, [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        if tag == "table":
            self.rows = self.found[dict(attributes).get("aria-label")] = []
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.cell = []

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.rows[-1].append(" ".join("".join(self.cell).split()))
            self.cell = None

    def handle_data(self, text):
        if self.cell is not None:
            self.cell.append(text)


class Panel:
    """What a response shows of it."""

    def __init__(self, response):
        text = response.content.decode()
        self.text = " ".join(re.sub(r"<[^>]*>", " ", text).split())
        tables = Tables(text).found
        self.functions, self.duplicates, self.events, self.users, self.made_of = (
            tables.get(label, [None])[1:]
            for label in (FUNCTIONS, DUPLICATES, EVENTS, USERS, MADE_OF)
        )
        #: As they are shown; events one by one, with the first columns.
        self.rows = self.events
        self.events = [row[:6] for row in self.rows for _ in range(int(row[6]))]

    @property
    def kinds(self):
        return [event[1] for event in self.events]

    def counts(self, function):
        """{kind: how many}, without those that were not."""
        (row,) = [row for row in self.functions if row[0].endswith(function)]
        numbers = zip(signals.ALL, map(int, row[2:-2]), strict=True)
        return {kind: number for kind, number in numbers if number}


def get(url):
    return Panel(Client().get(url))


def test_it_shows_the_calls_of_a_request(views):
    panel = get("/one/tea/")
    assert panel.kinds == ["miss", "computed"]
    assert panel.counts("toolbar.price") == {"miss": 1, "computed": 1}
    at, kind, function, cost, alias, key = panel.events[1]
    assert function == "tests.toolbar.price" and alias == "default"
    assert key == views.price.get_cache_key("tea")
    assert re.fullmatch(r"[\d.,]+ (ms|µs) spent", cost)
    assert re.fullmatch(r"[\d.,]+ (ms|µs|s)", at)
    assert panel.events[0][3] == ""
    assert "1 call, 0 from the cache" in panel.text

    panel = get("/one/tea/")
    assert panel.kinds == ["hit"]
    assert re.fullmatch(r"[\d.,]+ (ms|µs) saved", panel.events[0][3])
    assert "1 call, 1 from the cache" in panel.text


def test_where_a_call_was_made_and_why_it_missed(views, monkeypatch):
    miss, computed = get("/one/sugar/").rows
    *_, times, args, place, why = miss
    assert (times, args, why) == ("1", "'sugar'", "never stored: as far as is known")
    assert re.fullmatch(r"tests/toolbar\.py:\d+", place)
    views.price.invalidate("sugar")
    miss, _ = get("/one/sugar/").rows
    assert miss[-1].startswith("invalidated: the call, ")
    assert re.search(r"by tests/test_panels\.py:\d+$", miss[-1])
    monkeypatch.setattr(panels, "is_debug", lambda: False)
    (hit,) = get("/one/sugar/").rows
    assert hit[6:] == ["1", "", place, ""]


def test_a_call_that_cannot_be_explained_has_no_reason(views):
    f = views.price
    plan = planning.plan_of(f._memoized)
    call = Call(f._memoized, plan, plan.store, "key", (object(),))
    assert panels._explain(call) == ""


def test_calls_in_a_row_are_one_row_and_calls_inside_are_a_tree(views):
    get("/several/2/")
    assert [row[6] for row in get("/several/9/").rows] == ["9"]
    panel = get("/bill/milk/")
    shown = [(row[1], row[2].replace("tests.toolbar.", "")) for row in panel.rows]
    assert shown == [
        *[("miss", "bill"), ("miss", "↳ price"), ("computed", "↳ price")],
        *[("miss", "↳ rating"), ("computed", "↳ rating"), ("computed", "bill")],
    ]
    assert re.search(r"[\d.,]+ (µs|ms) in caches, [\d.,]+ (µs|ms) in comp", panel.text)


def test_a_request_without_calls_says_so(views):
    panel = get("/nothing/")
    assert "No memoized function was called." in panel.text
    assert panel.functions == panel.events == []


def test_every_kind_of_event_has_a_column(views):
    get("/")
    panel = get("/")
    assert panel.counts("toolbar.price") == {"hit": 5}
    assert panel.counts("toolbar.rating") == {
        "hit": 1,
        "miss": 1,
        "computed": 1,
        "invalidated": 1,
    }
    assert sum(panel.counts("toolbar.stock").values()) == 5


def test_an_error_says_what_failed(views, monkeypatch):
    def broken(*args, **kwargs):
        raise OSError("down")

    monkeypatch.setattr(type(caches["default"]), "get", broken)
    panel = get("/one/tea/")
    assert panel.kinds == ["error", "miss", "computed"]
    assert panel.events[0][2].endswith("price: the cache failed before the call")


# --- the same call, more than once ---------------------------------------------------


def test_repeated_calls_are_listed_with_what_a_memory_would_save(views):
    get("/")
    panel = get("/")
    (row,) = [row for row in panel.duplicates if "price" in row[0]]
    key = views.price.get_cache_key("tea")
    assert row == ["tests.toolbar.price", "default", key, "3", "2"]
    # One that has this memory already is none of them.
    assert not any("stock" in row[0] for row in panel.duplicates)


def test_it_says_how_many_round_trips(views):
    get("/several/1/")
    panel = get("/several/8/")
    assert 'local="request" would have saved 7 round trips' in panel.text.replace(
        "&quot;", '"'
    )
    assert "8 calls, 8 from the cache, 7 repeated" in panel.text


@pytest.mark.parametrize("cold", [True, False])
def test_it_promises_what_local_then_keeps(views, cold, monkeypatch):
    """The same page with ``local="request"``: so many round trips less."""
    asked = []
    original = connections.fetch

    def counting(alias, key):
        asked.append(key)
        return original(alias, key)

    monkeypatch.setattr("cache_memoize.planning.fetch", counting)

    def visit(**options):
        price = cache_memoize(60, prefix="promise", **options)(lambda item: 1)
        monkeypatch.setattr(views, "price", price)
        caches["default"].clear()
        if not cold:
            get("/several/1/")
        asked.clear()
        panel = get("/several/6/")
        return panel, len(asked)

    panel, without = visit()
    _, with_local = visit(local="request")
    (row,) = panel.duplicates
    assert int(row[4]) == without - with_local == (4 if cold else 5)


def test_what_the_functions_of_a_page_depend_on(views):
    """And the other functions that depend on the same."""
    for _ in range(2):
        panel = get("/bill/tea/")
    made_of = "tests.toolbar.price, tests.toolbar.rating"
    assert panel.made_of == [["tests.toolbar.bill", made_of]]
    panel = get("/")
    users = "tests.toolbar.bill, tests.toolbar.rating"
    assert panel.users == [["tag ratings", users]]
    assert not get("/one/tea/").users


def test_a_function_whose_options_are_wrong_does_not_break_the_page(views):
    get("/several/2/")
    with override_settings(CACHE_MEMOIZE={"DEFAULTS": {"timeout": "an hour"}}):
        timeless = cache_memoize(prefix="timeless")(lambda: 1)
        with pytest.raises(ImproperlyConfigured, match="does not fit"):
            timeless()
        assert get("/several/2/").kinds == ["hit", "hit"]


def test_a_forgotten_call_has_to_be_read_again(views):
    get("/")
    panel = get("/")
    assert not [row for row in panel.duplicates if "rating" in row[0] and row[4] != "0"]


def test_a_long_list_is_cut_and_counted_whole(views, monkeypatch):
    monkeypatch.setattr(panels, "MOST", 3)
    panel = get("/several/10/")
    assert len(panel.events) == 3
    assert "The first 3 of 11." in panel.text
    assert panel.counts("toolbar.price") == {"miss": 1, "computed": 1, "hit": 9}


# --- apart ---------------------------------------------------------------------------


def test_requests_in_threads_do_not_mix(views, monkeypatch):
    number = 8
    barrier = threading.Barrier(number)
    found = {}

    def visit(item):
        try:
            found[item] = get(f"/one/{item}/")
        finally:
            close_connections()

    # All are inside of the view at once, before the call and after it.
    monkeypatch.setattr(
        views, "together", [functools.partial(barrier.wait, timeout=60)]
    )
    threads = [
        threading.Thread(target=visit, args=["x" * n]) for n in range(1, number + 1)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == number
    for item, panel in found.items():
        key = views.price.get_cache_key(item)
        assert panel.kinds == ["miss", "computed"]
        assert {event[5] for event in panel.events} == {key}


def test_a_request_that_ends_leaves_the_others_their_receivers(views, monkeypatch):
    """They are connected for the first and disconnected after the last."""
    panel = []

    def another():
        if len(panel) < 1:
            panel.append(None)
            other = threading.Thread(target=lambda: panel.append(get("/several/2/")))
            other.start()
            other.join()

    monkeypatch.setattr(views, "together", [another])
    assert get("/one/milk/").kinds == ["miss", "computed"]
    assert panel[1].kinds == ["miss", "computed", "hit"]


def test_requests_in_tasks_do_not_mix(views):
    async def visit():
        client = AsyncClient()
        urls = [f"/aone/{'y' * n}/" for n in range(1, 9)]
        return await asyncio.gather(*map(client.get, urls))

    for n, response in enumerate(async_to_sync(visit)(), 1):
        panel, item = Panel(response), "y" * n
        mine = {
            views.aprice.get_cache_key(item),
            views.aprice.get_cache_key(f"{item}s"),
            views.price.get_cache_key(item),
        }
        assert {event[5] for event in panel.events} == mine
        counts = Counter(panel.kinds)
        assert counts["hit"] + counts["miss"] == 4


def test_a_thread_with_a_context_of_its_own_is_another_matter(views):
    panel = get("/threads/")
    assert {e[5] for e in panel.events} == {views.price.get_cache_key("tea")}


def test_a_request_that_raises_is_over(views):
    with pytest.raises(LookupError, match="the view"):
        Client().get("/fails/")


def test_a_refresh_in_the_background_counts_until_the_request_is_over(
    views, monkeypatch
):
    clock, go, runs, recordings = FakeClock(), threading.Event(), [], []

    def function(item):
        runs.append(item)
        if len(runs) == 3:  # its request is over before it
            assert go.wait(60)
        return len(runs)

    price = cache_memoize(60, prefix="behind", stale=600, _clock=clock)(function)
    monkeypatch.setattr(views, "price", price)
    begin = panels._begin_recording
    monkeypatch.setattr(
        panels, "_begin_recording", lambda one: (recordings.append(one), begin(one))
    )
    assert get("/one/tea/").kinds == ["miss", "computed"]
    clock.tick(61)
    monkeypatch.setattr(views, "together", [pool.join])
    assert get("/one/tea/").kinds == ["stale", "computed"]
    clock.tick(61)
    monkeypatch.setattr(views, "together", [])
    assert get("/one/tea/").kinds == ["stale"]
    another = panels.Recording()
    begin(another)  # so that somebody listens
    go.set()
    assert pool.join() and len(runs) == 3
    panels._end_recording(another)
    assert [event.kind for _, event, _ in recordings[-1].events] == ["stale"]


# --- nothing is paid -----------------------------------------------------------------


def test_without_the_toolbar_nothing_listens(views):
    seen = []
    with override_settings(MIDDLEWARE=[]):
        views.together[:] = [
            lambda: seen.append(any(s.receivers for s in signals.ALL.values()))
        ]
        Client().get("/one/tea/")
        views.together.clear()
    assert seen == [False, False]


def test_a_panel_that_is_switched_off_does_not_listen(views):
    client = Client()
    client.cookies["djdtMemoizePanel"] = "off"
    seen = []
    views.together[:] = [
        lambda: seen.append(any(s.receivers for s in signals.ALL.values()))
    ]
    panel = Panel(client.get("/one/tea/"))
    views.together.clear()
    assert seen == [False, False] and not panel.events


def test_instrumentation_can_be_enabled_and_disabled_twice():
    panel = panels.MemoizePanel(None, None)
    panel.enable_instrumentation()
    first = panels._current.get()
    panel.enable_instrumentation()
    assert panels._current.get() is first and len(panels._recordings) == 1
    panel.disable_instrumentation()
    panel.disable_instrumentation()
    assert panels._current.get() is None


def test_a_request_whose_end_nobody_told_does_not_listen_for_ever(views):
    """Another panel may have raised before the request began."""
    panels.MemoizePanel(None, None).enable_instrumentation()
    panels._current.set(None)
    assert get("/one/tea/").kinds == ["miss", "computed"]


def test_without_the_extra_the_import_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "debug_toolbar.panels", None)
    monkeypatch.delitem(sys.modules, "cache_memoize.panels")
    with pytest.raises(ModuleNotFoundError, match=r"memoize\[toolbar\]'$") as caught:
        importlib.import_module("cache_memoize.panels")
    assert caught.value.name == "debug_toolbar.panels"
