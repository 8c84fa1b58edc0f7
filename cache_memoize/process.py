"""The parts that a whole process shares: its log, forks, and ends of threads.

Names, keys, tags and texts of exceptions may come from a visitor or a project. A line
break in one of them would forge a line of the log, and an escape sequence would command
the terminal that shows it. So each front end (log, command, admin, panel, checks)
passes all its text through :func:`printable`, in one place.

A fork copies the memory of all threads, but only the thread that forked goes on in the
child. A lock that another thread held stays locked there for ever, and sockets are
shared with the parent. So each module with a lock, a thread or a connection registers
the function that gives the child its own. A thread of ours, unlike one that serves
requests, gets no signal from Django to close its connections: it calls
:func:`end_thread`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import threading
import time
import traceback
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

__all__ = [
    "LoopStandstill",
    "Standstill",
    "after_fork",
    "at_thread_end",
    "end_thread",
    "log_sometimes",
    "logger",
    "printable",
    "run",
]

T = TypeVar("T")
F = TypeVar("F", bound=Callable[[], None])


# --- the log, and text of others -----------------------------------------------------

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

#: Seconds without a second line of one text about one subject.
_QUIET = 60.0
#: When such a line was logged last, in monotonic seconds.
_logged: dict[tuple[str, str], float] = {}


def log_sometimes(
    log: Callable[..., None],
    text: str,
    subject: str,
    *more: Any,
    error: BaseException | None = None,
) -> None:
    """Log a line about a function or a cache, at most one a minute: while two releases
    run side by side, the reason may hold for each call.

    :param error: is logged with its traceback.
    """
    now = time.monotonic()
    if now - _logged.get((text, subject), -_QUIET) >= _QUIET:
        _logged[text, subject] = now
        log(text, subject, *more, exc_info=error)


# --- forks, and the ends of threads --------------------------------------------------

_at_thread_end: list[Callable[[], None]] = []


def after_fork(in_child: F, **others: Callable[[], None]) -> F:
    """Have ``in_child`` called in every forked child, in the order of registration.

    :param others: ``before`` and ``after_in_parent``, as of ``os.register_at_fork``.
    """
    if hasattr(os, "register_at_fork"):  # pragma: no branch
        os.register_at_fork(after_in_child=in_child, **others)
    return in_child


def at_thread_end(function: F) -> F:
    """Have ``function`` called in each of our threads before it ends."""
    _at_thread_end.append(function)
    return function


def end_thread() -> None:
    """Close the connections that this thread has opened. Log errors, raise none."""
    for function in _at_thread_end:
        try:
            function()
        except Exception:
            logger.exception("a thread could not clean up")


def run(flow: Coroutine[Any, Any, T]) -> T:
    """Finish a coroutine that never suspends."""
    try:
        flow.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    flow.close()
    raise RuntimeError("a flow over a synchronous store was suspended")


# --- time in which the process does not run ------------------------------------------


class Standstill:
    """The time for which this process did not run during a ``with`` block: another
    thread held the GIL, the machine was busy, or the process was stopped.

    A thread sleeps in short steps, and adds up by how much each was too long.
    """

    #: Seconds of a step.
    STEP = 0.02

    def __enter__(self) -> Standstill:
        self.seconds = 0.0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._measure, daemon=True)
        with suppress(RuntimeError):  # no thread can be started
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _measure(self) -> None:
        ended = False
        while not ended:
            began = time.monotonic()
            ended = self._end.wait(self.STEP)
            self.seconds += max(0.0, time.monotonic() - began - self.STEP)


class LoopStandstill(Standstill):
    """The time for which the running event loop did not run: a callback kept it, as a
    query in async code does."""

    def __enter__(self) -> LoopStandstill:
        self.seconds = 0.0
        self._loop = asyncio.get_running_loop()
        self._step(self._loop.time())
        return self

    def __exit__(self, *error: object) -> None:
        self._timer.cancel()
        self.seconds += max(0.0, self._loop.time() - self._timer.when())

    def _step(self, due: float) -> None:
        now = self._loop.time()
        self.seconds += now - due
        self._timer = self._loop.call_at(now + self.STEP, self._step, now + self.STEP)
