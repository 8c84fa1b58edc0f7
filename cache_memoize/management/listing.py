"""``manage.py memoize list``, ``stats``, ``tags`` and ``migrate-check``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

from django.core.management.base import CommandError, OutputWrapper

from .. import describe
from ..cache.connections import opened
from ..conf import conf
from ..describe import NOTHING
from ..migrate import report_on
from ..protocol.policy import BACKEND
from ..stats import sitewide
from ..stats.counters import moment
from . import Options, Outcome
from .naming import check_alias, select_functions
from .trouble import cache_errors, probe_cache, warn_of_own_memory


def list_functions(options: Options, stderr: OutputWrapper) -> Outcome:
    rows, cells = [], [["name", "alias", "timeout", "tags", "location"]]
    for info in select_functions(options["names"], options["modules"]):
        place = info.location
        location = f"{place[0]}:{place[1]}" if place else None
        tags = info.options.tags
        row = {
            "name": info.path,
            "alias": info.alias,
            "timeout": _jsonable_timeout(info.timeout),
            "tags": "callable" if callable(tags) else describe.list_tags(tags),
            "location": location,
            **describe.describe_dependencies(info)._asdict(),
        }
        rows.append(row)
        shown = describe.describe_timeout(info.timeout), describe.describe_tags(tags)
        short = (location or "").removeprefix(f"{Path.cwd()}/")
        cells.append([info.path, info.alias, *(c or NOTHING for c in (*shown, short))])
    return Outcome(rows, align_columns(cells))


def _jsonable_timeout(timeout: Any) -> float | str | None:
    if timeout is BACKEND:
        return "default"
    if callable(timeout):
        return "callable"
    return None if timeout == math.inf else float(timeout)


def show_stats(options: Options, stderr: OutputWrapper) -> Outcome:
    infos = select_functions(options["names"], options["modules"])
    warn_of_no_figures(stderr)
    paths: dict[str, dict[str, None]] = {}  # each once
    for info in infos:
        paths.setdefault(info.alias, {})[info.path] = None
    found: list[_Row] = []
    errors = []
    for alias in sorted(paths):
        try:
            read = _read_figures(alias, list(paths[alias]), stderr)
            warn_of_own_memory(options, stderr, alias)
        except CommandError as error:  # the figures of other caches are shown
            errors.append(str(error))
            continue
        found += map(_Row, paths[alias], [alias] * len(read), read)
    if options["sort"]:
        found = _sort_rows(found, options["sort"])
    rows = [
        {"name": path, "alias": alias, **_make_row(figures)}
        for path, alias, figures in found
    ]
    names = [figure.name for figure in describe.FIGURES]
    cells = [["name", "alias", *names, "old_since"]]
    for path, alias, figures in found:
        texts = describe.describe_totals(figures.totals).values()
        since = moment(figures.old_since)
        old_since = f"{since:%Y-%m-%d %H:%M} UTC" if since else NOTHING
        cells.append([path, alias, *texts, old_since])
    return Outcome(rows, align_columns(cells, 2), "\n".join(errors))


def warn_of_no_figures(stderr: OutputWrapper) -> None:
    if not conf().STATS_INTERVAL:
        stderr.write("no figures are kept: CACHE_MEMOIZE['STATS_INTERVAL'] is 0")


class _Row(NamedTuple):
    path: str
    alias: str
    figures: sitewide.Figures


#: What the rows of ``stats`` can be sorted by.
COLUMNS = ["name", *(figure.name for figure in describe.FIGURES), "old_since"]


def _sort_rows(rows: list[_Row], column: str) -> list[_Row]:
    """Return the rows with the largest value first; or in the order of the names."""
    if column == "name":
        return sorted(rows, key=lambda row: row.path)
    values = {figure.name: figure.value for figure in describe.FIGURES}

    def value_of(row: _Row) -> Any:
        if column == "old_since":
            return row.figures.old_since
        return values[column](row.figures.totals) or 0

    return sorted(rows, key=value_of, reverse=True)


def _read_figures(
    alias: str, paths: list[str], stderr: OutputWrapper
) -> list[sitewide.Figures]:
    check_alias(alias)
    with cache_errors(alias):
        backend = opened(alias)[1]
        found = sitewide.up_to_date(alias, paths)
    if not (backend.stores and backend.atomic):
        stderr.write(
            f"no figures are kept in the cache {alias!r}, which cannot replace values "
            "atomically"
        )
    elif backend.swallows and not any(figures.since for figures in found.values()):
        probe_cache(alias)
    return [found[path] for path in paths]


def _make_row(figures: sitewide.Figures) -> dict[str, Any]:
    totals = figures.totals
    row = totals._asdict()
    del row["costs"], row["spent"]
    row |= {"hit_rate": totals.hit_rate, "mean": totals.mean, "p95": totals.p95}
    since, old_since = figures.since or None, figures.old_since or None
    return row | {"since": since, "old_since": old_since}


def align_columns(rows: list[list[str]], left: int = 5) -> list[str]:
    """Return rows as lines; columns from number `left` on are aligned to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if n < left else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def list_tags(options: Options, stderr: OutputWrapper) -> Outcome:
    infos = select_functions(options["names"], options["modules"])
    rows: list[dict[str, Any]] = [
        {"kind": kind, "name": name, "functions": users}
        for each, users in describe.describe_users(infos).items()
        for kind, _, name in [each.partition(" ")]
    ]
    rows.sort(key=lambda row: (row["kind"], row["name"]))
    by_call = sorted({info.path for info in infos if callable(info.options.tags)})
    if by_call:
        rows.append({"kind": "by call", "name": None, "functions": by_call})
    cells = [["kind", "name", "functions"]]
    cells += [
        [row["kind"], row["name"] or NOTHING, ", ".join(row["functions"])]
        for row in rows
    ]
    return Outcome(rows, align_columns(cells))


def check_migration(options: Options, stderr: OutputWrapper) -> Outcome:
    paths = [Path(path) for path in options["paths"]]
    for path in paths:
        if not path.exists():
            raise CommandError(f"the file or folder {path} does not exist")
    report = report_on(paths)
    found = report.findings
    rows = [each._asdict() | {"path": str(each.path)} for each in found]
    calls = "1 call" if len(found) == 1 else f"{len(found)} calls"
    error = f"{calls} to look at" if found else ""
    return Outcome(rows, [*map(str, found), str(report)], error)
