"""Time, pauses and randomness, in one object that tests can replace."""

from __future__ import annotations

import asyncio
import os
import random
import time
from contextlib import suppress
from typing import Any


class Clock:
    """The real time. Functions are looked up in their modules on each call, because
    time-travel libraries replace them there."""

    def time(self) -> float:
        return time.time()

    @property
    def source(self) -> Any:
        """The object whose ``time()`` the hit path calls: the module, if possible."""
        return time if type(self).time is Clock.time else self

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    async def asleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def wait(self, future: Any, seconds: float) -> Any:
        """Return the result of a future of a thread, or None after ``seconds``."""
        with suppress(TimeoutError):
            return future.result(seconds)
        return None

    async def await_future(self, future: Any, seconds: float) -> Any:
        """:meth:`wait` for a future of an event loop."""
        await asyncio.wait([future], timeout=seconds)
        return future.result() if future.done() else None

    def random(self) -> float:
        return random.random()

    def token(self) -> bytes:
        # Not from a seeded generator: forked processes would draw the same tokens.
        return os.urandom(8)
