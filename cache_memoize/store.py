"""The one way to a Django cache: which object, how it fails, sync and async alike."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from asgiref.sync import sync_to_async
from django.core.cache import InvalidCacheBackendError, caches
from django.core.cache.backends.base import InvalidCacheKey
from django.core.exceptions import ImproperlyConfigured, SynchronousOnlyOperation

from . import record
from .backends import Backend, backend_of
from .breaker import SLOW, Breaker
from .clock import Clock
from .policy import FAILED_FOR
from .record import Record

__all__ = ["UNREADABLE", "AsyncStore", "CacheDidNotAnswer", "Store", "afetch", "fetch"]


logger = logging.getLogger("cache_memoize")


class CacheDidNotAnswer(Exception):
    """The cache client behaved as if all were well, and the server did nothing.

    ``invalidate`` raises it when it could not make sure that the value is gone.
    """


#: What stands under the key is not ours, or cannot be read.
UNREADABLE: Any = object()

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
    return isinstance(error, _DECODING) or type(error).__name__ in _DECODING_NAMES


def _hangs(error: BaseException) -> bool:
    """A time-out, by whichever of the clients' classes."""
    return any("Timeout" in cls.__name__ for cls in type(error).__mro__)


# --- which object ------------------------------------------------------------------

_own = threading.local()
#: Classes of which any thread may use any object: seen here first on every call.
_shareable: set[type] = set()


def client(alias: str) -> Any:
    """The cache object of this alias, never one that another thread is using.

    Django keeps them per context, and a context travels: ``sync_to_async`` and child
    tasks take theirs into other threads, where two threads on one memcached client
    read each other's answers. Where that matters, each thread has one of its own.
    """
    cache = caches[alias]
    if type(cache) in _shareable:
        return cache
    if backend_of(cache).shareable:
        _shareable.add(type(cache))
        return cache
    # override_settings() makes new settings: what was built from the old ones goes.
    if getattr(_own, "settings", None) is not caches.settings:
        _own.settings, _own.caches = caches.settings, {}
    if alias not in _own.caches:
        _own.caches[alias] = caches.create_connection(alias)
    return _own.caches[alias]


def fetch(alias: str, key: str) -> Any:
    """What stands under ``key``: the whole I/O of a hit."""
    cache = caches[alias]
    if type(cache) not in _shareable:
        cache = client(alias)
    return cache.get(key)


async def afetch(alias: str, key: str) -> Any:
    cache = caches[alias]
    if backend_of(cache).in_memory:
        return cache.get(key)
    return await sync_to_async(fetch)(alias, key)


# --- what the protocol does ----------------------------------------------------------


class Store:
    """The commands of the protocol on one alias. They are coroutines that never
    suspend, so that the protocol is written once for sync and async (flows.py)."""

    def __init__(self, alias: str, breaker: Breaker, clock: Clock) -> None:
        self.alias = alias
        self.breaker = breaker
        self.clock = clock

    def backend(self) -> Backend:
        return backend_of(caches[self.alias])

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

    async def get(self, key: str) -> Record | None:
        """The record under ``key``, None, or ``UNREADABLE``."""
        try:
            raw = await self._run("get", key)
        except Exception as error:
            if not is_decoding_error(error):
                raise
            return UNREADABLE  # type: ignore[no-any-return]
        return self.read(raw)

    @staticmethod
    def read(raw: Any) -> Record | None:
        return None if raw is None else (record.parse(raw) or UNREADABLE)

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

    async def _run(self, command: str, *args: Any) -> Any:
        return self._command(command, *args)

    def _command(self, command: str, *args: Any) -> Any:
        """One command, in the thread that will use the client; trouble is counted."""
        started = self.clock.monotonic()
        try:
            cache = client(self.alias)
            backend = backend_of(cache)
            if command in ("add", "set", "swap"):
                args = (*args[:-1], backend.lifetime(args[-1]))
            result = getattr(backend, command)(cache, *args)
        except Exception as error:
            if not is_decoding_error(error) and not isinstance(error, MISTAKES):
                self.trouble(error)
            raise
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
        # A client that hides its errors hides them eight times before we know.
        hanging = isinstance(error, CacheDidNotAnswer) or _hangs(error)
        if self.breaker.failure(self.clock.monotonic(), hanging=hanging):
            logger.warning(
                "cache %r does not work; it is left alone for a while", self.alias
            )


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
            mark = record.pack(record.FAILED, self.clock.token())
            await asyncio.shield(self.swap(key, lease, mark, FAILED_FOR))
            raise

    async def shield(self, flow: Coroutine[Any, Any, None]) -> None:
        await asyncio.shield(flow)

    async def call(self, function: Callable[..., Any], *args: Any) -> Any:
        try:
            return function(*args)
        except SynchronousOnlyOperation:
            return await sync_to_async(function)(*args)

    async def _run(self, command: str, *args: Any) -> Any:
        if self.backend().in_memory:
            return self._command(command, *args)
        return await sync_to_async(self._command)(command, *args)
