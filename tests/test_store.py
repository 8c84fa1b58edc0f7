"""The commands that the protocol is made of, one by one, on local memory."""

from __future__ import annotations

import asyncio
import logging
import warnings

import pytest
from django.core.cache import CacheKeyWarning, caches
from django.db import DataError

from cache_memoize.cache import record, store, tokens
from cache_memoize.cache.breaker import Breaker
from cache_memoize.cache.connections import UNREAD, UNREADABLE
from cache_memoize.cache.store import (
    AsyncStore,
    CacheDidNotAnswer,
    Store,
    run,
    store_of,
)
from cache_memoize.cache.tokens import Look, Terms
from cache_memoize.keys.tags import TaggedKey, tag_key, young_key
from tests.conftest import FakeClock, counted

ENTRY = record.pack(record.ENTRY, b"8 bytes!", b"payload", timeout=60.0)
LEASE = record.pack(record.LEASE, b"8 bytes!")
OTHER = record.pack(record.LEASE, b"8 others")


class Watched(Store):
    """Writes down which commands it sends."""

    def __init__(self):
        super().__init__("locmem", Breaker(), FakeClock())
        self.sent = []

    def _command(self, command, *args):
        self.sent.append(command)
        return super()._command(command, *args)


@pytest.fixture
def cache():
    caches["locmem"].clear()
    yield caches["locmem"]
    caches["locmem"].clear()


@pytest.fixture
def watched(cache):
    return Watched()


def tagged(*tags):
    key = TaggedKey("key")
    key.tags = tuple(map(tag_key, tags))
    return key


def lives(cache, key):
    """Whether what stands there has an end."""
    return cache._expire_info[cache.make_key(key)] is not None


# --- what was read is not read again -------------------------------------------------


def test_what_the_wrapper_has_read_is_not_read_again(watched):
    assert run(tokens.look_after(watched, "key", ENTRY)) == Look(record.parse(ENTRY))
    assert run(tokens.look_after(watched, "key", None)) == Look(None)
    assert run(tokens.look_after(watched, "key", b"foreign")).record is UNREADABLE
    assert watched.sent == []


def test_what_nobody_has_read_is_read(watched, cache):
    cache.set("key", ENTRY)
    assert run(tokens.look_after(watched, "key", UNREAD)).record == record.parse(ENTRY)
    assert watched.sent == ["get"]


def test_an_entry_whose_tags_were_compared_is_taken_with_them(watched):
    token = b"a token.\x01"
    entry = record.pack(record.ENTRY, b"8 bytes!", timeout=60.0, tags=token)
    look = run(tokens.look_after(watched, tagged("a"), entry))
    assert (look.record, look.tags) == (record.parse(entry), token)
    assert watched.sent == []


@pytest.mark.parametrize("first", [None, b"foreign"])
def test_without_such_an_entry_key_and_tags_are_read_together(watched, first):
    look = run(tokens.look_after(watched, tagged("a"), first))
    assert look.record is None and len(look.tags) == 9
    assert watched.sent == ["read_many", "add"]


def test_with_a_hold_the_age_of_the_tags_is_asked_for(watched):
    run(tokens.look_after(watched, tagged("a"), ENTRY, Terms(hold=5)))
    assert watched.sent == ["read_many", "set", "add"]


# --- tags ----------------------------------------------------------------------------


def test_a_tag_that_somebody_else_has_just_made_is_taken_as_it_is(watched, cache):
    """Two callers who both found it missing must end up with one token."""
    key = tagged("a")
    mine = record.pack(record.TAG, b"a token.", start=5.0)
    cache.set(key.tags[0], mine)
    # it was not there a moment ago
    look = run(tokens._resolve(watched, key, {}, Terms()))
    assert look.tags == b"a token.\x01"
    assert cache.get(key.tags[0]) == mine
    assert watched.sent == ["add", "get"]


def test_a_look_that_must_not_write_takes_the_tags_that_there_are(watched, cache):
    key, terms = tagged("a"), Terms(may_write=False)
    assert run(tokens.look_at(watched, key, terms)).tags is None
    assert cache.get(key.tags[0]) is None
    present = run(tokens.look_at(watched, key)).tags
    assert present and run(tokens.look_at(watched, key, terms)).tags == present


def test_a_look_at_a_call_without_tags_makes_none(watched, cache):
    depends = record.pack_dependencies(record.pack_names(["gone"]), b"8 bytes!")
    entry = record.pack(record.ENTRY, b"8 bytes!", b"N.", depends=depends)
    cache.set("key", entry)
    assert not run(tokens.look_at(watched, "key")).valid
    assert watched.sent == ["get", "read_many"]


def test_one_young_tag_is_enough(watched, cache):
    key, terms = tagged("a", "b"), Terms(hold=5)
    assert run(tokens.look_at(watched, key, terms)).is_young
    for tag in key.tags:
        assert run(tokens.look_at(watched, key, terms)).is_young
        cache.delete(young_key(tag))  # it has expired
    assert not run(tokens.look_at(watched, key, terms)).is_young
    cache.delete(key.tags[1])
    assert run(tokens.look_at(watched, key, terms)).is_young
    assert not run(tokens.look_at(watched, key)).is_young


def test_a_hold_that_does_not_fit_into_four_bytes_ends(watched, cache):
    names, terms = tagged("a").tags, Terms(hold=77.7)
    for _ in range(2):
        assert run(tokens.tokens_of(watched, names, terms))[1]
    cache.delete(young_key(names[0]))
    assert not run(tokens.tokens_of(watched, names, terms))[1]


def test_what_is_no_tag_makes_room_for_one(watched, cache):
    key = tagged("a")
    for there in (b"foreign", ENTRY):
        cache.set(key.tags[0], there)
        assert len(run(tokens.look_at(watched, key)).tags) == 9
        assert record.parse(cache.get(key.tags[0])).kind == record.TAG


def test_a_tag_is_there_for_ever(watched, cache):
    key = tagged("a")
    run(tokens.look_at(watched, key))
    assert not lives(cache, key.tags[0])


# --- time ----------------------------------------------------------------------------


def test_what_is_written_for_some_seconds_ends(watched, cache):
    assert run(watched.add("key", LEASE, 5)) and lives(cache, "key")
    assert run(watched.swap("key", LEASE, OTHER, 5)) and lives(cache, "key")
    assert run(watched.take("key", OTHER, LEASE, 5)) and lives(cache, "key")
    assert not run(watched.take("key", None, OTHER, 5))
    run(watched.delete("key"))
    assert run(watched.take("key", None, LEASE, 5)) and lives(cache, "key")
    run(watched.set("key", LEASE, 5))
    assert lives(cache, "key")
    run(watched.set("key", LEASE, None))
    assert not lives(cache, "key")


# --- trouble -------------------------------------------------------------------------


def failing(monkeypatch, watched, error):
    def get(backend, cache, key):
        raise error

    monkeypatch.setattr(type(watched.backend()), "get", get)
    with pytest.raises(type(error)):
        run(tokens.look_at(watched, "key"))


def test_what_cannot_be_read_says_nothing_of_the_server(monkeypatch, watched):
    def get(backend, cache, key):
        raise ValueError("no pickle")

    monkeypatch.setattr(type(watched.backend()), "get", get)
    for _ in range(5):
        assert run(tokens.look_at(watched, "key")).record is UNREADABLE
    assert watched.breaker.state(0) == "closed" and not watched.breaker._failures


@pytest.mark.parametrize("error", store.MISTAKES)
def test_a_mistake_in_the_project_says_nothing_of_the_server(
    monkeypatch, watched, error
):
    failing(monkeypatch, watched, error("a mistake"))
    assert not watched.breaker._failures


@pytest.mark.parametrize(
    "error",
    [
        DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes"),
        DataError("value too long for type character varying(255)"),
        type("MemcacheIllegalInputError", (Exception,), {})("Key contains a space"),
        type("TooBig", (Exception,), {})("error 37 from memcached_set"),
        type("MemcacheServerError", (Exception,), {})(b"object too large for cache"),
    ],
)
def test_a_refused_key_or_value_says_nothing_of_the_server(monkeypatch, watched, error):
    for _ in range(5):
        failing(monkeypatch, watched, error)
        watched.trouble(error)
    assert watched.breaker.state(0) == "closed" and not watched.breaker._failures


@pytest.mark.parametrize("warned", ["error", "ignore"])
@pytest.mark.backends(["postgresql"])
def test_calls_whose_key_has_a_nul_take_the_cache_from_no_other_call(world, warned):
    warnings.simplefilter(warned, CacheKeyWarning)
    f, _ = counted(world, key_generator_callable=lambda n: f"nul\x00{n}")
    g, runs = counted(world)
    for n in range(8):
        f(n)
    assert g(1) == g(1) == 1


def test_trouble_is_counted_and_told_once_by_name(monkeypatch, watched, caplog):
    with monkeypatch.context() as patch:
        for _ in range(4):
            failing(patch, watched, ConnectionError("gone"))
    assert watched.breaker.state(watched.clock.monotonic()) == "open"
    watched.clock.tick(6)
    assert not watched.breaker.blocks(watched.clock.monotonic())
    with caplog.at_level(logging.INFO):
        run(tokens.look_at(watched, "key"))
    assert watched.breaker.state(watched.clock.monotonic()) == "closed"
    told = [(each.name, each.getMessage()) for each in caplog.records]
    assert told == [
        (
            "cache_memoize",
            "cache 'locmem' does not work; it is left alone for a while",
        ),
        ("cache_memoize", "cache 'locmem' works again"),
    ]


@pytest.mark.slow_server
def test_an_answer_that_took_long_counts_as_a_time_out(monkeypatch, watched, caplog):
    """If the next one takes as long: one alone may be late in a busy process."""
    ticks = iter([1.5, 0, 1.5, 1.5, 1.5])

    def get(backend, cache, key):
        watched.clock.tick(next(ticks))

    monkeypatch.setattr(type(watched.backend()), "get", get)
    assert run(tokens.look_at(watched, "key")).record is None
    assert not watched.breaker.tripped
    assert run(tokens.look_at(watched, "key")).record is None
    assert watched.breaker.tripped
    monkeypatch.setattr(type(watched.backend()), "swallows", True)
    with pytest.raises(CacheDidNotAnswer, match="the cache 'locmem' does not answer"):
        run(tokens.look_at(watched, "key"))
    assert next(ticks, None) is None, "while the breaker is open, it is not asked again"


@pytest.mark.slow_server
@pytest.mark.parametrize("command", ["look", "add"])
def test_an_error_of_the_second_look_is_one_of_the_cache(monkeypatch, watched, command):
    backend = type(watched.backend())

    def slow(self, cache, key, *args):
        if key != "key":
            raise OSError("gone")
        watched.clock.tick(1.5)
        return True

    monkeypatch.setattr(backend, "get" if command == "look" else "add", slow)
    run(
        tokens.look_at(watched, "key")
        if command == "look"
        else watched.add("key", b"", 1)
    )
    assert watched.breaker.tripped


def test_a_caller_that_was_cancelled_while_it_waited_is_not_woken():
    async def main():
        store = store_of("locmem", AsyncStore)
        future = store.future()
        future.cancel()
        store.wake(future, "a look")
        assert future.cancelled()

    asyncio.run(main())
