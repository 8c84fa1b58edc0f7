"""Copies in the memory of the process: as near as that, and never older than promised.

Two aliases of one server stand for two processes: each is a holder of its own.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction
from django.test import override_settings

from cache_memoize import cache_memoize, invalidate_tags
from cache_memoize.cache import holders, near
from cache_memoize.cache.near import Copies, Lease, _Copy
from cache_memoize.clock import Clock
from cache_memoize.conf import changed
from tests.conftest import (
    FakeClock,
    World,
    close_connections,
    counted,
    in_thread,
    until,
)
from tests.needs import need
from tests.servers import SERVERS
from tests.test_site import of_a_tenant, tenants

#: Seconds of a term in these tests: long enough for a busy machine.
TERM = 1.0
SHARED = ["valkey", "pymemcache", "file"]
HELD = pytest.mark.backends(["valkey", "redis", "django_redis"])


@pytest.fixture(autouse=True)
def no_copy_is_left_behind() -> Iterator[None]:
    yield
    near.close()
    for thread in threading.enumerate():
        if thread.name.startswith("cache_memoize-holder"):
            thread.join(10)
            assert not thread.is_alive()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The keys that functions with copies have read from their cache."""
    found: list[Any] = []

    def note(name: str) -> None:
        original = getattr(near, name)

        def noting(alias: str, keys: Any) -> Any:
            found.extend([keys] if isinstance(keys, str) else keys)
            return original(alias, keys)

        monkeypatch.setattr(near, name, noting)

    for name in ("fetch", "afetch", "read_with_tags", "aread_with_tags"):
        note(name)
    return found


# --- copies --------------------------------------------------------------------------


def copy(size: int = 10, *tags: str) -> _Copy:
    return _Copy(Lease(1e9), bytes(size), (), tags)


def test_the_copies_are_bounded_in_number_and_those_in_use_stay():
    copies = Copies(3, 10**6)
    for n in range(3):
        copies.keep(n, copy(), 0)
    copies.by_place[0].used = True
    copies.keep(3, copy(), 0)
    assert [*copies.by_place] == [2, 0, 3], "the oldest that was not used went"
    copies.keep(4, copy(), 0)
    copies.keep(5, copy(), 0)
    assert [*copies.by_place] == [3, 4, 5], "passed over once"


def test_the_copies_are_bounded_in_bytes():
    copies = Copies(100, 10_000)
    for n in range(50):
        copies.keep(n, copy(700, "tag"), 0)
        assert copies.size == sum(c.size() for c in copies.by_place.values()) <= 10_000
    assert len(copies.by_place) == 9
    copies.keep("large", copy(9_900), 0)
    assert "large" not in copies.by_place, "with all that it takes"
    Copies(100, 10**6).keep("large", huge := copy(near.LARGEST + 1), 0)
    assert huge.size() > near.LARGEST


def test_a_tag_takes_its_copies_with_it():
    copies = Copies(10, 10**6)
    copies.keep("a", copy(10, "one", "two"), 0)
    copies.keep("b", copy(10, "two"), 0)
    copies.keep("c", copy(10), 0)
    copies.drop(["one", "unknown"])
    assert [*copies.by_place] == ["b", "c"]
    copies.drop(["two", "c"])
    assert not copies.by_place and not copies._by_tag and copies.size == 0


def test_what_was_read_before_something_was_dropped_is_not_kept():
    copies = Copies(10, 10**6)
    generation = copies.generation
    copies.drop(["another"])
    copies.keep("a", copy(), generation)
    copies.clear()
    copies.keep("a", copy(), generation + 1)
    assert not copies.by_place
    copies.keep("a", copy(), copies.generation)
    assert [*copies.by_place] == ["a"]


# --- seconds -------------------------------------------------------------------------


@pytest.mark.backends(SHARED, lean=SHARED[:2])
@pytest.mark.parametrize("tags", [None, "a"])
def test_a_copy_is_served_for_its_seconds(world, reads, tags):
    f, runs = counted(world, local=5, tags=tags)
    assert [f(1), f(1), f(1)] == [1, 1, 1]
    assert len(reads) == 2, "the miss, and the entry that is copied"
    world.clock.tick(4.9)
    assert f(1) == 1 and len(reads) == 2
    world.clock.tick(0.2)
    assert f(1) == 1 and len(reads) == 3
    assert f.cache_info().hits == 4


@pytest.mark.backends(SHARED, lean=SHARED[:2])
def test_each_call_gets_an_object_of_its_own(world):
    f = world.memoize(60, local=5)(lambda: [1])
    for _ in range(3):
        found = f()
        assert found == [1]
        found.append(2)


@pytest.mark.backends(SHARED, lean=SHARED[:2])
@pytest.mark.parametrize("tags", [None, "a"])
def test_own_changes_are_seen_at_once(world, tags):
    f, runs = counted(world, local=5, tags=tags)

    def changed() -> int:
        assert [f(1)] * 3 == [f(1), f(1), f(1)]
        return f(1)

    assert changed() == 1
    f.invalidate(1)
    assert changed() == 2
    assert f.refresh(1) == changed() == 3
    f.prime(7, 1)
    assert changed() == 7
    [*f.warm([1])]
    assert changed() == 4
    if tags:
        f.invalidate_all()
        assert changed() == 5
        world.invalidate_tags("a")
        assert changed() == 6


@pytest.mark.backends(SHARED, lean=SHARED[:2])
def test_changes_by_another_process_are_seen_when_the_seconds_are_over(world):
    f, runs = counted(world, local=5)
    assert f(1) == f(1) == 1
    world.cache.delete(f.get_cache_key(1))
    assert f(1) == 1
    world.clock.tick(6)
    assert f(1) == 2


@pytest.mark.backends(SHARED, lean=SHARED[:2])
def test_many_are_read_from_copies(world, reads):
    f, runs = counted(world, local=5)
    first = f.map([1, 2, 3])
    assert f.map([1, 2, 3]) == first
    reads.clear()
    assert f.map([3, 2, 1]) == first[::-1] and not reads
    f.invalidate(2)
    assert f.map([1, 2, 3]) == [1, 4, 3] and len(reads) == 1


@pytest.mark.backends(["valkey"])
def test_an_entry_is_copied_for_no_longer_than_it_is_fresh(world):
    f, runs = counted(world, 3, local=50)
    assert f(1) == f(1) == 1
    world.clock.tick(2.9)
    assert f(1) == 1
    world.clock.tick(0.2)
    assert f(1) == 2


@pytest.mark.backends(["valkey"])
def test_a_stale_value_is_served_and_refreshed_as_without_copies(world):
    f, runs = counted(world, 3, stale=60, local=50)
    assert f(1) == f(1) == 1
    world.clock.tick(4)
    with override_settings(CACHE_MEMOIZE=changed(REFRESH="inline")):
        assert f(1) == 2 and f(1) == 2


@pytest.mark.backends(["valkey"])
def test_what_a_call_of_other_tags_reads_is_no_copy_of_this_one(world):
    tag = ["a"]
    f, runs = counted(world, local=50, tags=lambda x=0: tag[0])
    assert f(1) == f(1) == 1
    tag[0] = "b"
    assert f(1) == 2, "as without copies"


@pytest.mark.backends(["valkey", "pymemcache"])
def test_a_tenant_gets_no_copy_of_another_one(backend, reads):
    settings = caches.settings[backend] | {"KEY_FUNCTION": of_a_tenant}
    with override_settings(CACHES={backend: settings, "default": settings}):
        f = cache_memoize(60, prefix="tenants", cache_alias=backend, local=60)(
            lambda: tenants.name
        )
        for name in ("a", "b", "a", "b", "a"):
            tenants.name = name
            assert f() == name
        reads.clear()
        assert f() == "a" and not reads
        f.invalidate()
        tenants.name = "b"
        assert f() == "b" and not reads
        tenants.name = "a"
        assert f() == "a" and reads
        tenants.__dict__.clear()


@pytest.mark.parametrize("wrong", [float("inf"), -1, "proces", True, [1]])
def test_another_value_is_refused(wrong):
    with pytest.raises((TypeError, ValueError), match="local="):
        cache_memoize(60, prefix="wrong", local=wrong)(lambda x: x)


def test_in_memory_there_are_no_copies(reads):
    for local in ("process", 5):
        f, runs = counted(World("locmem", "sync"), local=local)
        assert f(1) == f(1) == 1 and not reads
        f.invalidate(1)
    assert not holders.known.own


def test_nothing_is_kept_with_zero_seconds(reads):
    f, runs = counted(World("locmem", "sync"), local=0)
    assert f(1) == f(1) == 1 and not reads
    f.invalidate(1)


@pytest.mark.backends(["pymemcache", "file", "unknown"], lean=["pymemcache", "unknown"])
def test_elsewhere_a_holder_is_refused_with_the_cure(backend):
    f = cache_memoize(60, prefix="refused", cache_alias=backend, local="process")(
        lambda: 1
    )
    with pytest.raises(ImproperlyConfigured, match=r"local='process'.*local=0\.5"):
        f()


def test_the_bounds_are_a_setting():
    with override_settings(CACHE_MEMOIZE=changed(NEAR={"entries": 7})):
        assert near.copies_of("valkey")._most == 7
        assert near.copies_of("valkey")._most_bytes == 32 * 2**20
    for wrong in ({"entries": -1}, {"number": 1}, 7, {"bytes": "1"}):
        with (
            override_settings(CACHE_MEMOIZE=changed(NEAR=wrong)),
            pytest.raises(ImproperlyConfigured, match="NEAR"),
        ):
            near.copies_of("redis")


# --- holders -------------------------------------------------------------------------


class Pair:
    """One function in two processes: ``here`` and ``there``."""

    def __init__(self, alias: str, kind: str, **options: Any) -> None:
        self.alias, self.value, self.runs = alias, 1, 0
        options = {"prefix": f"pair.{os.urandom(4).hex()}"} | options

        self.compute: Any = lambda: None

        def value(x: int = 0) -> int:
            self.runs += 1
            self.compute()
            return self.value

        clocks = options.pop("clocks", [Clock(), Clock()])
        timeout = options.pop("timeout", 600)
        self.here, self.there = (
            World(each, kind).memoize(
                timeout, local="process", _clock=clock, **options
            )(value)
            for each, clock in zip((alias, "other"), clocks, strict=True)
        )

    def begin(self) -> None:
        """Have both serve from their memory."""
        believe(self.alias)
        for alias, f in ((self.alias, self.here), ("other", self.there)):
            until(lambda a=alias, f=f: f() and near.copies_of(a).by_place)


def believe(alias: str) -> None:
    """Have the list be complete, as if it had been seen for a term."""
    here = holders._List(alias)
    here.client.hset(here.key, "seen", here.client.info("server")["run_id"])


def serves(alias: str) -> bool:
    return holders.known.own[alias].lease.until > time.monotonic()


@pytest.fixture
def terms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holders, "TERM", TERM)
    monkeypatch.setattr(holders, "RENEWAL", TERM / 4)
    monkeypatch.setattr(holders, "TRUSTED", TERM / 2)
    monkeypatch.setattr(holders, "PAUSE", 0.05)


@pytest.fixture
def two(backend: str, terms: None) -> Iterator[str]:
    """A cache, and another name of it."""
    settings = {**caches.settings, "other": caches.settings[backend]}
    with override_settings(CACHES=settings):
        yield backend
        near.close()


KIND = pytest.mark.parametrize("kind", ["sync", "async"])


@HELD
@KIND
def test_a_holder_serves_from_memory_and_sees_each_change_at_once(two, kind, reads):
    pair = Pair(two, kind, tags="tag")
    pair.begin()
    reads.clear()
    assert [pair.there() for _ in range(5)] == [1] * 5 and not reads
    for change in (
        lambda: pair.here.invalidate(),
        lambda: pair.here.refresh(),
        lambda: pair.here.prime(pair.value),
        lambda: pair.here.invalidate_all(),
        lambda: invalidate_tags("tag", cache_alias=two),
        lambda: [*pair.here.warm([0])],
        lambda: pair.here(_refresh=True),
    ):
        pair.begin()
        pair.value += 1
        change()
        assert pair.there() == pair.here() == pair.value


class HeldUp:
    """The other process, which is held up before it drops its copies."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(holders, "TERM", 20.0)  # that is not what ends the wait
        copies = near.copies_of("other")
        self.drop = copies.drop
        self.seen: list[Any] = []
        self.goes_on = threading.Event()
        copies.drop = self  # type: ignore[method-assign, assignment]

    def __call__(self, places: Any) -> None:
        self.seen.append(places)
        assert self.goes_on.wait(20)
        self.drop(places)


def begun(function: Any) -> tuple[threading.Thread, threading.Event]:
    done = threading.Event()

    def work() -> None:
        function()
        done.set()
        close_connections()

    thread = threading.Thread(target=work)
    thread.start()
    return thread, done


@HELD
def test_a_change_waits_for_a_holder_that_is_held_up(two, monkeypatch):
    pair = Pair(two, "sync")
    pair.begin()
    other = HeldUp(monkeypatch)
    pair.value = 2
    thread, done = begun(pair.here.invalidate)
    until(lambda: other.seen)
    assert not done.wait(0.1), "it has not dropped its copy yet"
    other.goes_on.set()
    thread.join()
    assert pair.there() == 2


@HELD
@pytest.mark.parametrize("way", ["refresh", "prime"])
def test_a_refresh_that_is_overtaken_waits_as_that_which_overtakes_it(
    two, monkeypatch, way
):
    """The other change is stored, but has not yet returned."""
    pair = Pair(two, "sync", hold=60 if way == "prime" else 0)
    pair.begin()
    other = HeldUp(monkeypatch)
    pair.value = 2
    computes, computed = threading.Event(), threading.Event()

    def compute() -> None:
        if not computes.is_set():
            computes.set()
            assert computed.wait(20)

    if way == "prime":  # its key is blocked
        first, _ = begun(pair.here.invalidate)
        until(lambda: other.seen)
        second, done = begun(lambda: pair.here.prime(2))
    else:
        pair.compute = compute
        second, done = begun(pair.here.refresh)
        assert computes.wait(20)
        first, _ = begun(pair.here.refresh)
        until(lambda: other.seen)
        computed.set()
    assert not done.wait(0.2), "the other process still serves what it has"
    other.goes_on.set()
    first.join()
    second.join()
    assert pair.there() == 2


@HELD
def test_a_change_waits_for_a_term_for_a_holder_that_says_nothing(two, monkeypatch):
    pair = Pair(two, "sync")
    pair.begin()
    monkeypatch.setattr(holders.Holder, "_drop", lambda *args: time.sleep(1.5 * TERM))
    pair.value, began = 2, time.monotonic()
    pair.here.invalidate()
    assert time.monotonic() - began >= TERM
    assert not serves("other") and pair.there() == 2
    id = holders.known.own["other"].id
    here = holders._List(two)
    assert not here.client.hexists(here.key, id), "the next one does not wait for it"


@HELD
def test_a_holder_that_was_taken_off_the_list_serves_nothing_from_before(two):
    pair = Pair(two, "sync")
    pair.begin()
    holder, here = holders.known.own["other"], holders._List(two)
    here.client.hdel(here.key, holder.id)
    # No message reaches it that was sent while it was not listed.
    caches[two].delete(pair.here.get_cache_key())
    until(lambda: here.client.hexists(here.key, holder.id))
    until(lambda: not near.copies_of("other").by_place)
    pair.value = 2
    assert pair.there() == 2


@HELD
def test_a_renewal_that_arrives_late_changes_nothing(two):
    """The client gave it up, and the holder has asked for more groups since."""
    pair = Pair(two, "sync")
    pair.begin()
    holder, here = holders.known.own["other"], holders._List(two)
    value = here.client.hget(here.key, holder.id)
    number, generation = int(value.split()[0]), holder.copies.generation
    for late in (number, number - 1, 0):
        found = here.run(
            holders._RENEW, [here.key], holder.id, late, " few ", here.channel
        )
        assert found == [-1, 0, b"", []]
    now = here.client.hget(here.key, holder.id)
    assert now.split()[1:] == value.split()[1:] and int(now.split()[0]) >= number
    assert holder.copies.generation == generation


@HELD
def test_a_holder_that_is_listed_with_less_than_it_has_drops_its_copies(two):
    pair = Pair(two, "sync")
    pair.begin()
    holder = holders.known.own["other"]
    with near._lock:
        holder._sent[0] = (-1e9, frozenset(["another"]))
        holder._extend(0, 0, 1)
    assert not near.copies_of("other").by_place
    pair.begin()


@HELD
def test_a_renewal_that_is_sent_twice_tells_nothing_new(two):
    """And one without a subscription fails."""
    pair = Pair(two, "sync")
    pair.begin()
    holder, here = holders.known.own["other"], holders._List(two)
    before = holder._run
    holder._number = 0
    holder._renew(here)
    assert holder._run == before
    holder.stop()
    holder._thread.join()
    holder._number = 10**6
    with pytest.raises(ConnectionError, match="subscription is lost"):
        holder._renew(here)


@HELD
def test_a_process_that_ends_leaves_the_list(two):
    pair = Pair(two, "sync")
    pair.begin()
    holder, here = holders.known.own["other"], holders._List(two)
    assert here.client.hexists(here.key, holder.id)
    holder.leave()
    assert not here.client.hexists(here.key, holder.id)
    assert not holder._thread.is_alive() and not serves("other")
    holder._extend(1, 0, 1)  # a renewal of before
    assert not serves("other")


@HELD
def test_a_child_begins_without_copies(two, monkeypatch):
    """And does not take its parent off the list when it ends."""
    Pair(two, "sync").begin()
    held, undone = [*holders.known.own.values()], []
    with monkeypatch.context() as patch:
        patch.setattr(atexit, "unregister", undone.append)
        near._after_fork()
    assert undone == [each.leave for each in held]
    assert not near._copies and not holders.known.own
    for each in held:
        each.stop()
        each._thread.join()


@pytest.mark.backends(["valkey"])
def test_a_writer_that_may_run_no_script_does_not_pass_over_holders(two):
    admin = holders._List(two).client
    admin.execute_command("ACL", "SETUSER", "plain", "on", ">x", "~*", "&*", "+@all")
    admin.execute_command("ACL", "SETUSER", "plain", "-eval")
    settings = dict(caches.settings[two])
    settings["LOCATION"] = settings["LOCATION"].replace("//", "//plain:x@")
    try:
        with override_settings(CACHES={**caches.settings, "writer": settings}):
            f, _ = counted(World("writer", "sync"))
            f(1)
            f.invalidate(1)  # there is no list
            holders.known.unlisted.clear()
            Pair(two, "sync").begin()
            with pytest.raises(redis.exceptions.NoPermissionError):
                f.invalidate(1)
            near.close()
    finally:
        admin.execute_command("ACL", "DELUSER", "plain")


@HELD
def test_a_server_without_the_list_is_not_believed(two):
    """It was restarted, or another one was promoted."""
    pair = Pair(two, "sync")
    pair.begin()
    here = holders._List(two)
    here.client.delete(here.key)
    pair.value, began = 2, time.monotonic()
    pair.here.invalidate()
    assert time.monotonic() - began >= TERM * holders.USED
    assert pair.there() == 2
    until(lambda: serves("other"))


@HELD
def test_a_process_without_copies_tells_those_that_have_some(two):
    pair = Pair(two, "sync", tags="tag")
    f, _ = counted(World(two, "sync"), tags="tag")
    pair.begin()
    holders.known.own.pop(two).stop()
    near._copies.pop(two)
    holders.known.listed.clear()
    assert not holders.known.listed
    pair.value = 2
    invalidate_tags("tag", cache_alias=two)
    assert pair.there() == 2
    assert f(1) == f(1) == 1


@HELD
def test_a_change_does_not_wait_for_holders_that_have_no_such_copies(two, monkeypatch):
    pair = Pair(two, "sync")
    plain, _ = counted(World(two, "sync"))
    pair.begin()
    told: list[Any] = []
    monkeypatch.setattr(holders.Holder, "_drop", lambda *args: told.append(args))
    for _ in range(3):
        plain(1)
        plain.invalidate(1)
    assert not told
    holders.known.own["other"]._wanted = frozenset(map(str, range(999)))
    until(lambda: len(holders.known.own["other"].groups) == 999)
    monkeypatch.setattr(holders, "TERM", 0.01)
    plain(1)
    plain.invalidate(1)
    until(lambda: told)


@HELD
def test_a_process_that_has_found_no_list_asks_once_a_second(two, monkeypatch):
    f, _ = counted(World(two, "sync"))
    asked, run = [], holders._List.run
    monkeypatch.setattr(
        holders._List, "run", lambda *args: asked.append(args) or run(*args)
    )
    monkeypatch.setattr(holders, "TRUSTED", 60.0)
    for _ in range(20):
        f(1)
        f.invalidate(1)
    assert len(asked) == 1
    monkeypatch.setattr(holders, "TRUSTED", 0.0)
    f.invalidate(1)
    assert len(asked) == 2


@HELD
def test_a_commit_is_seen_at_once_and_a_rollback_changes_nothing(two, transactional_db):
    pair = Pair(two, "sync", tags="tag")
    pair.begin()
    with transaction.atomic():
        pair.value = 2
        pair.here.invalidate()
        assert pair.here() == 2
    assert pair.there() == pair.here() == 2
    with contextlib.suppress(ZeroDivisionError), transaction.atomic():
        invalidate_tags("tag", cache_alias=two)
        raise ZeroDivisionError
    assert pair.there() == 2


@pytest.mark.backends(["valkey"])
def test_of_a_tag_that_a_transaction_is_about_to_invalidate_nothing_is_kept(
    two, transactional_db
):
    """Its process may die between the commit and the invalidation."""
    pair = Pair(two, "sync", tags="tag")
    pair.begin()
    with transaction.atomic():
        pair.here.invalidate_all()
        invalidate_tags("tag", cache_alias=two)

        def read() -> None:
            assert pair.there() == pair.there() == 1

        in_thread(read)
        assert not near.copies_of("other").by_place
    assert pair.there() == 1


@HELD
def test_a_cleared_cache_is_seen_at_the_next_renewal(two):
    pair = Pair(two, "sync")
    pair.begin()
    pair.value = 2
    caches[two].clear()
    until(lambda: not near.copies_of("other").by_place)
    assert pair.there() == 2


def test_a_full_server_makes_a_change_slower(own_server, terms):
    settings = {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": "redis://127.0.0.1:{port}".format(**own_server),
    }
    with (
        override_settings(CACHES={"default": settings, "other": settings}),
        redis.Redis(port=own_server["port"]) as server,
    ):
        pair = Pair("default", "sync")
        pair.begin()
        server.config_set("maxmemory", 1)
        server.config_set("maxmemory-policy", "noeviction")
        try:
            pair.value = 2
            pair.here.invalidate()
            assert pair.there() == 2
        finally:
            server.config_set("maxmemory", 0)
        near.close()
        caches["default"].clear()


@HELD
def test_a_nested_call_is_seen_at_once(two):
    pair = Pair(two, "sync")
    outer = cache_memoize(
        600, prefix=f"outer{os.urandom(4).hex()}", cache_alias="other", local="process"
    )(lambda: pair.there() * 10)
    pair.begin()
    until(lambda: outer() == 10 and len(near.copies_of("other").by_place) == 2)
    pair.value = 2
    pair.there.invalidate()
    assert outer() == 20 and pair.here() == 2


@HELD
def test_a_refresh_of_a_stale_value_is_seen_at_once(two):
    """The other process may have a clock that is behind."""
    ahead, behind = FakeClock(), FakeClock()
    pair = Pair(two, "sync", timeout=30, stale=600, clocks=[ahead, behind])
    pair.begin()
    pair.value = 2
    ahead.tick(40)
    with override_settings(CACHE_MEMOIZE=changed(REFRESH="inline")):
        assert pair.here() == 2
    assert pair.there() == 2


@pytest.mark.backends(["valkey"])
def test_a_lost_subscription_ends_the_lease_at_once(two):
    pair = Pair(two, "sync")
    pair.begin()
    client = holders._List(two).client
    before = near.copies_of("other").generation
    client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    until(lambda: near.copies_of("other").generation > before)
    until(lambda: serves("other"))
    pair.value = 2
    pair.here.invalidate()
    assert pair.there() == 2


@pytest.mark.backends(["valkey"])
def test_a_user_who_may_not_subscribe_is_told_what_is_missing(two, caplog):
    admin = holders._List(two).client
    admin.execute_command(
        "ACL", "SETUSER", "deaf", "on", ">x", "~*", "resetchannels", "+@all"
    )
    settings = dict(caches.settings[two])
    settings["LOCATION"] = settings["LOCATION"].replace("//", "//deaf:x@")
    try:
        with override_settings(CACHES={**caches.settings, "other": settings}):
            pair = Pair(two, "sync")
            assert pair.there() == pair.there() == 1
            until(lambda: "channels" in caplog.text)
            assert "SUBSCRIBE" in caplog.text and not near.copies_of("other").by_place
            assert pair.there() == 1
            assert "NoPermission" in holders.known.own["other"].trouble
            near.close()
    finally:
        admin.execute_command("ACL", "DELUSER", "deaf")


@pytest.mark.backends(["valkey"])
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_child_has_no_copies_and_no_lease(two):
    pair = Pair(two, "sync")
    pair.begin()
    pid = os.fork()
    if pid == 0:
        os._exit(bool(near._copies or holders.known.own))
    assert os.waitpid(pid, 0)[1] == 0
    assert pair.there() == 1


READER = """
import sys, time
import django
from django.conf import settings
settings.configure(
    CACHES={"default": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": sys.argv[1],
    }},
    CACHE_MEMOIZE={"STATS_INTERVAL": 0},
)
django.setup()
from cache_memoize import cache_memoize
from cache_memoize.cache import holders, near
holders.TERM, holders.RENEWAL = 0.6, 0.15
f = cache_memoize(600, prefix="reader", local="process")(lambda: sys.argv[2])
while f() and not near.copies_of("default").by_place:
    time.sleep(0.01)
print(len(near.copies_of("default").by_place), flush=True)
for line in sys.stdin:
    print(f(), flush=True)
"""


@pytest.mark.backends(["valkey"])
@pytest.mark.parametrize("how", ["ends", "is stopped"])
def test_another_process(backend, how, monkeypatch):
    monkeypatch.setattr(holders, "TERM", 0.6)
    url = caches.settings[backend]["LOCATION"]
    f = cache_memoize(600, prefix="reader", cache_alias=backend)(lambda: "new")
    believe(backend)
    reader = subprocess.Popen(
        [sys.executable, "-c", READER, url, "old"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert reader.stdin and reader.stdout

    def ask() -> str:
        reader.stdin.write("\n")
        reader.stdin.flush()
        return reader.stdout.readline().strip()

    try:
        assert reader.stdout.readline() == "1\n"
        assert ask() == "old"
        if how == "is stopped":
            reader.send_signal(signal.SIGSTOP)
            os.waitpid(reader.pid, os.WUNTRACED)  # until then, it may answer
            began = time.monotonic()
            f.refresh()
            assert time.monotonic() - began >= holders.TERM * holders.USED
            reader.send_signal(signal.SIGCONT)
        else:
            f.refresh()
        assert ask() == "new"
        reader.communicate()
        assert reader.returncode == 0
        here = holders._List(backend)
        left = here.client.hgetall(here.key)
        assert {*left} == {b"seen"}, "it has left the list"
    finally:
        reader.kill()
        reader.communicate()
        f.invalidate()


def test_a_server_that_is_restarted_empty(terms):
    need("valkey")
    server = SERVERS["valkey"].another()
    server.start()
    settings = {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": f"redis://127.0.0.1:{server.port}",
    }
    with override_settings(CACHES={"default": settings, "other": settings}):
        pair = Pair("default", "sync")
        pair.begin()
        server.stop()
        server.start()
        pair.value = 2
        began = time.monotonic()
        pair.here.invalidate()
        assert time.monotonic() - began >= TERM, "leases from before it may run"
        assert pair.there() == 2
        until(lambda: serves("other"))
        near.close()
    server.stop()


def test_no_argument_is_in_what_is_told(monkeypatch):
    need("valkey")
    SERVERS["valkey"].start()
    told: list[Any] = []
    monkeypatch.setattr(near, "tell", lambda alias, places, group: told.extend(places))
    f = cache_memoize(600, cache_alias="valkey", tags=("t",), prefix="f")(lambda x: x)
    f("secret")
    f.invalidate("secret")
    invalidate_tags("t", cache_alias="valkey")
    assert told and "secret" not in "".join(told)


CONNECTIONS = {
    "RESP2": ("redis://127.0.0.1:{port}", {"protocol": 2}),
    "RESP3": ("redis://127.0.0.1:{port}", {"protocol": 3}),
    "a number": ("redis://127.0.0.1:{port}/3", {}),
    "a user": ("redis://ours:secret@127.0.0.1:{port}", {}),
    "a socket": ("unix://{path}?db=2", {}),
    "a short time-out": ("redis://127.0.0.1:{port}", {"socket_timeout": 0.3}),
    "health checks": ("redis://127.0.0.1:{port}", {"health_check_interval": 1}),
    "a small pool": (
        "redis://127.0.0.1:{port}",
        {"pool_class": "redis.BlockingConnectionPool", "max_connections": 4},
    ),
}


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: Any) -> Iterator[dict[str, Any]]:
    need("valkey")
    path = str(tmp_path_factory.mktemp("near") / "socket")
    server = SERVERS["valkey"].another()
    server.arguments += ["--unixsocket", path]
    server.start()
    with redis.Redis(port=server.port) as client:
        client.execute_command("ACL", "SETUSER", "ours", "on", ">secret", "~*", "&*")
        client.execute_command("ACL", "SETUSER", "ours", "+@all")
    yield {"port": server.port, "path": path}
    server.stop()


@pytest.mark.parametrize("how", CONNECTIONS)
def test_the_connection_is_that_of_the_settings(own_server, terms, how):
    location, options = CONNECTIONS[how]
    settings = {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": location.format(**own_server),
        "OPTIONS": options,
    }
    with override_settings(CACHES={"default": settings, "other": settings}):
        pair = Pair("default", "sync")
        pair.begin()
        for pair.value in (2, 3):
            pair.here.invalidate()
            assert pair.there() == pair.value
            pair.begin()
        near.close()
        caches["default"].clear()
