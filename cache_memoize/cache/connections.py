"""Which cache object to use, in which thread, and the reads that a hit consists of."""

from __future__ import annotations

import logging
import threading
from typing import Any

from asgiref.sync import sync_to_async
from django.core.cache import InvalidCacheBackendError, caches
from django.core.cache.backends.base import InvalidCacheKey, default_key_func
from django.core.exceptions import ImproperlyConfigured, SynchronousOnlyOperation

from .. import process
from ..keys.tags import TaggedKey
from . import record, signing
from .backends import Backend, backend_of
from .record import TRAILER_SIZE, Record

__all__ = [
    "MISTAKES",
    "UNREAD",
    "UNREADABLE",
    "afetch",
    "afetch_many",
    "afetch_tagged",
    "aliases",
    "close",
    "database_of",
    "fetch",
    "fetch_many",
    "fetch_tagged",
    "genuine",
    "hangs",
    "has_key_function",
    "have_key_functions",
    "is_decoding_error",
    "is_forged",
    "is_in_memory",
    "opened",
    "place_from_afar",
    "place_of",
    "read_many",
    "settings_of",
]

logger = logging.getLogger("cache_memoize")

#: What stands under the key is not ours, or cannot be read.
UNREADABLE: Any = object()
#: Nobody has looked yet.
UNREAD: Any = object()

#: What unpickling and decoding raise. All else that a backend raises is trouble with
#: the server. (Only foreign values get here: ours are bytes, see record.py.)
_DECODING = (
    ArithmeticError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    TypeError,
    ValueError,
)
_DECODING_NAMES = {"UnpicklingError", "PickleError", "error"}  # "error": zlib, struct

#: Mistakes in the project, which must not look like an outage.
MISTAKES = (
    ImproperlyConfigured,
    InvalidCacheBackendError,
    InvalidCacheKey,
    SynchronousOnlyOperation,
)


def is_decoding_error(error: BaseException) -> bool:
    if isinstance(error, (*MISTAKES, OSError)):
        return False
    # Redis, where a list is under our key; pylibmc, where what is there is no zip.
    if str(error).startswith(("WRONGTYPE", "Failed to decompress")):
        return True
    return isinstance(error, _DECODING) or type(error).__name__ in _DECODING_NAMES


def hangs(error: BaseException) -> bool:
    """A time-out, by whichever of the clients' classes."""
    return any("Timeout" in cls.__name__ for cls in type(error).__mro__)


# --- which object ------------------------------------------------------------------


class _Objects:
    """The cache objects of one thread, made from one state of the settings."""

    def __init__(self, settings: Any) -> None:
        self.settings = settings
        #: By alias: those that are in memory, so that nothing has to be closed. Asking
        #: Django each time would take a tenth of such a hit.
        self.memory: dict[str, Any] = {}
        #: By alias: those that no other thread may use.
        self.own: dict[str, Any] = {}


class _Thread(threading.local):
    def __init__(self) -> None:
        self.has = _Objects(None)


_thread = _Thread()
#: What a parent process had: closing it would say goodbye on the parent's sockets.
_parents: list[Any] = []


@process.after_fork
def _after_fork() -> None:
    """A child that read from the sockets of its parent would read its answers."""
    global _thread
    _parents.append(_thread.has)
    _thread = _Thread()


def aliases() -> list[str]:
    """The names of all caches in the settings."""
    return list(caches.settings)


def settings_of(alias: str) -> dict[str, Any] | None:
    """What the settings say of this cache; None if they know no such."""
    found: dict[str, Any] | None = caches.settings.get(alias)
    return found


def database_of(alias: str) -> str | None:
    """The alias of the database that this cache is in, if it is in one."""
    cache = caches[alias]
    return backend_of(cache).database(cache)


def opened(alias: str) -> tuple[Any, Backend]:
    """The cache object of this alias, never one that another thread is using, and how
    to work with it.

    Django keeps them per context, and a context travels: ``sync_to_async`` and child
    tasks take theirs into other threads, where two threads on one memcached client
    read each other's answers. Where that matters, each thread has one of its own.
    """
    has = _thread.has
    # override_settings() makes new settings: what was built from the old ones goes.
    if has.settings is not caches.settings:
        close()
        has = _thread.has = _Objects(caches.settings)
    for known in (has.memory, has.own):
        if alias in known:
            return known[alias], backend_of(known[alias])
    cache = caches[alias]
    backend = backend_of(cache)
    if backend.in_memory:
        has.memory[alias] = cache
    elif not backend.shareable:
        cache = has.own[alias] = caches.create_connection(alias)
    return cache, backend


@process.at_thread_end
def close() -> None:
    """Close the clients that are this thread's alone."""
    for cache in _thread.has.own.values():
        cache.close()
    _thread.has.own = {}


def place_of(alias: str, key: str) -> Any:
    """What tells a key from all others: with a KEY_FUNCTION, it may mean another entry
    for each tenant."""
    return _settings_token(), _at_hand(alias).make_key(key)


def place_from_afar(alias: str, key: str) -> Any:
    """The same, asked by a task for what a thread will do; None: that thread may have
    another tenant."""
    same = is_in_memory(alias) or not has_key_function(alias)
    return place_of(alias, key) if same else None


def has_key_function(alias: str) -> bool:
    """Whether a key may mean another entry in another thread."""
    return _at_hand(alias).key_func is not default_key_func


def have_key_functions() -> bool:
    """Whether that is so in any of the caches."""
    return any(each.get("KEY_FUNCTION") for each in caches.settings.values())


def _at_hand(alias: str) -> Any:
    """The cache object to ask about keys: no connection of another thread is used."""
    has = _thread.has
    if has.settings is caches.settings and alias in has.memory:
        return has.memory[alias]
    return caches[alias]


#: The settings seen last, and what stands for them: an id may be used again.
_seen: tuple[Any, object] = (None, object())


def _settings_token() -> object:
    global _seen
    if _seen[0] is not caches.settings:
        _seen = (caches.settings, object())
    return _seen[1]


def fetch(alias: str, key: str) -> Any:
    """What stands under ``key``: the whole I/O of a hit."""
    has = _thread.has
    if has.settings is caches.settings and alias in has.memory:
        raw = has.memory[alias].get(key)
    else:
        cache, backend = opened(alias)
        raw = backend.get(cache, key)
    return raw if signing.state is False else genuine(key, raw)


def fetch_tagged(alias: str, key: TaggedKey) -> Any:
    """The entry of a call if its tags are still those that it was made with;
    otherwise all that was seen. One ``get_many``."""
    return _first(key, read_many(alias, *opened(alias), [key, *key.tags]))


def fetch_many(alias: str, keys: list[str]) -> dict[str, Any]:
    """What ``fetch`` or ``fetch_tagged`` gives for each of these keys, by one
    ``get_many``."""
    tags = {tag for key in keys if isinstance(key, TaggedKey) for tag in key.tags}
    found = read_many(alias, *opened(alias), [*keys, *tags])
    if not tags and signing.state is False:
        return found
    return {key: _first(key, found) for key in keys}


def _first(key: str, found: dict[str, Any]) -> Any:
    """What a hit needs of what was read, if it is one."""
    raw = found.get(key)
    if isinstance(key, TaggedKey):
        if type(raw) is not bytes:
            return found
        tokens = record.tokens([found.get(tag) for tag in key.tags])
        if not tokens or not raw.endswith(tokens, 0, -TRAILER_SIZE):
            return found
    return raw if signing.state is False else genuine(key, raw)


def is_in_memory(alias: str) -> bool:
    """Whether this cache answers without waiting for anything."""
    has = _thread.has
    if has.settings is caches.settings and alias in has.memory:
        return True
    return backend_of(caches[alias]).in_memory


async def afetch(alias: str, key: str) -> Any:
    if is_in_memory(alias):
        return fetch(alias, key)
    return await sync_to_async(fetch)(alias, key)


async def afetch_tagged(alias: str, key: TaggedKey) -> Any:
    if is_in_memory(alias):
        return fetch_tagged(alias, key)
    return await sync_to_async(fetch_tagged)(alias, key)


async def afetch_many(alias: str, keys: list[str]) -> dict[str, Any]:
    if is_in_memory(alias):
        return fetch_many(alias, keys)
    return await sync_to_async(fetch_many)(alias, keys)


#: Aliases whose server takes no commands over several keys.
_single: set[str] = set()


def read_many(
    alias: str, cache: Any, backend: Backend, keys: list[str]
) -> dict[str, Any]:
    """What stands under these keys.

    Redis Cluster answers only for keys of one slot (CROSSSLOT). Keys of one call
    cannot be put into one slot, because its tags belong to other calls too: so from
    then on they are read one by one. The same where one value cannot be read, which
    fails all of them on some backends.
    """
    if alias not in _single:
        try:
            return backend.get_many(cache, keys)
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


def genuine(key: str, raw: Any) -> Any:
    """Return ``raw`` if a hit may unpickle it: nothing, or a record whose signature is
    right or not needed. ``UNREADABLE`` for all else, of whatever length."""
    found = record.parse(raw)
    if found is None:
        return None if raw is None else UNREADABLE
    return UNREADABLE if is_forged(key, found) else raw


def is_forged(key: str, found: Record) -> bool:
    """Whether it is an entry without a right signature, although it has to have one."""
    if found.kind not in record.ENTRIES or not signing.is_on():
        return False
    if signing.is_genuine(key, found):
        return False
    logger.warning("an entry whose signature is wrong, under %s: it is a miss", key)
    return True
