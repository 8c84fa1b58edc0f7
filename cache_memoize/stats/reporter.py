"""The reporter: a thread that hands the counts of this process to the sinks.

Counting has to be cheap, so a hit only adds to two attributes of its function's
counters and tells no one. A thread compares the counters of all functions with what it
has reported before, every ``STATS_INTERVAL`` seconds, and passes the differences on: to
the figures of the whole site, to Prometheus. That costs microseconds per function and
round, where a flag for "something is new" would have to be looked at on every hit.

The thread starts when the first function is called for which a sink is registered, so
that processes which never call one (the master of a server, most commands) have none. A
forked child has no thread; it starts its own at its first call, and reports only what
it has counted itself. What a sink does not take is reported again in the next round. At
the end of the process the rest is reported; a process that is killed loses the counts
of its last seconds.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from django.core.exceptions import ImproperlyConfigured

from .. import process
from ..conf import conf, on_change
from ..process import logger
from .totals import Totals

__all__ = ["Reporter", "Sink", "flush_stats", "reporter"]


#: Takes the counters of a function (stats/counters.py), the source, and what it has
#: counted since the last report. Counts for which a sink raises are reported again.
Sink = Callable[[Any, Totals], None]

#: Sources kept alive at most, until their counts are reported: a function that is made
#: in a view, for instance, is gone before the next round.
MOST = 1_000
#: Seconds for which a fork waits for each lock.
FORK_WAIT = 1.0
#: Seconds for which a process that ends waits for a cache that does not answer.
LAST = 10.0


class Reporter:
    """The sinks, the sources, and the thread that reports from one to the other."""

    def __init__(self) -> None:
        #: Called by the thread after each round.
        self.after: list[Callable[[], None]] = []
        #: Locks of sinks. They are held while the process forks, after our own.
        self.guarded: list[Any] = []
        self._held: list[Any] = []
        self._known: WeakSet[Any] = WeakSet()
        self._kept: set[Any] = set()
        self._told: dict[Sink, WeakKeyDictionary[Any, Totals]] = {}
        self._make_locks()

    def _make_locks(self) -> None:
        # Reentrant: a signal handler may make calls at any moment.
        self._lock = threading.RLock()
        #: Held while counts are reported: the next to report must know what was.
        self._telling = threading.RLock()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    # --- sinks and sources ---

    def add(self, sink: Sink) -> None:
        """Report to ``sink`` too: all counts since the process has started."""
        self._told.setdefault(sink, WeakKeyDictionary())
        self.start_thread()

    def remove(self, sink: Sink) -> None:
        self._told.pop(sink, None)

    def watch(self, source: Any) -> None:
        """Report the counts of ``source``; keep it alive until that is done."""
        if source in self._kept:
            return
        with self._lock:
            self._known.add(source)
            self.start_thread()
            if self._thread is not None and len(self._kept) < MOST:
                self._kept.add(source)

    def sources(self) -> list[Any]:
        """Return the functions that have counted something in this process."""
        with self._lock:
            known = [each for each in self._known if each.path]
        return [each for each in known if not each.totals().is_nothing]

    # --- reporting ---

    def flush_stats(self) -> bool:
        """Report all counters at once, in this thread. Return whether every sink took
        them.

        For the end of processes that do not run ``atexit`` functions, as Celery's.
        """
        with self._telling:
            with self._lock:
                sources = list(self._known)
            complete = True
            for source in sources:
                self._kept.discard(source)  # first: a call meanwhile adds it again
                for sink in list(self._told):
                    complete &= self._report(sink, source)
            return complete

    def _report(self, sink: Sink, source: Any) -> bool:
        told = self._told.get(sink)
        if told is None:  # removed meanwhile
            return True
        now = source.totals()
        new = now.minus(told.get(source, Totals()))
        if new.is_nothing:
            return True
        # Before the sink is called, so that a forked child does not report it too.
        told[source] = now
        try:
            sink(source, new)
        except BaseException as error:
            # Not what it was before: a signal handler may have reported meanwhile.
            told[source] = told[source].minus(new)
            self.watch(source)
            if not isinstance(error, Exception):
                raise
            logger.debug("%s: the figures were not taken: %r", source.path, error)
            return False
        return True

    # --- the thread ---

    def start_thread(self) -> None:
        """Start the thread, if it is needed and not running."""
        with self._lock:
            needed = self._told and self._known and _read_interval()
            if self._thread is not None or not needed:
                return
            thread = threading.Thread(
                target=self._run_thread, name="cache_memoize", daemon=True
            )
            try:
                thread.start()  # it waits for the lock
            except RuntimeError:  # the process is ending: atexit reports the rest
                return
            self._thread = thread

    def _run_thread(self) -> None:
        try:
            self._run_rounds()
        finally:
            with self._lock:  # a sink may raise SystemExit
                died = self._thread is threading.current_thread()
                if died:
                    self._thread = None
            if died:
                self.start_thread()

    def _run_rounds(self) -> None:
        ending = False
        while True:
            with self._lock:
                seconds = _read_interval()
                if ending or not (self._told and seconds):
                    self._ending.clear()
                    self._kept.clear()
                    self._thread = None  # in the lock: the next call starts another
                    return
            ending = self._ending.wait(seconds)
            with self._telling:  # a fork waits until connections are closed
                self.flush_stats()
                self._end_round()

    def _end_round(self) -> None:
        for function in self.after:
            try:
                function()
            except Exception:
                logger.exception("a function after a report of the figures failed")
        process.end_thread()

    def join(self, seconds: float = 30.0) -> bool:
        """Report everything and end the thread. Return whether it has ended in time."""
        thread = self._thread
        if thread is None:
            return True
        self._ending.set()
        thread.join(seconds)
        return not thread.is_alive()

    def at_exit(self) -> None:
        """Report the rest. If there is a thread, it does that: a cache that hangs must
        not keep the process from ending, and a daemon thread ends with it."""
        if _read_interval() and self.join(LAST):
            self.flush_stats()

    # --- forks ---

    def before_fork(self) -> None:
        """Wait until nothing is being reported: the thread may hold locks of cache
        clients, which would stay locked in the child."""
        self._held.extend(
            lock
            for lock in (self._telling, *self.guarded)
            if lock.acquire(timeout=FORK_WAIT)
        )

    def after_fork_in_parent(self) -> None:
        while self._held:
            self._held.pop().release()

    def after_fork_in_child(self) -> None:
        """Leave to the parent what it has counted."""
        self.after_fork_in_parent()  # this thread holds them here too
        self._make_locks()
        self._kept.clear()
        for source in list(self._known):
            for told in self._told.values():
                told[source] = source.totals()


def _read_interval() -> float:
    try:
        return float(min(conf().STATS_INTERVAL, threading.TIMEOUT_MAX))
    except ImproperlyConfigured:  # reported where the settings are used
        return 0.0


reporter = Reporter()
flush_stats = reporter.flush_stats

process.after_fork(
    reporter.after_fork_in_child,
    before=reporter.before_fork,
    after_in_parent=reporter.after_fork_in_parent,
)
atexit.register(reporter.at_exit)
on_change(reporter.start_thread)
