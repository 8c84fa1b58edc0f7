"""``manage.py memoize warm``: refresh many calls while their items are read."""

from __future__ import annotations

import functools
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any, NamedTuple

from django.core.management.base import CommandError, OutputWrapper

from .. import process
from ..cache.connections import opened
from ..describe import FunctionInfo
from ..process import printable
from ..protocol.many import CHUNK
from ..protocol.refresh import with_context
from . import FAILED_AT_MOST, INTERRUPTED, NOT_RUN, Options, Outcome, waiting_for
from .items import Call, NumberedItem, read_callable, read_lines
from .naming import check_alias, find_function
from .trouble import notice_errors, probe_cache, warn_of_own_memory

#: Seconds for which threads wait for one another before they close connections.
PATIENCE = 10
#: Seconds between looks at a circuit breaker that is open.
PAUSE = 0.05


def warm(options: Options, stderr: OutputWrapper) -> Outcome:
    name, source, total = options["name"], options["source"], options["total"]
    if options["workers"] < 1:
        raise CommandError("--workers takes a number of 1 or more")
    info = find_function(name)
    if info.is_method and not source:
        raise CommandError(
            f"{name} is a method, and JSON has no instances; use --from, with "
            "(instance, ...) as items"
        )
    check_alias(info.alias)
    if not info.enabled:
        raise CommandError("nothing would be stored: CACHE_MEMOIZE['ENABLED'] is False")
    probe_cache(info.alias)
    warn_of_own_memory(options, stderr, info.alias)
    if source:
        items, known = read_callable(source)
        total, unit = total or known, "item"
    else:
        if sys.stdin.isatty():
            stderr.write("reading JSON lines from the keyboard; Ctrl-D ends them")
        items, unit = read_lines(getattr(sys.stdin, "buffer", sys.stdin)), "line"
    log = Log(stderr, unit, total, options["tracebacks"] or options["traceback"])
    began, error, code = time.monotonic(), "", 0
    cause: BaseException | None = None
    try:
        Warming(info, items, log).refresh_all(options["workers"])
    except KeyboardInterrupt:
        error, code = "interrupted", INTERRUPTED
    except CommandError as raised:
        error, code, cause = str(raised), NOT_RUN, raised.__cause__
    finally:
        log.close_bar()
    if not error and log.failed:
        error = f"{log.failed:,} item{'' if log.failed == 1 else 's'} failed"
        code = min(log.failed, FAILED_AT_MOST)
    result = {"name": name, "refreshed": log.refreshed, "failed": log.failed}
    result["seconds"] = time.monotonic() - began
    line = f"{log.refreshed:,} refreshed, {log.failed:,} failed"
    return Outcome(result, [line], error, code, cause)


class Log:
    """Counts and failures of one run, with its progress on a terminal: the bar of tqdm
    if it is installed, or a line for each tenth of the items. Thread-safe.

    :param unit: of the items, as in "line 7".
    :param total: number of items, if known; else a line for each 1,000.
    """

    def __init__(
        self, out: OutputWrapper, unit: str, total: int | None, tracebacks: bool
    ) -> None:
        self.refreshed = self.failed = 0
        self._out, self._unit, self._tracebacks = out, unit, tracebacks
        self._of = f" of {total:,}" if total else ""
        self._every = max((total or 10_000) // 10, 1) if out.isatty() else 0
        self._bar: Any = None
        self._lock = threading.Lock()
        if self._every:
            with suppress(ImportError):
                from tqdm import tqdm

                # Without tqdm's thread that looks whether the bar is stuck.
                bar = type("Bar", (tqdm,), {"monitor_interval": 0})
                # Django's wrapper would end the line after each write.
                file = getattr(out, "_out", out)
                self._bar = bar(total=total, unit="", unit_scale=True, file=file)

    def count_success(self) -> None:
        with self._lock:
            self.refreshed += 1
            self._show_step()

    def count_failure(
        self, number: int, reason: str, error: Exception | None = None
    ) -> None:
        with self._lock:
            self.failed += 1
            self.write_line(f"{self._unit} {number}: {reason}")
            if error is not None and self._tracebacks:
                self.write_line("".join(traceback.format_exception(error)).rstrip())
            self._show_step()

    def write_line(self, text: str) -> None:
        """Write a line, above the bar."""
        if self._bar is None:
            self._out.write(text)
        else:
            self._bar.write(printable(text, keep="\n"), file=self._bar.fp)

    def _show_step(self) -> None:
        done = self.refreshed + self.failed
        if self._bar is not None:
            if self.failed:
                self._bar.set_postfix(failed=self.failed, refresh=False)
            self._bar.update()
        elif self._every and done % self._every == 0:
            self.write_line(f"{done:,}{self._of}, {self.failed:,} failed")

    def close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()


class _Item(NamedTuple):
    number: int
    call: Call


class Warming:
    """The refreshes of one run."""

    def __init__(
        self, info: FunctionInfo, items: Iterable[NumberedItem], log: Log
    ) -> None:
        self.info, self.memoized, self.items, self.log = info, info.memoized, items, log
        self.chunk_size = CHUNK if info.has_many else 1
        self.swallows = opened(info.alias)[1].swallows
        #: The exception that ended the run.
        self.failure: BaseException | None = None
        self.stopped = False
        #: Number of computations that have begun and not ended.
        self.under_way = 0
        self._lock = threading.Lock()

    def refresh_all(self, workers: int) -> None:
        """Refresh all items.

        Raises CommandError if the items or the cache fail, and KeyboardInterrupt; then
        no computation is under way any more.
        """
        # In this thread, Ctrl-C would leave a coroutine waiting for ever.
        if workers > 1 or self.info.is_async:
            self._run_threads(workers)
        else:
            for chunk in self._make_chunks():
                self._refresh_chunk(chunk)

    def _run_threads(self, workers: int) -> None:
        pending: set[Future[None]] = set()
        with ThreadPoolExecutor(workers, "memoize") as threads:
            try:
                for chunk in self._make_chunks():
                    if self.stopped:
                        break
                    job = with_context(functools.partial(self._run_chunk, chunk))
                    pending.add(threads.submit(job))
                    if len(pending) > workers:
                        pending = wait(pending, return_when=FIRST_COMPLETED).not_done
            except KeyboardInterrupt:
                with self._lock:
                    self.stopped, under_way = True, self.under_way
                if under_way:
                    self.log.write_line(waiting_for(under_way))
                raise
            finally:
                # One for each thread: its end does not close its connections.
                together = threading.Barrier(workers)
                for _ in range(workers):
                    threads.submit(_clean_up, together)
        if self.failure is not None:
            raise self.failure

    def _run_chunk(self, chunk: list[_Item]) -> None:
        with self._lock:
            if self.stopped:
                return
            self.under_way += 1
        try:
            self._refresh_chunk(chunk)
        except BaseException as error:
            self.failure, self.stopped = self.failure or error, True
        finally:
            with self._lock:
                self.under_way -= 1

    def _make_chunks(self) -> Iterator[list[_Item]]:
        """Yield the items that have a key, in lists that are computed together."""
        chunk: list[_Item] = []
        for number, call in self.items:
            if isinstance(call, ValueError):
                self.log.count_failure(number, str(call))
                continue
            try:
                self.memoized.get_cache_key(*call.args, **call.kwargs)
            except Exception as error:
                self.log.count_failure(number, type(error).__name__, error)
                continue
            chunk.append(_Item(number, call))
            if len(chunk) == self.chunk_size:
                yield chunk
                chunk = []
        if chunk:
            yield chunk

    def _refresh_chunk(self, chunk: list[_Item]) -> None:
        while self.info.breaker_state == "open" and not self.stopped:
            time.sleep(PAUSE)  # a result could not be stored
        # warm() takes no keyword arguments.
        positional = [item for item in chunk if not item.call.kwargs]
        if positional:
            with notice_errors(self.info) as troubles:
                steps = list(self.memoized.warm([i.call.item for i in positional]))
            self._log_results(positional, [step.error for step in steps], troubles)
        for item in chunk:
            if item.call.kwargs:
                error = None
                with notice_errors(self.info) as troubles:
                    try:
                        self.memoized.refresh(*item.call.args, **item.call.kwargs)
                    except Exception as raised:
                        error = raised
                self._log_results([item], [error], troubles)

    def _log_results(
        self, items: list[_Item], errors: list[Exception | None], troubles: list[str]
    ) -> None:
        """Log results. Raises CommandError if the cache does not work any more."""
        if self.info.breaker.tripped and not troubles:
            troubles = ["the cache has failed meanwhile"]
        try:
            if troubles or (self.swallows and not self._is_stored(items[0].call)):
                # One result may not fit, or the cache may be down.
                probe_cache(self.info.alias)
        except CommandError:
            troubles = troubles or ["the cache did not keep it"]
            raise
        finally:
            for item, error in zip(items, errors, strict=True):
                if error is not None:
                    self.log.count_failure(item.number, type(error).__name__, error)
                elif troubles:
                    self.log.count_failure(item.number, f"not stored: {troubles[0]}")
                else:
                    self.log.count_success()

    def _is_stored(self, call: Call) -> bool:
        return self.memoized.peek(*call.args, **call.kwargs) is not None


def _clean_up(together: threading.Barrier) -> None:
    with suppress(threading.BrokenBarrierError):  # one is busy, or was interrupted
        together.wait(PATIENCE)
    process.end_thread()
