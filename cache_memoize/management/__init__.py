"""``manage.py memoize``: the result of a subcommand, and the exit codes."""

from __future__ import annotations

from typing import Any, NamedTuple

#: The exit code of ``warm`` is the number of items that failed, up to this.
FAILED_AT_MOST = 100
#: The exit code of ``warm`` if it could not begin, or not go on.
NOT_RUN = 101
#: The exit code after Ctrl-C, as in shells.
INTERRUPTED = 130

Options = dict[str, Any]


class Outcome(NamedTuple):
    """The result of a subcommand."""

    #: For ``--json``.
    result: Any
    #: For people.
    lines: list[str]
    #: For stderr; then the exit code is `code`.
    error: str = ""
    code: int = 1
    #: The exception behind the error, for ``--traceback``.
    cause: BaseException | None = None


def waiting_for(computations: int) -> str:
    """Return the line that explains why the command does not end at once on Ctrl-C."""
    plural = "" if computations == 1 else "s"
    return f"interrupted: waiting for {computations} computation{plural} under way"
