"""The logger of the library, and text of others made printable.

Names, keys, tags and the texts of exceptions may come from a visitor or a project. A
line break in one of them would forge a line of a log, and an escape sequence would
command the terminal that shows it. So each front end (log, command, admin, panel,
checks) passes all its text through :func:`printable`, in one place.
"""

from __future__ import annotations

import logging
import re
import traceback
from typing import Any

__all__ = ["logger", "printable"]

#: Control characters, separators of lines, marks that turn the direction of text, and
#: surrogates, which cannot be encoded.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str, keep: str = "") -> str:
    r"""Return `text` with escapes, as ``\x1b``, in place of control characters.

    :param keep: control characters that stay, as a line break.
    """

    def escape(found: re.Match[str]) -> str:
        each = found[0]
        return each if each in keep else each.encode("unicode_escape").decode()

    return _UNPRINTABLE.sub(escape, text)


class _Shown:
    """An argument of a log record, made printable when it is formatted."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __repr__(self) -> str:
        return printable(repr(self._value))

    def __str__(self) -> str:
        return printable(str(self._value))


def _make_printable(record: logging.LogRecord) -> bool:
    """Make a record printable. The lines of a traceback are indented, so that none of
    them looks like a record."""
    if isinstance(record.args, tuple):
        record.args = tuple(
            each if isinstance(each, (int, float)) else _Shown(each)
            for each in record.args
        )
    if record.exc_info and record.exc_info[0] is not None:
        whole = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
        lines = printable(whole, keep="\n").split("\n")
        record.exc_text = "\n".join(f"  {line}" for line in lines)
    return True


logger = logging.getLogger("cache_memoize")
logger.addFilter(_make_printable)
