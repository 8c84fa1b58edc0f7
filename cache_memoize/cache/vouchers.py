"""What the protocol asks of a cache, and what does it on any: :class:`Voucher`.

Public API of Django's caches only; backends.py has what each of them does better.
"""

from __future__ import annotations

import contextlib
from typing import Any

from . import record

__all__ = ["Backend", "Cache", "UnshareableVoucher", "Voucher"]

Cache = Any


class Backend:
    """What every backend can do. ``seconds`` is a whole number, or None for ever."""

    #: Whether no call ever waits for anything: then async code calls it directly.
    in_memory = False
    #: Whether ``swap`` is atomic. Where it is not, readers get no old value during a
    #: refresh, because nothing could tell that it was invalidated meanwhile.
    atomic = True
    #: Whether several threads may use one client object.
    shareable = True
    #: Whether the client may answer as if all were well when the server is away.
    swallows = False
    #: Whether anything is stored at all.
    stores = True

    #: Seconds by which the backend may cut a lifetime short, counting whole seconds.
    slack = 0

    def lifetime(self, seconds: int | None) -> int | None:
        """What to ask for, to have a value last so long. The record knows better."""
        return None if seconds is None else seconds + self.slack

    def database(self, cache: Cache) -> str | None:
        """The alias of the database that holds this cache, if one does."""
        return None

    def is_in_transaction(self, cache: Cache) -> bool:
        """Whether what is written now is part of a transaction of the caller's."""
        return False

    def takes_bytes(self, cache: Cache) -> bool:
        """Whether what it stores may be bytes."""
        return True

    def most(self, cache: Cache) -> int | None:
        """How many entries it keeps before it throws some away; None: as many as
        there is room for."""
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
        """Put ``new`` in the place of ``old``, if that is what is there."""
        raise NotImplementedError


#: Stands for a record that nobody vouches for: not one of ours, and not nothing.
VOID: Any = object()


class Voucher(Backend):
    """Any other backend, by the public API: a second key that vouches for the first.

    Whoever wins the right to compute, or primes, writes a random token there before it
    does anything; invalidating deletes it. A record counts only while its own token
    stands there, so what a late writer stores counts for nobody. The token is never
    written twice: nothing that was invalidated can come back.
    """

    atomic = False
    swallows = True

    @staticmethod
    def voucher(key: str) -> str:
        return f"{key}.v"

    def get(self, cache: Cache, key: str) -> Any:
        raw = cache.get(key)
        found = record.parse(raw)
        # Reading the voucher second is what makes this safe: if it is still there now,
        # no invalidation had ended when the value was read.
        if found and found.vouched and cache.get(self.voucher(key)) != found.token:
            return VOID
        return raw

    def get_many(self, cache: Cache, keys: list[str]) -> dict[str, Any]:
        found = super().get_many(cache, keys)
        records = {key: record.parse(raw) for key, raw in found.items()}
        vouched = {key: each for key, each in records.items() if each and each.vouched}
        if vouched:  # second, as in get()
            names = {key: self.voucher(key) for key in vouched}
            tokens = super().get_many(cache, list(names.values()))
            for key, each in vouched.items():
                if tokens.get(names[key]) != each.token:
                    found[key] = VOID
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
        deleted = cache.delete(self.voucher(key))
        return super().delete(cache, key) and bool(deleted)

    def swap(
        self, cache: Cache, key: str, old: bytes, new: bytes, seconds: int | None
    ) -> bool:
        if cache.get(key) != old:
            return False
        written = record.parse(new)
        if written and written.kind in record.ENTRIES:
            # The voucher dates from before the computation; it must last as long as
            # the entry, and touching brings no deleted key back. Where nothing can be
            # touched, the entry counts as long as the lease would.
            with contextlib.suppress(NotImplementedError):
                cache.touch(self.voucher(key), seconds)
            super().set(cache, key, record.vouched(new), seconds)
        else:
            super().set(cache, key, new, seconds)
            self._vouch(cache, key, new, seconds)
        return True

    def _vouch(self, cache: Cache, key: str, new: bytes, seconds: int | None) -> None:
        token = record.token_of(new)
        super().set(cache, self.voucher(key), token, seconds)


class UnshareableVoucher(Voucher):
    shareable = False
    slack = 1
