"""The rows of the admin's list: memoized functions with the figures of the whole site.

Each cache is read once, and by other threads (asking.py). Where it keeps no figures or
does not answer, the figures are those of this process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

from django.core.exceptions import ImproperlyConfigured
from django.utils import formats, timezone
from django.utils.functional import Promise
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from ..cache.connections import opened
from ..describe import (
    FIGURES,
    Figure,
    FunctionInfo,
    describe_dependencies,
    describe_tags,
    describe_timeout,
    format_duration,
    list_functions,
)
from ..stats import sitewide
from ..stats.counters import moment
from ..stats.reporter import reporter
from ..stats.totals import Totals
from . import charts
from .asking import ask_all


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


class Window(NamedTuple):
    """A time of which the figures are shown; ``name`` is its name in the address."""

    name: str
    title: Promise
    #: 0: since the first report.
    minutes: int


WINDOWS = [
    Window("15", _("last 15 minutes"), 15),
    Window("60", _("last hour"), 60),
    Window("all", _("since the first report"), 0),
]
HOUR = WINDOWS[1]


class Row:
    """One function.

    :param figures: of the whole site; None where none are kept or known.
    :param is_silent: whether its cache does not answer.
    """

    def __init__(
        self,
        info: FunctionInfo,
        figures: sitewide.Figures | None,
        now: float,
        window: Window,
        is_silent: bool,
    ) -> None:
        self.info, self.path, self.alias = info, info.path, info.alias
        self.is_silent = is_silent
        self.timeout = describe_timeout(info.timeout)
        self.tags = describe_tags(info.options.tags)
        self.whole = info.stats.totals() if figures is None else figures.totals
        since = info.stats.old_since if figures is None else figures.old_since
        #: The moment since which no refresh has succeeded, or None.
        self.old_since = moment(since)
        #: The minutes in which refreshes failed, up to now.
        self.failing = int(now // 60) - int(since // 60) + 1 if since else 0
        self.first_report = moment(figures.since) if figures else None
        #: The last hour by the minute; None without figures of the whole site.
        self.hour = None if figures is None else figures.last_hour(now)
        #: The same of the window.
        self.minutes = self.hour and self.hour[-(window.minutes or sitewide.MINUTES) :]
        self.totals = self.whole
        if self.minutes is not None and window.minutes:
            self.totals = limit_totals(self.whole, self.minutes)

    @property
    def text(self) -> str:
        """The text that is searched."""
        depends = describe_dependencies(self.info).depends_on
        alias = f"cache:{self.alias}"
        return " ".join([self.path, self.info.source, alias, self.tags, *depends])

    @property
    def alerts(self) -> list[str]:
        """The trouble of the cache and of the function, in words."""
        found = [self.cache_alert] if self.cache_alert else []
        if self.old_since is not None:
            text = gettext("serving old values since %(moment)s: refreshes fail")
            found.append(text % {"moment": format_moment(self.old_since)})
        if self.whole.wrong:
            text = gettext("%(wrong)s of %(audited)s audited hits were wrong")
            found.append(text % self.whole._asdict())
        return found

    @property
    def cache_alert(self) -> str:
        """The trouble of the cache, in words; empty: there is none."""
        text = ""
        if self.info.breaker_state != "closed":
            text = gettext("the cache %(alias)s is not used, after failures")
        elif self.is_silent:
            text = gettext("the cache %(alias)s does not answer")
        return text and text % {"alias": self.alias}

    @property
    def badness(self) -> tuple[Any, ...]:
        """A key for sorting, by which the worst comes last."""
        is_old = self.old_since is not None
        errors = self.totals.errors + self.totals.wrong
        trouble = bool(self.cache_alert), is_old, errors > 0
        return *trouble, self.totals.spent

    def draw_chart(self, scale: int) -> charts.Chart | None:
        if self.minutes is None:
            return None
        return charts.draw_chart(self.minutes, scale, self.failing)

    def draw_hour(self) -> charts.Chart | None:
        if self.hour is None:
            return None
        return charts.draw_chart(self.hour, 0, self.failing, width=600, height=120)

    def list_spans(self) -> list[tuple[str, sitewide.Minute]]:
        """Return ("60–50", counts) by ten minutes, the oldest first."""
        hour = self.hour or []
        return [
            (f"{60 - start}–{50 - start}", charts.sum_minutes(hour[start : start + 10]))
            for start in range(0, len(hour), 10)
        ]


def format_moment(when: datetime) -> str:
    """Return a moment as "2:02 p.m.", with its date if that is not today's."""
    then, now = (
        timezone.localtime(each) if timezone.is_aware(each) else each
        for each in (when, timezone.now())
    )
    is_today = then.date() == now.date()
    return formats.date_format(then, "TIME_FORMAT" if is_today else "DATETIME_FORMAT")


def limit_totals(whole: Totals, minutes: list[sitewide.Minute]) -> Totals:
    """Return the counts of these minutes. Seconds and runs, which are not counted by
    the minute, are estimated from those of all calls."""
    span = charts.sum_minutes(minutes)
    hits, misses = span.hits / (whole.hits or 1), span.misses / (whole.misses or 1)
    return whole._replace(
        hits=span.hits,
        misses=span.misses,
        stale=span.stale,
        errors=span.errors,
        saved=whole.saved * hits,
        spent=whole.spent * misses,
        computations=round(whole.computations * misses),
    )


class Column(NamedTuple):
    """A column by which rows can be sorted; ``name`` is its name in the address."""

    name: str
    title: Promise
    value: Callable[[Row], Any]
    is_number: bool = True


_FIGURES = {
    each.name: each
    for each in [
        *FIGURES,
        Figure("spent", _("Computing"), lambda t: t.spent, format_duration),
    ]
}
#: The figures of the list, in the order of its columns.
SHOWN = [
    _FIGURES[name]
    for name in (
        "hits",
        "misses",
        "rate",
        "stale",
        "errors",
        "spent",
        "saved",
        "mean",
        "p95",
    )
]


def _make_column(figure: Figure) -> Column:
    return Column(figure.name, figure.title, lambda row: figure.value(row.totals) or 0)


#: In the order of the table.
COLUMNS = [
    Column("name", _("Function"), lambda row: row.path, False),
    *map(_make_column, SHOWN),
    Column("cache", _("Cache"), lambda row: row.alias, False),
]
#: The order of the list without another.
WORST = Column("worst", _("worst first"), lambda row: row.badness)


def describe_shown(totals: Totals) -> dict[str, str]:
    """Return the figures of the list as text, by their names."""
    return {each.name: each.format(each.value(totals)) for each in SHOWN}


class Overview:
    """Functions with the figures of the whole site, as of now."""

    def __init__(self, infos: Iterable[FunctionInfo], window: Window = HOUR) -> None:
        self.window = window
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
        figures = self._read_figures(by_alias)
        self.rows: list[Row] = []
        now = time.time()
        for alias, group in sorted(by_alias.items()):
            self.disabled |= not all(info.enabled for info in group)
            kept, is_silent = figures.get(alias, {}), alias in self.silent
            self.rows += [
                Row(info, kept.get(info.path), now, window, is_silent) for info in group
            ]

    def _read_figures(
        self, by_alias: dict[str, list[FunctionInfo]]
    ) -> dict[str, dict[str, sitewide.Figures]]:
        """Return the figures by alias and path, after a report of this process."""
        functions = {}
        for alias, infos in sorted(by_alias.items()):
            if self._keeps_figures(alias, infos[0]):
                paths = sorted({info.path for info in infos})
                functions[alias] = partial(sitewide.read, alias, paths)
        if functions:
            ask_all("report", {"": reporter.flush_stats})
        found = ask_all("figures", functions)
        self.silent += [alias for alias in found if not found[alias].is_answered]
        return {alias: each.answer for alias, each in found.items() if each.is_answered}

    def _keeps_figures(self, alias: str, info: FunctionInfo) -> bool:
        try:
            backend = opened(alias)[1]
            if backend.in_memory and backend.stores:
                self.own_memory.append(alias)
            if sitewide.kept(alias):
                # Half-open, it is read: that is no call, and takes no caller's turn.
                if info.breaker_state != "open":
                    return True
                self.silent.append(alias)
            else:
                self.without_figures.append(alias)
        except Exception:  # of any client
            self.silent.append(alias)
        return False

    @property
    def since(self) -> datetime | None:
        """The moment of the first report, or None."""
        return min((r.first_report for r in self.rows if r.first_report), default=None)

    def search_rows(self, words: str) -> list[Row]:
        """Return the rows that have all words in their name, file, alias, tags, or the
        tables and functions that they depend on."""
        wanted = words.lower().split()
        if not wanted:
            return list(self.rows)
        return [row for row in self.rows if all(w in row.text.lower() for w in wanted)]


def add_totals(rows: Iterable[Row]) -> Totals:
    """Return the sum of the rows; figures that functions of one name share, once."""
    whole, seen = Totals(), set()
    for row in rows:
        if row.hour is not None and (row.alias, row.path) in seen:
            continue
        seen.add((row.alias, row.path))
        whole = whole.plus(row.totals)
    return whole
