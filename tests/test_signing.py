"""Signed entries: what nobody with the secret wrote is a miss, and is not unpickled."""

from __future__ import annotations

import pickle

import pytest
from django.test import override_settings

from cache_memoize import record, signing
from tests.conftest import ATOMIC, counted

SIGN = {"SIGN": True}
unpickled = []


def note(what):
    unpickled.append(what)


class Evil:
    """Says so when it is unpickled."""

    def __reduce__(self):
        return note, ("!",)


def test_unpickling_it_would_show():
    pickle.loads(pickle.dumps(Evil()))
    assert unpickled == ["!"]


@pytest.fixture(autouse=True)
def signed():
    unpickled.clear()
    with override_settings(CACHE_MEMOIZE=SIGN):
        yield


@pytest.mark.parametrize("tags", [None, "t"])
def test_everything_works_as_without(world, tags):
    f, runs = counted(world, tags=tags)
    assert [f(1), f(1), f.peek(1).value] == [1, 1, 1]
    assert f.refresh(1) == 2 == f(1)
    f.prime(10, 1)
    assert f(1) == 10
    f.invalidate(1)
    assert f(1) == 3 == f(1)
    assert f.map([1, 2, 1]) == [3, 4, 3]
    assert f.cache_info().errors == 0


@pytest.mark.parametrize("tags", [None, "t"])
def test_many_at_once_are_checked_one_by_one(world, tags):
    f, runs = counted(world, tags=tags)
    assert f.map([1, 2]) == [1, 2]
    key = f.get_cache_key(1)
    raw = world.cache.get(key)
    world.cache.set(f.get_cache_key(2), raw, 60)  # signed, but for another key
    assert f.map([1, 2]) == [1, 3]


@pytest.mark.parametrize("tags", [None, "t"])
def test_a_forged_entry_is_a_miss_and_nothing_is_unpickled(world, tags, caplog):
    f, runs = counted(world, tags=tags)
    assert f(1) == 1
    key = f.get_cache_key(1)
    there = world.raw(key)
    now = world.clock.time()
    forged = record.pack(
        record.ENTRY,
        there.token,
        pickle.dumps(Evil()),
        start=now,
        timeout=60.0,
        tags=there.tags,
    )
    world.cache.set(key, forged, 60)
    assert f.peek(1) is None
    assert f(1) == 2 == f(1)
    world.cache.set(key, forged, 60)
    assert f.refresh(1) == 3 == f(1)
    assert unpickled == []
    assert "whose signature is wrong" in caplog.text


@pytest.mark.backends(["locmem", "valkey"])
def test_not_a_bit_of_it_can_be_changed(world):
    f, runs = counted(world)
    assert f(1) == 1
    key = f.get_cache_key(1)
    raw = world.cache.get(key)
    found = record.parse(raw)
    assert signing.is_genuine(key, found)
    for n in range(len(raw)):
        bent = raw[:n] + bytes((raw[n] ^ 1,)) + raw[n + 1 :]
        there = record.parse(bent)
        if there is not None and there.kind in record.ENTRIES:
            assert not signing.is_genuine(key, there), n


@pytest.mark.backends(["locmem", "valkey", "unknown"])
def test_an_entry_counts_under_its_own_key_only(world):
    f, runs = counted(world)
    assert [f(1), f(2)] == [1, 2]
    world.cache.set(f.get_cache_key(2), world.cache.get(f.get_cache_key(1)), 60)
    assert f(2) == 3


@pytest.mark.backends(["locmem", "valkey"])
def test_an_unsigned_entry_from_before_is_a_miss_and_back_again(world):
    f, runs = counted(world)
    with override_settings(CACHE_MEMOIZE={}):
        assert f(1) == 1
    assert f(1) == 2 == f(1)
    with override_settings(CACHE_MEMOIZE={}):
        assert f(1) == 2, "a signature does not disturb who does not ask for it"


@pytest.mark.backends(["locmem", "valkey"])
def test_the_secret_can_be_rotated(world):
    f, runs = counted(world)
    with override_settings(SECRET_KEY="old"):
        assert f(1) == 1
    with override_settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=["old"]):
        assert f(1) == 1
        assert f.refresh(1) == 2 == f(1)
    with override_settings(SECRET_KEY="new"):
        assert f(1) == 2
    with override_settings(SECRET_KEY="other"):
        assert f(1) == 3


@pytest.mark.backends(ATOMIC)
def test_stale_entries_are_stamped_and_signed_again_and_do_not_grow(world):
    from cache_memoize import pool

    def function():
        runs.append(1)
        if len(runs) > 1:
            raise ValueError("broken")
        return len(runs)

    runs = []
    f = world.memoize(10, stale=1000)(function)
    f()
    world.clock.tick(11)
    sizes = set()
    for _ in range(10):
        assert f() == 1
        assert pool.join()
        sizes.add(len(world.cache.get(f.get_cache_key())))
        world.clock.tick(70)
    assert len(sizes) == 1
    assert len(runs) > 3


@pytest.mark.backends(["locmem", "valkey"])
def test_a_secret_that_changes_during_a_refresh_stores_nothing(world):
    def function():
        runs.append(1)
        if len(runs) == 2:
            change.enable()
            raise ValueError("broken")
        return len(runs)

    change, runs = override_settings(SECRET_KEY="another"), []
    f = world.memoize(10, stale=1000)(function)
    f()
    world.clock.tick(11)
    with override_settings(CACHE_MEMOIZE={**SIGN, "REFRESH": "inline"}):
        try:
            f()
        finally:
            change.disable()
    assert len(runs) >= 2


def test_leases_and_marks_are_not_signed():
    raw = record.pack(record.LEASE, b"8 bytes!")
    assert signing.seal("key", raw) == raw
    assert signing.seal("key", b"foreign") == b"foreign"
    assert not signing.is_genuine("key", record.parse(raw))
