"""``manage.py memoize``: look at memoized functions, forget, refresh and warm them."""

from __future__ import annotations

import contextlib
import json
import sys
import traceback
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ..acts import ACTS, INTERRUPTED
from ..outcome import Outcome
from ..trouble import listening


class _Part(CommandParser):
    """Options may stand anywhere, also between the arguments of a call."""

    _is_inside = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self._is_inside:  # older Pythons come back here
            return super().parse_known_args(args, namespace)
        self._is_inside = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._is_inside = False


class Command(BaseCommand):
    help = "Look at memoized functions; forget, refresh and warm their calls."
    # Checks import the URLconf, and with it everything.
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        parts = parser.add_subparsers(
            dest="part", required=True, metavar="PART", parser_class=_Part
        )

        def add(name: str, text: str) -> Any:
            part = parts.add_parser(name, help=text, description=text)
            option = part.add_argument
            option("--json", action="store_true", help="One JSON document on stdout.")
            # Not Django's own, which stands before PART and ends with 1, whatever the
            # exit code should be.
            text = "Show where errors come from."
            option("--traceback", dest="tracebacks", action="store_true", help=text)
            return option

        def importing(option: Any) -> None:
            text = "Import this module too; may be repeated."
            several = {"action": "append", "default": [], "metavar": "MODULE"}
            option("--import", dest="modules", help=text, **several)

        def call(option: Any, **kwargs: Any) -> None:
            option("name", help="app.module.func", **kwargs)
            text = "A Python literal, or name=literal."
            option("arguments", nargs="*", metavar="ARG", help=text)
            text = "Of a method of a model: the primary key of its instance."
            option("--self", dest="instance", metavar="PK", help=text)

        importing(add("list", "The memoized functions that the URLconf imports."))
        option = add("stats", "What was counted in all processes of the site.")
        option("names", nargs="*", metavar="name", help="app.module.func")
        importing(option)
        call(add("key", "The cache key of a call."))
        call(add("peek", "What is stored for a call; never computes."))
        option = add("invalidate", "Forget a call, all calls of a function, or tags.")
        call(option, nargs="?")
        option("--all", action="store_true", help="Forget every call.")
        several = {"dest": "tags", "action": "append", "default": []}
        text = "Forget every call that has this tag; may be repeated."
        option("--tag", help=text, **several)
        option("--alias", help="Forget tags in this cache only.")
        call(add("refresh", "Compute a call anew and store it."))
        option = add("warm", "Refresh many calls: JSON lines on stdin, or --from.")
        option("name", help="app.module.func")
        text = "Take the items that app.module.callable gives."
        option("--from", dest="source", metavar="CALLABLE", help=text)
        option("--workers", type=int, default=1, help="So many threads.")
        option("--total", type=int, help="How many items there are, for the progress.")
        option = add("migrate-check", "Find calls whose meaning changes from 0.2.")
        option("paths", nargs="+", metavar="PATH", help="Files and folders.")

    def handle(self, *args: Any, **options: Any) -> None:
        # Whether this is all that its process does.
        options["alone"] = getattr(self, "_called_from_command_line", False)
        try:
            # What the project prints is not part of the answer.
            with listening(), contextlib.redirect_stdout(sys.stderr):
                outcome = ACTS[options["part"]](options, self.stderr)
        except KeyboardInterrupt:
            outcome = Outcome(None, [], "interrupted", INTERRUPTED)
        except CommandError as error:
            outcome = Outcome(None, [], str(error), error.returncode, error.__cause__)
        if options["json"]:
            self._write_json(options, outcome)
        else:
            for line in outcome.lines:
                self.stdout.write(line)
        if outcome.error:
            if options["tracebacks"] and outcome.cause is not None:
                lines = traceback.format_exception(outcome.cause)
                self.stderr.write("".join(lines).rstrip())
            failure = CommandError(outcome.error, returncode=outcome.code)
            raise failure from outcome.cause

    def _write_json(self, options: dict[str, Any], outcome: Outcome) -> None:
        said = {
            "command": options["part"],
            "ok": not outcome.error,
            "error": outcome.error or None,
            "result": outcome.result,
        }
        self.stdout.write(json.dumps(said))
