"""``manage.py memoize``: the subcommands, their arguments, and the output."""

from __future__ import annotations

import contextlib
import json
import sys
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import (
    BaseCommand,
    CommandError,
    CommandParser,
    OutputWrapper,
)

from .. import INTERRUPTED, NOT_RUN, Options, Outcome, calls, listing
from ..trouble import listening
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


_Argument = tuple[str, dict[str, Any]]


class Part(NamedTuple):
    """A subcommand: its function, its help and its arguments."""

    run: Callable[[Options, OutputWrapper], Outcome]
    help: str
    arguments: list[_Argument]


def _argument(name: str, text: str, **kwargs: Any) -> _Argument:
    return name, {"help": text, **kwargs}


_ALL_PARTS = [
    _argument("--json", "Print one JSON document on stdout.", action="store_true"),
    # Django's own option comes before PART, and ends with 1 whatever the exit code.
    _argument(
        "--traceback",
        "Show where errors come from.",
        dest="tracebacks",
        action="store_true",
    ),
]
_NAME = _argument("name", "app.module.func")
_CALL = [
    _argument(
        "arguments",
        "A Python literal, or name=literal.",
        nargs="*",
        metavar="ARG",
    ),
    _argument(
        "--self",
        "For a method of a model: the primary key of its instance.",
        dest="instance",
        metavar="PK",
    ),
]
_SEVERAL: dict[str, Any] = {"action": "append", "default": []}
_IMPORT = _argument(
    "--import",
    "Import this module too; may be repeated.",
    dest="modules",
    metavar="MODULE",
    **_SEVERAL,
)

#: By the name of the subcommand.
PARTS = {
    "list": Part(
        listing.list_functions,
        "List the memoized functions that the URLconf imports.",
        [_IMPORT],
    ),
    "stats": Part(
        listing.show_stats,
        "Show the figures of all processes of the site.",
        [_argument("names", "app.module.func", nargs="*", metavar="name"), _IMPORT],
    ),
    "key": Part(calls.show_key, "Show the cache key of a call.", [_NAME, *_CALL]),
    "peek": Part(
        calls.peek_call,
        "Show the stored result of a call, without computing it.",
        [_NAME, *_CALL],
    ),
    "invalidate": Part(
        calls.invalidate_calls,
        "Invalidate a call, all calls of a function, or tags.",
        [
            _argument("name", "app.module.func", nargs="?"),
            *_CALL,
            _argument("--all", "Invalidate every call.", action="store_true"),
            _argument(
                "--tag",
                "Invalidate every call that has this tag; may be repeated.",
                dest="tags",
                **_SEVERAL,
            ),
            _argument("--alias", "Invalidate tags in this cache only."),
        ],
    ),
    "refresh": Part(
        calls.refresh_call, "Compute a call and store its result.", [_NAME, *_CALL]
    ),
    "warm": Part(
        warm,
        "Refresh many calls: JSON lines on stdin, or --from.",
        [
            _NAME,
            _argument(
                "--from",
                "Take the items that app.module.callable returns.",
                dest="source",
                metavar="CALLABLE",
            ),
            _argument("--workers", "The number of threads.", type=int, default=1),
            _argument("--total", "The number of items, for the progress.", type=int),
        ],
    ),
    "migrate-check": Part(
        listing.check_migration,
        "Find calls whose meaning has changed since 0.2.",
        [_argument("paths", "Files and folders.", nargs="+", metavar="PATH")],
    ),
}


class Command(BaseCommand):
    help = "Look at memoized functions; invalidate, refresh and warm their calls."
    # Checks import the URLconf, and with it everything.
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parsers = parser.add_subparsers(
            dest="part", required=True, metavar="PART", parser_class=_Part
        )
        for name, part in PARTS.items():
            added = parsers.add_parser(name, help=part.help, description=part.help)
            for flag, kwargs in [*_ALL_PARTS, *part.arguments]:
                added.add_argument(flag, **kwargs)

    def handle(self, *args: Any, **options: Any) -> None:
        # Whether the process exists for this command only.
        options["alone"] = getattr(self, "_called_from_command_line", False)
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
            failure = CommandError(outcome.error, returncode=outcome.code)
            raise failure from outcome.cause

    def _run(self, options: Options) -> Outcome:
        run = PARTS[options["part"]].run
        code = NOT_RUN if run is warm else 1
        try:
            # Output of the project is not part of the answer.
            with listening(), contextlib.redirect_stdout(sys.stderr):
                return run(options, self.stderr)
        except KeyboardInterrupt:
            return Outcome(None, [], "interrupted", INTERRUPTED)
        except ImproperlyConfigured as error:
            return Outcome(None, [], str(error), code, error)
        except CommandError as error:
            return Outcome(None, [], str(error), code, error.__cause__)
