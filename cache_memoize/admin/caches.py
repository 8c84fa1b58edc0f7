"""The page of caches: whether each answers, and what the memoized functions keep there.

A cache that hangs must not keep the page waiting, so each is asked in a thread of its
own, and the page waits for all of them together. A thread that is still waiting when
the page is shown again is not joined by another one.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, NamedTuple

from .. import process
from ..cache import near
from ..cache.breaker import breaker_of, known
from ..cache.connections import aliases, opened, settings_of
from ..cache.errors import CacheDidNotAnswer
from ..describe import describe_error
from ..stats.totals import Totals
from .overview import Overview, Row, add_totals

#: Seconds for which the page waits for all caches.
PATIENCE = 1.0


class _Probe:
    """A thread that asks a cache for one key."""

    def __init__(self, alias: str) -> None:
        self.began = time.monotonic()
        #: Seconds of a get, over a connection that is open; None: there is no answer.
        self.seconds: float | None = None
        self.error = ""
        self.ended = threading.Event()
        self._alias = alias
        name = f"cache_memoize probe of {alias}"
        threading.Thread(target=self._ask, name=name, daemon=True).start()

    def _ask(self) -> None:
        try:
            self.seconds = _measure(self._alias)
        except Exception as error:  # of any client
            self.error = describe_error(error)
        finally:
            self.ended.set()
            process.end_thread()


#: The probes that have not ended, by alias.
_probes: dict[str, _Probe] = {}


def _measure(alias: str) -> float:
    """Return the seconds that one get takes. Raises the errors of the cache."""
    cache, backend = opened(alias)
    value = os.urandom(8).hex()
    key = f"cache_memoize.probe:{value}"
    if backend.swallows:  # its client would answer for a server that is down
        cache.set(key, value, 10)
    cache.get(key)  # it opens the connection
    began = time.monotonic()
    found = cache.get(key)
    took = time.monotonic() - began
    if backend.swallows:
        cache.delete(key)
        if found != value:
            raise CacheDidNotAnswer("it does not keep what is written to it")
    return took


def probe_caches(names: Iterable[str]) -> dict[str, _Probe]:
    """Ask all of these caches at once. The probe of one that does not answer in time
    has not ended."""
    found, end = {}, time.monotonic() + PATIENCE
    for alias in names:
        probe = _probes.get(alias)
        if probe is None or probe.ended.is_set():
            probe = _probes[alias] = _Probe(alias)
        found[alias] = probe
    for alias, probe in found.items():
        if probe.ended.wait(max(end - time.monotonic(), 0)):
            _probes.pop(alias, None)
    return found


@process.after_fork
def _after_fork() -> None:
    """The threads are the parent's."""
    _probes.clear()


class CacheInfo(NamedTuple):
    """One cache of the project, as this process sees it."""

    alias: str
    #: The path of the class.
    backend: str
    #: Where the entries are, if other processes do not see them.
    own_place: str | None
    #: Whether the backend stores anything.
    stores: bool
    #: Of the circuit breaker: closed, open or half-open; None: it was not used yet.
    state: str | None
    probe: _Probe
    rows: list[Row]
    totals: Totals
    #: Copies of entries in the memory of this process, and their bytes.
    copies: int
    copied_bytes: int

    @property
    def waited(self) -> float:
        """Seconds since the cache was asked."""
        return time.monotonic() - self.probe.began

    @property
    def badness(self) -> Any:
        """What to sort by, for the worst to be first."""
        is_silent = self.probe.seconds is None
        return not is_silent, self.state in (None, "closed"), -self.totals.errors


def list_caches(seen: Overview) -> list[CacheInfo]:
    """Describe all caches in the settings, the worst first."""
    names = sorted({*aliases(), *(row.alias for row in seen.rows)})
    found = [
        _describe_cache(alias, probe, [r for r in seen.rows if r.alias == alias])
        for alias, probe in probe_caches(names).items()
    ]
    return sorted(found, key=lambda each: (each.badness, not each.rows))


def _describe_cache(alias: str, probe: _Probe, rows: list[Row]) -> CacheInfo:
    own_place, stores = None, True
    with suppress(Exception):  # it cannot be opened: the probe says so
        cache, backend = opened(alias)
        own_place, stores = backend.own_place(cache), backend.stores
    state = breaker_of(alias).state(time.monotonic()) if alias in known() else None
    copies = near.copies_of(alias) if near.may_have_copies(alias, tells=False) else None
    return CacheInfo(
        alias,
        str((settings_of(alias) or {}).get("BACKEND", "")),
        own_place,
        stores,
        state,
        probe,
        rows,
        add_totals(rows),
        len(copies.by_place) if copies else 0,
        copies.size if copies else 0,
    )
