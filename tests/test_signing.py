"""Signed entries: what nobody with the secret wrote is a miss, and is not unpickled."""

from __future__ import annotations

import itertools
import pickle
import sys

import pytest
from django.test import override_settings

from cache_memoize.cache import connections, record, signing
from cache_memoize.cache.store import Store
from cache_memoize.cache.vouchers import Voucher
from cache_memoize.keys.tags import TaggedKey
from tests.conftest import ATOMIC, counted, plan_of

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
    from cache_memoize.protocol import threads

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
        assert threads.join()
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


# --- whatever stands there -----------------------------------------------------------


@pytest.fixture
def reached(monkeypatch):
    """What reaches an unpickler of this library, which raises."""
    seen = []

    def refuse(raw):
        seen.append(raw)
        raise AssertionError("this must not be unpickled")

    for name, module in list(sys.modules.items()):
        if name.startswith("cache_memoize."):
            for attribute, value in list(vars(module).items()):
                if value is pickle.loads:
                    monkeypatch.setattr(module, attribute, refuse)
    return seen


def forgeries(now, token, tags):
    """The ends, of 0 to 130 bytes, of records of every kind with every flag."""
    kinds = [*sorted(record._KINDS), record._FORMAT, record._FORMAT | 9]
    for kind, flag, claim in itertools.product(
        kinds, (0, record.VOUCHED), (None, record.Stamp(now, 60.0, 1))
    ):
        for names in {b"", tags}:
            whole = record.pack(
                kind | flag,
                token,
                pickle.dumps(Evil()).ljust(131, b"."),
                start=now,
                timeout=60.0,
                tags=names,
                stamp=claim,
            )
            for length in range(131):
                yield whole[len(whole) - length :]


@pytest.mark.parametrize("tagged", [False, True])
def test_nothing_of_any_length_kind_and_flag_is_given_to_a_hit(tagged, reached):
    """And what is no lease or mark of ours is nothing to the protocol either."""
    tag = record.pack(record.TAG, b"a tag's!")
    key = TaggedKey("key") if tagged else "key"
    if tagged:
        key.tags = ("tag",)
    for raw in forgeries(1e9, b"8 bytes!", record.tokens([tag])):
        given = connections._first(key, {"key": raw, "tag": tag})
        assert (
            given is connections.UNREADABLE or type(given) is dict or len(given) >= 26
        )
        if type(given) is bytes:
            assert record.parse(given).kind not in record.ENTRIES
        found = Store.read("key", raw)
        if found is not connections.UNREADABLE:
            assert found.kind not in record.ENTRIES
    assert reached == []


@pytest.mark.parametrize("tags", [None, "t"])
@pytest.mark.parametrize("kind", [record.ENTRY, record.RAISED, record.RAN])
@pytest.mark.backends(["locmem", "valkey", "unknown"])
def test_calls_unpickle_nothing_of_any_length(world, kind, tags, reached):
    options = {"store_result": False} if kind == record.RAN else {}
    f, runs = counted(world, tags=tags, **options)
    f(0)
    token, found = b"8 bytes!", world.raw(f.get_cache_key(0))
    vouched = record.VOUCHED if world.alias == "unknown" else 0
    whole = record.pack(
        kind | vouched,
        token,
        pickle.dumps(Evil()).ljust(131, b"."),
        start=world.clock.time(),
        timeout=60.0,
        tags=found.tags,
    )
    ends = {f.get_cache_key(n): whole[len(whole) - n :] for n in range(131)}
    if vouched:
        world.cache.set_many(dict.fromkeys(map(Voucher.voucher, ends), token), 60)
    world.cache.set_many(ends, 60)
    assert [n for n in range(131) if f.peek(n) is not None] == []
    before = len(runs)
    f.map(range(131))
    assert len(runs) == before + 131
    world.cache.set_many(ends, 60)
    singly = [*range(16, 46), *range(46, 131, 12)]  # around a trailer, and beyond
    for n in singly:
        f(n)
    assert len(runs) == before + 131 + len(singly)
    assert reached == []


@pytest.mark.backends(["locmem", "valkey", "unknown"])
def test_a_tag_is_a_whole_record_or_none(world):
    """The end of one would make a token that anybody can guess."""
    f, runs = counted(world, tags="t")
    f(1)
    for tag in plan_of(f).key_of((1,), {}).tags:
        for length in [*range(record.TRAILER_SIZE), 27, 40]:
            forged = record.pack(record.TAG, b"8 bytes!", b"." * 20)
            world.cache.set(tag, forged[len(forged) - length :], 60)
            before = len(runs)
            assert f(1) == f(1) == before + 1
