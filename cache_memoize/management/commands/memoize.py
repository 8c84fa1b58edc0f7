"""``manage.py memoize``: the subcommands, their arguments, and the output."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import traceback
from collections.abc import Callable
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import (
    BaseCommand,
    CommandError,
    CommandParser,
    OutputWrapper,
)

from ...process import printable
from ...stats.history import acting
from .. import INTERRUPTED, NOT_RUN, Options, Outcome, calls, listing
from ..doctor import LEVELS, diagnose
from ..warming import warm


class _Part(CommandParser):
    """A parser whose options may stand anywhere, also between arguments of a call."""

    _is_inside = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self._is_inside:  # Python 3.11 calls this again
            return super().parse_known_args(args, namespace)
        self._is_inside = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._is_inside = False


#: By the name of the subcommand.
PARTS: dict[str, Callable[[Options, OutputWrapper], Outcome]] = {
    "list": listing.list_functions,
    "stats": listing.show_stats,
    "tags": listing.list_tags,
    "doctor": diagnose,
    "key": calls.show_key,
    "explain": calls.explain_call,
    "peek": calls.peek_call,
    "invalidate": calls.invalidate_calls,
    "clear": calls.clear_functions,
    "refresh": calls.refresh_call,
    "warm": warm,
    "migrate-check": listing.check_migration,
}
_SEVERAL: dict[str, Any] = {"action": "append", "default": []}
#: Django's own options, which may be before or after PART. Without a default: it would
#: replace the value from before.
_DJANGO_OPTIONS: dict[tuple[str, ...], dict[str, Any]] = {
    ("-v", "--verbosity"): {"type": int, "choices": [0, 1, 2, 3]},
    ("--settings",): {},
    ("--pythonpath",): {},
    ("--no-color",): {"action": "store_true"},
    ("--force-color",): {"action": "store_true"},
}


def _add_names(option: Callable[..., Any]) -> None:
    text = "app.module.func, or app.module. for all below it."
    option("names", nargs="*", metavar="name", help=text)
    text = "Import this module too; may be repeated."
    option("--import", dest="modules", help=text, metavar="MODULE", **_SEVERAL)


def _add_call(option: Callable[..., Any], **kwargs: Any) -> None:
    option("name", help="app.module.func", **kwargs)
    text = "A Python literal, or name=literal."
    option("arguments", nargs="*", metavar="ARG", help=text)
    text = "For a method of a model: the primary key of its instance."
    option("--self", dest="instance", metavar="PK", help=text)


#: Adds a part by its name and its help; returns the ``add_argument()`` of its parser.
Add = Callable[[str, str], Callable[..., Any]]


def _add_site_parts(add: Add) -> None:
    _add_names(add("list", "List the functions that the URLconf imports."))
    option = add("stats", "Show the figures of all processes of the site.")
    _add_names(option)
    text = "Sort by this column, the largest first."
    option("--sort", choices=listing.COLUMNS, help=text, metavar="COLUMN")
    _add_names(add("tags", "List tags and tables, and what depends on them."))
    option = add("doctor", "Look for what is wrong, and run all checks.")
    _add_names(option)
    text = "Run the checks of this database too; may be repeated."
    option("--database", dest="databases", metavar="DATABASE", help=text, **_SEVERAL)
    text = "The lowest level of a finding that is an error of the command."
    option("--fail-level", choices=LEVELS, default="WARNING", help=text)


def _add_call_parts(add: Add) -> None:
    _add_call(add("key", "Show the cache key of a call."))
    _add_call(add("explain", "Show what is stored for a call, and why it missed."))
    _add_call(add("peek", "Show the stored result of a call; never computes."))
    option = add("invalidate", "Invalidate a call, all of a function, or tags.")
    _add_call(option, nargs="?")
    option("--all", action="store_true", help="Invalidate every call.")
    text = "Invalidate every call that has this tag; may be repeated."
    option("--tag", dest="tags", help=text, **_SEVERAL)
    option("--alias", help="Invalidate tags in this cache only.")
    option = add("clear", "Invalidate every call of functions.")
    _add_names(option)
    option("--all", action="store_true", help="Of all memoized functions.")
    _add_call(add("refresh", "Compute a call and store its result."))
    option = add("warm", "Refresh many calls: JSON lines on stdin, or --from.")
    option("name", help="app.module.func")
    text = "Take the items that app.module.callable returns."
    option("--from", dest="source", metavar="CALLABLE", help=text)
    option("--workers", type=int, default=1, help="The number of threads.")
    option("--total", type=int, help="The number of items, for the progress.")
    option = add("migrate-check", "Find code whose meaning has changed since 0.2.")
    option("paths", nargs="+", metavar="PATH", help="Files and folders.")


class _Printable(OutputWrapper):
    """An output of the command, without control characters of others."""

    def __init__(self, output: Any) -> None:
        super().__init__(getattr(output, "_out", output), output.ending)
        self.style_func = output.style_func

    def write(self, msg: str = "", *args: Any, **kwargs: Any) -> Any:
        return super().write(printable(msg, keep="\n"), *args, **kwargs)


class Command(BaseCommand):
    help = "Look at memoized functions; invalidate, refresh and warm their calls."
    # Checks import the URLconf, and with it everything.
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parts = parser.add_subparsers(
            dest="part", required=True, metavar="PART", parser_class=_Part
        )

        def add(name: str, text: str) -> Callable[..., Any]:
            option = parts.add_parser(name, help=text, description=text).add_argument
            text = "Print one JSON document on stdout."
            option("--json", action="store_true", help=text)
            # Django's own comes before PART, and makes every exit code of an error 1.
            text = "Show where errors come from."
            option("--traceback", dest="tracebacks", action="store_true", help=text)
            text = "As before PART."
            for names, kwargs in _DJANGO_OPTIONS.items():
                option(*names, default=argparse.SUPPRESS, help=text, **kwargs)
            return option

        _add_site_parts(add)
        _add_call_parts(add)

    def handle(self, *args: Any, **options: Any) -> None:
        # Whether the process exists for this command only.
        options["alone"] = getattr(self, "_called_from_command_line", False)
        self.stdout, self.stderr = _Printable(self.stdout), _Printable(self.stderr)
        outcome = self._run(options)
        if options["json"]:
            document = {
                "command": options["part"],
                "ok": not outcome.error,
                "error": outcome.error or None,
                "result": outcome.result,
            }
            self.stdout.write(json.dumps(document))
        else:
            for line in outcome.lines:
                self.stdout.write(line)
        if outcome.error:
            if options["tracebacks"] and outcome.cause is not None:
                lines = traceback.format_exception(outcome.cause)
                self.stderr.write("".join(lines).rstrip())
            text = printable(outcome.error, keep="\n")
            failure = CommandError(text, returncode=outcome.code)
            raise failure from outcome.cause

    def _run(self, options: Options) -> Outcome:
        run = PARTS[options["part"]]
        code = NOT_RUN if run is warm else 1
        try:
            # Output of the project is not part of the answer.
            with contextlib.redirect_stdout(sys.stderr), acting("manage.py memoize"):
                return run(options, self.stderr)
        except KeyboardInterrupt:
            return Outcome(None, [], "interrupted", INTERRUPTED)
        except ImproperlyConfigured as error:
            return Outcome(None, [], str(error), code, error)
        except CommandError as error:
            return Outcome(None, [], str(error), code, error.__cause__)
