"""The parts of ``manage.py memoize`` by their names, and those that are about many
calls or none."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

from django.core.management.base import CommandError, OutputWrapper

from ..migrate import find_in
from ..planning import plan_of
from .bar import bar_on
from .calls import (
    invalidate,
    key,
    peek,
    refresh,
)
from .items import from_callable, from_lines
from .listing import list_, stats
from .naming import check_alias, find, is_method
from .outcome import Options, Outcome
from .trouble import probe, settings_errors, tell_own_memory
from .warming import Warming

__all__ = ["ACTS", "FAILED_AT_MOST", "INTERRUPTED", "NOT_RUN"]

#: The exit code of ``warm`` is how many items failed, up to this.
FAILED_AT_MOST = 100
#: Its exit code when it could not begin, or not go on.
NOT_RUN = 101
#: As shells have it for Ctrl-C.
INTERRUPTED = 130

# --- warm ----------------------------------------------------------------------------


def warm(options: Options, stderr: OutputWrapper) -> Outcome:
    name, source, workers = options["name"], options["source"], options["workers"]
    try:
        if workers < 1:
            raise CommandError("--workers takes a number of 1 or more")
        function = find(name)
        with settings_errors():
            plan = plan_of(function._memoized)
        if is_method(name) and not source:
            raise CommandError(
                f"{name} is a method, and JSON has no instances; use --from, with "
                "(instance, ...) as items"
            )
        check_alias(plan.alias)
        if not plan.policy.enabled:
            raise CommandError(
                "nothing would be stored: CACHE_MEMOIZE['ENABLED'] is False"
            )
        probe(plan.alias)
        tell_own_memory(options, stderr, plan.alias)
        total = options["total"]
        if source:
            given, known = from_callable(source)
            total, word = total or known, "item"
        else:
            if sys.stdin.isatty():
                stderr.write("reading JSON lines from the keyboard; Ctrl-D ends them")
            given, word = from_lines(getattr(sys.stdin, "buffer", sys.stdin)), "line"
        bar = bar_on(stderr, total)
        tracebacks = options["tracebacks"] or options["traceback"]
        warming = Warming(function, given, word, bar, tracebacks)
        return _warmed(warming, options)
    except CommandError as error:
        error.returncode = NOT_RUN
        raise


def _warmed(warming: Warming, options: Options) -> Outcome:
    began, ended = time.monotonic(), ""
    cause: BaseException | None = None
    try:
        warming.run(options["workers"])
    except KeyboardInterrupt:
        ended, code = "interrupted", INTERRUPTED
    except CommandError as error:
        ended, code, cause = str(error), NOT_RUN, error.__cause__
    finally:
        warming.bar.close()
    done = warming.summary()
    seconds = time.monotonic() - began
    line = ", ".join(f"{number:,} {what}" for what, number in done._asdict().items())
    result = {"name": options["name"], **done._asdict(), "seconds": seconds}
    if ended:
        return Outcome(result, [line], ended, code, cause)
    if done.failed:
        code = min(done.failed, FAILED_AT_MOST)
        items = "1 item" if done.failed == 1 else f"{done.failed:,} items"
        return Outcome(result, [line], f"{items} failed", code)
    return Outcome(result, [line])


# --- migrate-check -------------------------------------------------------------------


def migrate_check(options: Options, stderr: OutputWrapper) -> Outcome:
    paths = [Path(path) for path in options["paths"]]
    for path in paths:
        if not path.exists():
            raise CommandError(f"there is no file or folder {path}")
    found = list(find_in(paths))
    fields = ("line", "column", "code", "message", "cure")
    rows = [
        {"path": str(each.path)} | {field: getattr(each, field) for field in fields}
        for each in found
    ]
    lines = [
        f"{each.path}:{each.line}:{each.column}: {each.code} {each.message}; "
        f"{each.cure}"
        for each in found
    ]
    many = "1 call" if len(found) == 1 else f"{len(found)} calls"
    return Outcome(rows, lines, f"{many} to look at" if found else "")


#: By the name of the subcommand.
ACTS: dict[str, Callable[[Options, OutputWrapper], Outcome]] = {
    "list": list_,
    "stats": stats,
    "key": key,
    "peek": peek,
    "invalidate": invalidate,
    "refresh": refresh,
    "warm": warm,
    "migrate-check": migrate_check,
}
