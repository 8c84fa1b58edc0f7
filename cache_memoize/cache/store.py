"""The commands of the protocol on one Django cache, sync and async alike.

The protocol is written once, as coroutines over a store. The commands of :class:`Store`
never suspend, so that sync code finishes such a coroutine with one ``send`` (see
:func:`run`). Those of :class:`AsyncStore` go over a connection of the event loop where
the cache is on Redis; elsewhere a thread runs them, unless the cache is in memory.
Written twice, the two would drift apart; with ``async_to_sync``, sync code would pay
for an event loop at every miss. Each command is timed, and its errors are counted by
the circuit breaker of the cache.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Collection, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

from asgiref.sync import sync_to_async
from django.core.cache import caches
from django.core.cache.backends.base import DEFAULT_TIMEOUT, memcache_key_warnings
from django.core.exceptions import SynchronousOnlyOperation
from django.db.transaction import TransactionManagementError

from ..clock import Clock
from ..process import log_sometimes, logger, run
from . import local, near, record, signing
from .backends import Backend, backend_of
from .breaker import SLOW, Breaker, breaker_of
from .connections import (
    UNREADABLE,
    Direct,
    awaited,
    database_of,
    genuine,
    genuine_ones,
    is_in_memory,
    name_of,
    opened,
    place_from_afar,
    place_of,
)
from .errors import (
    MISTAKES,
    CacheDidNotAnswer,
    KeyNotTaken,
    hangs,
    is_about_call,
    is_decoding_error,
    is_of_test,
    unfitness,
)
from .record import Record
from .redis import Awaited

__all__ = ["AsyncStore", "Store", "run", "store_of"]

T = TypeVar("T")


_READS = frozenset({"get", "read_many", "read_raw_many"})
#: Commands that may replace or remove an entry.
_WRITES = frozenset({"delete", "remove", "set", "swap"})

#: Seconds after which an empty answer is doubted, where the client hides errors.
DOUBTED = 0.1


class Store:
    """The commands on one cache, as coroutines that never suspend."""

    #: Gets the seconds of each command, for the panel.
    heard: Callable[[float], object] | None = None

    def __init__(self, alias: str, breaker: Breaker, clock: Clock) -> None:
        self.alias = alias
        self.breaker = breaker
        self.clock = clock

    def backend(self) -> Backend:
        return backend_of(caches[self.alias])

    def database(self) -> str | None:
        """Return the alias of the database that the cache is in, if it is in one."""
        return database_of(self.alias)

    def is_in_transaction(self) -> bool:
        """Return whether this thread has an open transaction on the database that the
        cache is in."""
        cache = caches[self.alias]
        return backend_of(cache).is_in_transaction(cache)

    def answers_in_order(self) -> bool:
        """Return whether several keys are read at once, or in their order."""
        cache = caches[self.alias]
        return backend_of(cache).answers_in_order(cache)

    def seconds_of(self, timeout: Any) -> float:
        """Return a timeout in seconds; that of the cache for ``DEFAULT_TIMEOUT``."""
        if timeout is DEFAULT_TIMEOUT:
            timeout = caches[self.alias].default_timeout
        return math.inf if timeout is None else float(timeout)

    def can_wait(self) -> bool:
        """Return whether the caller may sleep: not in a thread that runs an event
        loop, which may be the one that computes."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return True
        return False

    async def sleep(self, seconds: float) -> None:
        self.clock.sleep(seconds)

    # --- waiting for other callers ---

    def place_of(self, key: str) -> Any:
        """Return what identifies an entry; None if that is not known here."""
        return place_of(self.alias, key)

    def owner(self) -> Any:
        """Return the thread, or the task, of the caller."""
        return threading.get_ident()

    def future(self) -> Any:
        """Return a future that this caller can wait on, and :meth:`wake` others."""
        return Future()

    def wake(self, future: Any, result: Any) -> None:
        """Have the caller that waits on ``future`` go on."""
        future.set_result(result)

    async def wait(self, future: Any, seconds: float) -> Any:
        """Return the result of ``future``, or None after ``seconds``."""
        return self.clock.wait(future, seconds)

    # --- commands ---

    def beside(self, alias: str) -> Store:
        """Return the store of another cache."""
        return store_of(alias, type(self), self.clock)

    def in_sync(self) -> Store:
        """Return the store of this cache for sync code."""
        return Store(self.alias, self.breaker, self.clock)

    async def records(self, keys: Collection[str]) -> dict[str, Record]:
        """Return the records under these keys, without those that have none."""
        found = await self.execute("read_many", list(keys)) if keys else {}
        records = {key: self.read(key, raw) for key, raw in found.items()}
        return {key: each for key, each in records.items() if each is not None}

    def no_answer(self, key: str) -> CacheDidNotAnswer:
        """Return the error for a key that is taken and has no value."""
        cache = caches[self.alias]
        if any(memcache_key_warnings(cache.make_key(key))):
            return KeyNotTaken(
                f"the cache {self.alias!r} keeps nothing under a key that is long, or "
                "has spaces or control characters; make another one in "
                "key_generator_callable= or KEY_FUNCTION"
            )
        return CacheDidNotAnswer(
            f"the cache {self.alias!r} says that a key is taken, and that it has no "
            "value"
        )

    async def get(self, key: str) -> Record | None:
        """Return the record under ``key``, None, or ``UNREADABLE``."""
        try:
            raw = await self.execute("get", key)
        except Exception as error:
            if not is_decoding_error(error):
                raise
            return UNREADABLE  # type: ignore[no-any-return]
        return self.read(key, raw)

    async def raw(self, key: str) -> Any:
        """Return the value under a key that holds no record; ``UNREADABLE`` if it
        cannot be read."""
        return (await self.raw_many([key])).get(key)

    async def raw_many(self, keys: list[str]) -> dict[str, Any]:
        found: dict[str, Any] = await self.execute("read_raw_many", keys)
        return found

    @staticmethod
    def read(key: str, raw: Any) -> Record | None:
        if raw is None:
            return None
        found = record.parse(raw)
        return UNREADABLE if found is None else found

    async def add(self, key: str, new: bytes, seconds: float | None) -> bool:
        return bool(await self.execute("add", key, new, seconds))

    async def swap(
        self, key: str, old: bytes, new: bytes, seconds: float | None
    ) -> bool:
        return bool(await self.execute("swap", key, old, new, seconds))

    async def remove(self, key: str, old: bytes) -> bool:
        return bool(await self.execute("remove", key, old))

    async def take(
        self, key: str, old: bytes | None, lease: bytes, seconds: float | None
    ) -> bool:
        """Write a lease if there is no value, or in the place of ``old``."""
        if old is None:
            return await self.add(key, lease, seconds)
        return await self.swap(key, old, lease, seconds)

    async def set(self, key: str, new: bytes, seconds: float | None) -> None:
        await self.execute("set", key, new, seconds)

    async def delete(self, key: str) -> bool:
        return bool(await self.execute("delete", key))

    async def tell(self, keys: Collection[str]) -> None:
        """Return when no process serves a copy of what was stored under these keys
        before, or depends on these tags. Raises the error of the server."""
        tells = self.backend().tells
        if near.may_have_copies(self.alias, tells):
            near.drop_everywhere(self.alias, tells, keys)

    async def shield(self, flow: Coroutine[Any, Any, None]) -> None:
        """Finish a flow, even if the caller is cancelled."""
        await flow

    async def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run a function that may touch the database, as pickling a QuerySet does."""
        return function(*args)

    async def ask_thread(self, function: Callable[..., T], *args: Any) -> T:
        """Run a function in the thread that has the caller's database connections."""
        return function(*args)

    async def execute(self, command: str, *args: Any) -> Any:
        return await self._command(command, *args)

    def _client(self) -> Direct | Awaited:
        """Return the commands on the cache, for where this is called."""
        return Direct(self.alias, *opened(self.alias))

    async def _command(self, command: str, *args: Any) -> Any:
        """Run one command; count trouble."""
        started = self.clock.monotonic()
        try:
            client = self._client()
            result = await self._execute(client, command, args)
        except Exception as error:
            if not is_decoding_error(error) and not isinstance(error, MISTAKES):
                self.trouble(error)
            raise
        finally:
            if command in _WRITES:  # also if only the answer got lost
                local.drop_key(self.alias, args[0])
                near.drop_key(self.alias, args[0])
        # An empty answer proves nothing where a client hides its errors.
        doubted = client.backend.swallows and not result
        took = self.clock.monotonic() - started
        if Store.heard is not None:
            Store.heard(took)
        if took > (min(DOUBTED, SLOW) if doubted else SLOW):
            writes = doubted or command not in _READS
            if self.breaker.tripped or await self._hangs(client, writes):
                slow = CacheDidNotAnswer(f"the cache {self.alias!r} does not answer")
                self.trouble(slow)
                if doubted:
                    raise slow  # a time-out that the client hides
        elif not doubted and self.breaker.success():
            logger.warning("cache %r works again", self.alias)
        return result

    async def _hangs(self, client: Direct | Awaited, writes: bool) -> bool:
        """Return whether one more command takes long, or fails, after one that did.

        A process that is busy gets the answers of a healthy server late: the time in
        which it does not run is subtracted.
        """
        key = f"cache_memoize.asked:{self.clock.token().hex()}"
        with client.standstill() as standstill:
            started = self.clock.monotonic()
            try:
                if not writes:
                    await client.do("get", key)
                elif not await client.do("add", key, b"", client.backend.lifetime(1)):
                    return True
            except Exception:
                return True
            took = self.clock.monotonic() - started
        return took - standstill.seconds > SLOW

    async def _execute(
        self, client: Direct | Awaited, command: str, args: tuple[Any, ...]
    ) -> Any:
        """Run one command; sign what it writes, and verify what it reads."""
        cache, (key, *rest) = client.cache, args
        if command == "read_raw_many":
            return await client.do("get_many", key)
        if command == "read_many":
            found = await client.do("get_many", key)
            return genuine_ones(self.alias, cache, found)
        if command == "get":
            return genuine(self.alias, cache, key, await client.do("get", key))
        olds = [rest.pop(0)] if command in ("remove", "swap") else []
        name = name_of(self.alias, cache, key) if signing.is_on() else None
        if name is not None:
            olds = [form for old in olds for form in signing.seals(name, old)]
        if rest:
            new, seconds = rest
            rest = [
                new if name is None else signing.seal(name, new),
                client.backend.lifetime(seconds),
            ]
        if not olds:
            return await client.do(command, key, *rest)
        for old in olds:
            if await client.do(command, key, old, *rest):
                return True
        return False

    def trouble(self, error: BaseException) -> None:
        """Report an error to the breaker, and log it if that opens the breaker."""
        if isinstance(error, TransactionManagementError):
            return  # a broken transaction of the project, and a cache in its database
        with suppress(Exception):  # perhaps the cache could not be made
            if is_about_call(error) or is_of_test(error, caches[self.alias]):
                return
        if wrong := unfitness(error):
            log_sometimes(logger.warning, "the cache %r %s; %s", self.alias, *wrong)
        # By then a client that hides its errors has hidden eight of them.
        hanging = isinstance(error, CacheDidNotAnswer) or hangs(error)
        if self.breaker.failure(self.clock.monotonic(), hanging=hanging):
            logger.warning(
                "cache %r does not work; it is left alone for a while", self.alias
            )


def store_of(
    alias: str, kind: type[Store] = Store, clock: Clock | None = None
) -> Store:
    """Return the commands on a cache, for sync or async code."""
    return kind(alias, breaker_of(alias), clock or Clock())


class AsyncStore(Store):
    """The commands for async code: directly on a cache in memory, over a connection of
    the event loop on Redis, otherwise in the thread that Django's own async cache
    methods use."""

    def can_wait(self) -> bool:
        return True

    async def sleep(self, seconds: float) -> None:
        await self.clock.asleep(seconds)

    def place_of(self, key: str) -> Any:
        return place_from_afar(self.alias, key)

    def owner(self) -> Any:
        return asyncio.current_task()

    def future(self) -> Any:
        return asyncio.get_running_loop().create_future()

    def wake(self, future: Any, result: Any) -> None:
        with suppress(RuntimeError):  # its loop was closed
            if not future.done():
                future.set_result(result)

    async def wait(self, future: Any, seconds: float) -> Any:
        return await self.clock.await_future(future, seconds)

    async def take(
        self, key: str, old: bytes | None, lease: bytes, seconds: float | None
    ) -> bool:
        try:
            return await super().take(key, old, lease, seconds)
        except asyncio.CancelledError:
            # The thread went on and may have written a lease that has no owner now.
            mark = record.pack(record.CLEARED, self.clock.token())
            await asyncio.shield(self.swap(key, lease, mark, record.FAILED_FOR))
            raise

    async def tell(self, keys: Collection[str]) -> None:
        tells = self.backend().tells
        if near.may_have_copies(self.alias, tells):
            # Not in the one thread for the database: it may wait for two seconds.
            drop = sync_to_async(near.drop_everywhere, thread_sensitive=False)
            await drop(self.alias, tells, keys)

    async def shield(self, flow: Coroutine[Any, Any, None]) -> None:
        await asyncio.shield(flow)

    async def call(self, function: Callable[..., Any], *args: Any) -> Any:
        try:
            return function(*args)
        except SynchronousOnlyOperation:
            return await sync_to_async(function)(*args)

    async def ask_thread(self, function: Callable[..., T], *args: Any) -> T:
        return await sync_to_async(function)(*args)

    def _client(self) -> Direct | Awaited:
        client = None if is_in_memory(self.alias) else awaited(self.alias)
        return client or super()._client()

    async def execute(self, command: str, *args: Any) -> Any:
        if is_in_memory(self.alias):
            return await self._command(command, *args)
        if awaited(self.alias) is None:
            return await sync_to_async(self._run_command)(command, *args)
        flow = self._command(command, *args)
        # As in a thread, what is written is written if the caller is cancelled, too.
        return await (flow if command in _READS else asyncio.shield(flow))

    def _run_command(self, command: str, *args: Any) -> Any:
        return run(self._command(command, *args))
