"""The cache object to use in this thread, and the reads that a hit consists of.

``caches[alias]`` is an object per context, and contexts travel: ``sync_to_async`` and
child tasks take theirs into other threads. Two threads on one memcached client read
each other's answers (1,177 of 1,200 reads were wrong), so where the client cannot be
shared each thread has one of its own here. Cache objects in memory are kept per thread
too, because ``caches[alias]`` takes a tenth of such a hit. All others are Django's, so
that Django closes them.
"""

from __future__ import annotations

import threading
from asyncio import _get_running_loop
from typing import Any, NamedTuple

from asgiref.sync import sync_to_async
from django.core.cache import caches
from django.core.cache.backends.base import default_key_func

from .. import process
from ..conf import is_test
from ..keys.tags import TaggedKey
from ..process import Standstill, log_sometimes, logger
from . import record, signing
from .backends import Backend, backend_of
from .errors import is_decoding_error
from .record import DEPENDS, TRAILER_SIZE
from .redis import Awaited
from .vouchers import UNREADABLE

__all__ = [
    "UNREAD",
    "UNREADABLE",
    "Direct",
    "afetch",
    "afetch_many",
    "afetch_tagged",
    "aread_with_tags",
    "aliases",
    "awaited",
    "close",
    "database_of",
    "fetch",
    "fetch_many",
    "fetch_tagged",
    "genuine",
    "genuine_ones",
    "has_key_function",
    "have_key_functions",
    "is_in_memory",
    "unfit",
    "unshared",
    "name_of",
    "opened",
    "pick_entries",
    "pick_entry",
    "place_from_afar",
    "place_of",
    "read_raw_many",
    "read_with_tags",
    "settings_of",
]

#: Stands for a value that was not read yet.
UNREAD: Any = object()


class _Objects:
    """The cache objects of one thread, made from one state of the settings."""

    def __init__(self, settings: Any) -> None:
        self.settings = settings
        #: By alias: those in memory, which need not be closed.
        self.memory: dict[str, Any] = {}
        #: By alias: those of this thread alone, which :func:`close` closes.
        self.own: dict[str, Any] = {}
        #: By alias: the commands for the event loops of this thread; None if they are
        #: to go through a thread.
        self.awaited: dict[str, Awaited | None] = {}


class _Thread(threading.local):
    def __init__(self) -> None:
        self.has = _Objects(None)


_thread = _Thread()
#: Objects of a parent process: closing them would close the parent's connections.
_parents: list[Any] = []


@process.after_fork
def _after_fork() -> None:
    """Leave the parent its sockets: the child would read answers meant for it."""
    global _thread
    _parents.append(_thread.has)
    _thread = _Thread()


def aliases() -> list[str]:
    """Return the names of all caches in the settings."""
    return list(caches.settings)


def settings_of(alias: str) -> dict[str, Any] | None:
    """Return the settings of this cache, or None if it has none."""
    settings: dict[str, Any] | None = caches.settings.get(alias)
    return settings


def database_of(alias: str) -> str | None:
    """Return the alias of the database that this cache is in, if it is in one."""
    cache = caches[alias]
    return backend_of(cache).database(cache)


def _present_objects() -> _Objects:
    """Return the objects of this thread, without those made from other settings."""
    # override_settings() makes new ones.
    if _thread.has.settings is not caches.settings:
        close()
        _thread.has = _Objects(caches.settings)
    return _thread.has


def opened(alias: str) -> tuple[Any, Backend]:
    """Return a cache object that no other thread is using, and its backend."""
    has = _present_objects()
    for known in (has.memory, has.own):
        if alias in known:
            return known[alias], backend_of(known[alias])
    cache = caches[alias]
    backend = backend_of(cache)
    if backend.in_memory:
        has.memory[alias] = cache
    elif not backend.shareable:
        cache = has.own[alias] = caches.create_connection(alias)
        backend.prepare(cache)
    return cache, backend


@process.at_thread_end
def close() -> None:
    """Close the clients and connections that belong to this thread alone."""
    has = _thread.has
    for each in has.own.values():
        each.close()
    has.own, has.awaited = {}, {}


def awaited(alias: str) -> Awaited | None:
    """Return the commands on a cache over the connection of the running loop; None if
    they are to go through a thread, or no loop is running."""
    if _get_running_loop() is None:
        return None
    has = _present_objects()
    if alias not in has.awaited:
        cache = caches.create_connection(alias)
        threads = has_key_function(alias)  # which may ask the thread for its tenant
        has.awaited[alias] = None if threads else backend_of(cache).awaited(cache)
    found = has.awaited[alias]
    return found if found is not None and found.is_ready() else None


class Direct(NamedTuple):
    """The commands on a cache in this thread, as coroutines that never suspend."""

    alias: str
    cache: Any
    backend: Backend

    def standstill(self) -> Standstill:
        return Standstill()

    async def do(self, command: str, *args: Any) -> Any:
        if command == "get_many":
            return read_raw_many(*self, *args)
        return getattr(self.backend, command)(self.cache, *args)


def place_of(alias: str, key: str) -> Any:
    """Return what identifies an entry: with a KEY_FUNCTION, each tenant may have
    another entry under the same key."""
    return _settings_token(), _cache_for_keys(alias).make_key(key)


def place_from_afar(alias: str, key: str) -> Any:
    """Like :func:`place_of`, for async code. None if the worker thread might resolve
    the key differently (KEY_FUNCTION)."""
    same = is_in_memory(alias) or not has_key_function(alias)
    return place_of(alias, key) if same else None


#: Their ``make_key()`` calls nothing but a KEY_FUNCTION.
_PACKAGES = {"django", "django_redis", "django_valkey"}


def has_key_function(alias: str) -> bool:
    """Return whether a key may mean another entry in another thread: there is a
    KEY_FUNCTION, or the ``make_key()`` of a subclass."""
    cache = _cache_for_keys(alias)
    package = type(cache).make_key.__module__.partition(".")[0]
    return package not in _PACKAGES or cache.key_func is not default_key_func


def have_key_functions() -> bool:
    """Return whether any of the caches has a KEY_FUNCTION."""
    return any(each.get("KEY_FUNCTION") for each in caches.settings.values())


def _cache_for_keys(alias: str) -> Any:
    """Return a cache object for its keys only; no connection is opened or used."""
    has = _thread.has
    if has.settings is caches.settings and alias in has.memory:
        return has.memory[alias]
    return caches[alias]


#: The settings seen last, and a token for them: ids are used again.
_seen: tuple[Any, object] = (None, object())


def _settings_token() -> object:
    global _seen
    if _seen[0] is not caches.settings:
        _seen = (caches.settings, object())
    return _seen[1]


def fetch(alias: str, key: str) -> Any:
    """Return the value stored under ``key``: the whole I/O of a hit."""
    has = _thread.has
    if has.settings is caches.settings and alias in has.memory:
        cache = has.memory[alias]
        raw = cache.get(key)
    else:
        cache, backend = opened(alias)
        raw = backend.get(cache, key)
    return raw if signing.state is False else genuine(alias, cache, key, raw)


def fetch_tagged(alias: str, key: TaggedKey) -> Any:
    """Return the entry of a call if it has the present tokens of its tags; otherwise
    all values that were read. One ``get_many``."""
    keys = [key, *key.tags, *key.expected.keys]
    return pick_entry(key, read_many(alias, *opened(alias), keys))


def fetch_many(alias: str, keys: list[Any]) -> dict[str, Any]:
    """Return the result of ``fetch`` or ``fetch_tagged`` for each of these keys, with
    one ``get_many``."""
    return pick_entries(keys, read_with_tags(alias, keys))


def read_with_tags(alias: str, keys: list[Any]) -> dict[str, Any]:
    """Return the values under these keys, of calls of one function, and their tags."""
    return read_many(alias, *opened(alias), _with_tags(keys))


def _with_tags(keys: list[Any]) -> list[str]:
    return [*keys, *{tag for key in keys for tag in getattr(key, "all_tags", ())}]


def pick_entries(keys: list[Any], found: dict[str, Any]) -> dict[str, Any]:
    """Return what ``fetch`` or ``fetch_tagged`` would, out of all that was read."""
    # All of one function: either each of them has tags, or none.
    if not isinstance(keys[0], TaggedKey):
        return found
    return {key: pick_entry(key, found) for key in keys}


def pick_entry(key: Any, found: dict[str, Any]) -> Any:
    """Return the entry of a call with tags if it has their tokens, else ``found``."""
    raw = found.get(key)
    if type(raw) is not bytes:
        return found
    tokens = record.tokens([found.get(tag) for tag in key.tags])
    names = key.expected.packed
    if (key.tags and not tokens) or bool(raw[-2] & DEPENDS) is not bool(names):
        return found
    if names:
        theirs = record.bare_tokens([found.get(tag) for tag in key.expected.keys])
        tokens = record.pack_dependencies(names, theirs) + tokens
    return raw if raw.endswith(tokens, 0, -TRAILER_SIZE) else found


def is_in_memory(alias: str) -> bool:
    """Return whether this cache answers without waiting for anything."""
    has = _thread.has
    if has.settings is caches.settings:
        if alias in has.memory:
            return True
        if alias in has.awaited:
            return False
    return backend_of(caches[alias]).in_memory


def unshared(alias: str) -> str | None:
    """Return, as a predicate, why other processes do not see the entries of a cache;
    None in tests, where there are none."""
    cache, backend = opened(alias)
    place = None if is_test() else backend.own_place(cache)
    if place is None or not backend.stores:
        return None if backend.stores else "stores nothing"
    return (
        f"is {place} of one process: with several workers, an entry that one "
        "invalidates is still served by the others"
    )


def unfit(alias: str) -> str | None:
    """Return, as a predicate, what is wrong with a cache that can be opened."""
    cache, backend = opened(alias)
    if backend.takes_bytes(cache):
        return unshared(alias)
    return (
        "cannot store bytes, so nothing is memoized; give it a serializer that takes "
        "bytes, or the functions another cache"
    )


async def afetch(alias: str, key: str) -> Any:
    if is_in_memory(alias):
        return fetch(alias, key)
    client = awaited(alias)
    if client is None:
        return await sync_to_async(fetch)(alias, key)
    raw = await client.get(key)
    return raw if signing.state is False else genuine(alias, client.cache, key, raw)


async def afetch_tagged(alias: str, key: TaggedKey) -> Any:
    if is_in_memory(alias):
        return fetch_tagged(alias, key)
    return pick_entry(key, await aread_with_tags(alias, [key]))


async def afetch_many(alias: str, keys: list[str]) -> dict[str, Any]:
    return pick_entries(keys, await aread_with_tags(alias, keys))


async def aread_with_tags(alias: str, keys: list[Any]) -> dict[str, Any]:
    if is_in_memory(alias):
        return read_with_tags(alias, keys)
    client = awaited(alias)
    if client is None:
        return await sync_to_async(read_with_tags)(alias, keys)
    found = await client.get_many(_with_tags(keys))
    return genuine_ones(alias, client.cache, found)


#: Aliases of servers that refuse commands with several keys.
_single: set[str] = set()


def read_many(
    alias: str, cache: Any, backend: Backend, keys: list[str]
) -> dict[str, Any]:
    """Return the genuine records under these keys; see :func:`genuine`."""
    return genuine_ones(alias, cache, read_raw_many(alias, cache, backend, keys))


def genuine_ones(alias: str, cache: Any, found: dict[str, Any]) -> dict[str, Any]:
    if signing.state is False:
        return found
    return {key: genuine(alias, cache, key, raw) for key, raw in found.items()}


def read_raw_many(
    alias: str, cache: Any, backend: Backend, keys: list[str]
) -> dict[str, Any]:
    """Return the values stored under these keys, by one command if possible.

    Redis Cluster accepts only keys of one slot (CROSSSLOT), and the tags of a call
    belong to other calls too; from then on keys are read one by one. So are keys of
    which one has an unreadable value, for which some backends fail the whole command,
    and keys for which the answer (of a test double) is no dict.
    """
    found: dict[str, Any]
    if alias not in _single:
        try:
            found = backend.get_many(cache, keys)
            if isinstance(found, dict):
                return found
        except Exception as error:
            if "slot" in str(error).lower():  # redis-py leaves CROSSSLOT itself out
                _single.add(alias)
            elif not is_decoding_error(error):
                raise
    found = {}
    for each in keys:
        try:
            raw = backend.get(cache, each)
        except Exception as error:
            if not is_decoding_error(error):
                raise
            raw = UNREADABLE
        if raw is not None:
            found[each] = raw
    return found


def genuine(alias: str, cache: Any, key: str, raw: Any) -> Any:
    """Return a stored value if it may be unpickled: None, or a record, without its
    signature. Otherwise return ``UNREADABLE``."""
    if raw is None or not signing.is_on():
        return raw
    found = signing.unseal(name_of(alias, cache, key), raw)
    if found is not None:
        return found
    if record.parse(raw) is not None:
        log_sometimes(
            logger.warning,
            "cache %r: a record whose signature is wrong, under %r: it is a miss",
            alias,
            key,
        )
    return UNREADABLE


def name_of(alias: str, cache: Any, key: str) -> str:
    """Return the name of a record in signatures: its alias, and its full key."""
    return f"{len(alias)}:{alias}{cache.make_key(key)}"
