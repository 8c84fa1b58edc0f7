"""Brings what this process has counted to where the figures of all are kept.

Counting is adding to an attribute. Whoever counts something after a quiet while says so
once, and a thread tells the sinks every few seconds what has come since, until all are
quiet again; a process tells the rest when it ends. A process that is killed loses the
last seconds.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Callable
from typing import Any, Protocol
from weakref import WeakKeyDictionary, WeakSet

from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from ..conf import conf
from .totals import Totals

__all__ = [
    "Sink",
    "Source",
    "add",
    "clean_up",
    "flush_stats",
    "join",
    "remove",
    "sources",
    "wake",
]

logger = logging.getLogger("cache_memoize")


class Source(Protocol):
    """Who counts: the Stats of one function."""

    #: Whether it has nothing new to tell, as far as this module knows.
    quiet: bool
    path: str
    alias: str

    def totals(self) -> Totals: ...


#: Takes one source's counts since the last time. What raises is told again later.
Sink = Callable[[Any, Totals], None]

#: Reentrant: a signal handler may make calls, whatever it interrupts.
_lock = threading.RLock()
#: One thread at a time tells: what it has told must be known to the next.
_telling = threading.RLock()
_known: WeakSet[Any] = WeakSet()
_noisy: WeakSet[Any] = WeakSet()
#: Some of these, so that a function that is gone by then has its counts told too: one
#: that is made in a view, for instance.
_kept: set[Any] = set()
MOST = 1_000
_told: dict[Sink, WeakKeyDictionary[Any, Totals]] = {}
_ending = threading.Event()
_thread: threading.Thread | None = None
#: Locks of sinks, that are held while a process forks, after the one for telling.
guarded: list[Any] = []
#: Those that a fork has got, and the seconds that it tries for each.
_held: list[Any] = []
PATIENCE = 1.0
#: Seconds for which a process that ends waits for a cache that does not answer.
LAST = 10.0
#: What the thread does after each round: close what it opened.
after: list[Callable[[], None]] = []


def add(sink: Sink) -> None:
    """Tell this one too, from the beginning of the process on."""
    _told.setdefault(sink, WeakKeyDictionary())
    _start()


def remove(sink: Sink) -> None:
    _told.pop(sink, None)


def wake(source: Source) -> None:
    """It has counted something after a quiet while."""
    with _lock:  # or a thread that is telling takes it for quiet from here on
        source.quiet = False
        _known.add(source)
        _noisy.add(source)
        _start()
        if _thread is not None and len(_kept) < MOST:
            _kept.add(source)


def sources() -> list[Any]:
    """Who has counted something in this process."""
    with _lock:
        return list(_known)


def join(seconds: float = 30.0) -> bool:
    """Tell everything and end the thread, as tests want; whether it has ended."""
    thread = _thread
    if thread is None:
        return True
    _ending.set()
    thread.join(seconds)
    return not thread.is_alive()


def flush_stats() -> bool:
    """Report all counters at once, in this thread. Return whether every sink took them.

    For the end of processes that do not run ``atexit`` functions, such as Celery's.
    """
    with _telling:
        with _lock:
            sources = list(_noisy) if _told else []
        complete = True
        for source in sources:
            with _lock:  # first: whoever counts from here on says so again
                source.quiet = True
                _noisy.discard(source)
                _kept.discard(source)
            for sink in list(_told):
                complete &= _tell(sink, source)
        return complete


def _tell(sink: Sink, source: Source) -> bool:
    told = _told.get(sink)
    if told is None:  # removed meanwhile
        return True
    now = source.totals()
    new = now.minus(told.get(source, Totals()))
    if new.is_nothing:
        return True
    # Before, so that a process forked meanwhile does not tell it too.
    told[source] = now
    try:
        sink(source, new)
    except BaseException as error:
        # Not what it was before: a signal handler may have told more meanwhile.
        told[source] = told[source].minus(new)
        with _lock:
            source.quiet = False
            _noisy.add(source)
            if len(_kept) < MOST:
                _kept.add(source)
        if not isinstance(error, Exception):
            raise
        logger.debug("%s: the figures were not taken: %r", source.path, error)
        return False
    return True


def _interval() -> float:
    try:
        return float(min(conf().STATS_INTERVAL, threading.TIMEOUT_MAX))
    except ImproperlyConfigured:  # no settings, or wrong ones: others will say so
        return 0.0


def _start(**kwargs: Any) -> None:
    """Have a thread, if there is somebody to tell and something to say."""
    global _thread
    with _lock:
        if _thread is not None or not (_told and _noisy and _interval()):
            return
        thread = threading.Thread(target=_work, name="cache_memoize", daemon=True)
        try:
            thread.start()  # it waits for the lock
        except RuntimeError:  # the process is ending: atexit tells the rest
            return
        _thread = thread


def _work() -> None:
    global _thread
    try:
        _rounds()
    finally:
        with _lock:
            died = _thread is threading.current_thread()  # by what a sink raised
            if died:
                _thread = None
        if died:
            _start()


def _rounds() -> None:
    global _thread
    ending = False
    while True:
        with _lock:
            seconds = _interval()
            if ending or not (_told and _noisy and seconds):
                _ending.clear()
                _kept.clear()
                _thread = None  # in here: who counts something now starts another
                return
        ending = _ending.wait(seconds)
        with _telling:
            flush_stats()
            clean_up()


def clean_up() -> None:
    """Close what a thread has opened to tell, or to read, figures."""
    for close in after:
        try:
            close()
        except Exception:
            logger.exception("the thread that tells the figures could not clean up")


def _before_fork() -> None:
    """While a thread tells, it may hold locks of clients, which a child would have to
    wait for for ever. Telling does not take long, unless a cache hangs."""
    _held.extend(
        lock for lock in (_telling, *guarded) if lock.acquire(timeout=PATIENCE)
    )


def _after_fork_in_parent() -> None:
    while _held:
        _held.pop().release()


def _after_fork() -> None:
    """The parent tells what it has counted; the child only what comes from now on."""
    global _lock, _telling, _thread, _ending
    _after_fork_in_parent()  # it is the thread that holds them
    _lock, _telling, _thread = threading.RLock(), threading.RLock(), None
    _ending = threading.Event()
    for source in list(_known):
        source.quiet = True
        for told in _told.values():
            told[source] = source.totals()
    _noisy.clear()
    _kept.clear()


if hasattr(os, "register_at_fork"):  # pragma: no branch
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork,
    )


@atexit.register
def _at_exit() -> None:
    """Not by itself, if there is a thread: a cache that hangs must not keep a process
    from ending, and a thread that waits for it ends with the process."""
    if _interval() and join(LAST):
        flush_stats()


setting_changed.connect(_start, dispatch_uid="cache_memoize.stats.reporter")
