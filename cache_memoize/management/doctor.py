"""``manage.py memoize doctor``: look at caches and figures, run the checks."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from statistics import median
from typing import Any, NamedTuple

from django.core import checks
from django.core.management.base import CommandError, OutputWrapper

from .. import process
from ..cache.breaker import Breaker, breaker_of
from ..cache.connections import fetch, opened, unshared
from ..cache.record import ENTRY, dumps, loads, pack
from ..cache.store import Store, run
from ..clock import Clock
from ..describe import (
    NOTHING,
    FunctionInfo,
    format_count,
    format_duration,
    format_percent,
    format_size,
)
from ..stats import sitewide
from ..stats.counters import moment
from . import Options, Outcome
from .findings import CacheState, Usage, judge_cache, judge_function, make_finding
from .listing import align_columns, warn_of_no_figures
from .naming import select_functions
from .trouble import cache_errors, probe_cache

#: Seconds for which a cache has time to answer.
TIME_LIMIT = 15.0
#: Reads of an entry of which the median is taken.
READS = 5
#: The levels of Django's checks.
LEVELS = ["CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG"]


def diagnose(options: Options, stderr: OutputWrapper) -> Outcome:
    """Return the state of caches and functions, and the findings."""
    infos = select_functions(options["names"], options["modules"])
    warn_of_no_figures(stderr)
    by_alias: dict[str, dict[str, FunctionInfo]] = {}
    for info in infos:
        by_alias.setdefault(info.alias, {}).setdefault(info.path, info)
    seen = [_look_at(alias, list(by_alias[alias].values())) for alias in by_alias]
    states = [each.state for each in seen]
    usages = [usage for each in seen for usage in each.usages]
    usages.sort(key=lambda usage: float("inf") if usage.net is None else usage.net)
    found = _run_checks(options["databases"])
    found += [finding for state in states for finding in judge_cache(state)]
    found += [finding for usage in usages for finding in judge_function(usage)]
    if not infos[0].enabled:
        found.append(make_finding("cache_memoize.D010", "settings"))
    found = [each for each in found if not each.is_silenced()]
    found.sort(key=lambda each: -each.level)
    least = getattr(checks, options["fail_level"])
    wrong = sum(each.level >= least for each in found)
    error = f"{wrong} finding{'' if wrong == 1 else 's'}" if wrong else ""
    return _make_outcome(states, usages, list(map(_make_row, found)), error)


def _run_checks(databases: list[str]) -> list[checks.CheckMessage]:
    """Run the checks of this package, as ``check --deploy`` does."""
    tags = [checks.Tags.caches, *([checks.Tags.database] if databases else [])]
    found = checks.run_checks(
        tags=tags, include_deployment_checks=True, databases=databases or None
    )
    return [each for each in found if str(each.id).startswith("cache_memoize.")]


# --- caches --------------------------------------------------------------------------


class _Seen(NamedTuple):
    state: CacheState
    usages: list[Usage]


def _look_at(alias: str, infos: list[FunctionInfo]) -> _Seen:
    """Look at a cache and the figures in it, in a thread: a cache may hang."""
    seen = _Seen(CacheState(alias, NOTHING), [Usage(i.path, alias) for i in infos])
    try:
        cache, backend = opened(alias)
    except Exception:  # an error of check_caches
        return seen
    state = seen.state._replace(backend=type(cache).__name__)
    found: list[_Seen] = []

    def look() -> None:
        try:
            found.append(_read_all(state, infos) if backend.stores else seen)
        except CommandError as error:
            found.append(seen._replace(state=state._replace(error=str(error))))
        finally:
            process.end_thread()

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(TIME_LIMIT)
    if found:
        return found[0]
    error = f"the cache {alias!r} has not answered within {TIME_LIMIT:.0f} s"
    return seen._replace(state=state._replace(error=error))


def _read_all(state: CacheState, infos: list[FunctionInfo]) -> _Seen:
    alias, began = state.alias, time.perf_counter()
    with cache_errors(alias):
        probe_cache(alias)
        seconds = time.perf_counter() - began
        figures = sitewide.read(alias, [info.path for info in infos])
        sizes = {_round_size(each.totals.size) for each in figures.values()}
        hits = {size: _time_hit(alias, size) for size in sizes if size}
        cache, backend = opened(alias)
        memory = None
        with suppress(Exception):  # a user of the server may be forbidden to ask
            memory = backend.ask_memory(cache)
        state = state._replace(
            seconds=seconds,
            shared=unshared(alias) is None,
            breaker=breaker_of(alias).state(time.monotonic()),
            memory=memory,
        )
    usages = [_make_usage(info, figures[info.path], hits) for info in infos]
    return _Seen(state, usages)


def _round_size(size: int) -> int:
    """Return a power of two, at most `size`: few sizes are read in place of many."""
    return 1 << (size.bit_length() - 1) if size else 0


def _time_hit(alias: str, size: int) -> float:
    """Return the seconds that it takes to read an entry with `size` bytes."""
    clock = Clock()
    store, token = Store(alias, Breaker(), clock), clock.token()
    key = f"cache_memoize.probe:{token.hex()}"
    payload = dumps(random.randbytes(size))  # which no client compresses
    entry = pack(ENTRY, token, payload, start=clock.time(), timeout=TIME_LIMIT)
    run(store.set(key, entry, TIME_LIMIT))
    took = []
    for _ in range(READS):
        began = time.perf_counter()
        raw = fetch(alias, key)
        if type(raw) is bytes:
            loads(raw)
        took.append(time.perf_counter() - began)
    run(store.delete(key))
    return median(took)


def _make_usage(
    info: FunctionInfo, figures: sitewide.Figures, hits: dict[int, float]
) -> Usage:
    options, now, totals = info.options, time.time(), figures.totals
    # With local="request", the figures do not tell how many hits were read at all.
    is_known = options.local != "request"
    return Usage(
        info.path,
        info.alias,
        totals,
        max(now - figures.since, 0.0) / 60 / 60 if figures.since else 0.0,
        hits.get(_round_size(totals.size)) if is_known else None,
        moment(figures.old_since),
        sum(minute.errors for minute in figures.last_hour(now)),
        stores_all=options.cache_if is None and not callable(info.timeout),
        stores_any=info.enabled and info.timeout != 0,
        is_guard=not options.store_result,
    )


# --- output --------------------------------------------------------------------------


def _make_outcome(
    states: list[CacheState],
    usages: list[Usage],
    findings: list[dict[str, Any]],
    error: str,
) -> Outcome:
    result = {
        "caches": list(map(_make_cache_row, states)),
        "functions": list(map(_make_usage_row, usages)),
        "findings": findings,
    }
    lines = [*_show_caches(states), "", *_show_usages(usages)]
    for row in findings:
        subject = f"{row['subject']}: " if row["subject"] else ""
        lines += ["", f"{row['level']} {subject}{row['message']} ({row['id']})"]
        lines += [f"    {row['hint']}"] * bool(row["hint"])
    return Outcome(result, lines, error)


def _make_cache_row(state: CacheState) -> dict[str, Any]:
    row = state._asdict() | {"error": state.error or None}
    memory = row.pop("memory")
    return row | {"server": memory and memory._asdict()}


def _make_usage_row(usage: Usage) -> dict[str, Any]:
    totals = usage.totals
    return {
        "name": usage.path,
        "alias": usage.alias,
        "calls": totals.calls,
        "hit_rate": totals.hit_rate,
        "saved_per_hour": usage.net,
        "hit": usage.hit,
        "mean": totals.mean,
        "size": totals.size,
    }


def _make_row(found: checks.CheckMessage) -> dict[str, Any]:
    return {
        "level": next(name for name in LEVELS if found.level >= getattr(checks, name)),
        "id": found.id,
        "subject": found.obj,
        "message": found.msg,
        "hint": found.hint,
    }


def _show_caches(states: Iterable[CacheState]) -> list[str]:
    cells = [["cache", "backend", "shared", "breaker", "evicted", "set, get, delete"]]
    for state in states:
        shared = NOTHING if state.seconds is None else "yes" if state.shared else "no"
        evicted = format_count(state.memory.evicted) if state.memory else NOTHING
        took = format_duration(state.seconds or 0)
        row = [state.alias, state.backend, shared, state.breaker, evicted, took]
        cells.append(row)
    return align_columns(cells, 4)


def _show_usages(usages: Iterable[Usage]) -> list[str]:
    names = ["name", "alias", "calls", "rate", "saved per hour", "hit", "mean", "size"]
    cells = [names]
    for usage in usages:
        totals = usage.totals
        net = usage.net or 0.0
        row = [
            format_count(totals.calls),
            format_percent(totals.hit_rate),
            "-" * (net < 0) + format_duration(abs(net)),
            format_duration(usage.hit or 0),
            format_duration(totals.mean),
            format_size(totals.size),
        ]
        cells.append([usage.path, usage.alias, *row])
    return align_columns(cells, 2)
