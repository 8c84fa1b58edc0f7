"""A forgotten invalidation is found by an audit; a race is none."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import threading
from typing import Any

import pytest
from django.db import transaction
from django.test import override_settings

from cache_memoize import cache_memoize, signals, vary
from cache_memoize.clock import Clock
from cache_memoize.protocol import audit as module
from cache_memoize.protocol import threads
from cache_memoize.protocol.audit import PAUSE, is_same
from tests.conftest import (
    ATOMIC,
    FakeClock,
    World,
    close_connections,
    how_many,
    in_thread,
)
from tests.models import Book, Shelf

#: Elsewhere each hit has a second look, and none is audited.
pytestmark = pytest.mark.backends([*ATOMIC])
INLINE = override_settings(CACHE_MEMOIZE={"REFRESH": "inline"})


class Source:
    """A number that changes, perhaps without an invalidation."""

    def __init__(self, world: World, **options: Any) -> None:
        self.value, self.runs = 1, 0
        self.at: dict[int, Any] = {}
        self.f = world.memoize(60, audit=1, **options)(lambda x=0: self.read(x))

    def read(self, x: int = 0) -> int:
        self.runs += 1
        if act := self.at.pop(self.runs, None):
            act()
        return self.value

    @property
    def figures(self) -> tuple[int, int]:
        return self.f.cache_info().audited, self.f.cache_info().wrong


@INLINE
def test_a_forgotten_invalidation_is_found_named_and_healed(world, caplog):
    source = Source(world)
    source.f(), source.f()
    assert source.figures == (1, 0) and source.runs == 2
    source.value = 2
    assert source.f() == 1, "the caller waits for no audit"
    assert source.figures == (2, 1)
    (line,) = [r.message for r in caplog.records if r.levelno == logging.ERROR]
    assert source.f.get_cache_key() in line and "without an invalidation" in line
    assert source.f.peek() is None
    found = source.f.explain()
    assert found.reason.kind == "invalidated" and "by an audit" in found.reason.text
    assert source.f() == 2 == source.f() and source.figures == (3, 1)


@INLINE
def test_it_is_told(world):
    source, events = Source(world), []
    heard = signals.wrong.connect(lambda event, **kw: events.append(event), weak=False)
    source.f()
    world.clock.tick(5)
    source.value = 2
    source.f()
    (event,) = events
    assert event.kind == "wrong" and 5 <= event.seconds < 9 and heard is None
    signals.wrong.receivers.clear()
    signals.wrong.sender_receivers_cache.clear()


@INLINE
@pytest.mark.parametrize(
    "change", ["invalidate", "refresh", "expires", "is a moment late"]
)
def test_a_race_is_no_finding(world, change):
    """The value has changed, and what tells of it is on the way."""
    source = Source(world)
    f = source.f
    f()

    def act():
        source.value = 2

    def later():
        if change == "invalidate":
            in_thread(f.invalidate)
        elif change == "refresh":
            source.at[source.runs + 1] = None
            in_thread(f.refresh)
        elif change == "expires":
            world.clock.tick(61)
        else:
            source.value = 1

    source.at[2] = act  # in the audit's first run
    source.at[3] = later  # and in its second one, after the pause
    f()
    assert source.figures[1] == 0
    assert change == "is a moment late" or source.figures[0] == 0


@INLINE
def test_it_waits_before_it_looks_again():
    world = World("default", "sync")
    source, slept = Source(world), []
    world.clock.sleep = slept.append
    source.f()
    source.value = 2
    source.f()
    assert slept == [PAUSE] and source.figures == (1, 1)


@INLINE
def test_a_share_of_the_hits_is_audited():
    world = World("default", "sync")
    chances = iter([0.5, 0.1, 0.3, 0.05, 0.2])
    world.clock.random = lambda: next(chances)
    runs = []
    f = world.memoize(60, audit=0.2)(lambda: runs.append(1))
    for _ in range(6):
        f()
    assert len(runs) == 1 + 2 and f.cache_info().audited == 2


@INLINE
def test_what_raises_or_cannot_be_compared_is_no_finding(world):
    source = Source(world)

    def fail():
        raise OSError

    source.f()
    source.at[2] = fail
    source.f()
    assert source.figures == (0, 0) and source.f.peek() is not None
    assert not module._turn.locked()


@INLINE
def test_a_function_of_ones_own_compares(world):
    pairs = []

    def same(old, new):
        pairs.append((old, new))
        return True

    runs: list[int] = []
    f = world.memoize(60, audit=(1, same))(lambda: runs.append(1) or len(runs))
    f(), f()
    assert pairs == [(1, 2)] and f.cache_info().wrong == 0


def test_one_at_a_time_and_in_the_background():
    asked, go_on = threading.Event(), threading.Event()

    @cache_memoize(60, audit=1, prefix="one at a time")
    def f():
        if asked.is_set() or runs:
            asked.set()
            go_on.wait(30)
        runs.append(1)

    runs: list[int] = []
    f()
    for _ in range(5):
        f()
    assert asked.wait(30)
    f()
    go_on.set()
    assert threads.join() and len(runs) == 2
    assert f.cache_info().audited == 1


def test_a_full_queue_or_an_ending_process_leaves_it_out(monkeypatch):
    def ends(job):
        raise RuntimeError

    source = Source(World("default", "sync"))
    source.f()
    for submit in (lambda job: False, ends):
        monkeypatch.setattr(threads, "submit", submit)
        assert source.f() == 1 and source.figures == (0, 0)
    assert not module._turn.locked()


def test_a_task_audits_async_functions():
    runs: list[int] = []

    @cache_memoize(60, audit=1, prefix="audited task", _clock=FakeClock())
    async def f():
        runs.append(1)
        return len(runs)

    async def main():
        assert await f() == 1
        with module._turn:  # another hit is being audited
            assert await f() == 1 and not module._tasks
        assert await f() == 1
        await asyncio.gather(*module._tasks)

    asyncio.run(main())
    assert len(runs) == 3 and f.cache_info()[-2:] == (1, 1)
    assert not module._turn.locked()


@pytest.mark.parametrize("seconds", [0, 0.01])
def test_a_thread_goes_on_where_the_loop_of_a_task_ends(seconds):
    """Under WSGI, each request of an async view has a loop of its own."""
    runs: list[int] = []

    @cache_memoize(60, audit=1, prefix=f"loop ends {seconds}", _clock=FakeClock())
    async def f():
        runs.append(1)
        await asyncio.sleep(0 if len(runs) != 2 else seconds)
        return len(runs)

    async def main(number):
        for _ in range(number):
            assert await f() == 1
        await asyncio.sleep(0)

    asyncio.run(main(2))
    assert threads.join() and f.cache_info()[-2:] == (1, 1)
    assert not module._turn.locked() and not module._tasks


def test_a_child_process_begins_without_an_audit():
    with module._turn:
        module._after_fork()
    assert not module._turn.locked()
    source = Source(World("default", "sync"))
    with INLINE:
        source.f(), source.f()
    assert source.figures == (1, 0)


def test_a_tenant_that_does_not_travel_is_not_audited(monkeypatch):
    monkeypatch.setattr(vary, "travel", lambda parts: False)
    source = Source(World("default", "sync"))
    source.f(), source.f()
    assert source.runs == 1


@INLINE
def test_calls_inside_are_those_of_the_audit_alone(world):
    inner = Source(world, queries=True)
    outer_runs: list[int] = []

    def both():
        outer_runs.append(1)
        return inner.f()

    outer = world.memoize(60, audit=1, queries=True)(both)
    outer(), outer()
    assert len(outer_runs) == 2 and outer.cache_info()[-2:] == (1, 0)


@pytest.mark.django_db(transaction=True)
@INLINE
def test_the_tables_that_it_depends_on_are_named(caplog):
    Book.objects.create(title="one")
    price = [1]

    @cache_memoize(60, prefix="audited", audit=1, depends_on=Book, _clock=FakeClock())
    def prices():
        return Book.objects.count() * price[0]

    assert prices() == 1
    price[0] = 2
    prices()
    assert "it depends on the table tests_book" in caplog.text
    with transaction.atomic():
        Book.objects.create(title="two")
        prices()  # not in a transaction that has written
    assert prices.cache_info().wrong == 1


@pytest.mark.django_db
def test_rows_are_compared_by_their_fields():
    shelf = Shelf.objects.create(name="a")
    again = Shelf.objects.get()
    assert is_same(shelf, again) and is_same([shelf], [again])
    assert is_same(Shelf.objects.all(), Shelf.objects.all())
    before = [*Shelf.objects.all()]
    Shelf.objects.update(name="b")
    assert shelf == Shelf.objects.get() and not is_same(shelf, Shelf.objects.get())
    assert not is_same({"x": before}, {"x": [*Shelf.objects.all()]})
    assert not is_same(Shelf.objects.all(), [])


class Plain:
    def __init__(self, x):
        self.x = x


class Slotted:
    __slots__ = ("x",)

    def __init__(self, x):
        self.x = x


NAN = float("nan")


@pytest.mark.parametrize(
    "one, other, same",
    [
        *((1, 1, True), (1, 2, False), ([1], (1,), False), ([1], [1, 2], False)),
        *((NAN, float("nan"), True), ([NAN, {1: NAN}], [float("nan"), {1: NAN}], True)),
        *(({"a": 1}, {"a": 2}, False), ({"a": 1}, {"b": 1}, False), (1, 1.0, True)),
        *((Plain(1), Plain(1), True), (Plain(1), Plain(2), False)),
        *((Slotted([1]), Slotted([1]), True), (Slotted(1), Slotted(2), False)),
        *((Plain(1), Slotted(1), False), (Plain, Plain, True), (None, None, True)),
    ],
)
def test_values_are_compared_by_their_contents(one, other, same):
    assert is_same(one, other) is same and is_same([one], [other]) is same


@pytest.mark.parametrize(
    "given, trouble",
    [
        (2, "audit= of .* takes a number from 0 to 1"),
        ("often", "audit= of .* takes a number"),
        ((0.1, "x"), r"has a str beside the fraction; .*audit=\(0.001, same\)"),
    ],
)
def test_bad_values_are_refused(given, trouble):
    with pytest.raises((TypeError, ValueError), match=trouble):
        cache_memoize(60, audit=given)(is_same)


def test_a_guard_is_not_run_again():
    with pytest.raises(ValueError, match="is a guard .* or audit= compare"):
        cache_memoize(60, audit=0.1, store_result=False)(is_same)
    with override_settings(CACHE_MEMOIZE={"DEFAULTS": {"audit": 1}}):
        runs: list[int] = []
        guard = cache_memoize(60, store_result=False, prefix="guard")(
            lambda: runs.append(1)
        )
        guard(), guard()
        assert len(runs) == 1


@INLINE
@pytest.mark.backends(["locmem", "valkey"])
def test_changes_that_are_invalidated_are_no_findings(backend):
    """Three readers and a writer, which invalidates a moment after it has changed a
    value. ``AUDITS=100000`` makes as many."""
    wanted = int(os.environ.get("AUDITS", how_many(3_000)))
    truth, clock, changes = dict.fromkeys(range(5), 0), Clock(), [0]
    ended = threading.Event()

    class Patient(Clock):
        def sleep(self, seconds: float) -> None:
            """A pause is longer than a change is without its invalidation."""
            last = changes[0] + 2 if seconds == PAUSE else 0
            while changes[0] < last:
                super().sleep(0.001)

    options: Any = {"cache_alias": backend, "audit": 1, "_clock": Patient()}
    f = cache_memoize(60, prefix="audited races", **options)(lambda x: truth[x])

    def read() -> None:
        while not ended.is_set():
            f(random.choice([*truth]))

    def write() -> None:
        while any(each.is_alive() for each in readers):
            x = random.choice([*truth])
            truth[x] += 1
            clock.sleep(random.random() * 0.003)
            f.invalidate(x)
            changes[0] += 1
            clock.sleep(0.002)

    readers = [threading.Thread(target=read) for _ in range(3)]
    workers = [*readers, threading.Thread(target=write)]
    for each in workers:
        each.start()
    while f.cache_info().audited < wanted and not f.cache_info().wrong:
        clock.sleep(0.01)
    ended.set()
    for each in workers:
        each.join()
    close_connections()
    assert f.cache_info().wrong == 0


@INLINE
@pytest.mark.parametrize("seed", range(5))
def test_a_forgotten_invalidation_is_found_within_twice_the_inverse_share(seed):
    world, chance = World("default", "sync"), random.Random(seed)
    world.clock.random = chance.random
    truth = [1]
    f = world.memoize(3600, audit=0.01)(lambda: truth[0])
    f()
    truth[0] = 2
    hits = 0
    while f() == 1:
        hits += 1
    assert f.cache_info().wrong == 1 and hits <= 2 / 0.01
