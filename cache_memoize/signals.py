"""Signals: every event of memoized functions, for those who want to know.

Without receivers nothing is sent, and nothing is paid. Receivers are called where the
event happens, in the thread or the event loop of the caller, so they are ordinary
functions and should be quick; whatever they raise is logged by Django and goes no
further. The sender is the undecorated function; ``connect(receiver, sender=f)`` takes
the memoized one as well.

See https://docs.djangoproject.com/en/stable/topics/signals/.
"""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

from django.dispatch import Signal

__all__ = [
    "ALL",
    "Event",
    "MemoizeSignal",
    "computed",
    "error",
    "hit",
    "invalidated",
    "memoized_in",
    "miss",
    "stale",
    "wait",
]


class Event(NamedTuple):
    """What happened. It holds no argument and no result."""

    #: The name of the signal: hit, stale, miss, wait, computed, error, invalidated.
    kind: str
    #: Module and qualified name of the function.
    function: str
    #: The cache, by its name in ``settings.CACHES``.
    alias: str
    #: The key in it; empty where the event is not about one.
    key: str
    #: Of a hit, what the computation that it spared took; of ``computed``, what it
    #: took; 0.0 otherwise. In seconds.
    seconds: float = 0.0
    #: Of an error: what failed.
    detail: str = ""


class MemoizeSignal(Signal):
    """A Django signal; its receivers get ``event``, an :class:`Event`."""

    def connect(
        self,
        receiver: Any,
        sender: Any = None,
        weak: bool = True,
        dispatch_uid: Any = None,
    ) -> None:
        """As Django's own; raises TypeError for a coroutine function."""
        if inspect.iscoroutinefunction(receiver):
            raise TypeError(
                "cache_memoize: a receiver is called in the middle of a call, so it "
                f"cannot be a coroutine function as {receiver.__qualname__} is; give "
                "an ordinary one"
            )
        super().connect(receiver, _function(sender), weak, dispatch_uid)

    def disconnect(
        self, receiver: Any = None, sender: Any = None, dispatch_uid: Any = None
    ) -> bool:
        return bool(super().disconnect(receiver, _function(sender), dispatch_uid))


def _function(sender: Any) -> Any:
    function = memoized_in(sender)
    return sender if function is None else function.func


def memoized_in(found: Any) -> Any:
    """Return the :class:`Function` that is memoized in an object, also below other
    decorators, or None. No settings are read for this."""
    found = found.fget if isinstance(found, property) else found
    if callable(found):
        found = inspect.unwrap(found, stop=lambda each: hasattr(each, "_memoized"))
    return getattr(found, "_memoized", None)


#: A fresh entry was served.
hit = MemoizeSignal()
#: An entry past its timeout was served.
stale = MemoizeSignal()
#: There was no entry to serve: the caller computes, or has just done so.
miss = MemoizeSignal()
#: A caller began to wait for another's computation.
wait = MemoizeSignal()
#: The function has run, and returned or raised; in the background too.
computed = MemoizeSignal()
#: The cache failed the function.
error = MemoizeSignal()
#: A call was forgotten, or (then there is no function) a tag, or all calls.
invalidated = MemoizeSignal()

#: By the kind of the events that they are for.
ALL: dict[str, MemoizeSignal] = {
    "hit": hit,
    "stale": stale,
    "miss": miss,
    "wait": wait,
    "computed": computed,
    "error": error,
    "invalidated": invalidated,
}
