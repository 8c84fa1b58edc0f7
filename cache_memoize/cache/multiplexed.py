"""One connection to a Redis server for all tasks of an event loop.

A pool would be the obvious way: each command waits for a connection of its own, and
200 callers open 200. A server answers a connection in the order of its commands, so
one is enough. Commands of one iteration of the loop are written together, and each
answer belongs to the oldest caller that waits. A caller that is cancelled leaves its
place to its answer. After any error the order is lost: all that wait get an error, and
the next command opens another connection.

The classes of the client library connect, pack commands and read answers, as its
settings say; only public parts of them are used.
"""

from __future__ import annotations

import asyncio
import importlib
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from contextvars import Context
from functools import partial
from typing import Any

__all__ = ["Multiplexed", "twin_of"]

#: A time-out is measured in this many parts. A loop that stood still counts as one of
#: them, however long it did: the answer may be there already.
PARTS = 4

_LIBRARIES = ("redis", "valkey")
_CONNECTIONS = ("Connection", "SSLConnection", "UnixDomainSocketConnection")
_POOLS = ("ConnectionPool", "BlockingConnectionPool")
#: Settings that are objects for threads, or for a pool.
_NOT_SHARED = {"parser_class", "retry", "retry_on_error", "retry_on_timeout"}
_NOT_SHARED |= {"event_dispatcher", "himport_registry"}
_NOT_SHARED |= {"maint_notifications_config", "maint_notifications_pool_handler"}


def twin_of(client: Any) -> Callable[[], Any]:
    """Return what makes an asyncio connection with the settings of a client.

    Raise an error if the client, its pool or its connections are not as redis-py and
    valkey-py make them, or if the asyncio class does not have one of the settings.
    """
    pool = client.connection_pool
    cls, settings = pool.connection_class, pool.connection_kwargs
    library, name = cls.__module__.partition(".")[0], cls.__name__
    own = importlib.import_module(f"{library}.connection")
    if (
        library not in _LIBRARIES
        or type(client).__module__ != f"{library}.client"
        or name not in _CONNECTIONS
        or getattr(own, name) is not cls
        or type(pool) not in [getattr(own, each) for each in _POOLS]
        or settings.get("decode_responses")
    ):
        raise TypeError("the client is not known")
    twin = getattr(importlib.import_module(f"{library}.asyncio.connection"), name)
    shared = {key: settings[key] for key in settings if key not in _NOT_SHARED}
    twin(**shared)
    return partial(twin, **shared)


async def _closing(connection: Any) -> AsyncGenerator[None]:
    """Close a connection at the end of its event loop, or when nothing refers to this
    generator any more: loops close their asynchronous generators."""
    try:
        yield
    finally:
        await connection.disconnect(nowait=True)


def _start_soon(loop: Any, flow: Any, *, context: Context) -> Any:
    return loop.create_task(flow, context=context)


#: At once, a command of one caller is written an iteration of the loop earlier.
_start = getattr(asyncio, "eager_task_factory", _start_soon)  # Python 3.12


class Multiplexed:
    """A connection that all tasks of the running event loop share.

    It has a task of its own only while callers wait: there are programs that end when
    all tasks have ended.
    """

    def __init__(self, connection: Any) -> None:
        #: Whether an error has ended it.
        self.closed = False
        self._connection = connection
        self._end: AsyncGenerator[None] | None = None
        library = type(connection).__module__.partition(".")[0]
        self._errors = importlib.import_module(f"{library}.exceptions")
        self._loop = asyncio.get_running_loop()
        self._timeout = connection.socket_timeout
        self._timer: asyncio.TimerHandle | None = None
        #: Those that wait for an answer, in the order of their commands.
        self._waiting: deque[asyncio.Future[Any]] = deque()
        #: Commands that are not yet written.
        self._packed: list[bytes] = []
        #: The task that reads, and writes the first commands.
        self._reader: asyncio.Task[Any] | None = None
        self._answers = 0

    def ask(self, *command: Any) -> asyncio.Future[Any]:
        """Send a command; return what its answer, or the server's error, is set on."""
        packed, is_first = self._connection.pack_command(*command), not self._packed
        self._packed += packed
        future = self._loop.create_future()
        self._waiting.append(future)
        if is_first:
            # The context of a request would live as long as the connection.
            if self._reader is None:
                _start(self._loop, self._serve(), context=Context())
            else:
                self._loop.create_task(self._write(), context=Context())
        return future

    async def _serve(self) -> None:
        """Read answers while callers wait for some."""
        self._reader = asyncio.current_task()
        try:
            await self._connect()
            if self._timeout and self._timer is None:
                self._tick(-1, 0)
            await self._write()
            while self._waiting:
                try:
                    answer = await self._connection.read_response()
                except self._errors.ResponseError as error:
                    answer = error
                self._answers += 1
                _settle(self._waiting.popleft(), answer)
            self._reader = None
        except BaseException as error:
            self._fail(error)
            if not isinstance(error, Exception):
                raise

    async def _connect(self) -> None:
        connection = self._connection
        if self._end is None:
            self._end = _closing(connection)
            await anext(self._end)
        elif not await self._is_lost():
            return
        connection.socket_timeout = self._timeout
        await connection.connect()
        connection.socket_timeout = None  # from now on, _tick() measures it

    async def _is_lost(self) -> bool:
        """Return whether the server has closed the connection, which was idle."""
        connection = self._connection
        with suppress(Exception):
            ask = getattr(connection, "can_read", None)  # redis-py from 8.0 on
            if not await (ask or connection.can_read_destructive)():
                return False
        await connection.disconnect(nowait=True)
        return True

    async def _write(self) -> None:
        packed, self._packed = self._packed, []
        try:
            await self._connection.send_packed_command(packed, check_health=False)
        except Exception as error:
            self._fail(error)

    def _tick(self, answers: int, silent: int) -> None:
        """Fail when callers have waited for the time-out without any answer."""
        silent = silent + 1 if answers == self._answers and self._waiting else 0
        self._timer = None
        if silent > PARTS:
            self._fail(self._errors.TimeoutError("Timeout reading from socket"))
        elif self._reader is not None:
            part = self._timeout / PARTS
            self._timer = self._loop.call_later(part, self._tick, self._answers, silent)

    def _fail(self, error: BaseException) -> None:
        """Have all that wait raise an error, and close the connection."""
        self.closed = True
        if not isinstance(error, Exception):
            error = self._errors.ConnectionError("the event loop ends")
        while self._waiting:
            _settle(self._waiting.popleft(), error)
        reader, self._reader = self._reader, None
        if reader is not None and reader is not asyncio.current_task():
            reader.cancel()  # which disconnects


def _settle(future: asyncio.Future[Any], answer: Any) -> None:
    if future.done():
        return  # its caller was cancelled
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)
