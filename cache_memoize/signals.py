"""Django signals for every event of memoized functions.

Without receivers nothing is sent. Receivers are called where the event happens, in the
thread or the event loop of the caller, so they must be ordinary functions and should be
fast. Django logs the exceptions that they raise; the call goes on. The sender is the
undecorated function; ``connect(receiver, sender=f)`` accepts the memoized one as well.

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
    "failed",
    "hit",
    "invalidated",
    "memoized_in",
    "miss",
    "stale",
    "wait",
    "wrong",
]


class Event(NamedTuple):
    """One event. It holds no argument and no result."""

    #: The name of the signal: hit, stale, miss, wait, computed, error, failed, wrong or
    #: invalidated.
    kind: str
    #: Module and qualified name of the function.
    function: str
    #: The cache, by its name in ``settings.CACHES``.
    alias: str
    #: The cache key; empty if the event is not about one.
    key: str
    #: Seconds of the computation: for ``hit`` and ``stale`` of the one that was saved,
    #: for ``computed`` of this one; for ``wrong`` the age of the value; 0.0 otherwise.
    seconds: float = 0.0
    #: For ``error``: the operation that failed. For ``failed``: the reason.
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
        """Connect as Django does. Raise TypeError for a coroutine function."""
        if inspect.iscoroutinefunction(receiver):
            raise TypeError(
                "cache_memoize: a receiver is called in the middle of a call, so it "
                f"cannot be a coroutine function as {receiver.__qualname__} is; "
                "connect an ordinary function"
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
#: No entry could be served: the caller computes, or has just done so.
miss = MemoizeSignal()
#: A caller began to wait for the computation of another one.
wait = MemoizeSignal()
#: The function has run, and returned or raised; in the background too.
computed = MemoizeSignal()
#: A cache operation failed.
error = MemoizeSignal()
#: A refresh stored nothing, and callers go on getting the old value.
failed = MemoizeSignal()
#: An audit (``audit=``) has found that a hit was wrong; ``seconds`` is its age.
wrong = MemoizeSignal()
#: A call was invalidated, or all calls of a function, or (without sender) a tag.
invalidated = MemoizeSignal()

#: By the kind of their events.
ALL: dict[str, MemoizeSignal] = {
    "hit": hit,
    "stale": stale,
    "miss": miss,
    "wait": wait,
    "computed": computed,
    "error": error,
    "failed": failed,
    "wrong": wrong,
    "invalidated": invalidated,
}
