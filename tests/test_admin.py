"""The admin's pages: who may do what, what is done, told, and logged."""

from __future__ import annotations

import asyncio
import html
import io
import re
import signal
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any
from weakref import WeakSet

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.core.cache import caches
from django.core.management import call_command
from django.db import connection
from django.db.migrations.autodetector import MigrationAutodetector
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.state import ProjectState
from django.http import HttpRequest
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django.utils.functional import lazystr
from django.utils.translation import get_language, override
from django.views.debug import SafeExceptionReporterFilter

from cache_memoize import (
    arguments,
    cache_memoize,
    describe,
    planning,
)
from cache_memoize.admin import asking, charts, overview
from cache_memoize.admin.actions import ACTIONS
from cache_memoize.cache import near
from cache_memoize.cache.breaker import breaker_of
from cache_memoize.cache.store import Store
from cache_memoize.models import MemoizedFunction
from cache_memoize.options import SIGNATURE
from cache_memoize.stats import sitewide
from cache_memoize.stats.reporter import reporter
from cache_memoize.stats.totals import Totals
from tests.conftest import FakeClock, plan_of, until
from tests.models import Post
from tests.needs import need
from tests.servers import SERVERS

pytestmark = pytest.mark.django_db
LIST = "/admin/cache_memoize/memoizedfunction/"


@pytest.fixture(autouse=True)
def nobody_else(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Only the functions of the test itself are memoized functions of this process."""
    monkeypatch.setattr(planning, "_functions", type(planning._functions)())
    caches["default"].clear()
    yield
    caches["default"].clear()


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What other tests have left to tell is not told here."""
    monkeypatch.setattr(reporter, "_known", WeakSet())


@pytest.fixture
def told() -> Iterator[None]:
    """The figures of the whole site are kept, as in a project with the app."""
    reporter.add(sitewide.tell)
    yield
    reporter.remove(sitewide.tell)


def user(name: str, *permissions: str, is_staff: bool = True) -> User:
    found = User.objects.create_user(name, is_staff=is_staff)
    for codename in permissions:
        found.user_permissions.add(
            Permission.objects.get(codename=f"{codename}_memoizedfunction")
        )
    return found


@pytest.fixture
def client() -> Client:
    """Somebody who may do everything here, and view posts."""
    client, keeper = Client(), user("keeper", "view", "invalidate")
    keeper.user_permissions.add(Permission.objects.get(codename="view_post"))
    client.force_login(keeper)
    return client


def page(memoized: Any, action: str = "") -> str:
    address = f"{LIST}{describe.info_of(memoized).id}/"
    return f"{address}{action}/" if action else address


def text_of(response: Any) -> str:
    """What is read on a page."""
    content = re.sub(r"<(style|script|svg)\b.*?</\1>", "", response.content.decode())
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", content)).split())


def do(client: Client, memoized: Any, action: str, arguments: str = "") -> str:
    fields = {"arguments": arguments, "confirmed": "yes"}
    response = client.post(page(memoized, action), fields, follow=True)
    assert response.status_code == 200
    return text_of(response)


def logged() -> list[str]:
    return [e.change_message for e in LogEntry.objects.order_by("pk")]


def shortened() -> list[str]:
    """What was logged, without digests and arguments."""
    return [re.sub(r", [0-9a-f]{10}(: .*)?$", "", entry) for entry in logged()]


# --- the model -----------------------------------------------------------------------


def test_there_are_permissions_and_no_table() -> None:
    names = Permission.objects.filter(content_type__app_label="cache_memoize")
    assert {p.codename for p in names} == {
        "view_memoizedfunction",
        "invalidate_memoizedfunction",
    }
    assert not [t for t in connection.introspection.table_names() if "memoizedf" in t]


def test_no_migration_is_missing() -> None:
    before = MigrationLoader(None).project_state()
    changes = MigrationAutodetector(before, ProjectState.from_apps(apps)).changes
    assert "cache_memoize" not in changes(MigrationLoader(None).graph)


def test_what_asks_every_model_for_its_rows_finds_none() -> None:
    for every in (True, False):
        out = io.StringIO()
        call_command("dumpdata", "cache_memoize", use_base_manager=every, stdout=out)
        assert out.getvalue().strip() == "[]"
    assert list(MemoizedFunction.objects.all()) == []


# --- who may do what -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("permissions", "may_see", "may_act"),
    [
        ((), 403, 403),
        (("view",), 200, 403),
        (("invalidate",), 403, 403),
        (("view", "invalidate"), 200, 200),
    ],
)
def test_permissions(
    permissions: Any, may_see: int, may_act: int, settings: Any
) -> None:
    settings.CACHES = {"default": settings.CACHES["default"]}

    @cache_memoize(60)
    def f(x: int) -> int:
        return x

    client = Client()
    client.force_login(user("somebody", *permissions))
    others = (f"{page(f)}history/", f"{LIST}history/", CACHES, DEPENDENCIES)
    seen = {client.get(a).status_code for a in (LIST, page(f), *others)}
    assert seen == {may_see}
    for action in ACTIONS:
        fields = {"arguments": "1", "confirmed": "yes"}
        answer = client.post(page(f, action), fields, follow=True)
        assert answer.status_code == may_act, action
    assert bool(logged()) == (may_act == 200)
    if may_see == 200:
        buttons = "Invalidate it" in client.get(page(f)).content.decode()
        assert buttons == (may_act == 200)
    linked = LIST in client.get("/admin/").content.decode()
    assert linked == (may_see == 200)


def test_who_is_no_staff_is_asked_to_log_in(client: Client) -> None:
    @cache_memoize(60)
    def f(x: int) -> int:
        return x

    reader = Client()
    reader.force_login(user("reader", "view", "invalidate", is_staff=False))
    for other in (reader, Client()):
        assert other.get(LIST)["Location"].startswith("/admin/login/")
        assert other.post(page(f, "look"))["Location"].startswith("/admin/login/")


def test_nothing_is_added_changed_or_deleted(client: Client) -> None:
    client.force_login(User.objects.create_superuser("root"))
    for what in ("add", "x/change", "x/delete"):
        assert client.post(f"{LIST}{what}/").status_code == 404


def test_actions_are_posts(client: Client) -> None:
    @cache_memoize(60)
    def f(x: int) -> int:
        return x

    for action in ACTIONS:
        for method in (client.get, client.put, client.head):
            response = method(page(f, action))
            assert response.status_code == 405
            assert response["Allow"] == "POST"
    assert "Nothing was done" in text_of(client.get(page(f, "look")))
    assert not logged()


def test_actions_are_protected_against_other_sites() -> None:
    @cache_memoize(60)
    def f(x: int) -> int:
        return x

    client = Client(enforce_csrf_checks=True)
    client.force_login(user("keeper", "view", "invalidate"))
    for action in ACTIONS:
        assert client.post(page(f, action), {"arguments": "1"}).status_code == 403
    token = re.search(r'token" value="(\w+)"', client.get(page(f)).content.decode())
    assert token
    fields = {"arguments": "1", "csrfmiddlewaretoken": token[1]}
    assert client.post(page(f, "invalidate"), fields).status_code == 302
    assert shortened() == ["Invalidated one call"]


def test_what_this_process_does_not_know_is_not_found(client: Client) -> None:
    @cache_memoize(60)
    def f(x: int) -> int:
        return x

    history = f"{LIST}0123/history/"
    for address in (f"{LIST}0123/", history, page(f, "explode")):
        for method in (client.get, client.post):
            response = method(address)
            assert response.status_code == 404
            assert "This function is not known" in text_of(response)
            assert LIST in response.content.decode()


# --- the list ------------------------------------------------------------------------


def rows(response: Any) -> list[str]:
    body = response.content.decode().partition("<tbody>")[2].partition("</tbody>")[0]
    names = re.findall(r'<th scope="row"><a [^>]+>(.*?)</a>', body)
    return [name.rpartition(".")[2] for name in names]


@pytest.fixture
def three() -> list[Any]:
    """Functions of which b is called the most, and c never."""

    @cache_memoize(60, tags="sums")
    def a(x: int) -> int:
        return x

    @cache_memoize(prefix="other")
    def b(x: int) -> int:
        return x

    @cache_memoize(10, cache_alias="locmem")
    def c(x: int) -> int:
        return x

    for function, times in ((a, 2), (b, 5)):
        for _ in range(times):
            function(1)
    return [a, b, c]


def test_all_functions_are_listed(client: Client, three: Any, told: None) -> None:
    response = client.get(LIST, {"o": "-hits"})
    assert rows(response) == ["b", "a", "c"]
    text = text_of(response)
    assert "Tags: sums" in text
    assert "3 memoized functions of this process" in text
    assert re.search(
        r"b tests/test_admin.py:\d+ 4 1 80[.]0 % 0 0( [\d.]+ [µm]?s){4} "
        r"default default of the cache",
        text,
    )
    assert re.search(r"Total 5 2 71[.]4 % 0 0( [\d.]+ [µm]?s){4} ", text)
    label = "60 minutes: 4 hits, 0 of them stale, 1 misses, 0 errors, at most 5 calls a"
    assert f'aria-label="{label} minute"' in response.content.decode()
    assert 'aria-label="60 minutes: no calls"' in response.content.decode()


@pytest.mark.parametrize(
    ("query", "order"),
    [
        ("?o=name", "abc"),
        ("?o=-name", "cba"),
        ("?o=-hits", "bac"),
        ("?o=hits", "cab"),
        ("?o=-rate", "bac"),
        ("?o=cache", "abc"),
        ("?q=cache:locmem", "c"),
        ("?q=test_admin.py:&o=name", "abc"),
        ("?q=locmem", "c"),
        ("?q=SUMS default", "a"),
        ("?q=sums+locmem", ""),
    ],
)
def test_searched_and_sorted(
    client: Client, three: Any, told: None, query: str, order: str
) -> None:
    assert "".join(rows(client.get(LIST + query))) == order


def test_a_table_finds_the_functions_that_depend_on_it(client: Client) -> None:
    @cache_memoize(60, prefix="of posts", depends_on="tests.Post")
    def f() -> None: ...

    @cache_memoize(60, prefix="of others")
    def g() -> None: ...

    (found,) = rows(client.get(LIST, {"q": "tests_post"}))
    assert found == "f"


@pytest.mark.parametrize("column", [c.name for c in overview.COLUMNS])
def test_every_column_sorts_and_says_so(
    client: Client, three: Any, column: str
) -> None:
    head = r'<th scope="col" aria-sort="(\w+)"[^>]*><a href="([^"]+)">'
    content = client.get(LIST, {"o": column, "q": "test"}).content.decode()
    ((order, link),) = re.findall(head, content)
    assert order == "ascending"
    content = client.get(LIST + html.unescape(link)).content.decode()
    assert html.unescape(link) == f"?o=-{column}&q=test"
    assert re.findall(head, content)[0][0] == "descending"


def test_an_empty_list_says_why(client: Client) -> None:
    assert "has imported no memoized function" in text_of(client.get(LIST))

    @cache_memoize(60)
    def f() -> None: ...

    assert "No function has these words" in text_of(client.get(LIST, {"q": "<script>"}))
    assert b"<script>alert" not in client.get(LIST, {"q": '"><script>alert'}).content


def test_the_figures_are_of_the_whole_site(client: Client, told: None) -> None:
    @cache_memoize(60)
    def f(x: int) -> int:
        return x

    f(1)
    sitewide.tell(f._memoized.stats, f._memoized.stats.totals())  # another process
    text = text_of(client.get(page(f)))
    assert re.search(r"Whole site 0 2 .* This process 0 1 ", text)


def test_functions_of_one_name_are_told_apart(client: Client, told: None) -> None:
    def make(number: int) -> Any:
        @cache_memoize(60)
        def f() -> int:
            return number

        return f

    one, two = made = [make(1), make(2)]
    for f in made:
        f()
    assert page(one) != page(two)
    content = client.get(LIST)
    assert rows(content) == ["f", "f"]
    assert "Total 0 2 " in text_of(content)  # not twice what both have in common
    assert "include another function of this name" in text_of(client.get(page(one)))


def test_the_cost_of_the_list_does_not_grow(
    client: Client, told: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[str] = []
    command = Store._command

    def note(self: Store, name: str, *args: Any) -> Any:
        commands.append(name)
        return command(self, name, *args)

    def make(number: int) -> Any:
        @cache_memoize(60, prefix=f"number {number}")
        def f(x: int) -> int:
            return x

        f(1)
        return f

    costs, made = [], []
    for size in (1, 30):
        made += [make(n) for n in range(size)]
        reporter.flush_stats()
        client.get(LIST)  # the session, and what else is read once
        with CaptureQueriesContext(connection) as queries, monkeypatch.context() as m:
            m.setattr(Store, "_command", note)
            commands.clear()
            assert client.get(LIST).status_code == 200
        costs.append((len(commands), len(queries)))
    assert costs[0] == costs[1]
    assert costs[0][0] == 1


# --- windows, and the worst ----------------------------------------------------------


def test_figures_of_a_window(client: Client, told: None, monkeypatch: Any) -> None:
    @cache_memoize(60)
    def f(x: int) -> int:
        return x

    ago = SimpleNamespace(time=time.time, monotonic=time.monotonic)
    monkeypatch.setattr(sitewide, "time", ago)
    for minutes, calls in ((90, 5), (30, 3), (1, 2)):
        ago.time = partial(lambda ago: time.time() - ago, 60 * minutes)
        for _ in range(calls):
            f(1)
        reporter.flush_stats()
    ago.time = time.time
    found = {
        window: re.search(
            r"py:\d+ (\d) (\d) ", text_of(client.get(LIST, {"w": window}))
        )
        for window in ("15", "60", "", "all")
    }
    assert {name: match and match.groups() for name, match in found.items()} == {
        "15": ("2", "0"),
        "60": ("5", "0"),
        "": ("5", "0"),
        "all": ("9", "1"),
    }
    text = text_of(client.get(LIST, {"w": "all", "o": "name", "q": "f"}))
    assert "1 memoized function of this process, since the first report" in text
    links = re.findall(
        r'href="(\?[^"]+)"', client.get(LIST + "?o=name&q=f").content.decode()
    )
    assert {"?o=name&amp;q=f&amp;w=15", "?q=f", "?o=name"} <= {*links}


def test_estimates_of_a_window() -> None:
    whole = Totals(hits=9, misses=4, computations=8, spent=16.0, saved=18.0, waits=5)
    found = overview.limit_totals(whole, [sitewide.Minute(3, 1), sitewide.Minute()])
    assert found[:2] == (3, 1) and found.waits == 5
    assert (found.computations, found.spent, found.saved) == (2, 4.0, 6.0)
    assert overview.limit_totals(Totals(), []) == Totals()


def test_the_worst_is_first(client: Client, told: None, settings: Any) -> None:
    nowhere = {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": "redis://127.0.0.1:1",
    }
    settings.CACHES = {**settings.CACHES, "nowhere": nowhere}

    @cache_memoize(60)
    def fine() -> None: ...

    @cache_memoize(60)
    def dear() -> None: ...

    @cache_memoize(60)
    def erring() -> None: ...

    @cache_memoize(60)
    def old() -> None: ...

    @cache_memoize(60, cache_alias="nowhere")
    def silent() -> None: ...

    for f in (fine, dear, erring, old, silent):
        f()
    erring._memoized.stats.wrong, erring._memoized.stats.audited = 1, 20
    dear._memoized.stats.spent += 5
    erring._memoized.stats.errors += 1
    old._memoized.stats.refresh_failed("key", FakeClock(), "nothing was stored")
    response = client.get(LIST)
    assert rows(response) == ["silent", "old", "erring", "dear", "fine"]
    text = text_of(response)
    assert (
        "the cache nowhere does not answer" in text
        and "serving old values since" in text
    )
    assert "1 of 20 audited hits were wrong" in text
    assert "The worst first" in text
    ordered = client.get(LIST, {"o": "name"})
    assert rows(ordered)[0] == "dear" and "Show the worst first" in text_of(ordered)


def test_an_old_value_of_today_has_a_time_only() -> None:
    assert overview.format_moment(timezone.now()).endswith((".m.", "noon", "midnight"))
    with override_settings(USE_TZ=False):
        assert overview.format_moment(timezone.now()).endswith((".m.", "noon"))


def test_a_function_without_a_name_has_its_line(client: Client, told: None) -> None:
    f = cache_memoize(60, prefix="no name")(lambda x: x)
    f(1)
    line = f.__wrapped__.__code__.co_firstlineno
    assert f"<lambda> tests/test_admin.py:{line} 0 1 " in text_of(client.get(LIST))
    assert f"<lambda> (tests/test_admin.py:{line})" in text_of(client.get(page(f)))


# --- caches --------------------------------------------------------------------------


CACHES = f"{LIST}caches/"


def test_the_page_of_caches(
    client: Client, told: None, settings: Any, monkeypatch: Any
) -> None:
    settings.CACHES = {
        name: settings.CACHES[name]
        for name in ("default", "locmem", "dummy", "unknown")
    }

    @cache_memoize(60)
    def f(x: int) -> str:
        return "x" * 100

    @cache_memoize(60, cache_alias="unknown")
    def g(x: int) -> int:
        return x

    f(1), g(1)
    copies = near.copies_of("unknown")
    monkeypatch.setitem(copies.by_place, "a place", None)
    monkeypatch.setattr(copies, "size", 400)
    text = text_of(client.get(CACHES))
    note = "the memory of this process: other processes keep what is invalidated here"
    took = r"\S+ in \S+ .s"
    for one in (
        rf"default LocMemCache {took} closed no {note} 0 1 \d+ bytes 0 ",
        rf"dummy DummyCache {took} (–|closed) stores nothing 0 0 – 0 ",
        rf"unknown UnknownCache {took} closed yes 0 1 \d+ bytes 1 400 bytes ",
    ):
        assert re.search(one, text), one
    assert re.search(r"locmem LocMemCache", text)
    link = f'{LIST}?q=cache:unknown"'
    assert link in client.get(CACHES).content.decode()
    assert rows(client.get(f"{LIST}?q=cache:unknown")) == ["g"]


def test_caches_that_fail(client: Client, settings: Any) -> None:
    redis = "django.core.cache.backends.redis.RedisCache"
    memcached = "django.core.cache.backends.memcached.PyMemcacheCache"
    settings.CACHES = {
        "default": settings.CACHES["default"],
        "down": {"BACKEND": redis, "LOCATION": "redis://127.0.0.1:1"},
        "hidden": {
            "BACKEND": memcached,
            "LOCATION": "127.0.0.1:1",
            "OPTIONS": {"ignore_exc": True},
        },
    }

    @cache_memoize(60, cache_alias="down")
    def f(x: int) -> int:
        return x

    @cache_memoize(60, cache_alias="not in the settings")
    def g(x: int) -> int:
        return x

    for x in range(5):
        f(x)
    text = text_of(client.get(CACHES))
    assert re.search(
        r"down RedisCache \S+ fails: ConnectionError open this process", text
    )
    assert re.search("not in the settings .*fails: InvalidCacheBackendError", text)
    assert "hidden PyMemcacheCache" in text and "does not keep what is written" in text
    assert text.index("down Redis") < text.index("default LocMem")
    breaker_of("down")._retry_at = 0.0
    assert "half-open" in text_of(client.get(CACHES))
    # To look at it is no try: a caller has the next one.
    assert plan_of(f).breaker_state == "half-open"
    client.get(LIST)
    assert plan_of(f).breaker_state == "half-open"


def test_a_cache_that_hangs_does_not_keep_a_page(
    client: Client, told: None, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real server, and a client that would wait for ever."""
    need("valkey")
    server = SERVERS["valkey"].another()
    server.start()
    settings.CACHES = {
        "default": settings.CACHES["default"],
        "hanging": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": f"redis://127.0.0.1:{server.port}",
        },
    }

    @cache_memoize(60, cache_alias="hanging", prefix="hanging")
    def f(x: int) -> int:
        return x

    @cache_memoize(60, prefix="fine")
    def g(x: int) -> int:
        return x

    monkeypatch.setattr(asking, "PATIENCE", 0.5)
    try:
        f(1), g(1), g(1)
        client.get(LIST)
        f(1), g(1)
        server.signal(signal.SIGSTOP)
        began = time.monotonic()
        response = client.get(LIST)
        assert rows(response) == ["f", "g"]
        assert "The cache hanging does not answer" in text_of(response)
        text = text_of(client.get(CACHES))
        assert re.search(r"hanging RedisCache \S+ no answer for \d+ ms closed", text)
        assert re.search(r"default LocMemCache \S+ in \S+ .s", text)
        for _ in range(3):  # it is not asked again, and no page waits again
            assert "no answer for" in text_of(client.get(CACHES))
        assert time.monotonic() - began < 20  # on a busy machine
        assert (
            sum(t.name == "cache_memoize question" for t in threading.enumerate()) <= 3
        )
    finally:
        server.signal(signal.SIGCONT)
        until(lambda: not asking._waiting or all_ended())
        server.stop()
    asking._after_fork()
    assert not asking._waiting


def all_ended() -> bool:
    names = [thread.name for thread in threading.enumerate()]
    return "cache_memoize question" not in names


# --- dependencies --------------------------------------------------------------------


DEPENDENCIES = f"{LIST}dependencies/"


@pytest.fixture
def posts(settings: Any, no_registrations: None) -> Any:
    """Functions that depend on posts, each in its own way."""
    settings.CACHES = {"default": settings.CACHES["default"]}

    @cache_memoize(60, prefix="declared", depends_on="tests.Post", tags="news")
    def declared() -> None: ...

    @cache_memoize(60, prefix="told", tags=lambda pk: f"post:{pk}")
    def told(pk: int) -> int:
        return pk

    told.invalidate_on(Post, lambda post: (post.pk,))

    @cache_memoize(60, prefix="apart")
    def apart() -> None: ...

    return SimpleNamespace(declared=declared, told=told, apart=apart)


def test_what_functions_depend_on(client: Client, posts: Any) -> None:
    content = client.get(DEPENDENCIES).content.decode()
    text = text_of(client.get(DEPENDENCIES))
    path = "tests.test_admin.posts.<locals>"
    assert (
        f"tests.Post table tests_post {path}.declared {path}.told Invalidate… " in text
    )
    assert f"tag news {path}.declared Invalidate… " in text
    assert f"tags by call type one of them above {path}.told" in text
    assert f'href="{page(posts.told)}"' in content
    assert "apart" not in text
    reader = Client()
    reader.force_login(user("reader", "view"))
    text = text_of(reader.get(DEPENDENCIES))
    assert "tests.Post" in text and "Invalidate" not in text
    for fields in ({"tag": "news"}, {"model": "tests.Post"}, {}):
        assert reader.post(DEPENDENCIES, fields).status_code == 403
    assert Client().post(DEPENDENCIES, {"tag": "news"}).status_code == 302


def test_without_dependencies(client: Client) -> None:
    assert "is known to depend" in text_of(client.get(DEPENDENCIES))
    with override_settings(CACHE_MEMOIZE={"DEFAULTS": {"jitter": 7}}):
        f = cache_memoize(60, prefix="one")(lambda: 1)
        response = client.get(DEPENDENCIES, follow=True)
        del f
        assert "CACHE_MEMOIZE['DEFAULTS'] does not fit" in text_of(response)


def confirm(client: Client, **fields: str) -> str:
    """Post, and confirm what is asked; return the question and the answer."""
    asked = client.post(DEPENDENCIES, fields)
    assert asked.status_code == 200 and not logged()
    response = client.post(DEPENDENCIES, {**fields, "confirmed": "yes"})
    assert response["Location"] == DEPENDENCIES
    return f"{text_of(asked)} {text_of(client.get(DEPENDENCIES))}"


def test_a_tag_is_invalidated_everywhere(client: Client, posts: Any) -> None:
    posts.declared(), posts.told(42), posts.told(7)
    text = confirm(client, tag="post:42")
    assert "Invalidate all that depends on “post:42”?" in text
    assert "posts.<locals>.told 0 " in text and "posts.<locals>.declared" in text
    assert "All calls with this tag are invalidated." in text
    assert posts.told.peek(42) is None
    assert posts.told.peek(7) is not None and posts.declared.peek() is not None
    (entry,) = LogEntry.objects.all()
    assert re.fullmatch(
        r"Invalidated a tag, [0-9a-f]{10}: post:42", entry.change_message
    )
    assert (entry.object_repr, entry.object_id, entry.get_admin_url()) == (
        "tag",
        "",
        None,
    )


@pytest.mark.parametrize(
    ("tag", "shown"),
    [
        ("news", "news"),
        ("post:42", "post:42"),
        ("post:12345", "post:<int>"),
        ("post:alice", "post:<str>"),
        ("alice", "<str>"),
        ("news:alice", "news<str>"),
    ],
)
def test_of_a_tag_only_what_the_code_has_is_logged(
    client: Client, posts: Any, tag: str, shown: str
) -> None:
    assert "with this tag are invalidated." in confirm(client, tag=tag)
    assert logged()[0].endswith(f": {shown}")


def test_a_tag_in_a_cache_that_is_down(
    client: Client, posts: Any, settings: Any
) -> None:
    redis = "django.core.cache.backends.redis.RedisCache"
    nowhere = {"BACKEND": redis, "LOCATION": "redis://127.0.0.1:1"}
    settings.CACHES = {"default": settings.CACHES["default"], "nowhere": nowhere}
    posts.declared()
    text = confirm(client, tag="news")
    assert "tag are invalidated, but not in: nowhere (ConnectionE" in text
    assert posts.declared.peek() is None
    assert shortened()[0].startswith("Invalidated a tag, but not in nowhere (Conn")


def test_all_rows_of_a_model_are_invalidated(client: Client, posts: Any) -> None:
    posts.declared(), posts.told(1), posts.apart()
    text = confirm(client, model="tests.Post", pk="")
    assert "Invalidate all that depends on tests.Post?" in text
    assert "All that depends on tests.Post is invalidated." in text
    assert posts.declared.peek() is posts.told.peek(1) is None
    assert posts.apart.peek() is not None
    assert logged() == ["Invalidated all rows"]
    confirm_text = text_of(client.post(DEPENDENCIES, {"model": "auth.Group", "pk": ""}))
    assert "No function of this process is known to depend on it" in confirm_text
    client.post(DEPENDENCIES, {"model": "auth.Group", "pk": "", "confirmed": "yes"})
    assert len(logged()) == 2


def test_all_rows_for_a_function_without_tags(client: Client, posts: Any) -> None:
    @cache_memoize(60)
    def bare(pk: int) -> int:
        return pk

    bare.invalidate_on(Post, lambda post: (post.pk,))
    text = confirm(client, model="tests.Post", pk="")
    assert "invalidates every call, which needs tags: write @cache_memoize(" in text
    assert logged() == ["Invalidation of all rows raised TypeError"]


def test_one_row_is_invalidated_everywhere(client: Client, posts: Any) -> None:
    one, other = (Post.objects.create(title=title) for title in "ab")
    posts.declared(), posts.told(one.pk), posts.told(other.pk), posts.apart()
    fields = {"model": "tests.Post", "pk": str(one.pk)}
    response = client.post(DEPENDENCIES, fields, follow=True)  # no question
    assert "All that depends on this row of tests.Post is invalidated." in text_of(
        response
    )
    assert posts.declared.peek() is posts.told.peek(one.pk) is None
    assert posts.told.peek(other.pk) is not None and posts.apart.peek() is not None
    (entry,) = LogEntry.objects.all()
    assert re.search(rf"Invalidated one row, \w{{10}}: {one.pk}$", entry.change_message)
    assert entry.object_repr == "tests.Post"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": "tests.Post", "pk": "12345"}, "has no row with this primary key"),
        ({"model": "tests.Post", "pk": "x"}, "is a name, and names are not looked up"),
        ({"model": "tests.Post", "pk": "1, 2"}, "no key|write"),
        ({"model": "auth.User", "pk": "1"}, "or you have no permission to view"),
        ({"model": "tests.Nope", "pk": ""}, "Select a valid choice"),
        ({"model": "", "pk": ""}, "This field is required"),
        ({"tag": ""}, "This field is required"),
    ],
)
def test_what_is_no_row_or_tag(
    client: Client, posts: Any, fields: Any, message: str
) -> None:
    response = client.post(DEPENDENCIES, {**fields, "confirmed": "yes"})
    assert response.status_code == 200
    assert re.search(message, text_of(response))
    content = response.content.decode()
    assert content.count('aria-invalid="true"') == 1 and "<title>Error: " in content
    assert not logged()


# --- history -------------------------------------------------------------------------


def test_the_history_says_who_did_what_to_which_call(
    client: Client, posts: Any
) -> None:
    do(client, posts.told, "refresh", "42")
    do(client, posts.told, "invalidate", "pk=42")
    assert "by keeper, in the admin" in posts.told.explain(42).reason.text
    client.post(DEPENDENCIES, {"tag": "news", "confirmed": "yes"})
    text = text_of(client.get(f"{LIST}history/"))
    told, at = r"posts.<locals>.told", r"(?:\S+ .\.m\.|noon|midnight)"
    assert re.search(
        rf"keeper Invalidated a tag, \w{{10}} news tag {at} "
        rf"keeper Invalidated one call, (\w{{10}}) pk=42 \S+{told} {at} "
        rf"keeper Refreshed one call, \1 42 \S+{told}",
        text,
    )
    assert "Last changes When User Change Of" in text_of(client.get(LIST))
    assert "tag news" not in text_of(client.get(f"{page(posts.told)}history/"))
    # A reader sees which call it was, and not its arguments.
    reader = Client()
    reader.force_login(user("reader", "view"))
    for address in (LIST, f"{LIST}history/", f"{page(posts.told)}history/"):
        text = text_of(reader.get(address))
        assert "Refreshed one call, " in text and " 42 " not in text
    assert "Arguments are shown to users who may" in text_of(
        reader.get(f"{LIST}history/")
    )


def test_a_history_without_changes(client: Client) -> None:
    assert "Nothing was changed." in text_of(client.get(f"{LIST}history/"))
    assert "Last changes" not in text_of(client.get(LIST))


# --- caches that do not work, and settings that are wrong ----------------------------


def test_a_cache_that_does_not_answer(
    client: Client, told: None, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    nowhere = {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": "redis://127.0.0.1:1",
    }
    settings.CACHES = {**settings.CACHES, "nowhere": nowhere, "gone": nowhere}

    @cache_memoize(60, cache_alias="nowhere", tags=())
    def f(x: int) -> int:
        return x

    @cache_memoize(60, cache_alias="gone")
    def g(x: int) -> int:
        return x

    @cache_memoize(60)
    def h(x: int) -> int:
        return x

    for function in (f, g, h):
        function(1)
    text = text_of(client.get(LIST))
    assert "The caches gone, nowhere do not answer: the figures are those of" in text
    assert "no figures" in text
    text = text_of(client.get(page(f)))
    assert "The cache nowhere does not answer" in text
    assert "Whole site" not in text
    assert re.search("This process 0 1 ", text)

    assert "The cache did not answer" in do(client, f, "look", "1")
    for action in ("invalidate", "invalidate-all"):
        assert re.search(r"this raised \w+Error", do(client, f, action, "1")), action
    assert "its result is not stored" in do(client, f, "refresh", "1")
    assert [re.sub(r"\w+Error", "E", entry) for entry in shortened()] == [
        "Invalidation of one call raised E",
        "Invalidation of all calls raised E",
        "Refreshed one call, not stored",
    ]
    # By now the breaker is open, and nobody waits for that cache again.
    assert plan_of(f).breaker_state == "open"
    with monkeypatch.context() as patch:
        patch.setattr(reporter, "_known", WeakSet())  # others have something to tell
        patch.setattr(Store, "_command", lambda *args: pytest.fail("it was asked"))
        text = text_of(client.get(page(f)))
    assert "the cache nowhere is not used, after failures" in text
    assert "The cache nowhere does not answer" in text
    assert "not used" in text_of(client.get(LIST))


def test_old_values_are_named_with_their_moment(client: Client, told: None) -> None:
    clock = FakeClock()
    clock.tick(1_800_000_000 - clock.time())

    @cache_memoize(60, _clock=clock)
    def f() -> int:
        return 1

    f()
    assert "serving old values" not in text_of(client.get(LIST))
    clock.tick(1)
    f._memoized.stats.refresh_failed("key", clock, "nothing was stored")
    for address in (LIST, page(f)):
        text = text_of(client.get(address))
        assert "serving old values since Jan. 15, 2027, 2 a.m.: refreshes fail" in text
    assert f.site_info().old_since == datetime(2027, 1, 15, 8, 0, 1, tzinfo=UTC)
    clock.tick(1)
    f.refresh()
    assert "serving old values" not in text_of(client.get(LIST))


def test_a_cache_in_the_memory_of_this_process(
    client: Client, told: None, tmp_path: Any
) -> None:
    @cache_memoize(60)
    def f(x: int) -> int:
        return x

    text = text_of(client.get(LIST))
    note = "The cache default is the memory of this process only"
    assert note in text
    assert note in text_of(client.get(page(f)))
    files = "django.core.cache.backends.filebased.FileBasedCache"
    shared = {"BACKEND": files, "LOCATION": tmp_path}
    with override_settings(CACHES={"default": shared}):
        text = text_of(client.get(LIST))
        assert "this process only" not in text
    dummy = {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}
    with override_settings(CACHES={"default": dummy}):
        assert "is the memory" not in text_of(client.get(LIST))


def test_a_cache_that_keeps_no_figures(client: Client, told: None) -> None:
    @cache_memoize(60, cache_alias="unknown")
    def f(x: int) -> int:
        return x

    @cache_memoize(60, cache_alias="nothing of the kind")
    def g(x: int) -> int:
        return x

    f(1)
    text = text_of(client.get(LIST))
    assert "The cache unknown cannot replace atomically" in text
    assert "The cache nothing of the kind does not answer" in text
    text = text_of(client.get(page(f)))
    assert "those shown are of this process" in text
    assert re.search("This process 0 1 ", text)
    assert re.search(r"raised InvalidCacheBackendError", do(client, g, "look", "1"))


def test_settings_that_are_wrong(client: Client) -> None:
    @cache_memoize(60)
    def f(x: int) -> int:
        return x

    address = page(f)
    with override_settings(CACHE_MEMOIZE={"DEFAULTS": {"jitter": 7}}):
        text = text_of(client.get(LIST))
        assert "CACHE_MEMOIZE['DEFAULTS'] does not fit" in text
        assert client.get(address).status_code == 404


def test_functions_that_are_switched_off(client: Client) -> None:
    @cache_memoize(60)
    def f(x: int) -> int:
        return x

    said = "called as if they were not memoized"
    assert said not in text_of(client.get(LIST))
    with override_settings(CACHE_MEMOIZE={"ENABLED": False, "STATS_INTERVAL": 0}):
        assert said in text_of(client.get(LIST))
        assert "its result is not stored" in do(client, f, "refresh", "1")


def test_arguments_are_not_in_reports_of_errors(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    @cache_memoize(60)
    def f(x: str) -> str:
        return x

    requests: list[HttpRequest] = []

    def broken(self: Any, request: HttpRequest, *args: Any) -> None:
        requests.append(request)
        raise RuntimeError

    keeper = type(admin.site._registry[MemoizedFunction])
    monkeypatch.setattr(keeper, "log_change", broken)
    with pytest.raises(RuntimeError):
        client.post(page(f, "refresh"), {"arguments": "'secret'"})
    with override_settings(DEBUG=False):
        reported = SafeExceptionReporterFilter().get_post_parameters(requests[0])
    assert "arguments" in reported
    assert "secret" not in str(reported)


# --- one function --------------------------------------------------------------------


def test_the_page_of_a_function(client: Client, told: None) -> None:
    @cache_memoize(60, tags=("prices", "shop"), jitter=0.1)
    def price(item: str, lang: str = "en") -> str:
        """What it costs.

        In the currency of the language.
        """
        return item

    defaults = {"stale": 30, "tags": ("not here",)}
    with override_settings(CACHE_MEMOIZE={"DEFAULTS": defaults, "STATS_INTERVAL": 0}):
        price("tea")
        response = client.get(page(price))
    text = text_of(response)
    assert "price(item: str, lang: str = <str>) -> str" in text
    line = price.__wrapped__.__code__.co_firstlineno
    assert f" tests/test_admin.py:{line} ," in text
    assert "What it costs. In the currency of the language." in text
    assert "timeout 60 this function" in text
    assert "tags 'prices', 'shop' this function" in text
    assert "stale 30 settings" in text
    assert "cache_alias 'default' library" in text
    assert len(re.findall(" library( |$)", text)) == len(SIGNATURE.parameters) - 4
    assert "10–0 0 1 0 0" in text  # the last ten minutes, as a table
    assert response.context["title"] == price._memoized.path
    assert b"style=" not in response.content.partition(b'id="content-main"')[2]


def test_what_is_shown_of_options() -> None:
    @cache_memoize(
        timeout=lambda result, *args: 5,
        cache_exceptions=(KeyError, ValueError),
        extra={"secret": "hidden"},
        hit_callable=print,
        tags=lambda x: "t",
        lease=timedelta(seconds=30),
        vary_on="language",
        version="é" * 100,
    )
    def f(x: int) -> int:
        return x

    options = describe.describe_options(describe.info_of(f))
    shown = {o.name: o.value for o in options.explicit + options.defaults}
    assert shown["cache_exceptions"] == "KeyError, ValueError"
    assert shown["extra"] == "<dict>"
    assert shown["hit_callable"] == "print"
    assert shown["ignore"] == "()"
    assert re.search(r"<lambda> \(tests/test_admin.py:\d+\)$", shown["timeout"])
    assert shown["wait"] == "None"
    assert shown["lease"] == "0:00:30"
    assert len(shown["version"]) == 80
    assert "hidden" not in str(shown)
    row = overview.Overview([describe.info_of(f)]).rows[0]
    assert (row.timeout, row.tags) == ("by result", "by call")

    @cache_memoize
    def g() -> None: ...

    assert (
        describe.describe_options(describe.info_of(g)).defaults[0][1]
        == "DEFAULT_TIMEOUT"
    )
    assert (
        overview.Overview([describe.info_of(g)]).rows[0].timeout
        == "default of the cache"
    )


def test_a_guard_does_not_show_what_it_does_not_take() -> None:
    @cache_memoize(60, store_result=False)
    def guard() -> None: ...

    defaults = {"stale": 30, "jitter": 0.5}
    with override_settings(CACHE_MEMOIZE={"DEFAULTS": defaults}):
        (found,) = describe.list_functions()
        who = {
            o.name: o.origin for part in describe.describe_options(found) for o in part
        }
    assert (who["stale"], who["jitter"]) == ("library", "settings")


def test_an_address_is_the_same_in_every_process() -> None:
    from functools import partial

    def base(x: int) -> int:
        return x

    made = [cache_memoize(60, prefix="mine")(partial(base, 1)) for _ in range(2)]
    first, second = (describe.info_of(f).id for f in made)
    assert first == second
    assert describe.info_of(made[0]).source == ""


def test_what_was_done_is_on_a_page_of_its_own(client: Client) -> None:
    @cache_memoize(60)
    def f(x: int) -> int:
        return x

    do(client, f, "refresh", "1")
    text = text_of(client.get(f"{page(f)}history/"))
    assert "Refreshed one call" in text
    assert "keeper" in text
    (entry,) = LogEntry.objects.all()
    assert entry.get_admin_url() == page(f)
    assert entry.object_repr == f._memoized.path
    assert entry.user.username == "keeper"
    assert "Refreshed one call" not in text_of(client.get(page(f)))


# --- what the buttons do -------------------------------------------------------------


def test_a_call_is_looked_at_refreshed_and_invalidated(client: Client) -> None:
    runs: list[Any] = []

    @cache_memoize(60)
    def f(number: int, lang: str = "en") -> list[int]:
        runs.append((number, lang))
        return [7] * number

    text = '3, lang="de"'
    assert "There is no entry of this call." in do(client, f, "look", text)
    f(3, "de")
    answer = client.post(page(f, "look"), {"arguments": text})
    assert re.search(
        r"There is an entry, \S+ .s old: list with 3 items", text_of(answer)
    )
    assert 'value="3, lang=&quot;de&quot;"' in answer.content.decode()
    assert runs == [(3, "de")]

    assert "and its result is stored" in do(client, f, "refresh", text)
    assert runs == [(3, "de")] * 2
    assert "The call is invalidated" in do(client, f, "invalidate", text)
    assert f.peek(3, "de") is None
    looked = do(client, f, "look", text)
    assert "It last missed: invalidated, the call, " in looked
    assert "by keeper, in the admin" in looked
    # To look changes nothing.
    assert shortened() == ["Refreshed one call", "Invalidated one call"]


def test_all_calls_are_invalidated(client: Client) -> None:
    @cache_memoize(60, tags=())
    def tagged(x: int) -> int:
        return x

    @cache_memoize(60)
    def untagged(x: int) -> int:
        return x

    tagged(1), tagged(2), untagged(1)
    asked = client.post(page(tagged, "invalidate-all"))
    assert "Invalidate all calls of tests.test_admin." in text_of(asked)
    assert tagged.peek(1) is not None and not logged()
    response = client.post(page(tagged, "invalidate-all"), {"confirmed": "yes"})
    assert response["Location"] == page(tagged)
    assert "All calls of the function are invalidated" in text_of(
        client.get(page(tagged))
    )
    assert tagged.peek(1) is tagged.peek(2) is None

    text = text_of(client.get(page(untagged)))
    assert "Give its cache_memoize() the option tags=()" in text
    assert "raised TypeError" in do(client, untagged, "invalidate-all")
    assert untagged.peek(1) is not None
    assert logged()[1] == "Invalidation of all calls raised TypeError"


def test_an_entry_past_its_timeout_is_told_as_such(client: Client) -> None:
    clock = FakeClock()

    @cache_memoize(60, stale=600, _clock=clock)
    def f() -> str:
        return "x"

    f()
    clock.tick(100)
    assert "There is a stale entry, 100 s old: str of length 1" in do(client, f, "look")


def test_async_functions(client: Client) -> None:
    @cache_memoize(60)
    async def f(x: int) -> int:
        await asyncio.sleep(0)
        return x

    assert "and its result is stored" in do(client, f, "refresh", "1")
    assert ": int." in do(client, f, "look", "1")
    assert "is invalidated" in do(client, f, "invalidate", "x=1")
    assert "no entry" in do(client, f, "look", "1")


def test_methods_of_rows_of_the_database(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Titled:
        @cache_memoize(60)
        def title_in(self, lang: str) -> str:
            return f"{self.title} ({lang})"  # type: ignore[attr-defined]

    title_in: Any = Titled.title_in
    monkeypatch.setattr(Post, "title_in", vars(Titled)["title_in"], raising=False)
    post = Post.objects.create(title="Tea")
    call = f"tests.Post(pk={post.pk}), 'en'"
    assert "This is a method" in text_of(client.get(page(title_in)))
    assert "and its result is stored" in do(client, title_in, "refresh", call)
    assert title_in.peek(post, "en").value == "Tea (en)"
    said = do(client, title_in, "invalidate", f"{post.pk}, 'en'")
    assert "the first argument must be an instance of" in said


def test_methods_of_a_model_take_a_primary_key(client: Client, by_hand: Any) -> None:
    post = Post.objects.create(title="Tea")
    titled = by_hand.titled
    fields = {"class": "tests.Post", "pk": str(post.pk), "arguments": "'en'"}
    assert "Primary key" in text_of(client.get(page(titled)))
    done = client.post(page(titled, "refresh"), fields, follow=True)
    assert "and its result is stored" in text_of(done)
    assert by_hand(pk=post.pk).titled.peek("en").value == f"{post.pk} in en"
    looked = client.post(page(titled, "look"), fields)
    assert "str of length" in text_of(looked)
    assert logged()[0].endswith(f": tests.Post({post.pk}), <str>")
    for pk, message in [("12345", "has no row"), ("x", "is a name"), ("", "required")]:
        wrong = client.post(page(titled, "refresh"), {**fields, "pk": pk})
        assert message in text_of(wrong)
        assert 'id="id_pk_problem"' in wrong.content.decode()
    assert len(logged()) == 1


@pytest.fixture
def by_hand(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The model of posts, with a memoized method."""

    def titled(self: Any, lang: str) -> str:
        return f"{self.pk} in {lang}"

    titled.__module__, titled.__qualname__ = Post.__module__, "Post.titled"
    memoized: Any = cache_memoize(60)(titled)
    monkeypatch.setattr(Post, "titled", memoized, raising=False)
    memoized.__set_name__(Post, "titled")
    return Post


class Shelf:
    @cache_memoize(60)
    @classmethod
    def count(cls, n: int) -> str:
        return f"{n} of {cls.__name__}"

    @classmethod
    @cache_memoize(60)
    def other(cls, n: int) -> str:
        return f"{n} of {cls.__name__}"


class Drawer(Shelf):
    pass


@pytest.mark.parametrize("name", ["count", "other"])
def test_classmethods_take_a_class(client: Client, name: str) -> None:
    """In either order of the decorators."""
    memoized = getattr(Shelf, name)
    planning._functions.add(memoized._memoized)
    address = f"{LIST}{describe.FunctionInfo(memoized._memoized).id}/"
    assert "tests.test_admin.Drawer" in text_of(client.get(address))
    fields = {"class": "tests.test_admin.Drawer", "arguments": "3"}
    done = client.post(f"{address}refresh/", fields, follow=True)
    assert "and its result is stored" in text_of(done)
    assert memoized._memoized.wrapper.peek(Drawer, 3).value == "3 of Drawer"
    assert memoized._memoized.wrapper.peek(Shelf, 3) is None
    assert logged()[0].endswith(": Drawer, 3")
    fields["class"] = "builtins.int"
    wrong = client.post(f"{address}refresh/", fields)
    assert "Select a valid choice" in text_of(wrong)


def test_variants_are_chosen(client: Client) -> None:
    def other() -> int:
        return 7

    @cache_memoize(60, vary_on=["language", "time_zone", other])
    def f(x: int) -> str:
        return f"{x} {get_language()} {timezone.get_current_timezone_name()}"

    fields = {"arguments": "1", "language": "de", "time_zone": "Europe/Oslo"}
    text = text_of(client.get(page(f)))
    assert "Language as on this page" in text and "Time zone as on this page" in text
    assert (
        "have the values of this request: test_variants_are_chosen.<locals>.other"
        in text
    )
    assert "Invalidating a call invalidates all its variants" in text
    assert "There is no entry" in text_of(client.post(page(f, "look"), fields))
    client.post(page(f, "refresh"), fields)
    with override("de"), timezone.override("Europe/Oslo"):
        assert f.peek(1).value == "1 de Europe/Oslo"
    assert f.peek(1) is None
    looked = text_of(client.post(page(f, "look"), fields))
    assert "There is an entry" in looked  # in the language of the page
    assert "no entry" in do(client, f, "look", "1")
    assert do(client, f, "invalidate", "1")
    assert "There is no entry" in text_of(client.post(page(f, "look"), fields))
    assert logged()[0].endswith(": 1, de, Europe/Oslo")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("en", "argument 1 is a name, and names are not looked up; put text in"),
        ("1 2", "this is not Python"),
        ("__import__('os')", "argument 1 is a call, and nothing is called here"),
        ("", "TypeError: .*f\\(\\): missing a required argument: 'x'"),
        ("1, 2", "TypeError: .*too many positional arguments"),
        ("1, y=2", "unexpected keyword argument 'y'"),
        ("tests.Nope(1)", "doesn't have a 'Nope' model; write the label of the app"),
        ("nope.Post(1)", "No installed app with label 'nope'"),
        (
            "tests.Post(pk=12345)",
            "tests.Post has no row with this primary key, or you have no permission",
        ),
        ("tests.Post('x')", "this cannot be a primary key of tests.Post; write it"),
        ("'\x00'", "Null characters are not allowed|not Python"),
    ],
)
def test_what_is_no_call_is_said_at_the_field(
    client: Client, text: str, message: str
) -> None:
    runs: list[int] = []

    @cache_memoize(60, prefix="another for each")
    def f(x: int) -> None:
        runs.append(x)

    for action in ("look", "refresh", "invalidate"):
        response = client.post(page(f, action), {"arguments": text})
        assert response.status_code == 200
        assert re.search(message, text_of(response))
        content = response.content.decode()
        assert 'aria-invalid="true"' in content
        assert 'id="id_arguments_problem"' in content
        assert "<title>Error: " in content
        assert html.escape(text) in content or "\x00" in text
    assert not runs
    assert not logged()


def test_arguments_without_a_key(client: Client) -> None:
    def boom(x: Any) -> Any:
        raise RuntimeError(f"cannot rewrite {x}")

    @cache_memoize(60, args_rewrite=boom)
    def f(x: Any) -> None: ...

    text = do(client, f, "look", "'secret'")
    assert "these arguments have no key (RuntimeError); see the signature" in text

    @cache_memoize(60, args_rewrite=lambda x: iter(x))
    def g(x: Any) -> None: ...

    assert "cannot be part of a cache key" in do(client, g, "look", "[1]")
    assert not logged()


def test_a_function_that_raises(client: Client) -> None:
    @cache_memoize(60)
    def f(x: Any) -> None:
        raise LookupError(f"no {x}")

    text = do(client, f, "refresh", "'the secret'")
    assert "Refresh it: this raised LookupError." in text
    assert shortened() == ["Refresh of one call raised LookupError"]


def test_what_is_not_stored_is_not_said_to_be(client: Client) -> None:
    @cache_memoize(60, cache_if=lambda result, x: x < 2)
    def f(x: int) -> int:
        return x

    assert "and its result is stored" in do(client, f, "refresh", "1")
    assert "its result is not stored" in do(client, f, "refresh", "2")


def test_an_old_entry_is_not_taken_for_the_new_one(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[int] = []
    clock, command = FakeClock(), Store._command

    @cache_memoize(60, prefix="test_admin.deaf", _clock=clock)
    def f() -> int:
        runs.append(1)
        return len(runs)

    def deaf(self: Store, name: str, *args: Any) -> Any:
        """The cache does not take what the second run has to store."""
        if name == "swap" and len(runs) == 2:
            raise OSError
        return command(self, name, *args)

    f()
    clock.tick(30)
    monkeypatch.setattr(Store, "_command", deaf)
    assert "its result is not stored" in do(client, f, "refresh")
    assert f.peek().value == 1


def test_no_argument_and_no_value_gets_out(client: Client, caplog: Any) -> None:
    @cache_memoize(60, tags=())
    def f(x: str) -> str:
        if x == "bad secret":
            raise ValueError(x)
        return x

    @cache_memoize(60, cache_alias="locmem", args_rewrite=lambda x: int(x))
    def g(x: str) -> str:
        return x

    caplog.set_level(0)
    for function in (f, g):
        for argument in ("'secret'", "'bad secret'", "secret", "'secret', 'secret'"):
            for action in ACTIONS:
                do(client, function, action, argument)
    assert len(logged()) == 2 * 2 + 4 + 4
    entries = [str(vars(entry)) for entry in LogEntry.objects.all()]
    session = str(dict(client.session))
    addresses = client.cookies.output()
    records = caplog.text
    for place in (*entries, session, addresses, records):
        assert "secret" not in place


def test_the_value_is_not_shown(client: Client) -> None:
    @cache_memoize(60)
    def f(x: int) -> Any:
        return ["private value", {"a": b"private"}, lazystr("x"), ("private",)][x]

    seen = []
    for x in range(4):
        f(x)
        answer = client.post(page(f, "look"), {"arguments": str(x)})
        assert "private" not in answer.content.decode()
        seen.append(re.search(r"old: (.*?)\. ", text_of(answer)))
    assert [match and match[1] for match in seen] == [
        "str of length 13",
        "dict with 1 item",
        "__proxy__",
        "tuple with 1 item",
    ]


@override_settings(DEBUG_PROPAGATE_EXCEPTIONS=True)
def test_every_request_may_be_a_transaction(
    client: Client, transactional_db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A snapshot would not be stored, and a broken one could not be logged."""
    inside: list[bool] = []

    @cache_memoize(60)
    def f(x: int) -> int:
        inside.append(connection.in_atomic_block)
        return x

    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    assert "and its result is stored" in do(client, f, "refresh", "1")
    assert inside == [False]


# --- other admin sites, and pieces ---------------------------------------------------


def test_another_admin_site(rf: Any) -> None:
    @cache_memoize(60, tags=())
    def f(x: int) -> int:
        return x

    other = admin.AdminSite("other")
    other.register(MemoizedFunction, type(admin.site._registry[MemoizedFunction]))
    urls = type("urls", (), {"urlpatterns": []})

    from django.urls import path

    urls.urlpatterns = [path("other/", other.urls), path("admin/", admin.site.urls)]
    with override_settings(ROOT_URLCONF=urls):
        client = Client()
        client.force_login(user("keeper", "view", "invalidate"))
        address = page(f).replace("/admin/", "/other/")
        content = client.get(address).content.decode()
        assert "/other/cache_memoize" in content
        assert '"/admin/cache_memoize' not in content
        answer = client.post(f"{address}invalidate-all/", {"confirmed": "yes"})
        assert answer["Location"] == address


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "–"),
        (0.0000004, "0.4 µs"),
        (0.00025, "250 µs"),
        (0.0123, "12.3 ms"),
        (0.5, "500 ms"),
        (1, "1 s"),
        (1.26, "1.3 s"),
        (119, "119 s"),
        (600, "10 min"),
        (9000, "2.5 h"),
        (400_000, "4.6 d"),
        (float("inf"), "unlimited"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert describe.format_duration(seconds) == text


def test_all_and_none_are_not_rounded_to() -> None:
    shown = [
        describe.format_percent(rate) for rate in (None, 0.0, 1e-9, 0.5, 1 - 1e-9, 1.0)
    ]
    assert shown == ["–", "0.0 %", "0.1 %", "50.0 %", "99.9 %", "100.0 %"]


def test_a_chart_shows_what_was_counted_at_all() -> None:
    minutes = [
        sitewide.Minute(),
        sitewide.Minute(1000, 0, 500),
        sitewide.Minute(0, 1, 0, 7),
        sitewide.Minute(),
    ]
    chart = charts.draw_chart(minutes, failing=1, width=8, height=15)
    assert chart.stale == "M2 15v-5h1v5z"
    assert chart.hits == "M2 10v-5h1v5z"
    assert chart.misses == "M4 15v-1h1v1z"
    assert chart.failing == "M4 4v-4h1v4zM6 4v-4h1v4z"
    assert (chart.most, chart.scale, chart.sums) == (1000, 1000, (1000, 1, 500, 7))
    assert charts.draw_chart([]).most == 0
    # Of the same scale as a busier row.
    assert charts.draw_chart(minutes[1:2], 2000, 0, 2, 15).hits == "M0 12.5v-2.5h1v2.5z"


def test_an_instance_is_loaded_by_its_key() -> None:
    post = Post.objects.create(title="x")
    assert arguments.load_instance("tests.Post", post.pk) == post
    for pk in (10**30, [], None, 2.5j):
        with pytest.raises(ValueError, match=r"write it|no row"):
            arguments.load_instance("tests.Post", pk)


@pytest.mark.parametrize("action", [name for name in ACTIONS if name[-3:] != "all"])
@pytest.mark.parametrize("argument", ["auth.User(pk={})", "x=auth.User({})"])
def test_rows_of_models_that_a_user_may_not_view_are_not_told_from_none(
    client: Client, action: str, argument: str
) -> None:
    @cache_memoize(60)
    def f(x: Any) -> int:
        return 1

    def answers() -> set[str]:
        pks = (User.objects.get(username="keeper").pk, 10**6, 10**30, "'no number'")
        calls = [{"arguments": argument.format(pk)} for pk in pks]
        pages = [client.post(page(f, action), call) for call in calls]
        found = (each.context and each.context["form"].errors for each in pages)
        return {str(each or "") for each in found}

    (only,) = answers()
    assert "auth.User has no row with this primary key, or you have no perm" in only
    keeper = User.objects.get(username="keeper")
    keeper.user_permissions.add(Permission.objects.get(codename="view_user"))
    assert answers() > {only, ""}
