"""What the protocol asks of a Django cache, how that fails, sync and async alike."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple, TypeVar

from asgiref.sync import sync_to_async
from django.core.cache import caches
from django.core.exceptions import SynchronousOnlyOperation
from django.db.transaction import TransactionManagementError

from ..clock import Clock
from ..keys.tags import TaggedKey
from . import local, record, signing
from .backends import Backend, backend_of
from .breaker import SLOW, Breaker
from .connections import (
    MISTAKES,
    UNREAD,
    UNREADABLE,
    database_of,
    hangs,
    is_decoding_error,
    is_forged,
    is_in_memory,
    opened,
    read_many,
)
from .record import Record

__all__ = ["AsyncStore", "CacheDidNotAnswer", "Look", "Store", "no_answer", "run"]

T = TypeVar("T")

logger = logging.getLogger("cache_memoize")


class CacheDidNotAnswer(Exception):
    """The cache client behaved as if all were well, and the server did nothing.

    ``invalidate`` raises it when it could not make sure that the value is gone.
    """


class Look(NamedTuple):
    """What stands under a key, and what its tags are at present."""

    #: None: nothing; ``UNREADABLE``: nothing that is ours.
    record: Record | None
    #: The tokens of its tags, as a record holds them. None: a tag is being forgotten,
    #: so nothing counts and nothing may be stored. Empty: it has no tags.
    tags: bytes | None = b""
    #: When the youngest of its tags came into being, in seconds since the epoch.
    since: float = 0.0


# --- what the protocol does ----------------------------------------------------------


#: What may stand under the key of a tag.
_TAGS = frozenset({record.TAG, record.BLOCK})

#: What may end an entry. (``add`` writes where nothing is.)
_WRITES = frozenset({"delete", "set", "swap"})

#: So many times in a row one looks again without waiting, before one concludes that
#: the cache does not do what it says.
PATIENCE = 8


def no_answer(store: Store) -> CacheDidNotAnswer:
    return CacheDidNotAnswer(
        f"the cache {store.alias!r} says that a key is taken, and that nothing is there"
    )


class Store:
    """The commands of the protocol on one alias. They are coroutines that never
    suspend, so that the protocol is written once for sync and async (protocol/)."""

    def __init__(self, alias: str, breaker: Breaker, clock: Clock) -> None:
        self.alias = alias
        self.breaker = breaker
        self.clock = clock

    def backend(self) -> Backend:
        return backend_of(caches[self.alias])

    def database(self) -> str | None:
        """The alias of the database that the cache itself is in, if it is in one."""
        return database_of(self.alias)

    def is_in_transaction(self) -> bool:
        """Whether this cache is in a database on which a transaction is open here."""
        cache = caches[self.alias]
        return backend_of(cache).is_in_transaction(cache)

    def default_timeout(self) -> float | None:
        """The backend's own timeout in seconds; None: it keeps values for ever."""
        timeout = caches[self.alias].default_timeout
        return None if timeout is None else float(timeout)

    def can_wait(self) -> bool:
        """Not in a thread that runs an event loop: who is waited for may be in it."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return True
        return False

    async def sleep(self, seconds: float) -> None:
        self.clock.sleep(seconds)

    async def look(self, key: str, *, may_write: bool = True) -> Look:
        """Return the record under ``key`` and the tokens of its tags.

        A tag that is missing gets a new token, unless ``may_write`` is False.
        """
        if not isinstance(key, TaggedKey):
            return Look(await self.get(key))
        found = await self._run("read_many", [key, *key.tags])
        return await self._resolve(key, found, may_write)

    async def seen(
        self, key: str, first: Any, *, hold: float, may_write: bool = True
    ) -> Look:
        """Like :meth:`look`, for what ``fetch`` has just read: ``first``."""
        if first is UNREAD or (hold and isinstance(key, TaggedKey)):
            return await self.look(key, may_write=may_write)
        if isinstance(first, dict) and isinstance(key, TaggedKey):
            return await self._resolve(key, first, may_write)
        found = self.read(key, first)
        if not isinstance(key, TaggedKey):
            return Look(found)
        if found is None or found is UNREADABLE:
            return await self.look(key, may_write=may_write)
        return Look(found, found.tags)  # fetch_tagged has compared them

    async def _resolve(
        self, key: TaggedKey, found: dict[str, Any], may_write: bool = True
    ) -> Look:
        """Give each missing tag a new token: entries with its old one are misses."""
        if not may_write:
            tokens = record.tokens([found.get(tag) for tag in key.tags])
            return Look(self.read(key, found.get(key)), tokens or None)
        tags = []
        for tag in key.tags:
            there = self.read(tag, found.get(tag))
            for look in range(PATIENCE):
                if there is UNREADABLE or (there and there.kind not in _TAGS):
                    await self.delete(tag)
                elif there is None and look == PATIENCE // 2:
                    # Some clients show what they cannot read as nothing.
                    await self.delete(tag)
                elif there is not None:
                    break
                now = self.clock.time()
                new = record.pack(record.TAG, self.clock.token(), start=now)
                if await self.add(tag, new, None):
                    there = record.parse(new)
                else:
                    there = await self.get(tag)
            else:
                raise no_answer(self)
            tags.append(there)
        tokens = record.tokens([there.raw for there in tags])
        since = max(there.start for there in tags)
        return Look(self.read(key, found.get(key)), tokens or None, since)

    async def get(self, key: str) -> Record | None:
        """The record under ``key``, None, or ``UNREADABLE``."""
        try:
            raw = await self._run("get", key)
        except Exception as error:
            if not is_decoding_error(error):
                raise
            return UNREADABLE  # type: ignore[no-any-return]
        return self.read(key, raw)

    async def raw(self, key: str) -> Any:
        """What stands under a key that holds no record; ``UNREADABLE`` if it cannot
        be read."""
        return (await self.raw_many([key])).get(key)

    async def raw_many(self, keys: list[str]) -> dict[str, Any]:
        found: dict[str, Any] = await self._run("read_many", keys)
        return found

    @staticmethod
    def read(key: str, raw: Any) -> Record | None:
        if raw is None:
            return None
        found = record.parse(raw)
        if found is None:
            return UNREADABLE  # type: ignore[no-any-return]
        if is_forged(key, found):
            return UNREADABLE  # type: ignore[no-any-return]
        if found.kind in record.ENTRIES and signing.is_on():
            found = found._replace(end=found.end - signing.SIZE)
        return found

    async def add(self, key: str, new: bytes, seconds: int | None) -> bool:
        return bool(await self._run("add", key, new, seconds))

    async def swap(self, key: str, old: bytes, new: bytes, seconds: int | None) -> bool:
        return bool(await self._run("swap", key, old, new, seconds))

    async def take(
        self, key: str, old: bytes | None, lease: bytes, seconds: int | None
    ) -> bool:
        """Put a lease where nothing is, or in the place of ``old``."""
        if old is None:
            return await self.add(key, lease, seconds)
        return await self.swap(key, old, lease, seconds)

    async def set(self, key: str, new: bytes, seconds: int | None) -> None:
        await self._run("set", key, new, seconds)

    async def delete(self, key: str) -> bool:
        return bool(await self._run("delete", key))

    async def shield(self, flow: Coroutine[Any, Any, None]) -> None:
        """Finish a flow, whatever happens to the caller."""
        await flow

    async def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run a function that may touch the database, as pickling a QuerySet does."""
        return function(*args)

    async def ask_thread(self, function: Callable[..., T], *args: Any) -> T:
        """Run a function in the thread that has the caller's database connections."""
        return function(*args)

    async def _run(self, command: str, *args: Any) -> Any:
        return self._command(command, *args)

    def _command(self, command: str, *args: Any) -> Any:
        """One command, in the thread that will use the client; trouble is counted."""
        started = self.clock.monotonic()
        try:
            cache, backend = opened(self.alias)
            if command in ("add", "set", "swap"):
                args = (*args[:-1], backend.lifetime(args[-1]))
            if command == "read_many":
                result: Any = read_many(self.alias, cache, backend, *args)
            else:
                result = getattr(backend, command)(cache, *args)
        except Exception as error:
            if not is_decoding_error(error) and not isinstance(error, MISTAKES):
                self.trouble(error)
            raise
        finally:
            if command in _WRITES:  # also if only the answer got lost
                local.forget(self.alias, args[0])
        if self.clock.monotonic() - started > SLOW:
            slow = CacheDidNotAnswer(f"the cache {self.alias!r} took over a second")
            self.trouble(slow)
            if backend.swallows and not result:
                raise slow  # that was a time-out, and the client hides it
        # "Nothing there" proves nothing where a client hides its errors.
        elif (result or not backend.swallows) and self.breaker.success():
            logger.warning("cache %r works again", self.alias)
        return result

    def trouble(self, error: BaseException) -> None:
        """Tell the breaker; it is the one that says so in the log."""
        if isinstance(error, TransactionManagementError):
            return  # a broken transaction of the project, and a cache in its database
        # A client that hides its errors hides them eight times before we know.
        hanging = isinstance(error, CacheDidNotAnswer) or hangs(error)
        if self.breaker.failure(self.clock.monotonic(), hanging=hanging):
            logger.warning(
                "cache %r does not work; it is left alone for a while", self.alias
            )


def run(flow: Coroutine[Any, Any, T]) -> T:
    """Finish a coroutine over a synchronous store: it never suspends."""
    try:
        flow.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    flow.close()
    raise RuntimeError("a flow over a synchronous store was suspended")


class AsyncStore(Store):
    """The same commands for async code: in-memory backends directly, others in the
    thread that Django's own async cache methods use."""

    def can_wait(self) -> bool:
        return True

    async def sleep(self, seconds: float) -> None:
        await self.clock.asleep(seconds)

    async def take(
        self, key: str, old: bytes | None, lease: bytes, seconds: int | None
    ) -> bool:
        try:
            return await super().take(key, old, lease, seconds)
        except asyncio.CancelledError:
            # The thread went on and may have written a lease that is nobody's now.
            mine = record.parse(lease)
            assert mine is not None
            mark = record.pack(record.FAILED, self.clock.token(), tags=mine.tags)
            await asyncio.shield(self.swap(key, lease, mark, record.FAILED_FOR))
            raise

    async def shield(self, flow: Coroutine[Any, Any, None]) -> None:
        await asyncio.shield(flow)

    async def call(self, function: Callable[..., Any], *args: Any) -> Any:
        try:
            return function(*args)
        except SynchronousOnlyOperation:
            return await sync_to_async(function)(*args)

    async def ask_thread(self, function: Callable[..., T], *args: Any) -> T:
        return await sync_to_async(function)(*args)

    async def _run(self, command: str, *args: Any) -> Any:
        if is_in_memory(self.alias):
            return self._command(command, *args)
        return await sync_to_async(self._command)(command, *args)
