"""Every event is told to whoever listens, and to nobody else."""

from __future__ import annotations

import contextlib
import functools
import logging
import sys

import pytest
from asgiref.sync import async_to_sync
from django.core.cache import caches

from cache_memoize import cache_memoize, invalidate_tags, signals
from cache_memoize.cache import record
from cache_memoize.protocol import threads
from cache_memoize.signals import ALL, Event
from tests.conftest import FakeClock, counted, in_thread

FAST = pytest.mark.backends(["locmem", "valkey"])


def above(function):
    @functools.wraps(function)
    def wrapper(*args):
        return function(*args)

    return wrapper


class Shop:
    @property
    @cache_memoize(60)
    def name(self):
        return 1

    @classmethod
    @cache_memoize(60)
    def all(cls):
        return 2

    @staticmethod
    @cache_memoize(60)
    def any():
        return 3

    @above
    @cache_memoize(60)
    def price(self):
        return 4


@pytest.fixture
def events():
    """What is heard, as (signal, event)."""
    heard = []

    def receive(sender, signal, event, **kwargs):
        heard.append((signal, event))

    for signal in ALL.values():
        signal.connect(receive)
    yield heard
    for signal in ALL.values():
        signal.disconnect(receive)


def kinds(events):
    assert all(ALL[event.kind] is signal for signal, event in events)
    return [event.kind for _, event in events]


@FAST
def test_the_life_of_an_entry(world, events):
    f, _ = counted(world, 60, stale=60)
    f(1)
    assert kinds(events) == ["miss", "computed"]
    events.clear()
    world.clock.tick(5)
    f(1)
    (_, event), *more = events
    key = f.get_cache_key(1)
    assert not more and event == Event("hit", event.function, world.alias, key)
    assert "counted.<locals>" in event.function and event.function[:6] == "tests."
    events.clear()
    world.clock.tick(70)
    f(1)
    assert threads.join()
    assert set(kinds(events)) >= {"stale", "computed"}
    events.clear()
    f.invalidate(1)
    assert [(e.kind, e.key) for _, e in events] == [("invalidated", key)]


@pytest.mark.backends(["locmem", "valkey"])
def test_a_refresh_that_stores_nothing_says_why(world, events):
    results = [1, None, ValueError("secret")]

    @world.memoize(10, stale=100, cache_if=lambda result: result is not None)
    def f():
        if isinstance(found := results.pop(0), Exception):
            raise found
        return found

    f()
    for _ in range(2):
        world.clock.tick(20)
        f()
        assert threads.join()
    failed = [(e.key, e.detail) for _, e in events if e.kind == "failed"]
    key = f.get_cache_key()
    assert failed == [(key, "nothing was stored"), (key, "ValueError was raised")]


@FAST
def test_the_cost_of_a_computation_is_what_its_hits_save(world, events):
    @world.memoize(60)
    def slow():
        world.clock.tick(2.5)

    slow(), slow()
    assert [(e.kind, e.seconds) for _, e in events] == [
        ("miss", 0.0),
        ("computed", 2.5),
        ("hit", 2.5),
    ]


@FAST
def test_a_function_that_raises_has_run_too(world, events):
    @world.memoize(60)
    def failing():
        raise LookupError

    with pytest.raises(LookupError):
        failing()
    assert kinds(events) == ["miss", "computed"]
    assert failing.cache_info().computations == 1


@FAST
def test_who_waits_is_told_of(world, events):
    f, _ = counted(world)

    def prime_meanwhile():
        world.clock.on_sleep = lambda: None
        in_thread(lambda: f.prime(7, 1))

    key = f.get_cache_key(1)
    lease = record.pack(record.LEASE, b"12345678")
    world.cache.add(key, lease, 60)
    world.clock.on_sleep = prime_meanwhile
    assert f(1) == 7
    assert kinds(events) == ["wait", "hit"]
    assert f.cache_info().waits == 1


@FAST
def test_many_calls_at_once_are_told_one_by_one(world, events):
    f, _ = counted(world)
    f(1)
    events.clear()
    f.map([1, 2, 3])
    assert sorted(kinds(events)) == ["computed"] * 2 + ["hit"] + ["miss"] * 2


def test_trouble_with_the_cache(events, monkeypatch):
    @cache_memoize(60)
    def f():
        return sys.stdout  # cannot be pickled

    f()
    assert kinds(events) == ["miss", "computed", "error"]
    error = events[-1][1]
    assert error.detail == "the result cannot be pickled" and error.key == ""


def test_forgetting_tags_and_whole_functions(events):
    @cache_memoize(60, tags=["one"])
    def f():
        pass

    f.invalidate_all()
    async_to_sync(f.ainvalidate_all)()
    async_to_sync(f.ainvalidate)()
    assert kinds(events) == ["invalidated"] * 3
    events.clear()
    invalidate_tags("one", cache_alias="default")
    (_, event) = events[0]
    assert event.function == "invalidate_tags()" and event.alias == "default"
    assert "one" not in event.key


def test_one_function_only_by_its_memoized_or_its_own_name():
    @cache_memoize(60)
    def f(x):
        return x

    @cache_memoize(60)
    def g(x):
        return x

    heard = []

    def receive(event, **kwargs):
        heard.append(event.function.rpartition(".")[2])

    for sender in (f, f.__wrapped__):
        f.invalidate(1), g.invalidate(1)
        signals.miss.connect(receive, sender=sender)
        f(1), g(1)
        assert heard == ["f"]
        heard.clear()
        assert signals.miss.disconnect(receive, sender=sender)
        f.invalidate(1), f(1)
        assert heard == []
    f.invalidate(1), g.invalidate(1)


def test_one_function_only_by_whatever_stands_for_it_in_a_class():
    heard = []

    def receive(event, **kwargs):
        heard.append(event.function.rpartition(".")[2])

    shop = Shop()
    senders = {
        "name": [Shop.name],
        "all": [Shop.all, shop.all],
        "any": [Shop.any, vars(Shop)["any"]],
        "price": [Shop.price, shop.price],
    }
    for name, given in senders.items():
        for sender in given:
            signals.miss.connect(receive, sender=sender)
            shop.name, shop.all(), shop.any(), shop.price()
            caches["default"].clear()
            assert heard == [name]
            heard.clear()
            assert signals.miss.disconnect(receive, sender=sender)
    assert not signals.miss.receivers


class Ended(BaseException):
    """As SystemExit, or what pytest.fail() raises."""


@FAST
@pytest.mark.parametrize("kind", ["miss", "computed"])
@pytest.mark.parametrize("error", [None, LookupError])
def test_a_receiver_that_ends_the_process_leaves_no_lease(world, kind, error):
    """The fixture ``nothing_left_behind`` looks for one."""

    @world.memoize(60)
    def f():
        if error:
            raise error

    def receive(**kwargs):
        raise Ended

    ALL[kind].connect(receive)
    try:
        with pytest.raises(Ended):
            f()
    finally:
        ALL[kind].disconnect(receive)
    assert not world.clock.sleeps


@FAST
@pytest.mark.parametrize("kind", ["miss", "computed"])
@pytest.mark.parametrize("error", [None, LookupError])
def test_a_receiver_that_makes_the_same_call_waits_for_nobody(backend, kind, error):
    """It would wait for the lease of its own caller."""
    clock, calls = FakeClock(), []

    @cache_memoize(60, cache_alias=backend, _clock=clock)
    def f():
        if error:
            raise error

    def receive(event, **kwargs):
        calls.append(event.kind)
        if len(calls) == 1:
            with contextlib.suppress(LookupError):
                f()

    ALL[kind].connect(receive)
    try:
        with pytest.raises(error) if error else contextlib.nullcontext():
            f()
    finally:
        ALL[kind].disconnect(receive)
    assert calls == [kind, kind] and not clock.sleeps


def test_what_a_receiver_raises_goes_to_the_log_and_no_further(caplog):
    @cache_memoize(60)
    def f():
        return 1

    def receive(**kwargs):
        raise LookupError("the receiver")

    signals.hit.connect(receive)
    try:
        f()
        assert f() == 1 and f.cache_info().hits == 1
    finally:
        signals.hit.disconnect(receive)
        f.invalidate()
    assert "Signal.send_robust" in caplog.text and "the receiver" in caplog.text


def test_a_coroutine_function_cannot_listen():
    async def receive(**kwargs):
        pass

    with pytest.raises(TypeError, match="it cannot be a coroutine function as .*rec"):
        signals.hit.connect(receive)
    assert not signals.hit.receivers


@FAST
def test_the_log_has_a_line_for_each_but_hits_and_no_argument(world, caplog):
    f, _ = counted(world)
    caplog.set_level(logging.DEBUG, logger="cache_memoize")
    f("secret"), f("secret")
    f.invalidate("secret")
    lines = [m for m in caplog.messages if "counted" in m]
    key = f.get_cache_key("secret")
    assert [line.split()[1:3] for line in lines] == [
        ["miss", key],
        ["computed", key],
        ["invalidated", key],
    ]
    assert "secret" not in caplog.text


def test_without_receivers_and_debugging_no_event_is_made(monkeypatch):
    @cache_memoize(60)
    def f():
        return 1

    def never(*args):
        raise AssertionError("an event was made")

    monkeypatch.setattr("cache_memoize.stats.counters.Event", never)
    logging.getLogger("cache_memoize").setLevel(logging.INFO)
    try:
        f(), f(), f.invalidate()
    finally:
        logging.getLogger("cache_memoize").setLevel(logging.NOTSET)
    assert f.cache_info().hits == 1
