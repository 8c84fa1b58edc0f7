"""Larger results: compressed, or not stored at all."""

from __future__ import annotations

import logging
import pickle
import random
import sys
import tracemalloc
import zlib

import pytest
from django.core.cache import caches
from django.test import override_settings

from cache_memoize.cache import compression, record
from cache_memoize.cache.compression import Undecompressable, decompress
from cache_memoize.protocol import threads as pool
from cache_memoize.protocol.policy import Policy
from tests.conftest import ATOMIC, counted

zstd = compression._zstd
CODECS = ["zlib", pytest.param("zstd", marks=pytest.mark.skipif(not zstd, reason="-"))]


@pytest.fixture(params=CODECS)
def codec(request, monkeypatch):
    monkeypatch.setattr(compression, "_zstd", zstd if request.param == "zstd" else None)
    return request.param


def text(number):
    return f"{number}," * 1000


def texts(world, **options):
    """A function with a large result, the number of its run."""
    runs = []

    def function(x=0):
        runs.append(x)
        return text(len(runs))

    options = {"timeout": 60, "compress": True} | options
    return world.memoize(**options)(function), runs


def size(world, f, *args):
    return len(caches[world.alias].get(f.get_cache_key(*args)))


@pytest.mark.parametrize(
    "options", [{}, {"tags": "t"}, {"stale": 60}, {"local": "request"}]
)
@pytest.mark.parametrize("sign", [False, True])
def test_compressed_results_are_like_others(world, codec, options, sign):
    with override_settings(CACHE_MEMOIZE={"SIGN": sign}):
        f, runs = texts(world, **options)
        assert f(1) == f(1) == f.peek(1).value == text(1)
        assert size(world, f, 1) < 300
        assert codec.encode() in caches[world.alias].get(f.get_cache_key(1))
        assert f.refresh(1) == text(2) == f(1)
        f.prime(text(10), 1)
        assert f(1) == text(10) and size(world, f, 1) < 300
        f.invalidate(1)
        assert f(1) == text(3) == f(1)
        assert f.map([1, 2, 1]) == [text(3), text(4), text(3)] == f.map([1, 2, 1])
        assert all(step.error is None for step in f.warm([1, 2]))
        assert f.map([1, 2]) == [text(5), text(6)]
        assert f.cache_info().errors == 0 and f.cache_info().size < 300
    assert len(runs) == 6


@pytest.mark.backends(ATOMIC)
def test_a_compressed_value_is_served_stale_and_refreshed(world, codec):
    f, runs = texts(world, stale=60)
    assert f(1) == text(1)
    world.clock.tick(61)
    assert f(1) == text(1) and pool.join()
    assert f(1) == text(2) and size(world, f, 1) < 300 and len(runs) == 2


@pytest.mark.backends(["locmem"])
def test_a_compressed_exception(world, codec):
    def function(x):
        raise LookupError(text(x))

    f = world.memoize(60, compress=True, cache_exceptions=LookupError)(function)
    for _ in range(2):
        with pytest.raises(LookupError, match=text(1)):
            f(1)
    assert size(world, f, 1) < 300 and f.cache_info().hits == 1


@pytest.mark.backends(["locmem"])
def test_what_is_small_or_does_not_get_smaller_is_stored_as_it_is(world):
    noise = random.Random(1).randbytes(5000)
    for compress, result in [(True, b"x" * 900), (100_000, text(1)), (1, noise)]:
        f = world.memoize(60, compress=compress)(lambda x, result=result: result)
        assert f(1) == result == f(1)
        raw = caches[world.alias].get(f.get_cache_key(1))
        assert raw.startswith(record.dumps(result))


@pytest.mark.backends(["locmem", "valkey"])
@pytest.mark.skipif(not zstd, reason="no Zstandard")
@pytest.mark.parametrize("how", ["call", "map", "refresh"])
def test_an_entry_of_a_codec_that_is_missing_is_a_miss_and_replaced(
    world, monkeypatch, how
):
    f, runs = texts(world)
    assert f(1) == text(1)
    monkeypatch.setattr(compression, "_zstd", None)
    assert f.peek(1) is None
    again = {"call": f, "map": lambda x: f.map([x])[0], "refresh": f.refresh}[how]
    assert again(1) == text(2) == f(1)
    monkeypatch.setattr(compression, "_zstd", zstd)
    assert f(1) == text(2) and len(runs) == 2


@pytest.mark.backends(["locmem"])
def test_to_a_release_without_compression_it_is_a_miss(world, codec, monkeypatch):
    f, runs = texts(world)
    f(1)
    there = world.raw(f.get_cache_key(1))
    assert (there.kind, there.vouched, there.tags) == (record.ENTRY, False, b"")
    with monkeypatch.context() as other:
        other.delattr(compression, "decompress")
        with pytest.raises(AttributeError):
            pickle.loads(there.raw)
        other.setattr("cache_memoize.protocol.settle.compress", lambda payload: payload)
        assert f(1) == text(2) == f(1)
    assert f(1) == text(2) and len(runs) == 2


def test_without_any_codec_for_zstandard(monkeypatch):
    monkeypatch.setitem(sys.modules, "compression.zstd", None)
    monkeypatch.setitem(sys.modules, "backports.zstd", None)
    assert compression._import_zstd() is None


def test_the_path_in_entries():
    """It must stay: entries of other releases have it."""
    raw = compression.compress(pickle.dumps(text(1)))
    assert b"cache_memoize.cache.compression" in raw and b"decompress" in raw


@pytest.mark.parametrize("lie", [1, -1, -(10**8)])
def test_not_a_byte_more_than_the_size_is_made(codec, lie):
    payload = pickle.dumps(bytes(10**8))
    packed = zstd.compress(payload) if codec == "zstd" else zlib.compress(payload)
    names = (codec, max(len(payload) + lie, 10), packed)
    if lie == -(10**8):
        del payload
        tracemalloc.start()
    with pytest.raises(Undecompressable, match="these are not"):
        decompress(*names)
    if lie == -(10**8):
        assert tracemalloc.get_traced_memory()[1] < 10**6
        tracemalloc.stop()


def test_an_incomplete_or_unknown_value_raises(codec):
    payload = pickle.dumps(text(1))
    packed = zstd.compress(payload) if codec == "zstd" else zlib.compress(payload)
    assert decompress(codec, len(payload), packed) == text(1)
    for wrong in (packed[:-1], packed[:20], b""):
        with pytest.raises(Undecompressable):
            decompress(codec, len(payload), wrong)
    with pytest.raises(Undecompressable, match="lz4 is not installed"):
        decompress("lz4", len(payload), packed)


@pytest.mark.backends(["locmem"])
def test_nothing_is_decompressed_before_its_signature_is_verified(world, monkeypatch):
    asked = []

    def spy(*parts):
        asked.append(parts)
        return decompress(*parts)

    with override_settings(CACHE_MEMOIZE={"SIGN": True}):
        f, runs = texts(world)
        f(1)
        raw = caches[world.alias].get(f.get_cache_key(1))
        caches[world.alias].set(f.get_cache_key(1), raw[:99] + b"?" + raw[100:])
        monkeypatch.setattr(compression, "decompress", spy)
        assert f(1) == text(2) and not asked
        monkeypatch.undo()


# --- max_bytes -----------------------------------------------------------------------


def test_a_larger_result_is_returned_and_not_stored(world, caplog):
    f, runs = counted(world, max_bytes=500, prefix=f"larger {world.alias} {world.kind}")
    g = world.memoize(60, max_bytes=500)(lambda x: b"x" * x)
    assert f(1) == f(1) == 1
    assert len(g(1000)) == len(g(1000)) == 1000 and g.peek(1000) is None
    assert len(g.refresh(1000)) == 1000
    assert [len(x) for x in g.map([1000, 3])] == [1000, 3]
    assert g.peek(3).value == b"xxx"
    assert all(step.error is None for step in g.warm([1000])) and g.peek(1000) is None
    info = g.cache_info()
    assert (info.hits, info.errors, info.too_large) == (0, 0, 5)
    assert f.cache_info().too_large == 0
    (line,) = [m for m in caplog.messages if "not stored" in m]
    assert "an entry of 10" in line and line.endswith("bytes, with max_bytes=500")


@pytest.mark.backends(["locmem"])
def test_the_bytes_are_those_of_the_entry(world):
    result = b"x" * 1000
    f = world.memoize(60)(lambda x: result)
    f(1)
    most = size(world, f, 1)
    for limit, compress, stored in [
        (most, None, True),
        (most - 1, None, False),
        (most - 1, True, False),  # too small to be compressed
        (most - 1, 100, True),
    ]:
        g = world.memoize(60, max_bytes=limit, compress=compress)(lambda x: result)
        assert g(1) == result and (g.peek(1) is not None) is stored


@pytest.mark.backends(ATOMIC)
def test_prime_with_a_larger_value_invalidates_the_call(world):
    f, runs = counted(world, max_bytes=500)
    assert f(1) == 1
    f.prime("x" * 1000, 1)
    assert f.peek(1) is None and f.cache_info().too_large == 1
    assert f(1) == 2


@pytest.mark.backends(ATOMIC)
def test_a_refresh_with_a_larger_result_leaves_the_old_value(world, caplog):
    runs = []

    def function(x):
        runs.append(x)
        return "small" if len(runs) == 1 else "x" * 1000

    f = world.memoize(60, max_bytes=500, stale=60)(function)
    f(1)
    world.clock.tick(61)
    with caplog.at_level(logging.WARNING):
        assert f(1) == "small" and pool.join()
    assert f(1) == "small" and f.cache_info().failed == 1


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"compress": "zstd"}, TypeError, r"compress= of f takes a number of bytes"),
        ({"compress": 1.5}, TypeError, r"compress= of f takes a number of bytes"),
        ({"compress": 0}, ValueError, r"compress= of f must be more than 0 bytes"),
        ({"max_bytes": True}, TypeError, r"max_bytes= of f takes a number of bytes"),
        ({"max_bytes": -1}, ValueError, r"max_bytes= of f must be more than 0 bytes"),
    ],
)
def test_other_values_are_refused(options, error, message):
    from cache_memoize.options import Options

    with pytest.raises(error, match=message):
        Policy.from_options("f", Options(**options))
    policy = Policy.from_options("f", Options(compress=False))
    assert policy.compress == policy.max_bytes == float("inf")
