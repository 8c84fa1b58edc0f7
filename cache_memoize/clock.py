"""Time, pauses and randomness: all that the library takes from the world.

A test passes another object with these methods, and no test has to sleep.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from typing import Any


class Clock:
    """The real world. Module attributes are looked up at each call on purpose: that
    is where time-travel libraries put theirs."""

    def time(self) -> float:
        return time.time()

    @property
    def source(self) -> Any:
        """What has ``time()`` for the hit path: the module itself, to save a call."""
        return time if type(self).time is Clock.time else self

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    async def asleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def random(self) -> float:
        return random.random()

    def token(self) -> bytes:
        # Not from a seeded generator: forked processes must not draw the same.
        return os.urandom(8)
