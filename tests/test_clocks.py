"""Hosts whose clocks differ: two of them, each with a clock of its own, on one cache.
Whatever the difference, nothing old is stored, and nothing stops for ever."""

from __future__ import annotations

import math

import pytest
from django.db import transaction

from cache_memoize import planning
from cache_memoize.cache import record
from cache_memoize.cache.record import SKEW
from cache_memoize.cache.store import Store, run
from cache_memoize.cache.tokens import DAY
from cache_memoize.keys.tags import tag_key, young_key
from cache_memoize.protocol.call import Call
from cache_memoize.protocol.claim import claim
from cache_memoize.protocol.settle import settle
from tests.conftest import ATOMIC, World, in_thread, plan_of
from tests.databases import EVERYWHERE, prepared
from tests.models import Post
from tests.test_docs import literals, table

HOUR, YEARS = 3600.0, 40 * 365 * DAY
HOURS = pytest.mark.parametrize("off", [HOUR, -HOUR], ids=["ahead", "behind"])
ANY = pytest.mark.parametrize("off", [5.0, -5.0, HOUR, -HOUR, YEARS, -YEARS])


class Hosts:
    """One function on two hosts, ``here`` and ``there``, whose clock is ``off``."""

    def __init__(self, alias, off, timeout=60, **options):
        self.truth, self.worlds = ["old"], [World(alias, "sync"), World(alias, "sync")]
        self.worlds[1].clock.offset = off
        self.here, self.there = (
            world.memoize(timeout, prefix=f"hosts {off}", **options)(
                lambda: self.truth[0]
            )
            for world in self.worlds
        )


def call_of(f):
    plan = planning.plan_of(f._memoized)
    return Call(f._memoized, plan, plan.store, plan.key_of((), {}))


@pytest.fixture
def written(monkeypatch):
    """The lifetimes of what is written: (command, seconds)."""
    found, command = [], Store._command

    def noting(self, name, *args):
        if name in ("add", "swap", "set"):
            found.append((name, args[-1]))
        return command(self, name, *args)

    monkeypatch.setattr(Store, "_command", noting)
    return found


# --- entries, refreshes, leases -------------------------------------------------------


@pytest.mark.backends(ATOMIC)
@HOURS
def test_the_server_removes_an_entry_in_time_by_its_own_clock(backend, off, written):
    hosts = Hosts(backend, off, stale=100)
    for f, other in [(hosts.here, hosts.there), (hosts.there, hosts.here)]:
        f.invalidate()
        written.clear()
        f()
        assert math.ceil(written[-1][1]) == 160
        hosts.truth[0] = "newer"
        written.clear()
        # For a clock that is behind, the entry is fresh; for one ahead, it has expired.
        assert other.peek() is None or other.peek().age == 0
        assert other() == "newer" if other.peek() is None else "old"
        assert all(seconds <= 160 for _, seconds in written)
        hosts.truth[0] = "old"


@pytest.mark.backends(ATOMIC)
@ANY
def test_of_the_refreshes_of_two_hosts_the_last_wins(backend, off):
    """Neither knows that the other one is refreshing."""
    hosts = Hosts(backend, off, timeout=1, stale=2 * YEARS)
    call, other = call_of(hosts.here), call_of(hosts.there)
    hosts.here.prime("old")
    hosts.worlds[0].clock.tick(2)
    hosts.worlds[1].clock.tick(2)
    mine = run(claim(call))
    assert mine.value == "old"
    theirs = run(claim(other))
    # By its clock the entry is fresh, or the refresh is under way.
    assert theirs.lease is not None or off in (-HOUR, -5.0, 5.0)
    run(settle(other, theirs, "newer"))
    run(settle(call, mine, "new"))
    stored = record.loads(hosts.worlds[0].cache.get(hosts.here.get_cache_key()))
    assert stored == ("newer" if theirs.lease else "new")


@pytest.mark.leaves_lease
@pytest.mark.backends(ATOMIC)
@ANY
def test_a_lease_is_valid_until_the_server_removes_it(backend, off):
    hosts = Hosts(backend, off, wait=0)
    mine = run(claim(call_of(hosts.here)))
    assert hosts.there() == "old" and hosts.there.peek() is None
    run(settle(call_of(hosts.here), mine, "old"))
    assert hosts.here.peek().value == "old"


@pytest.mark.backends(ATOMIC)
def test_a_clock_of_another_decade_costs_computations_and_nothing_else(backend):
    for off in (YEARS, -YEARS):
        hosts = Hosts(backend, off)
        for f in (hosts.here, hosts.there, hosts.here, hosts.there):
            assert f() == f() == hosts.truth[0]
            hosts.truth[0] += "er"


# --- blocks and hold ------------------------------------------------------------------


@pytest.fixture
def database(request):
    return prepared(request)


def invalidated_there(backend, database, off):
    """Invalidate ``there`` while a transaction of ``here`` is open, in one as well;
    return what is stored meanwhile."""
    posts = Post.objects.using(database)
    pk = posts.create(title="old").pk
    here, there = World(backend, "sync"), World(backend, "sync")
    there.clock.offset = off
    f, g = (
        world.memoize(60, prefix=f"block {off}")(lambda: posts.get(pk=pk).title)
        for world in (here, there)
    )

    def in_another_transaction():
        with transaction.atomic(using=database):
            g.invalidate()

    with transaction.atomic(using=database):
        posts.filter(pk=pk).update(title="new")
        f.invalidate()
        for others in (g.invalidate, in_another_transaction):
            in_thread(others)
            assert in_thread(g) == in_thread(f) == "old"
        stored = record.parse(here.cache.get(f.get_cache_key()))
    assert f() == g() == "new"
    return stored.kind


@pytest.mark.backends(["locmem", "valkey"])
@pytest.mark.django_db(transaction=True, databases=EVERYWHERE)
@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
@ANY
def test_another_host_leaves_the_block_of_a_transaction(
    backend, database, off, written
):
    assert invalidated_there(backend, database, off) == record.BLOCK
    lifetimes = [seconds for command, seconds in written if command == "swap"]
    assert all(seconds <= 60 for seconds in lifetimes), "nor does it block for longer"


@pytest.mark.backends(["locmem"])
@pytest.mark.django_db(transaction=True, databases=EVERYWHERE)
@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_with_times_of_one_clock_the_other_host_would_store_what_is_old(
    backend, database, monkeypatch
):
    """The control: blocks until a time, as the clock of each host sees it."""

    def by_time(found, now):
        return {
            token: found.start + seconds - now
            for token, seconds in original(found, getattr(found, "start", 0.0)).items()
            if found.start + seconds > now
        }

    original = record.blocks
    monkeypatch.setattr(record, "blocks", by_time)
    assert invalidated_there(backend, database, HOUR) == record.ENTRY


@pytest.mark.parametrize("off", [0.5, 3.0, -3.0, HOUR, -HOUR, YEARS, -YEARS])
def test_the_time_that_blocks_have_left(off):
    """Each its own by clocks that agree; else at most all of it, and never none."""
    packed = record.pack_blocks(b"written.", {b"one tok.": 2.0, b"another.": 10.0}, 1e9)
    left = record.blocks(record.parse(packed), 1e9 + off)
    if 0 <= off < 10:
        expected = {b"one tok.": 2.0 - off, b"another.": 10.0 - off}
        assert left == {k: v for k, v in expected.items() if v > 0}
    else:
        assert left == {b"one tok.": 2.0, b"another.": 10.0}


@pytest.mark.backends(ATOMIC)
@ANY
def test_hold_is_measured_by_the_server(backend, off):
    """Whoever gives the tag its token: nothing is stored as long as the mark is there,
    and something as soon as it is gone. (77.7 does not fit into four bytes.)"""
    hosts = Hosts(backend, off, hold=77.7, tags="t")
    tag, own = tag_key("t"), plan_of(hosts.here).tag
    marks = [young_key(tag), young_key(own)]
    for f, other in [(hosts.here, hosts.there), (hosts.there, hosts.here)]:
        hosts.worlds[0].invalidate_tags("t")
        for each in (f, other, other, f):
            each()
            assert each.peek() is None
        hosts.worlds[0].cache.delete_many(marks)  # they have expired
        f()
        assert f.peek().value == "old"


@pytest.mark.backends(ATOMIC)
def test_a_tag_that_a_function_without_hold_has_used_is_young_once(backend, written):
    world = World(backend, "sync")
    plain = world.memoize(60, tags="t")(lambda: 1)
    held = world.memoize(60, tags="t", hold=77.7)(lambda: 1)
    longer = world.memoize(60, tags="t", hold=200)(lambda: 1)
    assert plain() == 1
    before = plain.peek().age
    for f in (held, longer):
        written.clear()
        f()
        assert f.peek() is None
        assert ("set", record.cap(f._memoized.plan.policy.hold)) in written
        for tag in (tag_key("t"), plan_of(f).tag):
            world.cache.delete(young_key(tag))
        f()
        assert f.peek().value == 1
    assert plain.peek().age == before, "its entry stayed valid"
    held.invalidate()
    world.cache.delete(held.get_cache_key())
    held()
    assert held.peek().value == 1, "that it is old for 200 seconds is enough"


# --- the lifetimes of tags ------------------------------------------------------------


@pytest.mark.parametrize(
    "age, kept, lasts",
    [
        (0, 60, True),
        (DAY - SKEW, 60, True),
        (DAY - SKEW + 2, 60, False),
        (-SKEW, 60, True),
        (-SKEW - 1, 60, False),
        (-YEARS, 60, False),
        (YEARS, 60, False),
        (0, DAY, False),
        (0, math.inf, False),
    ],
)
def test_a_tag_lasts_by_any_clock(age, kept, lasts):
    found = record.pack(record.TAG, b"a token.", start=1e9, timeout=DAY + 60)
    assert record.parse(found).lasts(1e9 + age, kept) is lasts
    for unlimited in (0.0, math.inf):
        found = record.pack(record.TAG, b"a token.", start=1e9, timeout=unlimited)
        assert record.parse(found).lasts(1e9 + age, kept)


@pytest.mark.backends(["locmem", "valkey"])
@pytest.mark.parametrize("off", [HOUR - 60, 60 - HOUR], ids=["ahead", "behind"])
def test_a_tag_of_another_host_is_renewed_in_time(backend, off):
    """By the server, it has ``left`` seconds; the new entry needs 60."""
    renewed = []
    for hours in (0, 12, 22, 23, 24, 25):
        hosts = Hosts(backend, off, tags="t")
        hosts.worlds[0].cache.clear()
        hosts.there()
        made = hosts.worlds[0].raw(tag_key("t"))
        left = made.timeout - hours * HOUR
        hosts.worlds[0].clock.tick(hours * HOUR)
        hosts.here.refresh()
        again = hosts.worlds[0].raw(tag_key("t"))
        assert again.token == made.token
        renewed.append(again.start != made.start)
        assert renewed[-1] or left >= 60
    assert renewed[0] is False and renewed[-1] is True


# --- the documentation ----------------------------------------------------------------


def test_the_table_of_the_documentation_names_these_tests():
    named = {literals(row[-1])[0] for row in table("protocol", "Clocks that differ")}
    assert named <= {*globals()} and len(named) >= 7
