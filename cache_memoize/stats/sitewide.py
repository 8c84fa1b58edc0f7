"""The figures of the whole site: what all processes and hosts have counted.

Each function has one key in its own cache, to which every process adds what it has
counted since the last time, by the same atomic replacement that entries are stored by:
so a report counts once, or, if its process dies before, not at all. Where the cache
cannot replace atomically, no such figures are kept.
"""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from ..cache.breaker import (
    PAUSE,
    SLOW,
    Breaker,
    breaker_of,
)
from ..cache.connections import have_key_functions
from ..cache.store import Store, run
from ..clock import Clock
from ..conf import conf
from ..keys.encoding import digest, label
from . import reporter
from .totals import Totals

__all__ = ["MINUTES", "Figures", "Minute", "kept", "read", "tell", "up_to_date"]

#: For so many minutes back there are figures by the minute.
MINUTES = 60
#: Seconds after which the figures of a function that nobody calls any more are gone.
KEPT_FOR = 30 * 24 * 60 * 60
#: Others may be adding theirs at the same moment: so often one tries again.
TRIES = 20
#: By so many seconds the pauses between the tries grow, at most.
STEP = 0.002

#: By alias: until when a cache that hung is left alone, in monotonic seconds.
_rests: dict[str, float] = {}

_digest = digest("cache_memoize figures")


class Minute(NamedTuple):
    """What was counted in one minute."""

    hits: int = 0
    misses: int = 0
    stale: int = 0
    errors: int = 0


class Figures(NamedTuple):
    """Of one function, in all processes that share its cache."""

    totals: Totals = Totals()
    #: When the first of them was counted, in seconds since the epoch; 0.0: none was.
    since: float = 0.0
    #: By the minute since the epoch; those in which something was counted.
    minutes: dict[int, Minute] = {}

    def last_hour(self, now: float) -> list[Minute]:
        """The last :data:`MINUTES` minutes, the present one last."""
        end = int(now // 60)
        wanted = range(end - MINUTES + 1, end + 1)
        return [self.minutes.get(minute, Minute()) for minute in wanted]


def _key(path: str) -> str:
    name = f"{conf().KEY_PREFIX} {path}"
    return f"cache_memoize.figures:{label(path)[-40:]}:{_digest(name)}"


class _Store(Store):
    """Figures may wait for each other, as for a row of a database that somebody has
    locked. Callers are not to do without their cache for that."""

    def trouble(self, error: BaseException) -> None:
        pass  # the thread that tells them says so


def _store(alias: str) -> Store | None:
    """Where the figures are; None where none are kept."""
    store = _Store(alias, Breaker(), Clock())
    backend = store.backend()
    if not (backend.stores and backend.atomic):
        return None
    return store


def kept(alias: str) -> bool:
    """Whether this cache is one in which figures are kept."""
    return _store(alias) is not None


def tell(source: Any, new: Totals) -> None:
    """Add what one process has counted. Raises what the cache raises."""
    store, alias = _store(source.alias), source.alias
    if store is None:
        return
    began = time.monotonic()
    if breaker_of(alias).tripped or began < _rests.get(alias, began):
        raise OSError(f"the cache {alias!r} is left alone for a while")
    if store.is_in_transaction():
        # A rollback would take them away, and until then the others would wait.
        raise OSError(f"the cache {alias!r} is in a database, and a transaction open")
    try:
        _tell(store, _key(source.path), new)
    except Exception:
        if time.monotonic() - began > SLOW:  # the next function would hang as long
            _rests[alias] = time.monotonic() + PAUSE
        raise


def _tell(store: Store, key: str, new: Totals) -> None:
    now = time.time()
    for tried in range(TRIES):
        if tried:  # workers are often all told to end at the same moment
            store.clock.sleep(store.clock.random() * tried * STEP)
        old = run(store.raw(key))
        if isinstance(old, bytes):
            added = run(store.swap(key, old, _added(old, new, now), KEPT_FOR))
        else:
            if old is not None:  # not ours
                run(store.delete(key))
            added = run(store.add(key, _added(b"", new, now), KEPT_FOR))
        if added:
            return
    raise OSError(f"the cache {store.alias!r} did not take the figures")


def _added(old: bytes, new: Totals, now: float) -> bytes:
    figures, minute = _loads(old), int(now // 60)
    minutes = {m: f for m, f in figures.minutes.items() if m > minute - MINUTES}
    before = minutes.get(minute, Minute())
    more = (new.hits, new.misses, new.stale, new.errors)
    minutes[minute] = Minute(*(a + b for a, b in zip(before, more, strict=True)))
    totals = figures.totals.plus(new)
    return json.dumps(
        [totals[:-1], totals.costs, figures.since or now, minutes],
        separators=(",", ":"),
    ).encode()


def _loads(raw: bytes) -> Figures:
    """What is written there; nothing, if it cannot be read."""
    try:
        counts, costs, since, minutes = json.loads(raw)
        by_bucket = {int(place): int(number) for place, number in costs.items()}
        totals = Totals._make([*counts, by_bucket])
        return Figures(totals, since, {int(m): Minute(*f) for m, f in minutes.items()})
    except (ValueError, TypeError, AttributeError):
        return Figures()


def read(alias: str, paths: list[str]) -> dict[str, Figures]:
    """The figures of functions that use this cache; none where none are kept.

    Raises what the cache raises.
    """
    store = _store(alias)
    if store is None or not paths:
        return {path: Figures() for path in paths}
    keys = {path: _key(path) for path in paths}
    found = run(store.raw_many(list(keys.values())))
    return {
        path: _loads(raw) if isinstance(raw := found.get(key), bytes) else Figures()
        for path, key in keys.items()
    }


def up_to_date(alias: str, paths: list[str]) -> dict[str, Figures]:
    """:func:`read`, with what this process has counted up to now.

    A ``KEY_FUNCTION`` may know the tenant of this thread. The figures are nobody's: so
    they are asked for in a thread of its own, as the one that tells them is.
    """

    def ask() -> dict[str, Figures]:
        reporter.flush_stats()
        return read(alias, paths)

    def ask_alone() -> dict[str, Figures]:
        try:
            return ask()
        finally:
            reporter.clean_up()

    if not have_key_functions():  # it flushes what is in other caches too
        return ask()
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(ask_alone).result()
