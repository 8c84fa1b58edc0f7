"""``manage.py memoize list``, ``stats`` and ``migrate-check``."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from django.core import checks
from django.core.management.base import CommandError, OutputWrapper

from .. import describe
from ..cache.connections import opened
from ..conf import conf
from ..describe import NOTHING, FunctionInfo
from ..migrate import report_on
from ..protocol.policy import BACKEND
from ..stats import sitewide
from ..stats.counters import moment
from . import Options, Outcome
from .naming import check_alias, find_function, load_module
from .trouble import cache_errors, probe_cache, warn_of_own_memory


def _import_functions(modules: Iterable[str]) -> list[FunctionInfo]:
    """Import the URLconf, which imports all that the site serves, and these modules;
    return all memoized functions."""
    try:
        checks.run_checks(tags=[checks.Tags.urls])
    except Exception as error:
        raise CommandError(
            f"importing the URLconf failed: {type(error).__name__}: {error}; "
            "manage.py check shows where"
        ) from error
    for name in modules:
        load_module(name)
    found = sorted(describe.list_functions(), key=lambda info: (info.path, info.alias))
    if not found:
        raise CommandError(
            "no memoized function is imported; name modules that have some: --import"
        )
    return found


def list_functions(options: Options, stderr: OutputWrapper) -> Outcome:
    rows, cells = [], [["name", "alias", "timeout", "tags", "location"]]
    for info in _import_functions(options["modules"]):
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
    return Outcome(rows, _align_columns(cells))


def _jsonable_timeout(timeout: Any) -> float | str | None:
    if timeout is BACKEND:
        return "default"
    if callable(timeout):
        return "callable"
    return None if timeout == math.inf else float(timeout)


def show_stats(options: Options, stderr: OutputWrapper) -> Outcome:
    if options["names"]:
        for name in options["modules"]:
            load_module(name)
        infos = [find_function(name) for name in options["names"]]
    else:
        infos = _import_functions(options["modules"])
    if not conf().STATS_INTERVAL:
        stderr.write("no figures are kept: CACHE_MEMOIZE['STATS_INTERVAL'] is 0")
    paths: dict[str, list[str]] = {}
    for info in infos:
        of_alias = paths.setdefault(info.alias, [])
        if info.path not in of_alias:
            of_alias.append(info.path)
    rows, errors = [], []
    names = [figure.name for figure in describe.FIGURES]
    cells = [["name", "alias", *names, "old_since"]]
    for alias in sorted(paths):
        try:
            found = _read_figures(alias, paths[alias], stderr)
            warn_of_own_memory(options, stderr, alias)
        except CommandError as error:  # the figures of other caches are shown
            errors.append(str(error))
            continue
        for path, figures in zip(paths[alias], found, strict=True):
            rows.append({"name": path, "alias": alias, **_make_row(figures)})
            texts = describe.describe_totals(figures.totals)
            since = moment(figures.old_since)
            texts["old_since"] = f"{since:%Y-%m-%d %H:%M} UTC" if since else NOTHING
            cells.append([path, alias, *texts.values()])
    return Outcome(rows, _align_columns(cells, 2), "\n".join(errors))


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


def _align_columns(rows: list[list[str]], left: int = 5) -> list[str]:
    """Return rows as lines; columns from number `left` on are aligned to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if n < left else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


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
