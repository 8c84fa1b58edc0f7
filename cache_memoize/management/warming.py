"""``manage.py memoize warm``: refreshes many calls, as they come."""

from __future__ import annotations

import functools
import threading
import time
import traceback
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any, NamedTuple

from django.core.management.base import CommandError

from ..cache.connections import opened
from ..memoized import Memoized
from ..planning import plan_of
from ..protocol import threads as pool
from ..protocol.many import CHUNK
from ..protocol.refresh import with_context
from .bar import Bar
from .items import Call, Given
from .trouble import noticing, probe

__all__ = ["Summary", "Warming"]

#: Seconds for which the threads wait for one another before they close connections.
PATIENCE = 10


class Summary(NamedTuple):
    refreshed: int
    failed: int


class _Item(NamedTuple):
    number: int
    call: Call


class Warming:
    """One run. ``word``: what the numbers of the items count, as in "line 7"."""

    def __init__(
        self,
        function: Memoized[Any, Any, Any],
        given: Iterable[Given],
        word: str,
        bar: Bar,
        tracebacks: bool = False,
    ) -> None:
        self.function = function
        self.given = given
        self.word = word
        self.bar = bar
        self.tracebacks = tracebacks
        self.refreshed = self.failed = 0
        self._memoized = memoized = function._memoized
        self.plan = plan_of(memoized)
        self.path, self.alias = memoized.path, self.plan.alias
        self.breaker = self.plan.breaker
        self.size = 1 if memoized.many is None else CHUNK
        self.swallows = opened(self.alias)[1].swallows
        #: What keeps all of it from going on.
        self.trouble: BaseException | None = None
        self.stopped = False
        self._lock = threading.Lock()

    def summary(self) -> Summary:
        return Summary(self.refreshed, self.failed)

    def run(self, workers: int) -> None:
        """Raises CommandError when the items or the cache give out, and what stopped
        it, as KeyboardInterrupt; then what was under way has ended."""
        # In the middle of a coroutine that waits for this very thread, Ctrl-C would
        # leave it waiting for ever.
        if workers > 1 or self._memoized.is_async:
            self._run_threads(workers)
        else:
            for chunk in self._chunks():
                self._refresh(chunk)

    def _run_threads(self, workers: int) -> None:
        pending: set[Future[None]] = set()
        with ThreadPoolExecutor(workers, "memoize") as threads:
            try:
                for chunk in self._chunks():
                    if self.stopped:
                        break
                    job = with_context(functools.partial(self._work, chunk))
                    pending.add(threads.submit(job))
                    if len(pending) > workers:
                        pending = wait(pending, return_when=FIRST_COMPLETED).not_done
            except KeyboardInterrupt:
                self.stopped = True
                raise
            finally:
                # One each: a thread that has ended leaves its connections open.
                together = threading.Barrier(workers)
                for _ in range(workers):
                    threads.submit(_clean_up, together)
        if self.trouble is not None:
            raise self.trouble

    def _work(self, chunk: list[_Item]) -> None:
        if self.stopped:
            return
        try:
            self._refresh(chunk)
        except BaseException as error:
            self.trouble, self.stopped = self.trouble or error, True

    def _chunks(self) -> Iterator[list[_Item]]:
        """What is to be done, in portions that are computed together."""
        chunk: list[_Item] = []
        for number, call in self.given:
            if isinstance(call, ValueError):
                self._fail(number, str(call))
                continue
            try:
                self.function.get_cache_key(*call.args, **call.kwargs)
            except Exception as error:
                self._fail(number, type(error).__name__, error)
                continue
            chunk.append(_Item(number, call))
            if len(chunk) == self.size:
                yield chunk
                chunk = []
        if chunk:
            yield chunk

    def _refresh(self, chunk: list[_Item]) -> None:
        while self.plan.breaker_state == "open" and not self.stopped:
            time.sleep(0.05)  # not computed in vain: nothing would be stored
        # warm() takes no arguments by name.
        plain = [item for item in chunk if not item.call.kwargs]
        if plain:
            with noticing(self.path) as troubles:
                steps = list(self.function.warm([item.call.item for item in plain]))
            errors = [step.error for step in steps]
            self._settle(plain, errors, troubles)
        for item in chunk:
            if item.call.kwargs:
                error = None
                with noticing(self.path) as troubles:
                    try:
                        self.function.refresh(*item.call.args, **item.call.kwargs)
                    except Exception as raised:
                        error = raised
                self._settle([item], [error], troubles)

    def _settle(
        self, items: list[_Item], errors: list[Exception | None], troubles: list[str]
    ) -> None:
        """Count them; raises CommandError if the cache does not work any more."""
        if self.breaker.tripped and not troubles:
            troubles = ["the cache did not work meanwhile"]
        try:
            if troubles or (self.swallows and not self._is_there(items[0])):
                # One result may not fit, or nothing at all works.
                probe(self.alias)
        except CommandError:
            troubles = troubles or ["the cache did not keep it"]
            raise
        finally:
            for item, error in zip(items, errors, strict=True):
                if error is not None:
                    self._fail(item.number, type(error).__name__, error)
                elif troubles:
                    self._fail(item.number, f"not stored: {troubles[0]}")
                else:
                    self._succeed(item)

    def _is_there(self, item: _Item) -> bool:
        call = item.call
        return self.function.peek(*call.args, **call.kwargs) is not None

    def _succeed(self, item: _Item) -> None:
        with self._lock:
            self.refreshed += 1
            self.bar.step(self.failed)

    def _fail(
        self, number: int, reason: str, error: BaseException | None = None
    ) -> None:
        with self._lock:
            self.failed += 1
            self.bar.note(f"{self.word} {number}: {reason}")
            if error is not None and self.tracebacks:
                self.bar.note("".join(traceback.format_exception(error)).rstrip())
            self.bar.step(self.failed)


def _clean_up(together: threading.Barrier) -> None:
    with suppress(threading.BrokenBarrierError):  # one is busy, or was interrupted
        together.wait(PATIENCE)
    pool.clean_up()
