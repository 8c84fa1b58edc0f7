"""Interleavings: forced at every step of the protocol, random, and their controls.

A computation is stopped before each of its commands to the cache, something happens,
and it goes on. A read that began after ``invalidate()`` returned must see the value
that was published before, at any step.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.core.cache import caches

from cache_memoize import cache_memoize, planning
from cache_memoize.cache import record
from cache_memoize.cache.connections import opened
from cache_memoize.cache.store import Store, run
from cache_memoize.protocol import settle as settling
from cache_memoize.protocol.call import Call
from cache_memoize.protocol.claim import overtake
from cache_memoize.protocol.settle import fail, settle
from tests.conftest import (
    ATOMIC,
    BACKENDS,
    FakeClock,
    World,
    close_connections,
    how_many,
    in_thread,
    plan_of,
)

TRIALS = 120


class Steps:
    """Runs ``action`` just before the n-th command of the calls under test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at: int | None = None
        self.action: Callable[[], object] = lambda: None
        self.count = 0
        command = Store._command

        def stepped(store: Store, name: str, *args: Any) -> Any:
            at, self.count = self.count, self.count + 1
            if at == self.at:
                self.at = None
                in_thread(self.action)
            return command(store, name, *args)

        monkeypatch.setattr(Store, "_command", stepped)

    def before(self, number: int, action: Callable[[], object]) -> None:
        self.count, self.at, self.action = 0, number, action


@pytest.fixture
def steps(monkeypatch, nothing_left_behind):
    return Steps(monkeypatch)


class Source:
    """The truth that the function reads: ``publish`` makes a newer one."""

    def __init__(self) -> None:
        self.value = 0

    def publish(self) -> int:
        self.value += 1
        return self.value


def others(f, source, what):
    """Act while a call is stopped; return the oldest value allowed after it."""

    def invalidate():
        source.publish()
        f.invalidate()

    def invalidate_and_read():
        source.publish()
        f.invalidate()
        assert f() == source.value

    def evict():
        source.publish()
        f.invalidate()
        caches[f_alias(f)].clear()

    def refresh():
        source.publish()
        assert f.refresh() == source.value

    def prime():
        f.prime(source.publish())

    def twice():
        source.publish()
        f.invalidate()
        f.invalidate()

    return locals()[what]


def f_alias(f):
    return plan_of(getattr(f, "memoized", f)).alias


INVALIDATIONS = ["invalidate", "invalidate_and_read", "evict", "twice"]


@pytest.mark.thorough
@pytest.mark.parametrize("what", [*INVALIDATIONS, "refresh", "prime"])
@pytest.mark.parametrize("kind", ["call", "refresh"])
@pytest.mark.parametrize("warm", [False, True])
def test_forced_at_every_step_nothing_old_is_read_afterwards(
    world, steps, what, kind, warm
):
    if what == "refresh" and world.alias in ("unknown", "pylibmc_without_cas"):
        pytest.skip("not promised where nothing replaces atomically")
    for step in range(12):
        source, stopped = Source(), []

        def function(source=source, stopped=stopped):
            value = source.value
            if stopped:  # between reading the source and returning
                in_thread(stopped.pop())
            return value

        f = world.memoize(60, ignore=("source", "stopped"))(function)
        happens = others(f, source, what)
        if warm:
            f()
        if step == 0:
            stopped.append(happens)
        else:
            steps.before(step - 1, happens)
        f.refresh() if kind == "refresh" else f()
        steps.at = None
        stopped.clear()
        assert f() == source.value, f"stale after {what} at step {step}"
        assert f() == source.value


@pytest.mark.backends(ATOMIC)
def test_of_several_refreshes_the_one_that_started_last_wins(world):
    """A slow refresh that began earlier cannot overwrite a newer one."""
    order = []

    def function():
        number = len(order)
        order.append(number)
        if number == 1:  # the slow one: a newer refresh starts and ends meanwhile
            assert in_thread(f.refresh) == 2
        return number

    f = world.memoize(60)(function)
    assert f() == 0
    assert f.refresh() == 1
    assert f() == 2


class Overtaken:
    """A function whose first refresh is overtaken by a second one, which is stopped at
    its end while the first one goes on to its own."""

    def __init__(self, world, second):
        self.runs = 0
        self.second = second
        self.inside, self.go_on = threading.Event(), threading.Event()
        self.f = world.memoize(60, stale=60)(self.function())

    def function(self):
        def function():
            self.runs += 1
            number = self.runs
            if number == 2:  # the first refresh
                self.other = threading.Thread(target=self.run_second)
                self.other.start()
                assert self.inside.wait(30)
            if number == 3:  # the second one: it has stamped the entry
                self.inside.set()
                assert self.go_on.wait(30)
                if isinstance(self.second, Exception):
                    raise self.second
            return number

        return function

    def run_second(self):
        try:
            self.f.refresh()
        except ValueError:
            pass
        finally:
            close_connections()

    def end(self):
        self.go_on.set()
        self.other.join()


@pytest.mark.backends(ATOMIC)
@pytest.mark.parametrize("second", ["succeeds", ValueError("broken")], ids=str)
def test_the_value_of_a_refresh_is_served_until_a_newer_one_ends(world, second):
    """Even if the newer one, which has stamped the old entry already, fails."""
    overtaken = Overtaken(world, second)
    f = overtaken.f
    assert f() == 1
    world.clock.tick(1)
    assert f.refresh() == 2
    assert f() == 2, "the newer one is not through yet"
    overtaken.end()
    assert f() == (3 if second == "succeeds" else 2)


@pytest.mark.backends(ATOMIC)
def test_an_invalidation_wins_over_both_of_two_refreshes(world):
    overtaken = Overtaken(world, "succeeds")
    f = overtaken.f
    assert f() == 1
    world.clock.tick(1)
    assert f.refresh() == 2
    f.invalidate()
    overtaken.end()
    assert f() == 4


@pytest.mark.backends(["locmem", "valkey"])
def test_an_older_refresh_does_not_replace_the_value_of_a_newer_one(world, monkeypatch):
    """The newer one comes in between its look and its own replacement."""
    overtaken = Overtaken(world, "succeeds")
    f = overtaken.f
    assert f() == 1
    world.clock.tick(1)
    original = Store.get

    async def then(self, key):
        there = await original(self, key)
        if overtaken.runs == 3 and not overtaken.go_on.is_set():
            overtaken.end()
        return there

    monkeypatch.setattr(Store, "get", then)
    assert f.refresh() == 2
    assert overtaken.go_on.is_set()
    monkeypatch.undo()
    assert f() == 3


def orders(*jobs):
    """Yield every order in which jobs can begin and end, as ("begin", job) steps."""
    steps = [step for job in jobs for step in (job, job)]
    for order in sorted(set(itertools.permutations(steps))):
        begun = set()
        yield [
            ("end" if job in begun else (begun.add(job) or "begin"), job)
            for job in order
        ]


class Refreshing:
    """Refreshes of one call that begin and end one by one, in this thread."""

    def __init__(self, f):
        self.f, self.claims = f, {}

    def call(self):
        function = self.f._memoized
        plan = planning.plan_of(function)
        return Call(function, plan, plan.store, plan.key_of((), {}))

    def begin(self, job):
        self.claims[job] = run(overtake(self.call()))

    def end(self, job, value):
        claim = self.claims.pop(job)
        if isinstance(value, Exception):
            run(fail(self.call(), claim, value))
        else:
            run(settle(self.call(), claim, value))


FAILS = ValueError("broken")


def served_otherwise(backend, options, whole=True):
    """Yield (order, outcomes) of three refreshes, of which any may fail, after which
    another value is served than that of the one that began last."""
    world = World(backend, "sync")
    outcomes = list(itertools.product([True, False], repeat=3))
    f = world.memoize(60, **options)(lambda: "old")
    for order in orders(0, 1, 2):
        if not whole and order[0][1] != 0:
            continue  # the jobs have the same names then
        for succeeds in outcomes if whole else outcomes[1:2]:
            f.invalidate()
            assert f() == "old"
            jobs, begun, best = Refreshing(f), [], -1
            for step, job in order:
                if step == "begin":
                    begun.append(job)
                    jobs.begin(job)
                    continue
                jobs.end(job, job if succeeds[job] else FAILS)
                if succeeds[job]:
                    best = max(best, begun.index(job))
                expected = begun[best] if best >= 0 else "old"
                if f.peek().value != expected:
                    yield order, succeeds
            assert f.refresh() == f() == "old", "a later refresh is not kept out"


@pytest.mark.backends(ATOMIC)
@pytest.mark.parametrize("options", [{}, {"stale": 60}, {"tags": "x"}], ids=str)
def test_the_value_of_the_refresh_that_began_last_is_served_in_any_order(
    backend, options
):
    """720 orders in local memory."""
    assert not list(served_otherwise(backend, options, whole=backend == "locmem"))


@pytest.mark.backends(ATOMIC)
def test_an_invalidation_drops_the_refreshes_that_began_before_it(backend):
    f = World(backend, "sync").memoize(60, stale=60)(lambda: "new")
    for order in orders(0, 1):
        for moment in range(1, 4):
            f.invalidate()
            f.prime("old")
            jobs, late = Refreshing(f), set()
            for at, (step, job) in enumerate(order):
                if at == moment:
                    f.invalidate()
                if step == "begin":
                    jobs.begin(job)
                    late |= {job} if at >= moment else set()
                else:
                    jobs.end(job, job)
            found = f.peek()
            assert found is None or found.value in late, (order, moment)


@pytest.mark.backends(["locmem"])
def test_numbers_of_refreshes_begin_again_after_the_highest(backend, monkeypatch):
    world = World(backend, "sync")
    monkeypatch.setattr(record, "LAST_NUMBER", 3)
    f = world.memoize(60)(lambda: "computed")
    f.prime("old")
    jobs = Refreshing(f)
    for job in range(5):
        jobs.begin(job)
    jobs.end(0, 0)  # began before the numbers were used up: dropped
    assert f.peek().value == "old"
    jobs.end(3, 3)
    assert f.peek().value == 3
    jobs.end(4, FAILS)
    assert f.peek().value == 3


LATE = ["valkey", "redis", "django_redis", "pymemcache", "pylibmc"]
WHAT = pytest.mark.parametrize("what", ["call", "tag", "function"])


def after_a_late_command(backend, what):
    """Return a function, and the source, after each ``add`` of its first call, which
    was invalidated, has arrived a second time."""
    world, sent = World(backend, "sync"), []
    monkeypatch = pytest.MonkeyPatch()
    source, command = Source(), Store._command

    def noting(self, name, *args):
        if name == "add":
            sent.append(args)
        return command(self, name, *args)

    def function():
        value = source.value
        if value == first:
            source.value += 1
            if what == "call":
                f.invalidate()
            elif what == "tag":
                world.invalidate_tags("late")
            else:
                f.invalidate_all()
            monkeypatch.undo()
            assert sent
            for key, new, seconds in sent:
                run(plan_of(f).store.add(key, new, seconds))
        return value

    first = source.value
    f = world.memoize(60, tags=None if what == "call" else "late")(function)
    world.cache.clear()
    monkeypatch.setattr(Store, "_command", noting)
    assert f() == first
    return f, source


@pytest.mark.backends(LATE)
@WHAT
def test_a_command_that_arrives_late_brings_nothing_back(backend, what):
    """The client had sent it, got no answer, and sent it again."""
    f, source = after_a_late_command(backend, what)
    assert f() == f() == source.value
    assert f.peek().value == source.value, "and it is stored again at once"


def test_a_waiter_whose_holder_was_invalidated_gets_the_new_value(world):
    source = Source()

    def function():
        return source.value

    f = world.memoize(60)(function)
    key = f.get_cache_key()
    world.cache.add(key, record.pack(record.LEASE, b"another!"), 10)

    def while_waiting():
        world.clock.on_sleep = lambda: None
        source.publish()
        in_thread(f.invalidate)

    world.clock.on_sleep = while_waiting
    assert f() == 1 == f()


# --- random schedules in threads -----------------------------------------------------


def random_trial(f, source, seed):
    """Run readers, a refresher and a writer at once; return the stale reads seen."""
    rng = random.Random(seed)
    stale = []
    published = [0]
    barrier = threading.Barrier(4)
    pauses = [[rng.randrange(4) for _ in range(3)] for _ in range(4)]

    def spin(n):
        time.sleep(n * 0.0005)

    def reader(mine):
        barrier.wait()
        for pause in mine:
            spin(pause)
            oldest = published[0]
            if f() < oldest:
                stale.append((seed, "read"))

    def refresher(mine):
        barrier.wait()
        for pause in mine:
            spin(pause)
            f.refresh()

    def writer(mine):
        barrier.wait()
        for pause in mine:
            spin(pause)
            value = source.publish()
            f.invalidate()
            published[0] = value

    def closing(role):
        def run(mine):
            try:
                role(mine)
            finally:
                close_connections()

        return run

    roles = [reader, reader, refresher if rng.random() < 0.5 else reader, writer]
    threads = [
        threading.Thread(target=closing(role), args=(mine,))
        for role, mine in zip(roles, pauses, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if f() < published[0]:
        stale.append((seed, "at rest"))
    return stale


def trial_function(alias, source, number):
    # wait=0: who loses computes at once, so that many computations overlap.
    @cache_memoize(60, prefix=f"trial{number}", cache_alias=alias, wait=0)
    def function():
        return slowly(source)

    return function


def slowly(source):
    """A computation that takes its time, for the others to come in between."""
    value = source.value
    time.sleep(0.001)
    return value


@pytest.mark.grows
@pytest.mark.backends([b for b in BACKENDS if b not in ("sqlite", "postgresql")])
def test_random_schedules_show_nothing_stale(backend):
    """On every backend, those with vouchers too. (Databases: below, in one thread.)"""
    stale = []
    for seed in range(how_many(TRIALS)):
        source = Source()
        stale += random_trial(trial_function(backend, source, seed), source, seed)
    assert stale == []


# --- negative controls: wrong schemes that the trials above must catch ---------------


class SetAfterCompute:
    """The usual scheme: read, compute, set."""

    def __init__(self, alias, function):
        self.alias, self.function = alias, function

    @property
    def cache(self):
        return opened(self.alias)[0]  # memcached clients are for one thread

    def __call__(self):
        value = self.cache.get("control")
        if value is None:
            value = self.function()
            self.store(value)
        return value

    def store(self, value):
        self.cache.set("control", value, 60)

    def refresh(self):
        value = self.function()
        self.store(value)
        return value

    def invalidate(self):
        self.cache.delete("control")


class VersionCounter(SetAfterCompute):
    """A counter that is read after computing."""

    def store(self, value):
        self.cache.set("control", (self.cache.get("version", 0), value), 60)

    def __call__(self):
        found = self.cache.get("control")
        if found and found[0] == self.cache.get("version", 0):
            return found[1]
        value = self.function()
        self.store(value)
        return value

    def invalidate(self):
        self.cache.set("version", self.cache.get("version", 0) + 1)


class CompareThenSet(SetAfterCompute):
    """A lease, but compared and replaced in two steps."""

    def __call__(self):
        found = self.cache.get("control")
        if found and found[0] == "value":
            return found[1]
        lease = ("lease", random.random())
        mine = self.cache.add("control", lease, 60)
        value = self.function()
        if mine and self.cache.get("control") == lease:
            self.gap()
            self.cache.set("control", ("value", value), 60)
        return value

    def gap(self):
        """The step at which another caller comes in between."""

    def refresh(self):
        self.invalidate()
        return self()


class Stop(Exception):
    pass


@pytest.mark.parametrize("scheme", [SetAfterCompute, VersionCounter])
def test_a_wrong_scheme_shows_a_late_store(scheme):
    source = Source()

    def function():
        value = source.value
        if value == 0:
            source.publish()
            wrong.invalidate()
        return value

    caches["locmem"].clear()
    wrong = scheme("locmem", function)
    wrong()
    assert wrong() < source.value


def test_compare_then_set_shows_the_gap():
    source = Source()
    caches["locmem"].clear()
    wrong = CompareThenSet("locmem", lambda: source.value)

    def gap():
        wrong.gap = lambda: None
        source.publish()
        wrong.invalidate()

    wrong.gap = gap
    wrong()
    assert wrong() < source.value


def test_our_own_steps_would_catch_a_store_that_does_not_compare(
    monkeypatch, nothing_left_behind
):
    """Break the atomic replacement, and the forced trials above see it."""
    from cache_memoize.cache.backends import LocalMemory

    def set_anyway(self, cache, key, old, new, seconds):
        cache.set(key, new, seconds)
        return True

    monkeypatch.setattr(LocalMemory, "swap", set_anyway)
    source = Source()

    def function():
        value = source.value
        if value == 0:
            source.publish()
            f.invalidate()
        return value

    f = cache_memoize(60, cache_alias="locmem", prefix="broken", _clock=FakeClock())(
        function
    )
    f()
    assert f() < source.value
    caches["locmem"].clear()


def without_number(monkeypatch):
    """The entry does not say which refresh its value is of."""
    restamp = record.restamp

    def forgetful(found, stamp, token=b""):
        return restamp(found, stamp._replace(stored=0), token)

    monkeypatch.setattr(record, "restamp", forgetful)


def without_lineage(monkeypatch):
    """An entry that replaces another one has the same token."""
    pack_entry = settling.pack_entry

    def same_token(call, claim, *args):
        new = record.parse(pack_entry(call, claim, *args))
        return record.restamp(new, new.stamp, record.token_of(claim.lease))

    monkeypatch.setattr(settling, "pack_entry", same_token)


def without_stamp_of_others(monkeypatch):
    """A value that replaces an older one does not keep the stamp of a later refresh."""
    restamp = record.restamp

    def alone(found, stamp, token=b""):
        return found.raw if token else restamp(found, stamp)

    monkeypatch.setattr(record, "restamp", alone)


@pytest.mark.parametrize(
    "without", [without_number, without_lineage, without_stamp_of_others]
)
def test_without_one_of_the_comparisons_a_refresh_is_lost(without, monkeypatch):
    without(monkeypatch)
    assert list(served_otherwise("locmem", {"stale": 60}))
    caches["locmem"].clear()


@pytest.mark.backends(["valkey", "pymemcache"])
@WHAT
def test_without_the_mark_a_late_command_brings_an_old_value_back(
    backend, what, monkeypatch
):
    cls = type(opened(backend)[1])
    monkeypatch.setattr(cls, "late", False)  # so the key is deleted
    f, source = after_a_late_command(backend, what)
    assert f() < source.value


@pytest.mark.backends(ATOMIC)
@pytest.mark.parametrize("control", ["refresh", "prime"])
@pytest.mark.parametrize("won", [0, 1], ids=["before", "after"])
def test_a_refresh_that_loses_every_race_leaves_nothing_old(
    backend, control, won, monkeypatch
):
    """It must not go on without a limit. And the others may all fail, so that nothing
    replaces the value that is older than what it has returned."""
    world, original, swaps = World(backend, "sync"), Store.swap, []
    runs = []
    f = world.memoize(60)(lambda: runs.append(1) or len(runs))
    assert f() == 1

    async def lose(self, key, *args):
        swaps.append(1)
        found = await self.get(key)
        if (
            len(swaps) > won and found is not None and found.kind == record.ENTRY
        ):  # another refresh begins first
            stamp = found.stamp._replace(begun=found.stamp.begun + 1)
            await original(self, key, found.raw, record.restamp(found, stamp), 60)
        return await original(self, key, *args)

    monkeypatch.setattr(Store, "swap", lose)
    f.prime(2) if control == "prime" else f.refresh()
    assert len(swaps) < 20
    monkeypatch.undo()
    assert f.peek() is None
    assert f() == len(runs) > 1
