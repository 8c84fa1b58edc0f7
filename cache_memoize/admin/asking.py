"""Questions to caches that may hang, and must not keep a page waiting.

Each is asked in a thread of its own, with connections of its own, and the page waits
for all of them together. A cache is not asked again before it has answered.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from .. import process
from ..describe import describe_error

#: Seconds for which a page waits for the answers.
PATIENCE = 1.0


class Question:
    """A function that a thread calls."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.began = time.monotonic()
        self.answer: Any = None
        #: The exception in words; empty: there was none.
        self.error = ""
        self.ended = threading.Event()
        self._function = function
        threading.Thread(
            target=self._ask, name="cache_memoize question", daemon=True
        ).start()

    def _ask(self) -> None:
        try:
            self.answer = self._function()
        except Exception as error:  # of any client
            self.error = describe_error(error)
        finally:
            self.ended.set()
            process.end_thread()

    @property
    def is_answered(self) -> bool:
        return self.ended.is_set() and not self.error

    @property
    def waited(self) -> float:
        """Seconds since it was asked."""
        return time.monotonic() - self.began


#: The questions that were not answered in time, by their subject and alias.
_waiting: dict[tuple[str, str], Question] = {}


def ask_all(
    subject: str, functions: Mapping[str, Callable[[], Any]]
) -> dict[str, Question]:
    """Ask these functions, by alias, all at once; return the questions, of which some
    may not have ended."""
    found, end = {}, time.monotonic() + PATIENCE
    for alias, function in functions.items():
        before = _waiting.get((subject, alias))
        hangs = before is not None and not before.ended.is_set()
        found[alias] = before if before and hangs else Question(function)
    for alias, question in found.items():
        if question.waited > PATIENCE or not question.ended.wait(
            max(end - time.monotonic(), 0)
        ):
            _waiting[subject, alias] = question
        else:
            _waiting.pop((subject, alias), None)
    return found


@process.after_fork
def _after_fork() -> None:
    """The threads are the parent's."""
    _waiting.clear()
