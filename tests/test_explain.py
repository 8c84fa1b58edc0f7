"""The state of a call, and the reason of its last miss."""

from __future__ import annotations

import subprocess
import sys
from collections import OrderedDict
from typing import Any

import pytest
from django.core.cache import caches
from django.db import transaction
from django.test import override_settings
from django.utils import translation

from cache_memoize import cache_memoize, explain
from cache_memoize.clock import Clock
from cache_memoize.explain import Reason, Traces, find_reason
from cache_memoize.protocol import transactions
from cache_memoize.stats import history, sitewide
from cache_memoize.stats.history import LATEST, MOST, MOST_SHARED, History, Trace
from cache_memoize.stats.reporter import reporter
from tests.conftest import ATOMIC, World, counted, until
from tests.models import Book
from tests.test_stampede import environment

HERE = "tests/test_explain.py:"


@pytest.fixture(autouse=True)
def no_traces(monkeypatch):
    """Other tests have invalidated the tables and tags of these."""
    monkeypatch.setattr("cache_memoize.stats.counters._of_caches", {})


# --- the causes of a miss ------------------------------------------------------------


def never_stored(world):
    f, _ = counted(world)
    return f, "never stored", "as far as is known"


def expired(world):
    f, _ = counted(world, 60)
    f(1)
    world.clock.tick(72)
    return f, "expired", "12 s earlier"


def too_stale(world):
    f, _ = counted(world, 60, stale=30)
    f(1)
    world.clock.tick(100)
    return f, "expired", "10 s earlier"


def invalidated(world):
    f, _ = counted(world)
    f(1)
    f.invalidate(1)
    return f, "invalidated", "the call"


def invalidated_for_all(world):
    f, _ = counted(world, tags=())
    f(1)
    f.invalidate_all()
    return f, "invalidated", "all calls"


def invalidated_in_all_variants(world):
    f, _ = counted(world, vary_on="language")
    f(1)
    with translation.override("de"):
        f.invalidate(1)
    return f, "invalidated", "the call in all variants"


def by_a_tag(world):
    tags: dict[str, Any] = {"tags": lambda x: ["shop", f"post:{x}"]}
    f, _ = counted(world, _clock=Clock(), **tags)  # that of invalidate_tags()
    f(1)
    world.invalidate_tags("post:1")
    return f, "invalidated", "tag post:1"


def by_a_call_that_it_made(world):
    inner, _ = counted(world)
    outer = world.memoize(60, queries=True)(lambda x: inner(x))
    outer(1), inner.invalidate(1)
    return outer, "invalidated", f"a call of {inner._memoized.path}"


def by_a_person(world):
    f, _ = counted(world)
    f(1)
    with history.acting("anna in the admin"):
        f.invalidate(1)
    return f, "invalidated", "by anna in the admin"


def evicted(world):
    f, _ = counted(world)
    f(1)
    world.cache.delete(f.get_cache_key(1))
    return f, "evicted", "no invalidation is known"


def of_another_version(world):
    old, new = (
        world.memoize(60, prefix=f"versions {world.kind}", version=v)(lambda x: x)
        for v in (1, 2)
    )
    old(1)
    new._memoized.stats.history = old._memoized.stats.history  # as of one function
    return new, "other version", "'version'"


def in_another_language(world):
    f, _ = counted(world, vary_on="language")
    with translation.override("de"):
        f(1)
    return f, "near miss", "'language'"


def with_another_argument(world):
    f = world.memoize(60)(lambda x, y=2, **kw: x)
    f(1, 3)
    return f, "near miss", "'y'"


def refused_by_cache_if(world):
    f, _ = counted(world, cache_if=lambda result, x: False)
    f(1)
    return f, "not stored", "cache_if= says so"


def too_large(world):
    f, _ = counted(world, max_bytes=10)
    f(1)
    return f, "not stored", "it has more than max_bytes="


def not_pickled(world):
    f = world.memoize(60)(lambda x: lambda: x)
    f(1)
    return f, "not stored", "the result cannot be pickled"


def raised(world):
    def function(x):
        raise LookupError

    f = world.memoize(60)(function)
    with pytest.raises(LookupError):
        f(1)
    return f, "not stored", "LookupError was raised"


def disabled(world):
    f, _ = counted(world, 0)
    f(1)
    return f, "not stored", "it is disabled, or has timeout=0"


CAUSES = [
    *(never_stored, expired, too_stale, invalidated, invalidated_for_all),
    *(invalidated_in_all_variants, by_a_tag, by_a_call_that_it_made, by_a_person),
    *(evicted, of_another_version, in_another_language, with_another_argument),
    *(refused_by_cache_if, too_large, not_pickled, raised, disabled),
]


@pytest.mark.parametrize("cause", CAUSES, ids=lambda cause: cause.__name__)
def test_the_reason_of_a_miss(world, cause):
    """Before the call is computed, and after that, unless nothing is stored."""
    if cause is too_stale and world.alias not in ATOMIC:
        pytest.skip("no stale values there")
    f, kind, text = cause(world)
    found = f.explain(1)
    assert (found.reason.kind, found.state in ("hit", "stale")) == (kind, False), found
    assert text in found.reason.text, found
    assert found.key == f.get_cache_key(1) and found.alias == world.alias
    if kind == "invalidated" and cause not in (by_a_person, by_a_tag):
        assert (HERE in found.reason.text) or world.kind == "async"
    if kind == "not stored":
        return
    world.clock.tick(0.001)
    f(1)
    found = f.explain(1)
    assert (found.state, found.reason.kind) == ("hit", kind), found
    assert text in found.reason.text or kind == "expired", found


def test_looking_changes_nothing(world):
    f, runs = counted(world, tags="t")
    for _ in range(2):
        assert f.explain(1).state == "missing" and not runs
    assert f(1) == 1
    assert f.explain(1).state == "hit" and f(1) == 1 and len(runs) == 1
    assert f.cache_info()[:2] == (1, 1)


# --- the state -----------------------------------------------------------------------


@pytest.mark.backends(["locmem", "valkey"])
def test_the_state_of_a_call(world):
    f = world.memoize(60, stale=60)(lambda x: x)
    f(1)
    assert f.explain(1).state == "hit"
    world.clock.tick(61)
    assert f.explain(1).state == "stale"
    f.invalidate(1)
    assert f.explain(1).state == "missing"
    world.cache.set(f.get_cache_key(1), "foreign")
    assert f.explain(1).state == "foreign"
    world.cache.delete(f.get_cache_key(1))


def test_a_computation_under_way():
    states = []

    @cache_memoize(60)
    def f(x):
        states.append(f.explain(x).state)

    f(1)
    assert states == ["computing"]


def test_a_failing_computation_and_a_held_key():
    @cache_memoize(60, wait=0)
    def fails(x):
        raise OSError

    with pytest.raises(OSError):
        fails(1)
    assert fails.explain(1).state == "failed"

    @cache_memoize(60, hold=30)
    def held(x):
        return x

    held.invalidate(1)
    assert held.explain(1).state == "blocked"
    held(1)
    assert held.explain(1).reason.kind == "not stored"


def test_a_cache_that_fails_is_said():
    redis = {"BACKEND": "django.core.cache.backends.redis.RedisCache"}
    redis["LOCATION"] = "redis://127.0.0.1:1"
    with override_settings(CACHES={"default": redis}):
        f, _ = counted(World("default", "sync"))
        found = f.explain(1)
        assert found.state == "off" and "the cache fails" in found.text
        for _ in range(3):
            f(1)
        assert "left alone" in f.explain(1).reason.text


def test_text_without_arguments():
    @cache_memoize(60, tags="shop", extra=lambda *a, **k: "secret")
    def f(user, number=3, *more, flag=False, **further):
        return user

    f("secret", 1, "secret", "secret", key="secret")
    found = f.explain("secret", 1, "secret", "secret", key="secret")
    text = str(found)
    assert "secret" not in text and "number=1" in text and "flag=False" in text
    assert [*found.parts] == ["user", "number", "more", "flag", "key", "extra"] + (
        ["version"]
    )
    assert "depends on  tag shop" in text and "state       hit" in text
    other = f.explain("other", 1, "secret", "secret", key="secret")
    assert other.reason == Reason(
        "near miss", "differs from a stored call only in 'user'"
    )
    assert found.parts["more"] != f.explain("s", 1, 4, 5).parts["more"]
    assert f.explain("s", 1, 4, 5).parts["more"][0] == "#", "not the last one of them"
    assert f.explain("s", 1, 4).parts["more"] == "4"


def test_keys_that_a_callable_makes():
    f = cache_memoize(
        60, key_generator_callable=lambda x: f"key {x // 2}".replace(" ", "-")
    )(lambda x: x)
    f(2)
    assert f.explain(3).state == "hit"
    assert [*f.explain(3).parts] == ["key_generator_callable"]

    @cache_memoize(60, args_rewrite=lambda x: x // 2)
    def g(x):
        return x

    g(2)
    assert g.explain(3).state == "hit" and g.explain(4).reason.kind == "never stored"


# --- tables, transactions and processes ----------------------------------------------


def count_books():
    return Book.objects.count()


@pytest.mark.django_db(transaction=True)
@pytest.mark.backends(["locmem", "valkey"])
@pytest.mark.parametrize("how", ["at once", "at the commit"])
def test_the_table_and_the_line_that_wrote_to_it(backend, how):
    f = cache_memoize(60, cache_alias=backend, depends_on=Book)(count_books)
    f()
    if how == "at once":
        Book.objects.create(title="one")
    else:
        with transaction.atomic():
            Book.objects.create(title="one")
            line = sys._getframe().f_lineno - 1
            assert f.explain().state == "missing", "as it is in this transaction"
    found = f.explain()
    assert found.reason.kind == "invalidated" and found.state == "missing"
    assert "table tests_book" in found.reason.text and HERE in found.reason.text
    assert how == "at once" or f"{HERE}{line}" in found.reason.text
    assert "table tests_book" in found.depends_on
    assert not transactions.live


@pytest.mark.backends(["valkey"])
def test_another_process_and_the_person_who_acted_there(backend):
    """What has happened there is known here when it has reported."""
    caches[backend].delete(sitewide._key(""))  # of clocks that other tests have set
    reporter.add(sitewide.tell)
    try:
        f = cache_memoize(60, cache_alias=backend, prefix="explained")(lambda x: x)
        f(1)
        script = f"""
import django; django.setup()
from cache_memoize import cache_memoize
from cache_memoize.stats import history, sitewide
from cache_memoize.stats.reporter import reporter
reporter.add(sitewide.tell)
f = cache_memoize(60, cache_alias={backend!r}, prefix="explained")(lambda x: x)
with history.acting("bob"):
    f.invalidate(1)
while not reporter.flush_stats():
    pass
"""
        subprocess.run([sys.executable, "-c", script], check=True, env=environment())
        until(lambda: f.explain(1).reason.kind == "invalidated")
        assert f.explain(1).reason.text.endswith(", by bob")
    finally:
        reporter.remove(sitewide.tell)


def test_a_cache_without_figures_is_explained_from_here(monkeypatch):
    def fails(*args):
        raise OSError

    monkeypatch.setattr(sitewide, "up_to_date", fails)
    f, _ = counted(World("default", "sync"))
    f(1), f.invalidate(1)
    assert f.explain(1).reason.kind == "invalidated"
    monkeypatch.setattr(explain.apps, "is_installed", lambda name: False)
    assert f.explain(1).reason.kind == "invalidated"


# --- traces --------------------------------------------------------------------------


def test_reasons_as_a_table():
    name = history.digest_of
    key, tag = name("key"), name("tag")
    stored = {key: Trace(10, 70, tags=(tag,))}

    def kind(entries, changes, at):
        tags = {tag: "tag t"}
        return find_reason("key", tags, {}, Traces(entries, changes), at).kind

    gone = {tag: Trace(20)}
    assert kind({}, {}, 30) == "never stored"
    assert kind(stored, {}, 30) == "evicted"
    assert kind(stored, {}, 80) == "expired"
    assert kind(stored, gone, 30) == kind(stored, gone, 90) == "invalidated"
    assert kind(stored, {tag: Trace(75)}, 80) == "expired", "that came first"
    assert kind(stored, {tag: Trace(5)}, 30) == "evicted", "it was stored after that"
    assert kind(stored, {tag: Trace(40)}, 30) == "evicted", "that came later"
    assert kind({}, gone, 30) == "never stored", "of the tag, not of the call"
    assert kind({}, {key: Trace(20)}, 30) == "invalidated"
    refused = {key: Trace(25, text="cache_if")}
    assert kind(refused, gone, 30) == "not stored"
    assert kind(refused, {key: Trace(27)}, 30) == "invalidated"
    many = {str(n): Trace(n) for n in range(MOST_SHARED)}
    assert kind(many, {}, 99) == "unknown" and kind(many, gone, 99) == "invalidated"
    # The present entry was stored after an earlier one, which had expired.
    again = {key: Trace(100, 160, before=(10, 70))}
    assert kind(again, {}, 99) == "expired" and kind(again, gone, 99) == "invalidated"


def test_few_traces_are_kept_and_the_last_of_each_key():
    found = History()
    for n in range(2 * MOST):
        found.note("often", Trace(n, n + 1))
        found.note(str(n), Trace(n))
    kept = found.copy()
    assert len(kept) == MOST and kept[history.digest_of("often")].at == 2 * MOST - 1
    assert kept[history.digest_of("often")].before == (2 * MOST - 2, 2 * MOST - 1)


def test_a_trace_that_another_thread_has_dropped_is_gone():
    class Emptied(OrderedDict[str, Trace]):
        def move_to_end(self, key: str, last: bool = True) -> None:
            self.clear()
            super().move_to_end(key, last)

    found = History()
    found._traces = Emptied()
    found.note("a", Trace(1))
    assert not found.copy()


def test_traces_of_several_processes():
    one = {"a": Trace(1, 5), "b": Trace(9, 10)}
    two = {"a": Trace(3, 8), "c": Trace(4, 5, "why", ("t",), {"x": "1"})}
    both = history.merge(one, two)
    assert both == history.merge(two, one) == history.merge(both, one)
    assert [*both] == ["a", "c", "b"] and both["a"] == Trace(3, 8, before=(1, 5))
    assert history.parse(history.shared(both)) == both
    wide = Trace(
        1, 2, "x" * 200, tuple("t" * 20), dict.fromkeys(map(str, range(99)), "1")
    )
    (cut,) = history.parse(history.shared({"a": wide})).values()
    assert (len(cut.text), len(cut.tags), len(cut.parts)) == (120, 16, 16)
    named = Trace(1, 2, parts={"p" * 99: "1"})
    (cut,) = history.parse(history.shared({"a": named})).values()
    assert [*cut.parts] == ["p" * 40]
    assert history.digest_of("\ud800") != history.digest_of("\ud801")
    for_ever = history.parse(history.shared({"a": Trace(1, float("inf"))}))
    assert for_ever["a"].until == LATEST
    assert [row[0] for row in history.shared(both, 9)] == ["a", "c"]
    many = {str(n): Trace(n) for n in range(99)}
    assert [*history.parse(history.shared(many))] == [str(n) for n in range(67, 99)]


@pytest.mark.parametrize(
    "row",
    [
        *([], None, 3, ["a"], ["a", "now", 0, "", [], {}, []]),
        *(["a", 1, 1, 5, [], {}, []], ["a" * 200, 1, 1, "", [], {}, []]),
        *(["a", 1, 1, "", [5], {}, []], ["a", 1, 1, "", [], {"x": 1}, []]),
        *(["a", 1, 1, "", [], [], []], ["a", 1, 1, "", [], {}, ["x"]]),
        *(["a", 1, True, "", [], {}, []], ["a", 1, 1, "", {}, 5, 5]),
        *(
            ["a", 1, 1, "", [], {"x" * 121: "1"}, []],
            ["a", 1, 1, "x" * 121, [], {}, []],
        ),
    ],
)
def test_traces_that_cannot_be_true_are_refused(row):
    with pytest.raises((ValueError, TypeError, AttributeError)):
        history.parse([row])


def test_a_line_of_code_outside_of_libraries():
    assert history.cause() == f"{HERE}{sys._getframe().f_lineno}"
    assert history.place("/a/shop/__init__.py", 3, "shop") == "shop/__init__.py:3"
    alone: list[str] = []
    code = compile("alone.append(cause())", "x", "exec")
    exec(code, {"__name__": "django.x", "alone": alone, "cause": history.cause})
    assert alone == [f"{HERE}{sys._getframe().f_lineno - 1}"]
