"""What a part of ``manage.py memoize`` gives back."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["Options", "Outcome", "duration", "waiting_for"]

Options = dict[str, Any]


class Outcome(NamedTuple):
    #: For ``--json``.
    result: Any
    #: For people.
    lines: list[str]
    #: What is not as it was wished, for stderr; then the exit code is ``code``.
    error: str = ""
    code: int = 1
    #: What led to the error, for ``--traceback``.
    cause: BaseException | None = None


def duration(seconds: float) -> str:
    if not seconds:
        return "-"
    return f"{seconds * 1000:,.1f} ms" if seconds < 1 else f"{seconds:,.1f} s"


def waiting_for(computations: int) -> str:
    """Return the line that explains why the command does not end at once on Ctrl-C."""
    plural = "" if computations == 1 else "s"
    return f"interrupted: waiting for {computations} computation{plural} under way"
