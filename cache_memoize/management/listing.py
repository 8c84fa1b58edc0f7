"""``manage.py memoize list`` and ``stats``."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from django.core import checks
from django.core.management.base import CommandError, OutputWrapper

from ..cache.connections import opened
from ..conf import conf
from ..planning import Function, plan_of, planned
from ..protocol.policy import BACKEND
from ..stats import sitewide
from .naming import check_alias, find, load
from .outcome import Options, Outcome, duration
from .trouble import (
    cache_errors,
    probe,
    settings_errors,
    tell_own_memory,
)

__all__ = ["list_", "stats"]


def _known(modules: Iterable[str]) -> list[Function]:
    """All functions that are memoized once the URLconf and these modules are imported:
    the URLconf imports what the site serves."""
    try:
        checks.run_checks(tags=[checks.Tags.urls])
    except Exception as error:
        raise CommandError(
            f"importing the URLconf failed: {type(error).__name__}: {error}; "
            "manage.py check shows where"
        ) from error
    for name in modules:
        load(name)
    with settings_errors():
        found = sorted(planned(), key=lambda each: (each.path, plan_of(each).alias))
    if not found:
        raise CommandError(
            "no memoized function is known; name modules that have some: --import"
        )
    return found


def list_(options: Options, stderr: OutputWrapper) -> Outcome:
    rows = [_described(function) for function in _known(options["modules"])]
    cells = [
        [row["name"], row["alias"], _timeout(row["timeout"]), _tags(row["tags"])]
        + [_relative(row["location"])]
        for row in rows
    ]
    return Outcome(
        rows, _table(["name", "alias", "timeout", "tags", "location"], cells)
    )


def _described(function: Function) -> dict[str, Any]:
    timeout, tags = plan_of(function).policy.timeout, plan_of(function).options.tags
    if timeout is BACKEND:
        timeout = "default"
    elif callable(timeout):
        timeout = "callable"
    elif timeout == math.inf:
        timeout = None
    if callable(tags):
        tags = "callable"
    elif tags is not None:
        tags = [tags] if isinstance(tags, str) else list(tags)
    return {
        "name": function.path,
        "alias": plan_of(function).alias,
        "timeout": timeout,
        "tags": tags,
        "location": _location(function.func),
    }


def _location(function: Any) -> str | None:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else None


def _relative(location: str | None) -> str:
    return (location or "-").removeprefix(f"{Path.cwd()}/")


def _timeout(timeout: Any) -> str:
    if timeout is None:
        return "for ever"
    return timeout if isinstance(timeout, str) else f"{timeout:g} s"


def _tags(tags: Any) -> str:
    if tags is None:
        return "-"
    return tags if isinstance(tags, str) else ", ".join(tags) or "()"


def stats(options: Options, stderr: OutputWrapper) -> Outcome:
    names, modules = options["names"], options["modules"]
    if names:
        for name in modules:
            load(name)
        with settings_errors():
            functions = [find(name)._memoized for name in names]
    else:
        functions = _known(modules)
    if not conf().STATS_INTERVAL:
        stderr.write("no figures are kept: CACHE_MEMOIZE['STATS_INTERVAL'] is 0")
    paths: dict[str, list[str]] = {}
    for function in functions:
        of_alias = paths.setdefault(plan_of(function).alias, [])
        if function.path not in of_alias:
            of_alias.append(function.path)
    rows, errors = [], []
    for alias in sorted(paths):
        try:
            rows += _figures(alias, paths[alias], stderr)
            tell_own_memory(options, stderr, alias)
        except CommandError as error:  # the others are shown all the same
            errors.append(str(error))
    headers = "name alias calls hits rate stale waits errors runs mean p95 saved"
    lines = _table(headers.split(), [_figure_cells(row) for row in rows], 2)
    return Outcome(rows, lines, "\n".join(errors))


def _figures(
    alias: str, paths: list[str], stderr: OutputWrapper
) -> list[dict[str, Any]]:
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
        probe(alias)
    rows = []
    for path in paths:
        totals, since = found[path].totals, found[path].since
        figures = totals._asdict()
        del figures["costs"], figures["spent"]
        rows.append(
            {"name": path, "alias": alias}
            | figures
            | {"hit_rate": totals.hit_rate, "mean": totals.mean, "p95": totals.p95}
            | {"since": since or None}
        )
    return rows


def _figure_cells(row: dict[str, Any]) -> list[str]:
    rate = row["hit_rate"]
    return [
        row["name"],
        row["alias"],
        f"{row['hits'] + row['misses']:,}",
        f"{row['hits']:,}",
        "-" if rate is None else f"{rate:.1%}",
        *(f"{row[name]:,}" for name in ("stale", "waits", "errors", "computations")),
        *(duration(row[name]) for name in ("mean", "p95", "saved")),
    ]


def _table(headers: list[str], rows: list[list[str]], left: int = 5) -> list[str]:
    """Columns in lines; those from ``left`` on are numbers."""
    widths = [max(map(len, column)) for column in zip(headers, *rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if n < left else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [headers, *rows]
    ]
