"""A slow and unreliable network, between clients and their server."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable


class Proxy:
    """Answers come late, or not at all; connections break, or stand still."""

    def __init__(self, server_port: int, host: str = "127.0.0.1") -> None:
        self.server = host, server_port
        self.port = 0
        #: Seconds by which each answer is late.
        self.delay = 0.0
        #: Which answers get lost, together with their connection.
        self.loses: Callable[[bytes], bool] = lambda answer: False
        self._tasks: list[asyncio.Task[None]] = []
        self._writers: list[asyncio.StreamWriter] = []
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()))

    def __enter__(self) -> Proxy:
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()

    def cut(self) -> None:
        """Break all connections."""
        self._loop.call_soon_threadsafe(self._abort)

    def stop(self) -> None:
        """Pass nothing on until :meth:`go_on`; then all of it, in order."""
        self._loop.call_soon_threadsafe(self._going.clear)

    def go_on(self) -> None:
        self._loop.call_soon_threadsafe(self._going.set)

    async def _main(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        self._going = asyncio.Event()
        self._going.set()
        listening = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = listening.sockets[0].getsockname()[1]
        self._ready.set()
        await self._end.wait()
        listening.close()
        for task in self._tasks:
            task.cancel()
        self._abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0.01)  # until they are closed

    def _abort(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    def _accept(self, client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        self._writers.append(back)
        self._tasks.append(asyncio.create_task(self._serve(client, back)))

    async def _serve(
        self, client: asyncio.StreamReader, back: asyncio.StreamWriter
    ) -> None:
        try:
            server, forth = await asyncio.open_connection(*self.server)
        except OSError:
            return back.transport.abort()
        self._writers.append(forth)
        pumps = (self._questions(client, forth), self._late_answers(server, back))
        try:
            await asyncio.wait(
                [asyncio.create_task(pump) for pump in pumps],
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            back.transport.abort()
            forth.transport.abort()
            self._writers.remove(back)
            self._writers.remove(forth)

    async def _questions(
        self, client: asyncio.StreamReader, server: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await client.read(65536):
                await self._going.wait()
                server.write(data)
            await asyncio.sleep(0.05)  # a late command of a client that gave up arrives

    async def _late_answers(
        self, server: asyncio.StreamReader, client: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await server.read(65536):
                if self.loses(data):
                    return
                await asyncio.sleep(self.delay)
                await self._going.wait()
                client.write(data)
