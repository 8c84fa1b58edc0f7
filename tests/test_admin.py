"""The admin's pages: who may do what, what is done, told, and logged."""

from __future__ import annotations

import asyncio
import html
import io
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
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
from django.utils.functional import lazystr
from django.views.debug import SafeExceptionReporterFilter

from cache_memoize import arguments, cache_memoize, describe, planning
from cache_memoize.admin import charts, overview
from cache_memoize.admin.actions import ACTIONS
from cache_memoize.cache.store import Store
from cache_memoize.models import MemoizedFunction
from cache_memoize.options import SIGNATURE
from cache_memoize.stats import sitewide
from cache_memoize.stats.reporter import reporter
from tests.conftest import FakeClock, plan_of
from tests.models import Post

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
    response = client.post(
        page(memoized, action), {"arguments": arguments}, follow=True
    )
    assert response.status_code == 200
    return text_of(response)


def logged() -> list[str]:
    return [e.change_message for e in LogEntry.objects.order_by("pk")]


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
def test_permissions(permissions: Any, may_see: int, may_act: int) -> None:
    @cache_memoize(60)
    def f(x: int) -> int:
        return x

    client = Client()
    client.force_login(user("somebody", *permissions))
    history = f"{page(f)}history/"
    seen = {client.get(a).status_code for a in (LIST, page(f), history)}
    assert seen == {may_see}
    for action in ACTIONS:
        answer = client.post(page(f, action), {"arguments": "1"}, follow=True)
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
    assert client.post(page(f, "look"), fields).status_code == 200
    assert logged() == ["Looked at one call"]


def test_what_this_process_does_not_know_is_not_found(client: Client) -> None:
    @cache_memoize(60)
    def f(x: int) -> int:
        return x

    for address in (f"{LIST}0123/", page(f, "explode")):
        for method in (client.get, client.post):
            response = method(address)
            assert response.status_code == 404
            assert "This function is not known" in text_of(response)
            assert LIST in response.content.decode()
    assert client.get(f"{LIST}0123/history/").status_code == 302


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
    response = client.get(LIST)
    assert rows(response) == ["a", "b", "c"]
    text = text_of(response)
    assert "Tags: sums" in text
    assert "3 memoized functions of this process" in text
    assert re.search(
        r"b tests.test_admin 4 1 80[.]0 % [\d.]+ [µm]?s 1 .* 0 0 \d+ bytes "
        r"default of the cache default",
        text,
    )
    assert re.search(r"Total 5 2 71[.]4 % [\d.]+ [µm]?s 2 ", text)
    label = 'aria-label="Last hour: 4 hits, 1 misses, at most 5 calls a minute"'
    assert label in response.content.decode()
    assert 'aria-label="Last hour: no calls"' in response.content.decode()


@pytest.mark.parametrize(
    ("query", "order"),
    [
        ("", "abc"),
        ("?o=name", "abc"),
        ("?o=-name", "cba"),
        ("?o=-hits", "bac"),
        ("?o=hits", "cab"),
        ("?o=-rate", "bac"),
        ("?o=timeout", "cab"),
        ("?o=cache", "abc"),
        ("?o=nonsense", "abc"),
        ("?q=a", "abc"),
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
    assert [re.sub(r"\w+Error", "E", entry) for entry in logged()] == [
        "Looked at one call",
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
    assert "not used for some seconds" in text
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
    assert note in text and "the figures are of this process only" in text
    assert note in text_of(client.get(page(f)))
    files = "django.core.cache.backends.filebased.FileBasedCache"
    shared = {"BACKEND": files, "LOCATION": tmp_path}
    with override_settings(CACHES={"default": shared}):
        text = text_of(client.get(LIST))
        assert "this process only" not in text
        assert "the figures are of the whole site" in text
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
        client.post(page(f, "look"), {"arguments": "'secret'"})
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
    assert shown["timeout"].endswith("<lambda>")
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
    assert logged() == [
        "Looked at one call",
        "Looked at one call",
        "Refreshed one call",
        "Invalidated one call",
    ]


def test_all_calls_are_invalidated(client: Client) -> None:
    @cache_memoize(60, tags=())
    def tagged(x: int) -> int:
        return x

    @cache_memoize(60)
    def untagged(x: int) -> int:
        return x

    tagged(1), tagged(2), untagged(1)
    response = client.post(page(tagged, "invalidate-all"))
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
        assert 'id="memoize-error"' in content
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
    assert logged() == ["Refresh of one call raised LookupError"]


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
    assert len(logged()) == 2 * 3 + 4 + 4
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
        answer = client.post(f"{address}invalidate-all/")
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
    minutes = [sitewide.Minute(), sitewide.Minute(1000, 0), sitewide.Minute(0, 1)]
    chart = charts.draw_chart(minutes, bar=2, height=10)
    assert chart.hits == "M2 10v-10h1v10z"
    assert chart.misses == "M4 10v-1h1v1z"
    assert (chart.width, chart.height, chart.most, chart.sums) == (
        6,
        10,
        1000,
        (1000, 1),
    )
    assert charts.draw_chart([]).most == 0


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
        return {str(each.context["form"].errors) for each in pages}

    (only,) = answers()
    assert "auth.User has no row with this primary key, or you have no perm" in only
    keeper = User.objects.get(username="keeper")
    keeper.user_permissions.add(Permission.objects.get(codename="view_user"))
    assert answers() > {only, ""}
