"""The figures of the whole site are the sum of what all its processes counted."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
from asgiref.sync import async_to_sync
from django.apps import apps
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, transaction
from django.test import override_settings

from cache_memoize import cache_memoize
from cache_memoize.cache import breaker
from cache_memoize.stats import sitewide
from cache_memoize.stats.history import History
from cache_memoize.stats.reporter import reporter
from cache_memoize.stats.sitewide import Figures, Minute
from cache_memoize.stats.totals import Totals
from tests.conftest import (
    ATOMIC,
    DATABASES,
    how_many,
    in_thread,
)
from tests.test_stampede import environment

NOW = 1_800_000_030.0  # half a minute past


class Source:
    """Who counts, for site.tell()."""

    def __init__(self, alias, path="blog.related.related"):
        self.alias = alias
        self.path = path
        self.stored_at = self.old_since = 0.0
        self.history = History()


@pytest.fixture
def now(monkeypatch):
    """The time, which can be set."""
    found = [NOW]
    monkeypatch.setattr(sitewide.time, "time", lambda: found[0])
    return found


def figures(alias, path="blog.related.related"):
    return sitewide.read(alias, [path])[path]


@pytest.mark.backends(ATOMIC)
def test_what_processes_tell_adds_up(backend):
    one = Totals(3, 1, 1, 2, 0, 1, 1, 1, 2, 90, 1, 4, 2, 1, 0.5, 1.5, {-4: 1})
    two = Totals(hits=7, errors=2, computations=2, costs={-4: 1, 8: 1})
    assert figures(backend) == Figures()
    sitewide.tell(Source(backend), one)
    sitewide.tell(Source(backend), two)
    sitewide.tell(Source(backend, "another"), two)
    assert figures(backend).totals == one.plus(two)
    assert set(sitewide.read(backend, ["another", "third"])) == {"another", "third"}
    assert figures(backend, "third") == Figures() and sitewide.read(backend, []) == {}


@pytest.mark.backends(ATOMIC)
def test_old_values_begin_with_the_first_process_and_end_with_any(backend):
    """A process whose refreshes fail learns nothing of the success of another one."""
    one, two, three = (Source(backend) for _ in range(3))
    failed, stored = Totals(failed=1), Totals(computations=1)
    one.old_since, two.old_since = NOW + 5, NOW + 3
    for source in (one, two):
        sitewide.tell(source, failed)
    assert figures(backend).old_since == NOW + 3
    three.stored_at = NOW + 9
    sitewide.tell(three, stored)
    assert figures(backend).old_since == 0.0
    sitewide.tell(one, failed)  # again, and still since before that
    assert figures(backend).old_since == 0.0
    two.old_since = NOW + 20
    sitewide.tell(two, failed)
    assert figures(backend).old_since == NOW + 20
    assert figures(backend).totals.failed == 4


@pytest.mark.backends(["locmem"])
def test_the_last_hour_is_there_by_the_minute(backend, now):
    hits = Totals(hits=1)
    for minutes in (0, 0, 1, 59, 60, 119):
        now[0] = NOW + 60 * minutes
        sitewide.tell(Source(backend), hits)
    found = figures(backend)
    assert found.since == NOW and found.totals.hits == 6
    now[0] = NOW + 119 * 60
    shown = found.last_hour(now[0])
    assert len(shown) == sitewide.MINUTES and shown[-1] == Minute(1)
    assert sum(minute.hits for minute in shown) == 2, "60 and 119"
    assert len(found.minutes) <= sitewide.MINUTES, "what is older goes"


@pytest.mark.backends(["locmem"])
def test_they_go_with_the_function(backend):
    """Thirty days after the last call; nobody has to clean up."""
    sitewide.tell(Source(backend), Totals(hits=1))
    (left,) = caches[backend]._expire_info.values()
    assert left == pytest.approx(sitewide.time.time() + 30 * 86400, abs=60)


@pytest.mark.backends(["locmem", "valkey"])
@pytest.mark.parametrize(
    "garbage", [b"{", b"[]", b"[[1],{},0,{}]", b"[1,2,3,4]", b"\x80", "text", 5]
)
def test_what_cannot_be_read_is_replaced(backend, garbage):
    caches[backend].set(sitewide._key("blog.related.related"), garbage, 60)
    assert figures(backend) == Figures()
    sitewide.tell(Source(backend), Totals(hits=1))
    assert figures(backend).totals == Totals(hits=1)


@pytest.mark.backends(["unknown", "pylibmc_without_cas"])
def test_where_nothing_can_be_replaced_atomically_none_are_kept(backend):
    sitewide.tell(Source(backend), Totals(hits=1))
    assert figures(backend) == Figures()
    assert sitewide.tell(Source("dummy"), Totals(hits=1)) is None


def test_a_cache_that_is_left_alone_is_not_asked():
    try:
        breaker.breaker_of("locmem").failure(0.0, hanging=True)
        with pytest.raises(OSError, match="'locmem' is left alone for a while"):
            sitewide.tell(Source("locmem"), Totals(hits=1))
    finally:
        breaker.breaker_of("locmem").__init__()


def test_a_cache_that_never_takes_them(monkeypatch):
    """As one under so many writers that each try comes too late."""

    async def no(*args):
        return False

    monkeypatch.setattr("cache_memoize.cache.store.Store.swap", no)
    monkeypatch.setattr("cache_memoize.cache.store.Store.add", no)
    pauses = []
    monkeypatch.setattr(
        sitewide.Clock, "sleep", lambda self, seconds: pauses.append(seconds)
    )
    with pytest.raises(OSError, match="'locmem' did not take the figures"):
        sitewide.tell(Source("locmem"), Totals(hits=1))
    assert len(pauses) == sitewide.TRIES - 1, "the others get time, at random"
    assert len(set(pauses)) > 1 and 0 < sum(pauses) < 0.4


def test_two_projects_in_one_cache_have_figures_of_their_own():
    keys = {sitewide._key("f")}
    for prefix in ("shop", "blog"):
        with override_settings(CACHE_MEMOIZE={"KEY_PREFIX": prefix}):
            keys.add(sitewide._key("f"))
    assert len(keys) == 3
    assert all(len(key) < 200 and key.isascii() for key in keys)


# --- f.site_info() -------------------------------------------------------------------


@pytest.fixture
def told(monkeypatch):
    monkeypatch.setattr(reporter, "_told", {})
    monkeypatch.setattr(reporter, "_known", type(reporter._known)())
    monkeypatch.setattr(apps, "is_installed", lambda name: True)
    with override_settings(CACHE_MEMOIZE={"STATS_INTERVAL": 0}):
        reporter.add(sitewide.tell)
        yield
        reporter.remove(sitewide.tell)


def test_site_info_counts_this_process_up_to_now(told):
    @cache_memoize(60)
    def f():
        return 1

    f(), f()
    try:
        assert f.site_info()[:2] == (1, 1) == f.cache_info()[:2]
        sitewide.tell(f._memoized.stats, Totals(hits=5))
        f()
        assert async_to_sync(f.asite_info)().hits == 7
        assert f.cache_info().hits == 2 and f.site_info().breaker == "closed"
    finally:
        caches["default"].clear()


def of_a_tenant(key, prefix, version):
    return f"{getattr(tenants, 'name', 'nobody')}:{prefix}:{version}:{key}"


tenants = threading.local()


@pytest.mark.backends(["valkey", "pymemcache"])
def test_the_figures_are_nobodys_where_each_tenant_has_its_keys(told, backend):
    """The thread that tells them has no tenant, who looks at them has one."""
    known = {"tenants": {**caches.settings[backend], "KEY_FUNCTION": of_a_tenant}}
    with override_settings(CACHES=caches.settings | known):

        @cache_memoize(60, cache_alias="tenants", prefix="tenants")
        def f():
            return 1

        try:
            for tenants.name in ("ann", "bob"):
                f(), f()
                # Looking at another cache tells what is to be told in all of them.
                assert sitewide.up_to_date("locmem", []) == {}
                assert f.site_info()[:2] == f.cache_info()[:2]
            del tenants.name
            assert f.site_info()[:2] == (2, 2)
        finally:
            tenants.__dict__.clear()


def test_without_the_app_there_are_none(monkeypatch):
    monkeypatch.setattr(apps, "is_installed", lambda name: False)
    with pytest.raises(ImproperlyConfigured, match="into INSTALLED_APPS"):
        cache_memoize(60)(figures).site_info()


# --- many processes ------------------------------------------------------------------


@pytest.mark.grows
@pytest.mark.backends(["valkey", "pymemcache", "file"], lean=["valkey"])
def test_four_processes_and_two_that_are_killed(backend):
    """Right but for the last seconds of those that were killed."""
    calls = how_many(5_000)

    def start(number, calls):
        return subprocess.Popen(
            [sys.executable, "-m", "tests.counting", backend, str(calls), str(number)],
            env=environment(),
            stdout=subprocess.PIPE,
            text=True,
        )

    whole = [start(number, calls) for number in range(4)]
    killed = [start(number, 10**9) for number in (4, 5)]
    reached = 0
    for process in killed:
        for _ in range(3):
            process.stdout.readline()
        process.kill()
        *_, last = process.communicate()[0].split() or ["1500"]
        reached += int(last) + 500  # it may have come further, without saying so
    for process in whole:
        process.communicate()
        assert process.returncode == 0
    found = figures(backend, "__main__.counted").totals
    assert 4 * calls <= found.calls <= 4 * calls + reached
    assert found.computations <= found.misses


# --- caches in a database ------------------------------------------------------------


@pytest.mark.backends(["sqlite", "postgresql"])
def test_nothing_is_told_inside_a_transaction(backend):
    """Who else has something to tell would wait for its end, and a rollback would take
    it away."""
    with transaction.atomic(using=DATABASES[backend]):
        with pytest.raises(OSError, match="in a database, and a transaction open"):
            sitewide.tell(Source(backend), Totals(hits=1))
        sitewide.read(backend, ["f"])
    sitewide.tell(Source(backend), Totals(hits=2))
    assert figures(backend).totals.hits == 2


@pytest.mark.backends(["postgresql"])
def test_callers_keep_a_cache_whose_figures_somebody_has_locked(backend, monkeypatch):
    """As a test that is one transaction does."""
    sitewide.tell(Source(backend), Totals(hits=1))
    monkeypatch.setattr(sitewide, "_rests", {})

    def tell():
        with connections["postgresql"].cursor() as cursor:
            cursor.execute("SET lock_timeout = '1500ms'")
        for _ in range(4):
            with pytest.raises(Exception, match="lock timeout|left alone"):
                sitewide.tell(Source(backend), Totals(hits=1))

    with transaction.atomic(using="postgresql"):
        with connections["postgresql"].cursor() as cursor:
            cursor.execute("SELECT * FROM cache_postgresql FOR UPDATE")
        in_thread(tell)
        assert not breaker.breaker_of(backend).tripped
        assert set(sitewide._rests) == {backend}, "asked once"


COUNTS = "[1,1,0,0,0,0,0,1,0,0,0,0,0,0,0.5,0.0]"
MINUTE = str(int(NOW // 60))


@pytest.mark.backends(["locmem"])
def test_the_poison_is_all_that_is_wrong_with_these_figures(backend):
    text = f"[{COUNTS},{{}},0,{{}},0,0,[]]"
    caches[backend].set(sitewide._key("blog.related.related"), text.encode())
    assert figures(backend).totals == Totals(1, 1, computations=1, spent=0.5)


@pytest.mark.parametrize(
    "poison",
    [
        "[" * 40_000,
        "[" * 200_000,
        '{"a":' * 9_000,
        "null",
        "[null,null,null,null]",
        "[[null,1,0,0,0,0,0,1,0,0,0,0,0,0,0.5,0.0],{},0,{},0,0,[]]",
        "[[1,1,0,0,0,0,0,1,0,0,0,0,0,0,0.5],{},0,{},0,0,[]]",
        "[[1,1,0,0,0,0,0,1,0,0,0,0,0,0,0.5,0.0,0.0],{},0,{},0,0,[]]",
        "[[1,1,0,0,0,0,0,1,0,0,0,0,0,0,0.5,0.0,{}],{},0,{},0,0,[]]",
        "[[-1,1,0,0,0,0,0,1,0,0,0,0,0,0,0.5,0.0],{},0,{},0,0,[]]",
        "[[1e3,1,0,0,0,0,0,1,0,0,0,0,0,0,0.5,0.0],{},0,{},0,0,[]]",
        "[[true,1,0,0,0,0,0,1,0,0,0,0,0,0,0.5,0.0],{},0,{},0,0,[]]",
        "[[1,1,5,0,0,0,0,1,0,0,0,0,0,0,0.5,0.0],{},0,{},0,0,[]]",
        "[[1,1,0,0,0,0,0,1,0,0,0,NaN,0.0],{},0,{},0,0,[]]",
        "[[1,1,0,0,0,0,0,1,0,0,0,Infinity,0.0],{},0,{},0,0,[]]",
        "[[1,1,0,0,0,0,0,1,0,0,0,1e308,0.0],{},0,{},0,0,[]]",
        f"[[{'9' * 5_000},1,0,0,0,0,0,1,0,0,0,0,0,0,0.5,0.0],{{}},0,{{}},0,0,[]]",
        f'[{COUNTS},{{"1000000000":1}},0,{{}},0,0,[]]',
        f'[{COUNTS},{{"-1000000000":1}},0,{{}},0,0,[]]',
        f'[{COUNTS},{{"1":null}},0,{{}},0,0,[]]',
        f'[{COUNTS},{{"1":-1}},0,{{}},0,0,[]]',
        f"[{COUNTS},[],0,{{}},0,0,[]]",
        f"[{COUNTS},{{}},null,{{}},0,0,[]]",
        f'[{COUNTS},{{}},"now",{{}},0,0,[]]',
        f"[{COUNTS},{{}},NaN,{{}},0,0,[]]",
        f'[{COUNTS},{{}},0,{{"{MINUTE}":[null,0,0,0]}},0,0,[]]',
        f'[{COUNTS},{{}},0,{{"{MINUTE}":[1,0,0,0,0]}},0,0,[]]',
        f'[{COUNTS},{{}},0,{{"-5":[1,0,0,0]}},0,0,[]]',
        f'[{COUNTS},{{}},0,{{"x":[1,0,0,0]}},0,0,[]]',
        f"[{COUNTS},{{}},0,{{}},0,null,[]]",
        f"[{COUNTS},{{}},0,{{}},0,0,0]",
        f"[{COUNTS},{{}},0,{{}},0,0,[5]]",
        f"[{COUNTS},{{}},0,{{}},0,0,[],0]",
    ],
    ids=lambda text: text[:40],
)
@pytest.mark.backends(["locmem"])
def test_figures_that_cannot_be_true_are_none_and_are_replaced(backend, now, poison):
    key, one = sitewide._key("blog.related.related"), Totals(hits=1)
    sitewide.tell(Source(backend, "another"), one)
    caches[backend].set(key, poison.encode())
    found = sitewide.read(backend, ["blog.related.related", "another"])
    assert found["blog.related.related"] == Figures()
    assert found["another"].totals == one
    sitewide.tell(Source(backend), one)
    assert figures(backend).totals == one
