"""Signed entries: what nobody with the secret wrote is a miss, and is not unpickled."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import itertools
import pickle
import sys
import threading

import pytest
from django.core.cache import caches
from django.test import override_settings

from cache_memoize import cache_memoize
from cache_memoize.cache import connections, record, signing
from cache_memoize.cache.vouchers import Voucher
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
    name = connections.name_of(world.alias, world.cache, key)
    assert signing.unseal(name, raw) is not None
    for n in range(len(raw)):
        bent = raw[:n] + bytes((raw[n] ^ 1,)) + raw[n + 1 :]
        assert signing.unseal(name, bent) is None, n


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


@pytest.mark.parametrize("kind", sorted(record._KINDS - {record.TAG}))
def test_every_kind_of_record_is_signed(kind):
    raw = record.pack(kind, b"8 bytes!")
    assert signing.unseal("key", signing.seal("key", raw)) == raw
    assert signing.unseal("another", signing.seal("key", raw)) is None
    assert signing.unseal("key", raw) is None


@pytest.mark.parametrize("name", ["key", "é", "half a surrogate \ud800"])
def test_every_release_has_the_same_signature(name):
    """Or an update would make all entries misses."""
    named = name.encode("utf-8", "surrogatepass")
    raw = record.pack(record.ENTRY, b"8 bytes!", b"N.")
    end = record.parse(raw).end
    key = hashlib.sha256(b"cache_memoize.cache.signing" + b"secret").digest()
    signature = hmac.digest(
        key, b"%d:%b%d:%b" % (len(named), named, end, raw), "sha256"
    )
    assert signing.seal(name, raw, "secret") == raw[:end] + signature + raw[end:]


def test_tags_and_foreign_values_are_not_signed():
    tag = record.pack(record.TAG, b"8 bytes!")
    assert signing.unseal("key", signing.seal("key", tag)) == tag
    assert signing.seal("key", b"foreign") == b"foreign"
    assert signing.unseal("key", b"foreign") is None


@pytest.mark.parametrize("tags", [None, "t"])
@pytest.mark.parametrize("kind", [record.LEASE, record.RETRY, record.BLOCK])
@pytest.mark.backends(["locmem", "valkey", "unknown"])
def test_forged_leases_and_marks_are_nothing(world, kind, tags):
    """A guard takes no forged lease for a running computation, and no caller waits."""
    f, runs = counted(world, tags=tags, store_result=False)
    forged = record.pack(
        kind, b"8 bytes!", tags=record.tokens([record.pack(record.TAG, b"a tag's!")])
    )
    for raw in (forged, record.pack(kind, b"8 bytes!")):
        f.invalidate(1)
        world.cache.set(f.get_cache_key(1), raw, 60)
        before = len(runs), world.clock.monotonic()
        f(1)
        assert (len(runs), world.clock.monotonic()) == (before[0] + 1, before[1])
        assert f(1) is True and len(runs) == before[0] + 1


@pytest.mark.parametrize(
    "other", [{"KEY_PREFIX": "b"}, {"VERSION": 2}, {"KEY_FUNCTION": lambda *k: str(k)}]
)
def test_the_signature_names_the_full_key(other):
    """An entry of one tenant is none of another's, though both use one key."""
    ours = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
    with override_settings(CACHES={"default": ours, "other": {**ours, **other}}):
        cache, raw = caches["default"], record.pack(record.ENTRY, b"8 bytes!", b"N.")
        signed = signing.seal(connections.name_of("default", cache, "key"), raw)
        assert connections.genuine("default", cache, "key", signed) == raw
        there = connections.genuine("default", caches["other"], "key", signed)
        assert there is connections.UNREADABLE


@override_settings(
    CACHES={
        alias: {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
        for alias in ("default", "a b", "a")
    }
)
def test_the_signature_names_the_alias():
    names = {
        connections.name_of(alias, caches["default"], key)
        for alias, key in [("a", "key"), ("a b", "key"), ("a", "b key"), ("", "key")]
    }
    assert len(names) == 4


def key_of_thread(key, prefix, version):
    return f"{threading.get_ident()}:{key}"


def test_the_key_is_that_of_the_thread_that_runs_the_command(tmp_path):
    """A KEY_FUNCTION may see another tenant in the event loop."""
    files = "django.core.cache.backends.filebased.FileBasedCache"
    cache = {"BACKEND": files, "LOCATION": tmp_path, "KEY_FUNCTION": key_of_thread}
    runs = []

    @cache_memoize(60, prefix="the key of the thread")
    async def f(n):
        runs.append(n)
        return len(runs)

    async def use():
        return await f(1), await f(1), await f.arefresh(1), await f(1)

    with override_settings(CACHES={"default": cache}):
        assert asyncio.run(use()) == (1, 1, 2, 2)


@pytest.mark.parametrize("empty", ["", b"", None])
@pytest.mark.backends(["locmem", "valkey"])
def test_an_empty_secret_is_no_secret(world, empty):
    f, runs = counted(world)
    f(1)
    key = f.get_cache_key(1)
    name = connections.name_of(world.alias, world.cache, key)
    raw = signing.unseal(name, world.cache.get(key))
    world.cache.set(key, signing.seal(name, raw, empty or ""), 60)
    with override_settings(SECRET_KEY_FALLBACKS=[empty]):
        assert signing.seals(name, raw) == [signing.seal(name, raw)]
        assert f(1) == 2


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
    kinds = [*sorted(record._KINDS), record._FORMAT, record._FORMAT | 10]
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


def test_nothing_of_any_length_kind_and_flag_is_read(reached):
    """Only the record of a tag, which holds nothing, needs no signature."""
    tag = record.pack(record.TAG, b"a tag's!")
    cache = caches["default"]
    for raw in forgeries(1e9, b"8 bytes!", record.tokens([tag])):
        given = connections.genuine("default", cache, "key", raw)
        if given is not connections.UNREADABLE:
            assert record.parse(given).kind == record.TAG
    assert reached == []


@pytest.mark.parametrize(
    ("kind", "tags"),
    [
        (record.ENTRY, "t"),
        (record.RAISED, None),
        pytest.param(record.ENTRY, None, marks=pytest.mark.thorough),
        pytest.param(record.RAISED, "t", marks=pytest.mark.thorough),
        pytest.param(record.RAN, None, marks=pytest.mark.thorough),
        (record.RAN, "t"),
    ],
)
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
        world.cache.set_many(dict.fromkeys(map(Voucher.voucher_key, ends), token), 60)
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
