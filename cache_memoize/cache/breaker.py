"""A circuit breaker: how long to leave a cache alone that does not work.

Pure state; every question takes ``now`` in monotonic seconds. One per alias and
process. The pattern is Michael Nygard's (Release It!, 2007).
"""

from __future__ import annotations

import threading

from .. import process

__all__ = ["Breaker", "breaker_of"]

#: So many failures in a row, each within ``WINDOW`` of the one before, open it.
THRESHOLD = 3
WINDOW = 10.0
#: Seconds for which it stays open before one caller may try again.
PAUSE = 5.0
#: An operation that takes longer counts as hanging, and opens it at once.
SLOW = 1.0


class Breaker:
    """Closed: use the cache. Open: compute. Half-open: one caller tries the cache."""

    def __init__(self) -> None:
        #: Read without a lock on every call; all else only when something is wrong.
        self.tripped = False
        self._failures = 0
        self._last = 0.0
        self._retry_at = 0.0
        self._probing = False
        self._lock = threading.Lock()

    def blocks(self, now: float) -> bool:
        """Whether this caller has to do without the cache."""
        if not self.tripped:
            return False
        with self._lock:
            if not self.tripped or now < self._retry_at:
                return self.tripped
            # This caller is the one that tries; the others go on without.
            self._retry_at = now + PAUSE
            self._probing = True
            return False

    def failure(self, now: float, *, hanging: bool = False) -> bool:
        """Count a failure; True when this one opened the breaker."""
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
        """The cache answered in time; True when that closed the breaker.

        While it is open, only the answer to the caller that tries counts: others were
        under way already, and one quick answer in a slow call means nothing.
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
    """Have these, by alias, and give those that were: tests have caches of their own.

    A function takes its breaker when it reads its settings, so change those after.
    """
    before = _breakers.copy()
    _breakers.clear()
    _breakers.update(breakers)
    return before


def known() -> list[str]:
    """The aliases that memoized functions of this process have used."""
    return list(_breakers)


@process.after_fork
def _after_fork() -> None:
    """Another thread of the parent may have held a lock."""
    for breaker in _breakers.values():
        breaker._lock = threading.Lock()
