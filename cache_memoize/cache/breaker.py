"""A circuit breaker: a cache that does not work is left alone for some seconds.

Pure state, one breaker per alias and process; ``now`` is in monotonic seconds. The
pattern is Michael Nygard's (Release It!, 2007).
"""

from __future__ import annotations

import threading

from .. import process

__all__ = ["Breaker", "breaker_of"]

#: Failures in a row, each within WINDOW seconds of the last, that open the breaker.
THRESHOLD = 3
WINDOW = 10.0
#: Seconds for which the breaker stays open before one caller may try the cache again.
PAUSE = 5.0
#: Seconds after which an operation counts as hanging, which opens the breaker at once.
SLOW = 1.0


class Breaker:
    """Closed: use the cache. Open: compute. Half-open: one caller tries the cache."""

    def __init__(self) -> None:
        #: Read without a lock on every call; the others only after a failure.
        self.tripped = False
        self._failures = 0
        self._last = 0.0
        self._retry_at = 0.0
        self._probing = False
        self._lock = threading.Lock()

    def blocks(self, now: float) -> bool:
        """Return whether this caller has to do without the cache."""
        if not self.tripped:
            return False
        with self._lock:
            if not self.tripped or now < self._retry_at:
                return self.tripped
            # This caller tries the cache; the others go on without it.
            self._retry_at = now + PAUSE
            self._probing = True
            return False

    def failure(self, now: float, *, hanging: bool = False) -> bool:
        """Count a failure. Return whether this one opened the breaker."""
        with self._lock:
            if now - self._last > WINDOW:
                self._failures = 0
            self._last = now
            self._failures += 1
            if not (hanging or self.tripped or self._failures >= THRESHOLD):
                return False
            opened = not self.tripped
            self.tripped = True
            self._probing = False
            self._retry_at = now + PAUSE
            return opened

    def success(self) -> bool:
        """Count an answer in time. Return whether that closed the breaker.

        An open breaker is closed only by an answer to the caller that tries the cache:
        other answers were under way before.
        """
        if not self._failures or (self.tripped and not self._probing):
            return False
        with self._lock:
            closed = self.tripped
            self.tripped = self._probing = False
            self._failures = 0
            return closed

    def state(self, now: float) -> str:
        if not self.tripped:
            return "closed"
        return "open" if now < self._retry_at else "half-open"


_breakers: dict[str, Breaker] = {}


def breaker_of(alias: str) -> Breaker:
    return _breakers.setdefault(alias, Breaker())


def replace(breakers: dict[str, Breaker]) -> dict[str, Breaker]:
    """Replace all breakers, by alias, and return the previous ones, for tests.

    A function gets its breaker with its settings, so change these afterwards.
    """
    before = _breakers.copy()
    _breakers.clear()
    _breakers.update(breakers)
    return before


def known() -> list[str]:
    """Return the aliases that memoized functions of this process have used."""
    return list(_breakers)


@process.after_fork
def _after_fork() -> None:
    """Replace the locks: another thread of the parent may hold them."""
    for breaker in _breakers.values():
        breaker._lock = threading.Lock()
