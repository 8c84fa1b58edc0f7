"""``manage.py memoize doctor``: what it finds, in figures and in caches that answer."""

from __future__ import annotations

import re
import threading
import time
from datetime import UTC, datetime
from typing import Any
from weakref import WeakSet

import pytest
import redis
from django.conf import settings
from django.core import checks
from django.core.cache import caches
from django.core.cache.backends.locmem import LocMemCache
from django.test import override_settings

from cache_memoize import cache_memoize, planning
from cache_memoize.cache.connections import opened
from cache_memoize.cache.record import loads
from cache_memoize.cache.vouchers import ServerMemory
from cache_memoize.management import doctor
from cache_memoize.management.findings import (
    FEW,
    SHARE,
    TEXTS,
    CacheState,
    Usage,
    judge_cache,
    judge_function,
)
from cache_memoize.stats import sitewide
from cache_memoize.stats.reporter import reporter
from cache_memoize.stats.totals import Totals
from tests.needs import need
from tests.test_command import DEAD, DUMMY, memoize
from tests.test_docs import DOCS, first_literals, literals, table

# --- decisions -----------------------------------------------------------------------

SINCE = datetime(2027, 1, 15, 14, 2, tzinfo=UTC)
#: Ten runs of a second each, and a thousand hits.
GOOD = Totals(hits=1_000, misses=10, computations=10, stored=10, spent=10, saved=1_000)
UNUSED = Totals(misses=200, computations=200, stored=200, spent=200)
RAN = Totals(misses=1_000, computations=1_000, stored=1_000, spent=1_000, hits=9_000)
RAN = RAN._replace(saved=9_000)


def case(id: str, totals: Totals, found: str = "", **usage: Any) -> Any:
    return pytest.param(totals, found, usage, id=id)


@pytest.mark.parametrize(
    "totals, found, usage",
    [
        case("nothing", Totals()),
        case("worth it", GOOD),
        case("no hit", UNUSED, "D001"),
        case("no hit of few", UNUSED._replace(misses=FEW - 1)),
        case("no hit, as nothing is stored", UNUSED._replace(stored=0), "D004"),
        case("a guard", UNUSED, is_guard=True),
        case("slower than the function", GOOD, "D002", hit=1.1),
        case("slow, of few", GOOD._replace(hits=FEW - 11), hit=99.0),
        case("slow, of an unknown time", GOOD, hit=99.0, hours=0.0),
        case("unknown", GOOD, hit=None),
        case("a slow guard", GOOD, is_guard=True, hit=1.1),
        case("misses cost three commands", RAN, hit=0.749),
        case("and no less", RAN, "D002", hit=0.751),
        case("near hits cost nothing", RAN._replace(near=9_000), hit=0.751),
        case("a wait is as long as a run", RAN._replace(waits=9_000), "D002", hit=0.01),
        case("too large", RAN._replace(stored=800, too_large=200), "D003"),
        case("few too large", RAN._replace(stored=801, too_large=199)),
        case("too large and lost", RAN._replace(stored=0, too_large=500), "D003 D004"),
        case("lost", RAN._replace(stored=800), "D004"),
        case("few lost", RAN._replace(stored=801)),
        case("more stored than run", RAN._replace(stored=9_000)),
        case("some lost by intention", RAN._replace(stored=1), stores_all=False),
        case("all", RAN._replace(stored=0), "D004", stores_all=False),
        case("nothing is to be stored", RAN._replace(stored=0), stores_any=False),
        case("errors", GOOD, "D006", recent_errors=7),
        case("lost by errors", RAN._replace(stored=0), "D004", recent_errors=7),
        case("old values", GOOD, "D005", old_since=SINCE),
        case("wrong values", GOOD._replace(audited=9, wrong=1), "D011"),
    ],
)
def test_what_figures_of_a_function_mean(totals, found, usage):
    usual: dict[str, Any] = {"hours": 2.0, "hit": 0.001}
    messages = list(judge_function(Usage("a.f", "b", totals, **(usual | usage))))
    assert [each.id[-4:] for each in messages] == found.split()
    assert {each.obj for each in messages} <= {"a.f"}


@pytest.mark.parametrize(
    "memory, found",
    [
        (None, ""),
        (ServerMemory(0, 60, 0, "noeviction"), ""),
        (ServerMemory(0, 60, 2**20, "allkeys-lru"), ""),
        (ServerMemory(0, 60, 2**20, "noeviction"), "D008"),
        (ServerMemory(7, 60, 2**20, "allkeys-lru"), "D009"),
    ],
)
def test_what_the_answers_of_a_cache_mean(memory, found):
    state = CacheState("main", "RedisCache", memory=memory)
    messages = list(judge_cache(state))
    assert [each.id[-4:] for each in messages] == found.split()
    messages = list(judge_cache(state._replace(error="the cache 'main' is down")))
    assert messages[0].id == "cache_memoize.D007" and messages[0].msg == "is down."
    assert messages[0].level == checks.ERROR and messages[0].obj == "cache 'main'"


def test_a_finding_has_its_evidence_in_numbers():
    def said(totals: Totals, **usage: Any) -> str:
        usage = {"hours": 2.0, "hit": 0.75} | usage
        (found,) = judge_function(Usage("a.f", "b", totals, **usage))
        return str(found.msg)

    assert said(UNUSED) == "200 misses in 2 h, and no hit."
    assert said(RAN._replace(misses=1_001)) == (
        "In 2 h, hits have saved 2.5 h of computation, and the cache has cost 2.5 h: a "
        "hit takes 750 ms, a run 1 s; 90.0 % of the calls are hits."
    )
    assert said(GOOD._replace(failed=3), old_since=SINCE, hit=0.1) == (
        "Callers get values from before 2027-01-15 14:02 UTC: 3 refreshes have failed."
    )
    memory = ServerMemory(7_000, 2 * 60 * 60, 2**20, "allkeys-lru")
    (found,) = judge_cache(CacheState("main", "RedisCache", memory=memory))
    assert found.msg == (
        "The server has removed 7,000 entries before their timeout in 2 h (maxmemory "
        "1.0\xa0MB, allkeys-lru)."
    )


def test_the_net_gain_is_per_hour():
    usage = Usage("a.f", "b", GOOD, hours=2.0, hit=0.1)
    assert usage.net == pytest.approx((1_000 - 0.1 * (1_000 + 3 * 10)) / 2)
    assert usage._replace(hours=0.0).net is usage._replace(hit=None).net is None


# --- the command ---------------------------------------------------------------------


@pytest.fixture
def site(monkeypatch):
    """Make functions of a project without others, whose figures are kept."""
    monkeypatch.setattr(planning, "_functions", WeakSet())
    caches["default"].clear()
    reporter.flush_stats()
    reporter.add(sitewide.tell)
    for source in list(reporter._known):
        reporter._told[sitewide.tell][source] = source.totals()
    made = []

    def make(function, *calls, name="f", **options):
        function.__name__ = function.__qualname__ = name
        options = {"timeout": 60, "tags": (), "prefix": f"doctor {name}"} | options
        f = cache_memoize(**options)(function)
        made.append(f)
        for call in calls:
            f(call)
        reporter.flush_stats()
        return f._memoized.path

    with override_settings(CACHE_MEMOIZE={"STATS_INTERVAL": 3600}):
        yield make
        reporter.join()
    reporter.remove(sitewide.tell)


def ids(said: Any) -> list[str]:
    return [row["id"].rpartition(".")[2] for row in said.json["findings"]]


def of_site(*words: str, silenced: str = "W006 W007") -> Any:
    """``memoize doctor``, without the warnings of local memory."""
    names = [f"cache_memoize.{each}" for each in silenced.split()]
    with override_settings(SILENCED_SYSTEM_CHECKS=names):
        return memoize("doctor", *words)


def test_a_healthy_site_has_no_finding(site):
    path = site(lambda x: time.sleep(0.01) or bytes(3_000), *[1] * 200)
    said = of_site("--json")
    assert said.code == 0 and said.json["findings"] == []
    (cache,), (function,) = said.json["caches"], said.json["functions"]
    assert 0 < cache.pop("seconds") < 1
    assert cache == {
        "alias": "default",
        "backend": "LocMemCache",
        "error": None,
        "shared": True,  # in tests
        "breaker": "closed",
        "server": None,
    }
    assert function["name"] == path and function["calls"] == 200
    assert 0 < function["hit"] < function["mean"] and function["saved_per_hour"] > 0
    assert function["size"] > 3_000
    of_caches, _, functions = of_site().out.partition("\n\n")
    header, row = (re.split(r"  +", line) for line in of_caches.splitlines())
    assert header == ["cache", "backend", "shared", "breaker", "evicted", header[-1]]
    assert row[:5] == ["default", "LocMemCache", "yes", "closed", "–"]
    header, row = (re.split(r"  +", line) for line in functions.splitlines())
    assert len(header) == 8 and row[:4] == [path, "default", "200", "99.5 %"]


def test_findings_are_lines_with_the_function_the_evidence_and_the_cure(site):
    worthless = site(lambda x: x, *range(200))
    said = of_site("--json")
    assert ids(said) == ["D001"] and said.code == 1 and said.error == "1 finding"
    (row,) = said.json["findings"]
    assert (row["level"], row["subject"]) == ("WARNING", worthless)
    lost = site(lambda x: x, *range(200), name="lost", cache_if=lambda x: False)
    said = of_site("tests.test_doctor.")
    assert f"\n\nWARNING {worthless}: 200 misses in " in said.out
    assert ", and no hit. (cache_memoize.D001)\n    Compare the keys of" in said.out
    assert f"WARNING {lost}: 200 of 200 results were not stored" in said.out
    assert said.error == "2 findings"
    # The function that costs the most is first.
    rows = of_site("--json").json["functions"]
    assert [row["saved_per_hour"] is None for row in rows] == [False, True]


@pytest.mark.parametrize("level, code", [("ERROR", 0), ("WARNING", 1), ("INFO", 1)])
def test_the_level_from_which_on_findings_are_errors(site, level, code):
    site(lambda x: x)
    said = of_site("--fail-level", level, silenced="W006")
    assert "WARNING The cache 'default' keeps 300 entries" in said.out
    assert "    That is Django's default. Set MAX_ENTRIES" in said.out
    assert said.code == code


def test_an_information_is_no_error(site):
    site(lambda x: x, tags=None)
    said = of_site()
    assert "INFO These functions have no tags" in said.out and said.code == 0
    assert of_site("--fail-level", "INFO").code == 1


@pytest.mark.django_db
def test_the_checks_of_a_database_are_run_if_it_is_named(site, monkeypatch):
    asked: list[Any] = []
    kept = checks.run_checks

    def note(**options: Any) -> Any:
        asked.append(options.get("databases"))
        return kept(**options)

    site(lambda x: x)
    monkeypatch.setattr(doctor.checks, "run_checks", note)
    assert of_site("--database", "default").code == 0
    assert asked[-1] == ["default"]


@pytest.mark.parametrize("name", DEAD)
def test_a_cache_that_does_not_work_is_an_error(site, name):
    path = site(lambda x: x)
    with override_settings(CACHES={"default": DEAD[name]}):
        said = of_site("--json", "--fail-level", "ERROR")
    assert said.code == 1 and "D007" in ids(said)
    (cache,), (function,) = said.json["caches"], said.json["functions"]
    assert (
        cache["error"].startswith("the cache 'default' does") and not cache["seconds"]
    )
    assert (function["name"], function["calls"]) == (path, 0)


class Hanging(LocMemCache):
    """A server that has stopped, and a client without a time-out."""

    awake = threading.Event()

    def set(self, *args: Any, **kwargs: Any) -> None:
        self.awake.wait(60)


def test_a_cache_that_hangs_is_left_alone(site, monkeypatch):
    site(lambda x: x)
    monkeypatch.setattr(doctor, "TIME_LIMIT", 0.05)
    hanging = {"BACKEND": "tests.test_doctor.Hanging"}
    with override_settings(CACHES={"default": hanging}):
        said = of_site()
        Hanging.awake.set()
    assert "ERROR cache 'default': has not answered" in said.out
    assert said.code == 1


def test_a_cache_that_cannot_be_opened_is_an_error_of_the_checks(site):
    site(lambda x: x, cache_alias="nowhere")
    said = of_site("--json")
    assert "E002" in ids(said) and "D007" not in ids(said)
    assert said.json["caches"][0]["backend"] == "–"


def test_a_cache_that_stores_nothing_is_a_finding_of_the_checks_too(site):
    site(lambda x: x)
    with override_settings(CACHES=DUMMY):
        said = of_site("--json", silenced="")
    assert ids(said) == ["W006"] and said.json["caches"][0]["seconds"] is None


def test_what_is_switched_off_is_a_finding(site):
    site(lambda x: x)
    with override_settings(CACHE_MEMOIZE={"ENABLED": False, "STATS_INTERVAL": 0}):
        said = of_site()
    assert "WARNING settings: Nothing is memoized: CACHE_MEMOIZE['ENA" in said.out
    assert "no figures are kept" in said.err and said.code == 1


def test_hits_from_the_memory_of_a_request_have_no_known_cost(site):
    site(lambda x: x, *[1] * 200, local="request")
    (row,) = of_site("--json").json["functions"]
    assert row["calls"] == 200 and row["hit"] is row["saved_per_hour"] is None


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("alias", ["locmem", "file", "unknown"])
def test_a_hit_is_measured_on_an_entry_that_is_one(monkeypatch, alias, signed):
    read = []
    monkeypatch.setattr(doctor, "loads", lambda raw: read.append(len(loads(raw))))
    with override_settings(CACHE_MEMOIZE={"SIGN": signed}):
        assert 0 < doctor._time_hit(alias, 1_000) < 1
    assert read == [1_000] * doctor.READS


def test_an_entry_that_is_gone_meanwhile_is_no_error(monkeypatch):
    monkeypatch.setattr(doctor, "fetch", lambda alias, key: None)
    assert doctor._time_hit("default", 100) >= 0


@pytest.mark.parametrize("alias", ["valkey", "redis", "django_redis", "django_valkey"])
def test_a_server_says_what_it_has_removed(site, servers, alias):
    if alias not in settings.CACHES:
        pytest.skip("django-valkey needs a newer Django")
    name = alias.removeprefix("django_")
    need(name)
    place = f"127.0.0.1:{servers(name).port}/9"
    scheme = "valkey" if alias == "django_valkey" else "redis"
    cache = settings.CACHES[alias] | {"LOCATION": f"{scheme}://{place}"}
    with (
        override_settings(CACHES={"default": cache}),
        redis.Redis.from_url(f"redis://{place}") as asked,
    ):
        site(lambda x: x)
        try:
            asked.config_set("maxmemory", asked.info()["used_memory"] + 50_000_000)
            asked.config_set("maxmemory-policy", "noeviction")
            said = of_site("--json")
        finally:
            asked.config_set("maxmemory", 0)
            asked.flushdb()
    server = said.json["caches"][0]["server"]
    assert list(server) == ["evicted", "uptime", "limit", "policy"]
    assert "D008" in ids(said) and ("D009" in ids(said)) is bool(server["evicted"])
    assert server["limit"] > 50_000_000 and server["policy"] == "noeviction"


def test_of_a_cluster_nothing_is_known(servers):
    need("cluster")
    servers("cluster")
    cache, backend = opened("cluster")
    assert backend.ask_memory(cache) is None


# --- the page ------------------------------------------------------------------------


def test_the_page_has_each_finding():
    assert sorted(first_literals("command", "Findings")) == sorted(TEXTS)
    levels = {literals(row[0])[0]: row[1] for row in table("command", "Findings")}
    for id, (level, _, _) in TEXTS.items():
        assert getattr(checks, levels[id].upper()) == level, id
    text = " ".join((DOCS / "command.rst").read_text("utf-8").split())
    for said in (
        f"Each has {doctor.TIME_LIMIT:.0f} seconds for a set",
        f"a function with {FEW} misses or more",
        f"of a function, {SHARE * 100:.0f} % of the results",
    ):
        assert said in text
