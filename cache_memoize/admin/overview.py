"""The rows of the admin's list: memoized functions with the figures of the whole site.

Each cache is read once. Where it keeps no figures or does not answer, the figures are
those of this process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from django.core.exceptions import ImproperlyConfigured
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from ..cache.connections import opened
from ..describe import (
    FIGURES,
    Figure,
    FunctionInfo,
    describe_dependencies,
    describe_tags,
    describe_timeout,
    describe_totals,
    list_functions,
)
from ..stats import sitewide
from ..stats.counters import moment
from ..stats.totals import Totals
from . import charts


def find_function(wanted: str) -> FunctionInfo | None:
    """Return the function with this id, or None if this process has not imported it or
    its settings are wrong."""
    try:
        return next((info for info in list_functions() if info.id == wanted), None)
    except ImproperlyConfigured:
        return None


def count_namesakes(mine: FunctionInfo) -> int:
    """Return the number of other functions that share the site's figures with this."""
    name = mine.alias, mine.path
    return sum((info.alias, info.path) == name for info in list_functions()) - 1


class Hour:
    """The last hour, as a large chart and as a table by ten minutes."""

    def __init__(self, minutes: list[sitewide.Minute]) -> None:
        self.chart = charts.draw_chart(minutes, bar=10, height=120)
        #: (minutes ago, figures), the oldest first.
        self.spans: list[tuple[str, sitewide.Minute]] = []
        for start in range(0, len(minutes), 10):
            columns = zip(*minutes[start : start + 10], strict=True)
            ago = f"{len(minutes) - start}–{len(minutes) - start - 10}"
            self.spans.append((ago, sitewide.Minute(*map(sum, columns))))


class Row:
    """One function.

    :param figures: of the whole site; None where none are kept or known.
    """

    def __init__(
        self, info: FunctionInfo, figures: sitewide.Figures | None, now: float
    ) -> None:
        self.info, self.path, self.alias = info, info.path, info.alias
        self.timeout = describe_timeout(info.timeout)
        self.tags = describe_tags(info.options.tags)
        is_number = isinstance(info.timeout, (int, float))
        #: Seconds to sort by; infinite for an unlimited or unknown timeout.
        self.seconds = info.timeout if is_number else float("inf")
        self.totals = info.stats.totals() if figures is None else figures.totals
        since = info.stats.old_since if figures is None else figures.old_since
        #: The moment since which no refresh has succeeded, or None.
        self.old_since = moment(since)
        #: The last hour by the minute; None without figures of the whole site.
        self.minutes = None if figures is None else figures.last_hour(now)

    @property
    def text(self) -> str:
        """The text that is searched."""
        depends = describe_dependencies(self.info).depends_on
        return " ".join([self.path, self.alias, self.tags, *depends])

    @property
    def figures(self) -> dict[str, str]:
        return describe_totals(self.totals)

    @property
    def chart(self) -> charts.Chart | None:
        return None if self.minutes is None else charts.draw_chart(self.minutes)

    @property
    def hour(self) -> Hour | None:
        return None if self.minutes is None else Hour(self.minutes)


class Column(NamedTuple):
    """A column by which rows can be sorted; ``name`` is its name in the address."""

    name: str
    title: Promise
    value: Callable[[Row], Any]
    is_number: bool = True


def _make_column(figure: Figure) -> Column:
    return Column(figure.name, figure.title, lambda row: figure.value(row.totals) or 0)


#: In the order of the table.
COLUMNS = [
    Column("name", _("Function"), lambda row: row.path, False),
    *map(_make_column, FIGURES),
    Column("timeout", _("Timeout"), lambda row: row.seconds, False),
    Column("cache", _("Cache"), lambda row: row.alias, False),
]


class Overview:
    """Functions with the figures of the whole site, as of now."""

    def __init__(self, infos: Iterable[FunctionInfo]) -> None:
        by_alias: dict[str, list[FunctionInfo]] = {}
        for info in infos:
            by_alias.setdefault(info.alias, []).append(info)
        #: Aliases of caches that keep no figures of the whole site.
        self.without_figures: list[str] = []
        #: Aliases of caches in the memory of this process.
        self.own_memory: list[str] = []
        #: Aliases of caches that did not answer.
        self.silent: list[str] = []
        #: Whether CACHE_MEMOIZE["ENABLED"] is False.
        self.disabled = False
        self.rows: list[Row] = []
        now = time.time()
        for alias, group in sorted(by_alias.items()):
            self.disabled |= not all(info.enabled for info in group)
            figures = self._read_figures(alias, group)
            self.rows += [Row(info, figures.get(info.path), now) for info in group]
        #: Whether no figure is of more than this process.
        self.of_process = len(self.own_memory) == len(by_alias) > 0

    def _read_figures(
        self, alias: str, infos: list[FunctionInfo]
    ) -> dict[str, sitewide.Figures]:
        one = infos[0]
        try:
            backend = opened(alias)[1]
            if backend.in_memory and backend.stores:
                self.own_memory.append(alias)
            if one.breaker.blocks(one.clock.monotonic()):
                self.silent.append(alias)
            elif not sitewide.kept(alias):
                self.without_figures.append(alias)
            else:
                paths = sorted({info.path for info in infos})
                return sitewide.up_to_date(alias, paths)
        except Exception:  # of any client
            self.silent.append(alias)
        return {}

    def search_rows(self, words: str) -> list[Row]:
        """Return the rows that have all words in their name, alias, tags, or the
        tables and functions that they depend on."""
        wanted = words.lower().split()
        if not wanted:
            return self.rows
        return [row for row in self.rows if all(w in row.text.lower() for w in wanted)]


def add_totals(rows: Iterable[Row]) -> Totals:
    """Return the sum of the rows; figures that functions of one name share, once."""
    whole, seen = Totals(), set()
    for row in rows:
        if row.minutes is not None and (row.alias, row.path) in seen:
            continue
        seen.add((row.alias, row.path))
        whole = whole.plus(row.totals)
    return whole
