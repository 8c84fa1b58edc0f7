"""The page of caches: whether each answers, and what memoized functions keep there."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from ..cache import near
from ..cache.breaker import breaker_of, known
from ..cache.connections import aliases, opened, settings_of
from ..cache.errors import CacheDidNotAnswer
from ..stats.totals import Totals
from .asking import Question, ask_all
from .overview import Overview, Row, add_totals


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
    #: Of the seconds that a get takes.
    question: Question
    rows: list[Row]
    totals: Totals
    #: Copies of entries in the memory of this process, and their bytes.
    copies: int
    copied_bytes: int

    @property
    def badness(self) -> Any:
        """A key for sorting, by which the worst comes first."""
        return (
            self.question.is_answered,
            self.state in (None, "closed"),
            -self.totals.errors,
        )


def list_caches(seen: Overview) -> list[CacheInfo]:
    """Describe all caches in the settings, the worst first."""
    names = sorted({*aliases(), *(row.alias for row in seen.rows)})
    measures = {alias: partial(_measure, alias) for alias in names}
    found = [
        _describe_cache(alias, question, [r for r in seen.rows if r.alias == alias])
        for alias, question in ask_all("get", measures).items()
    ]
    return sorted(found, key=lambda each: (each.badness, not each.rows))


def _describe_cache(alias: str, question: Question, rows: list[Row]) -> CacheInfo:
    own_place, stores = None, True
    with suppress(Exception):  # it cannot be opened: the question says so
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
        question,
        rows,
        add_totals(rows),
        len(copies.by_place) if copies else 0,
        copies.size if copies else 0,
    )
