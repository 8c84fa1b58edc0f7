"""Calls inside calls: what a result was made of is what invalidates it."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from contextvars import copy_context
from datetime import timedelta

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import transaction
from django.test import override_settings

from cache_memoize import cache_memoize, current, invalidate_tags, local
from cache_memoize.cache import record
from cache_memoize.cache.breaker import breaker_of
from cache_memoize.cache.store import Store
from cache_memoize.cache.vouchers import Backend
from cache_memoize.keys import tags
from cache_memoize.protocol import call, capture, settle
from tests.conftest import ATOMIC, close_connections, how_many, in_thread, plan_of
from tests.databases import EVERYWHERE
from tests.models import Post

EVERY_CHANGE = ["invalidate", "invalidate_all", "tags", "refresh", "prime"]


@pytest.fixture(autouse=True)
def _no_computation_is_left():
    yield
    assert not capture.running


class Family:
    """A chain of functions, each of which calls the next; the last reads ``value``."""

    def __init__(self, world, depth=2, **options):
        self.world, self.value, self.runs = world, 0, [0] * depth
        self.functions = []
        for place in reversed(range(depth)):
            self.functions.insert(0, self.make(place, depth, options))

    def make(self, place, depth, options):
        def function(x):
            self.runs[place] += 1
            if place == depth - 1:
                return self.value
            return self.functions[place + 1](x)

        function.__name__ = f"level_{place}"
        options = {"tags": lambda x: f"{place}:{x}"} | options
        return self.world.memoize(60, queries=True, **options)(function)

    def change(self, how, x=1):
        self.value += 1
        last = self.functions[-1]
        if how == "tags":
            self.world.invalidate_tags(f"{len(self.runs) - 1}:{x}")
        elif how == "invalidate_all":
            last.invalidate_all()
        elif how == "prime":
            last.prime(self.value, x)
        else:
            getattr(last, how)(x)


def nested(value, first, second):
    """A function that reads ``value``, and one that calls it."""

    def inner(x):
        return value[0]

    def outer(x):
        return inner(x)

    inner = first(inner)
    return inner, second(outer)


@pytest.mark.parametrize("depth", [2, 4])
@pytest.mark.parametrize("how", EVERY_CHANGE)
def test_a_change_of_a_call_invalidates_what_was_made_with_it(world, how, depth):
    """Over any depth, whether the inner calls were hits or computed."""
    family = Family(world, depth)
    first = family.functions[0]
    for _ in range(3):
        assert first(1) == first(1) == first(1) == family.value
        assert first.peek(1).value == family.value
        family.change(how)
        assert first.peek(1) is None
    assert first(1) == family.value and family.runs[0] == 4


@pytest.mark.backends(["pymemcache", "pylibmc", "pylibmc_without_cas", "unknown"])
@pytest.mark.parametrize("how", ["invalidate", "refresh", "prime"])
def test_an_empty_answer_of_a_client_that_hides_errors_is_not_believed(
    world, how, monkeypatch
):
    """A connection that breaks during ``get_multi`` is an empty dict to pylibmc."""
    family = Family(world, tags=None)
    first = family.functions[0]
    assert first(1) == 0
    with monkeypatch.context() as patch:
        patch.setattr(Backend, "get_many", lambda self, cache, keys: {})
        family.change(how)
    assert first(1) == family.value == 1


@pytest.mark.parametrize("how", ["invalidate", "refresh", "prime"])
def test_a_change_of_another_call_invalidates_nothing(world, how):
    family = Family(world, 3)
    first = family.functions[0]
    assert first(1) == 0
    family.change(how, x=2)
    assert first(1) == 0 and family.runs[0] == 1


def test_without_tags_a_result_depends_on_the_call_as_well(world):
    family = Family(world, 2, tags=None)
    first, last = family.functions
    assert first(1) == 0
    family.value = 1
    last.invalidate(1)
    assert first(1) == first(1) == 1 and family.runs == [2, 2]


def test_with_inherit_off_only_its_own_invalidation_counts(world):
    family = Family(world, 3)
    first = family.functions[0] = family.make(0, 3, {"inherit": False})
    assert first(1) == 0
    family.change("invalidate")
    assert first(1) == 0  # it was asked for
    assert family.functions[1](1) == 1
    first.invalidate(1)
    assert first(1) == 1


def test_a_result_depends_on_calls_whose_results_are_not_stored(world):
    """A computed call counts as a hit does: another caller may store it later."""
    value = [0]

    inner, outer = nested(
        value,
        world.memoize(60, cache_if=lambda result, x: False),
        world.memoize(60, queries=True),
    )

    assert outer(1) == 0
    value[0] = 1
    inner.invalidate(1)
    assert outer(1) == 1


def test_a_result_depends_on_calls_that_raised(world):
    fails = [True]

    @world.memoize(60)
    def inner(x):
        if fails[0]:
            raise ValueError("not yet")
        return "there"

    @world.memoize(60, queries=True)
    def outer(x):
        try:
            return inner(x)
        except ValueError:
            return "missing"

    assert outer(1) == outer(1) == "missing"
    fails[0] = False
    inner.invalidate(1)
    assert outer(1) == "there"


def test_map_within_a_call_reads_many_calls_together_and_depends_on_each(world):
    values = {n: n for n in range(5)}

    @world.memoize(60)
    def inner(n):
        return values[n]

    @world.memoize(60, queries=True)
    def outer(x):
        return inner.map(range(5))

    for n in (0, 4):
        assert outer(1) == list(values.values())
        values[n] += 10
        inner.invalidate(n)
    assert outer(1) == [10, 1, 2, 3, 14]


@pytest.mark.parametrize("way", ["call", "map"])
def test_of_many_calls_of_one_function_an_entry_has_one_tag(world, way):
    number = capture.MOST_CALLS + 4
    values = {n: n for n in range(number)}

    @world.memoize(60)
    def inner(n):
        return values[n]

    @world.memoize(60, queries=True)
    def outer(x):
        if way == "map":
            return inner.map(range(number))
        return [inner(n) for n in range(number)]

    assert outer(1) == outer(1) == list(range(number))
    packed, tokens = record.dependencies(world.raw(outer.get_cache_key(1)).depends)
    assert list(tokens) == [tags.call_tags(plan_prefix(inner), "any")[1]]
    for n in (0, number - 1):
        values[n] += 1000
        inner.invalidate(n)
        assert outer(1) == list(values.values())


def plan_prefix(f):
    return f._memoized.prefix


def test_an_invalidation_during_the_computation_is_seen(world):
    """Between the read of a call and the end of the computation around it."""
    value, calls = [0], []

    @world.memoize(60)
    def inner(x):
        return value[0]

    @world.memoize(60, queries=True)
    def outer(x):
        found = inner(x)
        if not calls:
            calls.append(1)
            value[0] = 1
            in_thread(lambda: inner.invalidate(x))
        return found

    assert outer(1) == 0  # as a call without a cache would have returned
    assert outer(1) == outer(1) == 1


def test_an_invalidation_before_many_calls_are_condensed_is_seen(world):
    """The tag of all calls of a function is younger than the value of one of them."""
    half = capture.MOST_CALLS // 2 + 1
    values, calls = dict.fromkeys(range(2 * half), 0), []

    @world.memoize(60)
    def inner(n):
        return values[n]

    @world.memoize(60, queries=True)
    def middle(part):
        return [inner(part * half + n) for n in range(half)]

    @world.memoize(60, queries=True)
    def outer(x):
        found = middle(0) + middle(1)
        if not calls:
            calls.append(1)
            values[0] = 1
            in_thread(lambda: inner.invalidate(0))
        return found

    assert outer(1)[0] == 0
    assert outer(1)[0] == outer(1)[0] == 1
    _, tokens = record.dependencies(world.raw(outer.get_cache_key(1)).depends)
    assert len(tokens) == 3  # two of middle, one of inner


@pytest.mark.backends(ATOMIC)
def test_what_is_made_of_a_stale_value_is_stale(world):
    """It is served, and refreshed as soon as the inner call is."""
    value = [0]

    inner, outer = nested(
        value,
        world.memoize(10, stale=100),
        world.memoize(1000, stale=1000, queries=True),
    )

    inner(1)
    world.clock.tick(11)
    value[0] = 1
    with pytest.MonkeyPatch.context() as patch:
        # as if the refresh in the background had not begun yet
        patch.setattr("cache_memoize.protocol.threads.is_full", lambda: True)
        assert outer(1) == 0 and outer.peek(1).stale
        assert outer(1) == 0
    inner.refresh(1)
    assert outer(1) == 1 and not outer.peek(1).stale


@pytest.mark.backends(ATOMIC)
def test_without_stale_what_is_made_of_a_stale_value_is_fresh_for_a_moment(world):
    value = [0]

    inner, outer = nested(
        value, world.memoize(10, stale=100), world.memoize(1000, queries=True)
    )

    inner(1)
    world.clock.tick(11)
    value[0] = 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cache_memoize.protocol.threads.is_full", lambda: True)
        assert outer(1) == 0 and not outer.peek(1).stale
    world.clock.tick(2)
    assert outer.peek(1) is None


def test_the_timeout_of_an_inner_call_does_not_shorten_the_outer_one(world):
    family_runs = []

    @world.memoize(10)
    def inner(x):
        return len(family_runs)

    @world.memoize(1000, queries=True)
    def outer(x):
        family_runs.append(x)
        return inner(x)

    assert outer(1) == 1
    world.clock.tick(11)
    assert outer(1) == 1 and inner(1) == 1
    assert outer(1) == 1 and len(family_runs) == 1


def test_an_evicted_tag_invalidates_and_brings_nothing_back(world):
    family = Family(world, 2, tags=None)
    first, last = family.functions
    assert first(1) == 0
    one, _ = tags.call_tags(plan_prefix(last), last.get_cache_key(1))
    assert world.raw(one).kind == record.TAG
    world.cache.delete(one)
    assert first(1) == 0 and family.runs == [2, 1]


@pytest.mark.backends(["locmem", "valkey"])
def test_a_process_that_has_not_seen_an_entry_reads_its_tags(world):
    """And then knows which tags to read with it: one command."""
    family = Family(world, 3)
    first = family.functions[0]
    assert first(1) == 0
    tags._expected.clear()
    assert first(1) == first(1) == 0 and family.runs == [1, 1, 1]
    key = plan_of(first).key_of((1,), {})
    assert len(key.expected.keys) == 6  # of two calls, their tags, their functions
    tags._expected.clear()
    family.change("invalidate")
    assert first(1) == 1


@pytest.mark.backends(["locmem", "valkey"])
@pytest.mark.parametrize("kind", ["sync in async", "async in sync", "tasks", "thread"])
def test_sync_and_async_functions_inherit_from_each_other(backend, kind):
    value, runs = [0], []
    options = {"cache_alias": backend, "prefix": f"{kind}-{backend}"}

    @cache_memoize(60, **options | {"prefix": f"inner {kind} {backend}"})
    def inner(x):
        return value[0]

    @cache_memoize(60, **options | {"prefix": f"ainner {kind} {backend}"})
    async def ainner(x):
        return value[0]

    @cache_memoize(60, **options)
    async def aouter(x):
        runs.append(x)
        if kind == "tasks":
            return sum(await asyncio.gather(*map(ainner, range(3))))
        return await sync_to_async(inner)(x)

    @cache_memoize(60, **options)
    def outer(x):
        runs.append(x)
        if kind == "thread":
            found = []
            job = copy_context()
            thread = threading.Thread(
                target=lambda: found.append(job.run(in_own_thread, inner, x))
            )
            thread.start()
            thread.join()
            return found[0]
        return async_to_sync(ainner)(x)

    sync = kind in ("async in sync", "thread")
    call = outer if sync else async_to_sync(aouter)
    child = inner if kind in ("sync in async", "thread") else ainner
    assert call(1) == call(1) == 0 and len(runs) == 1
    value[0] = 1
    child.invalidate(1)
    assert call(1) == call(1) == 1 and len(runs) == 2


def in_own_thread(f, x):
    try:
        return f(x)
    finally:
        close_connections()


class Shop:
    pk = 1


def test_methods_and_properties_inherit(world):
    value = [0]

    @world.memoize(60)
    def inner(x):
        return value[0]

    @world.memoize(60, queries=True)
    def total(self):
        return inner(1)

    shop = Shop()
    assert total(shop) == 0
    value[0] = 1
    inner.invalidate(1)
    assert total(shop) == 1


@pytest.mark.backends(["locmem"])
def test_a_call_in_another_cache_counts(world):
    value = [0]

    inner, outer = nested(
        value, world.memoize(60, cache_alias="default"), world.memoize(60, queries=True)
    )

    assert outer(1) == outer(1) == 0
    value[0] = 1
    inner.invalidate(1)
    assert outer(1) == outer(1) == 1


def test_while_the_cache_is_left_alone_calls_in_calls_leave_it_alone_too(
    world, monkeypatch
):
    family, sent = Family(world, 3), []
    command = Store._command
    monkeypatch.setattr(
        Store, "_command", lambda *args: sent.append(args[1]) or command(*args)
    )
    now = world.clock.monotonic()
    breaker_of(world.alias).failure(now, hanging=True)
    assert family.functions[0](1) == 0 and sent == []
    breaker_of(world.alias).__init__()


def test_a_guard_runs_once_whatever_it_calls(world):
    """It may have sent a mail."""
    runs = []

    @world.memoize(60)
    def inner(x):
        return x

    @world.memoize(60, store_result=False, queries=True)
    def guard(x):
        runs.append(inner(x))

    guard(1)
    inner.invalidate(1)
    assert guard(1) is True and runs == [1]


@pytest.mark.parametrize("way", ["refresh", "prime", "other"])
def test_a_result_that_refreshes_a_call_is_stored(world, way):
    """And depends on what it has stored."""
    value, runs = [0], []

    @world.memoize(60)
    def inner(x):
        return value[0]

    @world.memoize(60, queries=True)
    def outer(x):
        runs.append(x)
        if way == "prime":
            inner.prime(value[0], x)
        found = inner(x) if way == "prime" else inner(x, _refresh=True)
        if way == "other" and len(runs) == 1:
            in_thread(lambda: inner.invalidate(x))
        return found

    assert outer(1) == 0 == outer(1)
    assert len(runs) == (2 if way == "other" else 1)
    value[0] = 1
    inner.invalidate(1)
    assert outer(1) == outer(1) == 1


def test_an_invalidation_right_after_such_a_refresh_is_seen(world, monkeypatch):
    value, renew = [0], settle.renew_tags
    inner = world.memoize(60)(lambda x: value[0])
    outer = world.memoize(60, queries=True)(lambda x: inner(x, _refresh=True))

    async def renew_and_change(*args, **options):
        await renew(*args, **options)
        in_thread(lambda: inner.invalidate(1))

    with monkeypatch.context() as patch:
        patch.setattr(settle, "renew_tags", renew_and_change)
        assert outer(1) == 0 and outer.peek(1) is None
    assert outer(1) == 0 == outer.peek(1).value


@pytest.mark.django_db(transaction=True, databases=EVERYWHERE)
@pytest.mark.backends(["valkey", "locmem"])
def test_in_a_transaction_a_tag_that_nothing_depends_on_now_is_left_alone(world):
    family = Family(world, 2, tags=None)
    first, last = family.functions
    assert first(1) == 0
    last.invalidate(1)
    with transaction.atomic():
        last.invalidate(1)
    assert first(1) == first(1) == 0 and family.runs == [2, 2]


# --- wherever entries are ------------------------------------------------------------


@pytest.mark.parametrize("way", ["signed", "request", "warm"])
def test_dependencies_are_read_on_every_path(world, way):
    options = {"local": "request"} if way == "request" else {}
    family = Family(world, 3)
    first = family.functions[0] = family.make(0, 3, options)
    with override_settings(CACHE_MEMOIZE={"SIGN": way == "signed"}), local():
        for n in range(3):
            if way == "warm" and n:
                list(first.warm([1]))
            assert first(1) == first(1) == first(1) == n
            family.change("invalidate")
            assert first.peek(1) is None


class Rollback(Exception):
    pass


@pytest.mark.django_db(transaction=True, databases=EVERYWHERE)
@pytest.mark.parametrize("how", ["invalidate", "tags", "refresh", "prime"])
def test_in_a_transaction_others_get_the_old_value_until_the_commit(world, how):
    """And the transaction itself the new one, before and after it ends."""
    family = Family(world, 3)
    first = family.functions[0]
    assert first(1) == 0
    with transaction.atomic():
        Post.objects.create(title="it has written")
        family.change(how)
        assert first(1) == 1
        if world.alias not in ("sqlite", "postgresql"):
            assert in_thread(lambda: first.peek(1)) is None or how != "tags"
        assert first(1) == 1
    assert first(1) == first(1) == 1 and first.peek(1).value == 1


@pytest.mark.django_db(transaction=True, databases=EVERYWHERE)
def test_a_rollback_leaves_the_results_as_they_were(world):
    family = Family(world, 2, tags=None)
    first = family.functions[0]
    assert first(1) == 0
    with pytest.raises(Rollback), transaction.atomic():
        family.functions[1].invalidate(1)
        assert first(1) == 0
        raise Rollback
    assert first(1) == 0


# --- bounds, and what fails ----------------------------------------------------------


@pytest.mark.backends(["valkey"])
def test_a_call_in_the_memory_of_one_process_cannot_be_depended_on(
    world, caplog, monkeypatch
):
    """Another process would never find its tags; the log says so once."""
    monkeypatch.setattr(capture, "_told", set())
    inner = world.memoize(60, cache_alias="locmem")(lambda x: x)
    outer = world.memoize(60, queries=True)(lambda x: [inner(x), inner(x + 1)])
    assert outer(1) == outer(1) == [1, 2]
    outer.refresh(1)
    assert record.dependencies(world.raw(outer.get_cache_key(1)).depends) == (b"", {})
    assert caplog.text.count("do not depend on calls in 'locmem'") == 1


@pytest.mark.backends(["valkey"])
def test_a_refresh_of_such_a_call_is_no_dependency_either(world, monkeypatch):
    monkeypatch.setattr(capture, "_told", {("locmem", "valkey")})
    inner = world.memoize(60, cache_alias="locmem")(lambda x: x)
    outer = world.memoize(60, queries=True)(lambda x: inner(x, _refresh=True))
    assert outer(1) == outer(1) == 1


@pytest.mark.backends(["locmem"])
def test_a_result_with_too_many_tags_is_not_stored_and_the_log_says_so(world, caplog):
    runs = []

    @world.memoize(60)
    def f(x):
        runs.append(x)
        current().tag(*(f"tag {n}" for n in range(capture.MOST_TAGS + 1)))
        return len(runs)

    assert [f(1), f(1)] == [1, 2]
    assert caplog.text.count("it depends on more than") == 1


@pytest.mark.backends(["locmem"])
def test_what_is_remembered_of_entries_is_bounded(monkeypatch):
    monkeypatch.setattr(tags, "MOST_EXPECTED", 2)
    monkeypatch.setattr(tags, "_expected", {})
    for n in range(5):
        tags.remember_expected(f"key {n}", b"a\nb\n", ["a", "b"])
        assert 1 <= len(tags._expected) <= 2


@pytest.mark.backends(["locmem"])
def test_the_functions_that_one_depends_on_are_bounded(world, monkeypatch):
    monkeypatch.setattr(call, "MOST_ORIGINS", 0)
    family = Family(world, 2)
    assert family.functions[0](1) == 0
    assert family.functions[0]._memoized.made_of == set()


@pytest.mark.backends(["locmem"])
def test_tags_that_cannot_be_read_prevent_storing(world, monkeypatch):
    family = Family(world, 2, tags=None)
    first = family.functions[0]

    async def fail(*args):
        raise ConnectionError("away")

    with monkeypatch.context() as patch:
        patch.setattr(capture, "tokens_of", fail)
        assert first(1) == 0
    assert first.peek(1) is None
    assert first(1) == 0 == first.peek(1).value


@pytest.mark.backends(["locmem"])
def test_two_tokens_of_one_tag_prevent_storing(world):
    value = [0]
    inner = world.memoize(60)(lambda x: value[0])

    @world.memoize(60, queries=True)
    def middle(x):
        return inner(x)

    @world.memoize(60, queries=True)
    def outer(x):
        found = [middle(x)]
        if value[0] == 0:
            value[0] = 1
            in_thread(lambda: inner.invalidate(x))
        return [*found, middle(x)]

    assert outer(1) == [0, 1]
    assert outer.peek(1) is None
    assert outer(1) == outer(1) == [1, 1]


def test_a_child_process_leaves_out_the_computations_of_its_parent():
    computation = capture.Computation()
    capture._after_fork()
    assert not capture.running
    computation.end()


def test_a_task_that_outlives_a_computation_is_in_the_one_around_it():
    outer = capture.Computation()
    inner = capture.Computation()
    context = copy_context()
    inner.end()
    assert context.run(capture.computation) is outer
    outer.end()
    assert context.run(capture.computation) is None


# --- from inside ----------------------------------------------------------------------


def test_a_tag_that_is_found_during_the_computation(world):
    category, runs = ["books"], []

    @world.memoize(60, queries=True)
    def product(pk):
        runs.append(pk)
        current().tag(f"category:{category[0]}", "all")
        return category[0]

    assert product(1) == product(1) == "books"
    world.invalidate_tags("category:toys")
    assert product(1) == "books" and len(runs) == 1
    category[0] = "toys"
    world.invalidate_tags("category:books")
    assert product(1) == product(1) == "toys" and len(runs) == 2
    world.invalidate_tags("category:books")
    assert product(1) == "toys" and len(runs) == 2
    world.invalidate_tags("all")
    assert product(1) == "toys" and len(runs) == 3


def test_a_known_tag_is_as_old_as_the_computation(world):
    """What is invalidated before the function names the tag again is seen."""
    value, during = [0], []

    @world.memoize(60, queries=True)
    def f(x):
        found = value[0]
        for act in during:
            in_thread(act)
        current().tag("t")
        return found

    assert f(1) == 0
    world.invalidate_tags("t")

    def change():
        value[0] = 1
        during.clear()
        world.invalidate_tags("t")

    during.append(change)
    assert f(1) == 0  # read before the change
    assert f(1) == f(1) == 1


def test_the_timeout_of_one_result(world):
    seconds, runs = [5], []

    @world.memoize(60)
    def f(x):
        runs.append(x)
        current().timeout = seconds[0]
        return len(runs)

    assert f(1) == f(1) == 1
    world.clock.tick(6)
    seconds[0] = timedelta(days=1)  # timeout= is the longest
    assert f(1) == f(1) == 2
    world.clock.tick(61)
    assert f(1) == 3
    seconds[0] = 0
    assert [f(2), f(2)] == [4, 5]
    with pytest.raises(ValueError, match="must not be negative"):
        current().timeout = -1


def test_a_result_that_is_not_stored(world):
    runs = []

    @world.memoize(60)
    def f(x):
        runs.append(x)
        if len(runs) == 1:
            current().skip()
        return len(runs)

    assert [f(1), f(1), f(1)] == [1, 2, 2]


@pytest.mark.backends(ATOMIC)
def test_the_previous_value_with_a_new_timeout(world):
    """As an API that answers "304 Not Modified" asks for."""
    answers = [{"etag": 1}, None, {"etag": 2}]

    @world.memoize(60)
    def f(x):
        assert (current().previous is None) is (len(answers) == 3)
        found = answers.pop(0)
        return current().unchanged() if found is None else found

    assert f(1) == {"etag": 1}
    world.clock.tick(50)
    assert f.refresh(1) == {"etag": 1}
    world.clock.tick(50)
    assert f(1) == {"etag": 1} and len(answers) == 1
    assert f.refresh(1) == f(1) == {"etag": 2}


@pytest.mark.backends(["locmem"])
@pytest.mark.parametrize("many", [False, True])
def test_items_of_map_have_a_computation_too(world, many):
    runs = []

    @world.memoize(60, queries=True)
    def f(x):
        runs.append(x)
        current().tag("t")
        return x

    if many:

        @f.many
        def all_of(items):
            runs.extend(items)
            current().tag("t")
            return list(items)

    assert f.map([1, 2]) == f.map([1, 2]) == [1, 2]
    world.invalidate_tags("t")
    assert f.map([1, 2]) == [1, 2] and runs == [1, 2, 1, 2]


@pytest.mark.backends(ATOMIC)
def test_a_previous_value_that_cannot_be_read_is_none(world):
    found = []

    @world.memoize(60)
    def f(x):
        found.append(current().previous)
        return x

    f(1)
    key = f.get_cache_key(1)
    there = world.raw(key)
    world.cache.set(key, b"\x80\x04cgone\nGone\n." + there.raw[there.end :], 60)
    assert f.refresh(1) == 1 and found == [None, None]


def test_outside_of_a_computation_it_does_nothing():
    here = current()
    here.tag("t"), here.skip()
    here.timeout = 5
    async_to_sync(here.atag)("t")
    assert here.previous is None and here.timeout is None
    with pytest.raises(LookupError, match="ask for the whole answer"):
        here.unchanged()
    with pytest.raises(TypeError, match="a tag is a string"):
        here.tag(5)


@pytest.mark.backends(["locmem", "valkey"])
def test_async_code_awaits_its_tags(backend):
    runs = []

    @cache_memoize(60, cache_alias=backend, prefix=f"atag {backend}")
    async def f(x):
        runs.append(x)
        if backend != "locmem":
            with pytest.raises(RuntimeError, match="write await"):
                current().tag("a")
        await current().atag("a")
        return len(runs)

    assert async_to_sync(f)(1) == async_to_sync(f)(1) == 1
    invalidate_tags("a", cache_alias=backend)
    assert async_to_sync(f)(1) == 2


# --- variants ------------------------------------------------------------------------


def test_an_invalidation_reaches_every_variant(world):
    language, runs = ["en"], []

    @world.memoize(60, vary_on=lambda: language[0])
    def f(x):
        runs.append((x, language[0]))
        return len(runs)

    def every():
        found = []
        for language[0] in ("en", "de"):
            found.append(f(1))
        return found

    assert every() == every() == [1, 2]
    f.invalidate(1)  # in "de"
    assert every() == every() == [3, 4]
    f.invalidate_variant(1)
    assert every() == every() == [3, 5]
    f.invalidate(2)
    assert every() == [3, 5]
    f.refresh(1)
    assert every() == [3, 6]


def test_what_was_made_with_a_variant_is_invalidated_with_it(world):
    language, value = ["en"], [0]

    inner, outer = nested(
        value,
        world.memoize(60, vary_on=lambda: language[0]),
        world.memoize(60, queries=True),
    )

    assert outer(1) == 0
    value[0], language[0] = 1, "de"
    inner.invalidate_variant(1)
    assert outer(1) == 0
    inner.invalidate(1)
    assert outer(1) == outer(1) == 1


# --- random graphs -------------------------------------------------------------------


class Graph:
    """Functions that call each other at random, against a model without a cache."""

    def __init__(self, world, seed, size=6):
        self.world, self.chance = world, random.Random(seed)
        self.values = {}
        self.functions = []
        for place in range(size):
            self.functions.append(self.make(place))

    def make(self, place):
        chance = self.chance
        # Later functions call earlier ones: no circle.
        calls = [
            (chance.randrange(place), chance.randrange(-1, 2))
            for _ in range(chance.randrange(3) if place else 0)
        ]
        many = place and chance.random() < 0.2

        def function(x):
            found = [self.values.get((place, x), 0)]
            for other, shift in calls:
                found.append(self.functions[other]((x + shift) % 3))
            if many:
                found.append(sum(map(sum_of, self.functions[0].map(range(20)))))
            return found

        def truth(x):
            found = [self.values.get((place, x), 0)]
            for other, shift in calls:
                found.append(self.functions[other].truth((x + shift) % 3))
            if many:
                f = self.functions[0]
                found.append(sum(sum_of(f.truth(n)) for n in range(20)))
            return found

        function.__name__ = f"node_{place}"
        tagged = {"tags": lambda x: f"{place}:{x}"} if chance.random() < 0.5 else {}
        stale = {"stale": 30} if chance.random() < 0.3 else {}
        memoized = self.world.memoize(20, queries=True, **tagged, **stale)(function)
        if self.world.kind == "sync":
            memoized.truth = truth
        else:
            memoized.__dict__["truth"] = truth
        memoized.__dict__["tagged"] = bool(tagged)
        return memoized

    def step(self, action):
        place = self.chance.randrange(len(self.functions))
        x, f = self.chance.randrange(3), self.functions[place]
        if action == "change":
            self.values[place, x] = self.values.get((place, x), 0) + 1
            if f.tagged and self.chance.random() < 0.5:
                self.world.invalidate_tags(f"{place}:{x}")
            else:
                f.invalidate(x)
        elif action == "refresh":
            f.refresh(x)
        elif action == "tick":
            self.world.clock.tick(self.chance.choice([1, 21, 60]))
        elif action == "evict":
            key = f.get_cache_key(x)
            stored = [key, *tags.call_tags(plan_prefix(f), key)]
            self.world.cache.delete(self.chance.choice(stored))
        return f(x), f.truth(x), (action, place, x)


def sum_of(found):
    return sum(sum_of(each) if isinstance(each, list) else each for each in found)


ACTIONS = ["call"] * 4 + ["change"] * 3 + ["refresh", "tick", "evict"]


@pytest.mark.grows
@pytest.mark.backends(["locmem", "valkey"])
def test_no_graph_of_calls_ever_returns_an_old_value(world):
    """Against a model without a cache. ``GRAPHS=1000`` makes 100,000 steps."""
    few = how_many(30) if world.kind == "sync" else how_many(30) // 2  # it is slow
    graphs = int(os.environ.get("GRAPHS", few))
    with override_settings(CACHE_MEMOIZE={"REFRESH": "inline"}):
        for seed in range(graphs):
            graph = Graph(world, seed)
            done = []
            for _ in range(100):
                found, truth, what = graph.step(graph.chance.choice(ACTIONS))
                done.append(what)
                assert found == truth, (seed, done)
