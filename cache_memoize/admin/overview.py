"""What a person is shown of the memoized functions of this process.

Figures are those of the whole site, with one look at each cache; this process' own
where none are kept or the cache does not answer.
"""

from __future__ import annotations

import hashlib
import inspect
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from django.core.exceptions import ImproperlyConfigured
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..planning import Function, plan_of, planned
from ..protocol.policy import BACKEND
from ..stats import sitewide
from ..stats.totals import Totals
from . import charts
from .wording import duration, percent

__all__ = [
    "COLUMNS",
    "Column",
    "Hour",
    "Overview",
    "Row",
    "Shown",
    "find",
    "identity",
    "is_method",
    "namesakes",
    "totals",
]


# --- which function ------------------------------------------------------------------


def identity(function: Function) -> str:
    """The same in every process, and another for every function and prefix."""
    whole = f"{function.path} {function.prefix}"
    return hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:20]


def find(wanted: str) -> Function | None:
    """The function with this :func:`identity`; None: this process knows none, or has
    settings that fit no function."""
    try:
        return next(
            (function for function in planned() if identity(function) == wanted), None
        )
    except ImproperlyConfigured:
        return None


def namesakes(function: Function) -> int:
    """How many other functions there are whose calls are counted together with its."""
    mine = plan_of(function).alias, function.path
    return sum((plan_of(c).alias, c.path) == mine for c in planned()) - 1


def is_method(function: Function) -> bool:
    """Whether its first argument is an instance or a class."""
    return next(iter(inspect.signature(function.func).parameters), "") in _INSTANCES


_INSTANCES = ("self", "cls")


# --- figures -------------------------------------------------------------------------


class Shown:
    """Totals, and what follows from them, as text."""

    def __init__(self, totals: Totals) -> None:
        self.totals = totals
        self.rate = percent(totals.hit_rate)
        self.mean, self.p95 = duration(totals.mean), duration(totals.p95)
        self.saved = duration(totals.saved)


class Hour:
    """The last one, large: as a chart, and as a table by ten minutes."""

    def __init__(self, minutes: list[sitewide.Minute]) -> None:
        self.chart = charts.draw(minutes, bar=10, height=120)
        #: (minutes ago, figures), the oldest first.
        self.spans: list[tuple[str, sitewide.Minute]] = []
        for start in range(0, len(minutes), 10):
            columns = zip(*minutes[start : start + 10], strict=True)
            ago = f"{len(minutes) - start}–{len(minutes) - start - 10}"
            self.spans.append((ago, sitewide.Minute(*map(sum, columns))))


class Row(NamedTuple):
    """One function."""

    id: str
    path: str
    name: str
    module: str
    alias: str
    timeout: str
    tags: str
    #: Seconds, to sort by; infinite: for ever, or nobody knows.
    lasts: float
    totals: Totals
    #: The last hour by the minute; None: no figures of the whole site.
    minutes: list[sitewide.Minute] | None
    breaker: str

    @property
    def figures(self) -> Shown:
        return Shown(self.totals)

    @property
    def chart(self) -> charts.Chart | None:
        return None if self.minutes is None else charts.draw(self.minutes)

    @property
    def hour(self) -> Hour | None:
        return None if self.minutes is None else Hour(self.minutes)


class Column(NamedTuple):
    """One by which rows are sorted. ``name`` is what the address says."""

    name: str
    title: Promise
    value: Callable[[Row], Any]
    is_number: bool = True


#: In the order of the table.
COLUMNS = [
    Column("name", gettext_lazy("Function"), lambda row: row.path, False),
    Column("hits", gettext_lazy("Hits"), lambda row: row.totals.hits),
    Column("misses", gettext_lazy("Misses"), lambda row: row.totals.misses),
    Column("rate", gettext_lazy("Hit rate"), lambda row: row.totals.hit_rate or 0),
    Column("saved", gettext_lazy("Saved"), lambda row: row.totals.saved),
    Column("runs", gettext_lazy("Runs"), lambda row: row.totals.computations),
    Column("mean", gettext_lazy("Mean"), lambda row: row.totals.mean),
    Column("p95", gettext_lazy("95 %"), lambda row: row.totals.p95),
    Column("stale", gettext_lazy("Stale"), lambda row: row.totals.stale),
    Column("waits", gettext_lazy("Waits"), lambda row: row.totals.waits),
    Column("errors", gettext_lazy("Errors"), lambda row: row.totals.errors),
    Column("timeout", gettext_lazy("Timeout"), lambda row: row.lasts, False),
    Column("cache", gettext_lazy("Cache"), lambda row: row.alias, False),
]


class Overview:
    """Functions with the figures of the whole site, as of now."""

    def __init__(self, functions: Iterable[Function]) -> None:
        self.functions = list(functions)
        #: Aliases of caches that keep no figures of the whole site.
        self.unkept: list[str] = []
        #: Aliases of those that did not answer.
        self.silent: list[str] = []
        #: Whether the project has switched everything off.
        self.disabled = not all(
            plan_of(function).policy.enabled for function in self.functions
        )
        self._figures: dict[tuple[str, str], sitewide.Figures] = {}
        self._now = time.time()
        for alias in sorted({plan_of(function).alias for function in self.functions}):
            self._read(
                alias,
                [
                    function
                    for function in self.functions
                    if plan_of(function).alias == alias
                ],
            )
        self.rows = [self._row(function) for function in self.functions]

    def _read(self, alias: str, functions: list[Function]) -> None:
        paths = sorted({function.path for function in functions})
        one = functions[0]
        try:
            if plan_of(one).breaker.blocks(one.clock.monotonic()):
                self.silent.append(alias)
            elif not sitewide.kept(alias):
                self.unkept.append(alias)
            else:
                found = sitewide.up_to_date(alias, paths)
                self._figures |= {(alias, p): found[p] for p in paths}
        except Exception:  # whatever a client raises
            self.silent.append(alias)

    def _row(self, function: Function) -> Row:
        figures = self._figures.get((plan_of(function).alias, function.path))
        timeout = plan_of(function).policy.timeout
        known = timeout is not BACKEND and not callable(timeout)
        return Row(
            id=identity(function),
            path=function.path,
            name=function.name,
            module=function.func.__module__,
            alias=plan_of(function).alias,
            timeout=_timeout(timeout),
            tags=_tags(plan_of(function).options.tags),
            lasts=timeout if known else float("inf"),
            totals=function.stats.totals() if figures is None else figures.totals,
            minutes=None if figures is None else figures.last_hour(self._now),
            breaker=plan_of(function).breaker_state,
        )

    def searched(self, words: str) -> list[Row]:
        """Those in whose name, alias or tags all of the words are."""
        wanted = words.lower().split()
        return [
            row
            for row in self.rows
            if all(w in f"{row.path} {row.alias} {row.tags}".lower() for w in wanted)
        ]


def totals(rows: Iterable[Row]) -> Totals:
    """Of all of these. Functions of one name share the figures of the whole site."""
    whole, seen = Totals(), set()
    for row in rows:
        if row.minutes is not None and (row.alias, row.path) in seen:
            continue
        seen.add((row.alias, row.path))
        whole = whole.plus(row.totals)
    return whole


def _timeout(timeout: Any) -> str:
    if timeout is BACKEND:
        return _("the cache’s own")
    if callable(timeout):
        return _("by result")
    return duration(timeout) if timeout else _("not stored")


def _tags(tags: Any) -> str:
    if callable(tags):
        return _("by call")
    if isinstance(tags, str):
        return tags
    return ", ".join(map(str, tags)) if tags else ""
