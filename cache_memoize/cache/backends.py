"""Atomic replacement of values on each of Django's cache backends.

A computation that ends after an invalidation must not store its result. So its caller
replaces its own lease, and only that, and the server has to do both in one step. That
is the one thing that Django's cache API lacks. A lock in the cache would be the obvious
way, but a lock may expire while its owner is paused, and then two callers write.

Here, and only here, private parts of Django and of client libraries are used; a backend
that is unknown, or whose parts are not as expected, gets :class:`Voucher`, which needs
the public API only. ``tests/test_backends.py`` fails when these parts change.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import inspect
import math
import os
import pickle
import random
import re
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from django.conf import settings
from django.core.cache.backends.db import DatabaseCache
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.filebased import FileBasedCache
from django.core.cache.backends.locmem import LocMemCache
from django.core.cache.backends.memcached import PyLibMCCache, PyMemcacheCache
from django.core.cache.backends.redis import RedisCache
from django.core.exceptions import ImproperlyConfigured
from django.core.files import locks
from django.db import connections, router, transaction
from django.utils import timezone

from .. import process
from .redis import DjangoRedis, Redis
from .vouchers import VOUCHER, Backend, Cache, Voucher, until_2038

__all__ = ["UNSHAREABLE", "VOUCHER", "Backend", "backend_of"]


class Nothing(Backend):
    """DummyCache: every call computes, and no caller waits."""

    in_memory = True
    stores = False


class Culled(Backend):
    """Backends from which Django itself removes entries."""

    def most(self, cache: Cache) -> int | None:
        return int(getattr(cache, "_max_entries", 0)) or None


class LocalMemory(Culled):
    """LocMemCache, under its own mutex, which its own methods take too."""

    in_memory = True
    late = False

    def swap(
        self, cache: Cache, key: str, old: bytes, new: bytes, seconds: int | None
    ) -> bool:
        full_key = cache.make_and_validate_key(key)
        expected = pickle.dumps(old, cache.pickle_protocol)
        pickled = pickle.dumps(new, cache.pickle_protocol)
        with cache._lock:
            if cache._has_expired(full_key) or cache._cache[full_key] != expected:
                return False
            cache._set(full_key, pickled, seconds)
            return True

    def remove(self, cache: Cache, key: str, old: bytes) -> bool:
        full_key = cache.make_and_validate_key(key)
        expected = pickle.dumps(old, cache.pickle_protocol)
        with cache._lock:
            if cache._has_expired(full_key) or cache._cache[full_key] != expected:
                return False
            return bool(cache._delete(full_key))


class Memcached(Backend):
    """``gets`` and ``cas``: the server compares the version that was read."""

    shareable = False
    swallows = True  # the client answers with defaults while it ignores a server
    slack = 1

    longest = property(until_2038)

    def prepare(self, cache: Cache) -> None:
        """Keep pymemcache from moving the keys of a node that is away to others: they
        would be invalidated there, and old on the node that comes back."""
        if len(cache._servers) > 1:
            cache._cache.retry_attempts = math.inf

    def answers_in_order(self, cache: Cache) -> bool:
        return len(cache._servers) == 1

    def swap(
        self, cache: Cache, key: str, old: bytes, new: bytes, seconds: int | None
    ) -> bool:
        full_key = self.full_key(cache, key)
        found, version = cache._cache.gets(full_key)
        if found != old:
            return False
        limit = cache.get_backend_timeout(seconds)
        return self.compare_and_set(cache._cache, full_key, new, version, limit)

    def full_key(self, cache: Cache, key: str) -> Any:
        return cache.make_and_validate_key(key)

    def compare_and_set(
        self, client: Any, key: Any, new: bytes, version: Any, timeout: int
    ) -> bool:
        done = client.cas(key, new, version, expire=timeout, noreply=False)
        return done is True


class PyLibMC(Memcached):
    def prepare(self, cache: Cache) -> None:
        """Keep the keys of a node that is away from others, as for pymemcache."""
        if len(cache._servers) > 1:
            cache._cache.behaviors = {"auto_eject": False}

    def fitting(self, cache: Cache) -> Backend:
        behaviors = cache._options.get("behaviors") or {}
        return self if behaviors.get("cas") else UNSHAREABLE

    def full_key(self, cache: Cache, key: str) -> Any:
        # gets() encodes a str to bytes and frees them before it reads them (pylibmc
        # 1.6.3). It does not free bytes that it is given.
        return cache.make_and_validate_key(key).encode()

    def compare_and_set(
        self, client: Any, key: Any, new: bytes, version: Any, timeout: int
    ) -> bool:
        try:
            return client.cas(key, new, version, time=timeout) is True
        except Exception as error:
            if type(error).__name__ != "NotFound":
                raise
            return False  # deleted since gets(): a lost race


class UnshareableVoucher(Voucher):
    """pylibmc without ``cas``."""

    shareable = False
    slack = 1
    prepare = PyLibMC.prepare


def own_blocks(connection: Any) -> list[Any]:
    """Return the open atomic blocks, without those of a TestCase."""
    return [b for b in connection.atomic_blocks if not b._from_testcase]


def has_autocommit_off(connection: Any) -> bool:
    """Return whether every statement is in a transaction that Django did not open."""
    return not (
        connection.autocommit
        or connection.in_atomic_block
        or connection.connection is None
    )


class Database(Culled):
    """DatabaseCache: a conditional UPDATE, which the row lock makes atomic.

    A savepoint keeps an error here from breaking a transaction of the caller.
    """

    slack = 1
    late = False

    def database(self, cache: Cache) -> str | None:
        return router.db_for_write(cache.cache_model_class)

    def is_in_transaction(self, cache: Cache) -> bool:
        connection = connections[router.db_for_write(cache.cache_model_class)]
        return bool(own_blocks(connection)) or has_autocommit_off(connection)

    def savepoint(self, cache: Cache) -> Any:
        """Return a savepoint if an error would break an open transaction."""
        alias = router.db_for_write(cache.cache_model_class)
        if connections[alias].in_atomic_block:
            return transaction.atomic(using=alias)
        return contextlib.nullcontext()

    def get(self, cache: Cache, key: str) -> Any:
        with self.savepoint(cache):
            return super().get(cache, key)

    def get_many(self, cache: Cache, keys: list[str]) -> dict[str, Any]:
        with self.savepoint(cache):
            return super().get_many(cache, keys)

    def delete(self, cache: Cache, key: str) -> bool:
        with self.savepoint(cache):
            return super().delete(cache, key)

    def add(self, cache: Cache, key: str, new: bytes, seconds: int | None) -> bool:
        # DatabaseCache.add() reads an expired row and overwrites it, so that two
        # callers may both be told that they won. One UPDATE cannot.
        expired = ("expires", "<", timezone.now().replace(microsecond=0))
        return self._update(cache, key, new, seconds, expired) or super().add(
            cache, key, new, seconds
        )

    def set(self, cache: Cache, key: str, new: bytes, seconds: int | None) -> None:
        # DatabaseCache.set() gives up silently when another INSERT was first.
        always = ("cache_key", "<>", "")
        (
            self._update(cache, key, new, seconds, always)
            or super().add(cache, key, new, seconds)
            or self._update(cache, key, new, seconds, always)
        )

    def swap(
        self, cache: Cache, key: str, old: bytes, new: bytes, seconds: int | None
    ) -> bool:
        unchanged = ("value", "=", self._serialize(cache, old))
        return self._update(cache, key, new, seconds, unchanged)

    def remove(self, cache: Cache, key: str, old: bytes) -> bool:
        full_key = cache.make_and_validate_key(key)
        alias = router.db_for_write(cache.cache_model_class)
        quote = connections[alias].ops.quote_name
        statement = (
            f"DELETE FROM {quote(cache._table)} WHERE {quote('cache_key')} = %s "
            f"AND {quote('value')} = %s"
        )
        with transaction.atomic(using=alias), connections[alias].cursor() as cursor:
            cursor.execute(statement, [full_key, self._serialize(cache, old)])
            return bool(cursor.rowcount == 1)

    @staticmethod
    def _serialize(cache: Cache, value: bytes) -> str:
        pickled = pickle.dumps(value, cache.pickle_protocol)
        return base64.b64encode(pickled).decode("latin1")

    def _update(
        self,
        cache: Cache,
        key: str,
        new: bytes,
        seconds: int | None,
        condition: tuple[str, str, Any],
    ) -> bool:
        """Update the row if its column, operator and operand fulfil ``condition``."""
        full_key = cache.make_and_validate_key(key)
        column, operator, operand = condition
        alias = router.db_for_write(cache.cache_model_class)
        connection = connections[alias]
        quote, adapt = connection.ops.quote_name, connection.ops
        until = datetime.datetime.max
        if seconds is not None:
            zone = datetime.UTC if settings.USE_TZ else None
            until = datetime.datetime.fromtimestamp(
                cache.get_backend_timeout(seconds), zone
            )
        if isinstance(operand, datetime.datetime):
            operand = adapt.adapt_datetimefield_value(operand)
        statement = (
            f"UPDATE {quote(cache._table)} SET {quote('value')} = %s, "
            f"{quote('expires')} = %s WHERE {quote('cache_key')} = %s "
            f"AND {quote(column)} {operator} %s"
        )
        expires = adapt.adapt_datetimefield_value(until.replace(microsecond=0))
        with transaction.atomic(using=alias), connection.cursor() as cursor:
            cursor.execute(
                statement, [self._serialize(cache, new), expires, full_key, operand]
            )
            return bool(cursor.rowcount == 1)


def _open_no_link(path: Path) -> int:
    """Open a file for writing. Raise OSError for a link, which another user may have
    put into the folder."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
    return os.open(path, flags, 0o600)


#: Seconds for which a change waits for the holder of the lock of a folder; and, after
#: one that has waited in vain, for which others do not wait.
LOCK_TIMEOUT, LOCK_PAUSE = 2.0, 5.0
#: First and longest pause between two attempts, in seconds.
FIRST_TRY, LONGEST_TRY = 0.0005, 0.008


class _Folder:
    """The lock of a folder, as far as this process knows it."""

    def __init__(self) -> None:
        #: Of its threads, one tries to get the lock file.
        self.turn = threading.Lock()
        #: Until when no change waits, in monotonic seconds.
        self.given_up = 0.0


_folders: dict[Path, _Folder] = {}
# A child has locks of its own: another thread of the parent may hold these.
process.after_fork(_folders.clear)


class Files(Culled):
    """FileBasedCache: a lock file per directory, held for every change of ours.

    A process that is stopped while it holds the lock goes on later as if nothing had
    happened, so its lock cannot be broken: until then, nothing is stored.
    """

    late = False

    def open_folder(self, cache: Cache) -> str | None:
        mode = Path(cache._dir).stat().st_mode
        return str(cache._dir) if mode & stat.S_IWOTH else None

    def own_place(self, cache: Cache) -> str | None:
        """A folder with the number of the process in its path, or made by tempfile."""
        path, temporary = str(cache._dir), re.escape(tempfile.gettempdir())
        own = rf"(?<![^\W_]){os.getpid()}(?![^\W_])|^{temporary}/tmp[a-z0-9_]{{8}}\b"
        return "a folder" if re.search(own, path) else None

    @contextlib.contextmanager
    def hold_lock(self, cache: Cache) -> Iterator[None]:
        cache._createdir()
        path = Path(cache._dir) / "cache_memoize.lock"
        folder = _folders.get(path) or _folders.setdefault(path, _Folder())
        with folder.turn, os.fdopen(_open_no_link(path), "ab") as file:
            self._lock(file, path, folder)
            try:
                yield
            finally:
                locks.unlock(file)

    def _lock(self, file: IO[bytes], path: Path, folder: _Folder) -> None:
        """Lock the file, whose time of change says when it was locked last."""
        since, seen = time.monotonic(), 0
        waits, pause = since >= folder.given_up, FIRST_TRY
        while not locks.lock(file, locks.LOCK_EX | locks.LOCK_NB):
            now, changed = time.monotonic(), os.fstat(file.fileno()).st_mtime_ns
            if changed != seen:  # another holder
                since, seen = now, changed
            if not waits or now - since > LOCK_TIMEOUT:
                if waits:
                    folder.given_up = now + LOCK_PAUSE
                raise BlockingIOError(
                    f"another process holds the lock of {str(path)!r}, so nothing is "
                    "stored or invalidated; find it with fuser or lsof, and continue "
                    "or end it"
                )
            time.sleep(pause * (0.5 + random.random()))
            pause = min(pause * 2, LONGEST_TRY)
        folder.given_up = 0.0
        os.utime(file.fileno())

    def add(self, cache: Cache, key: str, new: bytes, seconds: int | None) -> bool:
        with self.hold_lock(cache):
            return super().add(cache, key, new, seconds)

    def set(self, cache: Cache, key: str, new: bytes, seconds: int | None) -> None:
        with self.hold_lock(cache):
            super().set(cache, key, new, seconds)

    def delete(self, cache: Cache, key: str) -> bool:
        with self.hold_lock(cache):
            return super().delete(cache, key)

    def swap(
        self, cache: Cache, key: str, old: bytes, new: bytes, seconds: int | None
    ) -> bool:
        with self.hold_lock(cache):
            if cache.get(key) != old:
                return False
            super().set(cache, key, new, seconds)
            return True

    def remove(self, cache: Cache, key: str, old: bytes) -> bool:
        with self.hold_lock(cache):
            return cache.get(key) == old and super().delete(cache, key)


#: Class, backend, and the attributes that the backend relies on. A subclass that
#: overrides one of them is unknown.
_KNOWN: list[tuple[type, Backend, str]] = [
    (DummyCache, Nothing(), "get get_many add set delete"),
    (
        LocMemCache,
        LocalMemory(),
        "get get_many add set delete _set _delete _has_expired",
    ),
    (FileBasedCache, Files(), "get get_many add set delete _createdir"),
    (DatabaseCache, Database(), "get get_many add set delete _base_set"),
    (RedisCache, Redis(), "get get_many add set delete _cache"),
    (PyMemcacheCache, Memcached(), "get get_many add set delete _cache"),
    (PyLibMCCache, PyLibMC(), "get get_many add set delete _cache"),
]
_found: dict[type, Backend] = {}


def backend_of(cache: Cache) -> Backend:
    """Return the backend for a cache object."""
    cls = type(cache)
    if cls not in _found:
        _found[cls] = _recognise(cls)
    return _found[cls].fitting(cache)


def _recognise(cls: type) -> Backend:
    if inspect.iscoroutinefunction(getattr(cls, "get", None)):
        raise ImproperlyConfigured(
            f"{cls.__module__}.{cls.__qualname__} has coroutines in the place of the "
            "methods of a cache; name a cache for sync code in CACHES, such as "
            "django_valkey.cache.ValkeyCache, which async functions use too"
        )
    known_ones = [*_KNOWN]
    for each in cls.__mro__:
        if f"{each.__module__}.{each.__qualname__}" in _OTHER_PACKAGES:
            known_ones.append((each, _DJANGO_REDIS, "get get_many add set delete"))
    for known, backend, parts in known_ones:
        if issubclass(cls, known):
            same = all(
                hasattr(known, part) and getattr(cls, part) is getattr(known, part)
                for part in parts.split()
            )
            return backend if same else VOUCHER
    return VOUCHER


_OTHER_PACKAGES = {
    "django_redis.cache.RedisCache",
    "django_valkey.cache.ValkeyCache",
    "django_valkey.cluster_cache.cache.ClusterValkeyCache",
}
_DJANGO_REDIS = DjangoRedis()
UNSHAREABLE = UnshareableVoucher()
