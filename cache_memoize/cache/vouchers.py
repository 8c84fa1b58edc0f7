"""The commands that the protocol needs of a cache, and their form for unknown backends.

Only the public API of Django's caches is used here. It cannot replace a value only if
it is still the old one; :class:`Voucher` makes up for that with a second key. Where a
backend can do better, backends.py knows how.
"""

from __future__ import annotations

import contextlib
import math
import time
from typing import Any, NamedTuple

from . import record

__all__ = [
    "UNREADABLE",
    "VOUCHER",
    "Backend",
    "Cache",
    "ServerMemory",
    "Voucher",
    "until_2038",
]

Cache = Any

#: Stands for a value that this library has not written, that cannot be read, or whose
#: voucher is gone.
UNREADABLE: Any = object()


class ServerMemory(NamedTuple):
    """The memory of the server of a cache, as the server reports it."""

    #: Keys that were removed before their timeout, since the server started.
    evicted: int
    #: Seconds since the server started.
    uptime: int
    #: Bytes at most; 0: unlimited.
    limit: int
    #: The keys that are removed when the memory is full.
    policy: str


class Backend:
    """A kind of cache. ``seconds`` is a whole number, or None for unlimited."""

    #: Lifetimes of this many seconds (thirty years) and more are unlimited: their dates
    #: overflow in some backends.
    longest = 1e9

    #: Whether no command waits for anything, so that async code calls it directly.
    in_memory = False
    #: Whether ``swap`` is atomic. If not, readers get no stale value during a refresh:
    #: an invalidation meanwhile would go unnoticed.
    atomic = True
    #: Whether several threads may use one client object.
    shareable = True
    #: Whether the client may report success when the server is away.
    swallows = False
    #: Whether anything is stored at all.
    stores = True
    #: Whether a command may arrive after its client has given up waiting for it.
    late = True

    #: Whether the server can tell processes of a change that one of them makes.
    tells = False

    def fitting(self, cache: Cache) -> Backend:
        """Return the backend for this cache object, of a class that is known."""
        return self

    def prepare(self, cache: Cache) -> None:
        """Adapt a cache object that only this library uses, in one thread."""

    #: Seconds by which the backend may shorten a lifetime, counting whole seconds.
    slack = 0

    def lifetime(self, seconds: float | None) -> int | None:
        """Return the timeout after which a value has lived for ``seconds`` at least: in
        whole seconds, and at least one, because some backends delete at once for a
        fraction."""
        if seconds is None or seconds >= self.longest:
            return None
        return max(1, math.ceil(seconds)) + self.slack

    def database(self, cache: Cache) -> str | None:
        """Return the alias of the database that holds this cache, if one does."""
        return None

    def own_place(self, cache: Cache) -> str | None:
        """Return where the entries are, if no other process sees them."""
        return "the memory" if self.in_memory else None

    def is_in_transaction(self, cache: Cache) -> bool:
        """Return whether a write now would be part of a transaction of the caller."""
        return False

    def client(self, cache: Cache) -> Any:
        """Return the client of Redis that the cache is made of, where it ``tells``."""
        raise NotImplementedError

    def answers_in_order(self, cache: Cache) -> bool:
        """Return whether ``get_many()`` reads all keys at once, or in their order."""
        return True

    def takes_bytes(self, cache: Cache) -> bool:
        """Return whether its serializer accepts bytes."""
        return True

    def ask_server(self, cache: Cache) -> str | None:
        """Return what the server would answer to writes (``errors.UNFIT``), None if it
        takes them. May raise what the client raises."""
        return None

    def ask_memory(self, cache: Cache) -> ServerMemory | None:
        """Return what the server reports of its memory; None if it reports nothing. May
        raise what the client raises."""
        return None

    def most(self, cache: Cache) -> int | None:
        """Return the number of entries after which it removes some; None: unlimited."""
        return None

    def open_folder(self, cache: Cache) -> str | None:
        """Return the folder of the cache if every user may write to it, else None."""
        return None

    def awaited(self, cache: Cache) -> Any:
        """Return the commands for event loops; None if they go through a thread."""
        return None

    def get(self, cache: Cache, key: str) -> Any:
        return cache.get(key)

    def get_many(self, cache: Cache, keys: list[str]) -> dict[str, Any]:
        found: dict[str, Any] = cache.get_many(keys)
        return found

    def add(self, cache: Cache, key: str, new: bytes, seconds: int | None) -> bool:
        return cache.add(key, new, seconds) is True

    def set(self, cache: Cache, key: str, new: bytes, seconds: int | None) -> None:
        cache.set(key, new, seconds)

    def delete(self, cache: Cache, key: str) -> bool:
        return bool(cache.delete(key))  # django-redis counts

    def swap(
        self, cache: Cache, key: str, old: bytes, new: bytes, seconds: int | None
    ) -> bool:
        """Replace ``old`` by ``new``. Return False if ``old`` is not stored any
        more."""
        raise NotImplementedError

    def remove(self, cache: Cache, key: str, old: bytes) -> bool:
        """Delete ``old``; as ``swap()``. Only for backends that are not ``late``."""
        raise NotImplementedError


def until_2038(backend: Backend) -> float:
    """Return the seconds until the dates of Memcached end. It takes more than thirty
    days as a date, in four bytes."""
    return max(30 * 24 * 60 * 60 + 1.0, 2**31 - 2 - time.time())


class Voucher(Backend):
    """Any other backend, by the public API: a second key vouches for the first.

    A caller that gets the right to compute, or primes, first writes a random token
    there; invalidating deletes it. A record is valid only while the second key holds
    its token, so the record of a late writer is not. A token is never written twice: no
    invalidated record becomes valid again.
    """

    atomic = False
    swallows = True
    longest = property(until_2038)

    def answers_in_order(self, cache: Cache) -> bool:
        return False

    @staticmethod
    def voucher_key(key: str) -> str:
        return f"{key}.v"

    def get(self, cache: Cache, key: str) -> Any:
        raw = cache.get(key)
        found = record.parse(raw)
        # Read second: if the voucher is still stored now, no invalidation had ended
        # when the value was read.
        if found and found.vouched and cache.get(self.voucher_key(key)) != found.token:
            return UNREADABLE
        return raw

    def get_many(self, cache: Cache, keys: list[str]) -> dict[str, Any]:
        found = super().get_many(cache, keys)
        records = {key: record.parse(raw) for key, raw in found.items()}
        vouched = {key: each for key, each in records.items() if each and each.vouched}
        if vouched:  # second, as in get()
            names = {key: self.voucher_key(key) for key in vouched}
            tokens = super().get_many(cache, list(names.values()))
            for key, each in vouched.items():
                if tokens.get(names[key]) != each.token:
                    found[key] = UNREADABLE
        return found

    def add(self, cache: Cache, key: str, new: bytes, seconds: int | None) -> bool:
        if not super().add(cache, key, new, seconds):
            return False
        self._vouch(cache, key, new, seconds)
        return True

    def set(self, cache: Cache, key: str, new: bytes, seconds: int | None) -> None:
        self._vouch(cache, key, new, seconds)
        super().set(cache, key, record.vouched(new), seconds)

    def delete(self, cache: Cache, key: str) -> bool:
        deleted = cache.delete(self.voucher_key(key))
        return super().delete(cache, key) and bool(deleted)

    def swap(
        self, cache: Cache, key: str, old: bytes, new: bytes, seconds: int | None
    ) -> bool:
        if cache.get(key) != old:
            return False
        written = record.parse(new)
        if written and written.kind in record.ENTRIES:
            # The voucher is from before the computation and must last as long as the
            # entry; touch() does not restore a deleted key. Where the backend has no
            # touch(), the entry is valid as long as the lease would be.
            with contextlib.suppress(NotImplementedError):
                cache.touch(self.voucher_key(key), seconds)
            super().set(cache, key, record.vouched(new), seconds)
        else:
            super().set(cache, key, new, seconds)
            self._vouch(cache, key, new, seconds)
        return True

    def _vouch(self, cache: Cache, key: str, new: bytes, seconds: int | None) -> None:
        token = record.token_of(new)
        super().set(cache, self.voucher_key(key), token, seconds)


VOUCHER = Voucher()
