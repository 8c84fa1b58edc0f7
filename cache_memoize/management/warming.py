"""``manage.py memoize warm``: refreshes many calls, as they come, and goes on where it
was stopped."""

from __future__ import annotations

import json
import queue
import threading
import traceback
from collections.abc import Iterable, Iterator, Sized
from typing import Any, NamedTuple

from django.core.management.base import CommandError
from django.db.models import QuerySet

from .. import pool
from ..background import _with_context
from ..batch import CHUNK
from ..clients import opened
from ..memoized import Memoized
from .bar import Bar
from .naming import lookup
from .record import Record
from .trouble import noticing, probe

__all__ = ["Call", "Summary", "Warming", "from_callable", "from_lines"]


class Call(NamedTuple):
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = {}

    @property
    def item(self) -> Any:
        """As :meth:`warm` takes it, and a function registered with :meth:`many`."""
        if len(self.args) == 1 and type(self.args[0]) is not tuple:
            return self.args[0]
        return self.args


#: What was given, and where; what could not be read is the reason.
Given = tuple[int, "Call | ValueError"]


# --- where the items come from -------------------------------------------------------


def from_lines(lines: Iterable[str | bytes]) -> Iterator[Given]:
    """Calls of JSON lines, each as soon as it is there; empty ones are left out."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield number, _call_of(json.loads(line))
        except (ValueError, RecursionError) as error:
            yield number, ValueError(f"no JSON that can be read: {error}")
        except TypeError as error:
            yield number, ValueError(str(error))


def _call_of(data: Any) -> Call:
    if isinstance(data, list):
        return Call(tuple(data))
    if not isinstance(data, dict):
        return Call((data,))
    args, kwargs = data.get("args", []), data.get("kwargs", {})
    known = data and data.keys() <= {"args", "kwargs"}
    if not (known and isinstance(args, list) and isinstance(kwargs, dict)):
        raise TypeError(
            'an object takes "args", an array, and "kwargs", an object; write '
            "[{...}] for an argument that is one"
        )
    return Call(tuple(args), kwargs)


def from_callable(path: str) -> tuple[Iterator[Given], int | None]:
    """The items that ``path`` gives when called, as :meth:`warm` takes them, and how
    many there are, if that is known."""
    function = lookup(path)[1]
    if not callable(function):
        raise CommandError(
            f"{path} is a {type(function).__name__}, and cannot be called; give --from "
            "a function that gives the items"
        )
    items: Any = None
    with _raised_by(path):
        items = function()
    total = None
    if isinstance(items, QuerySet):
        total, items = items.count(), items.iterator()
    elif isinstance(items, Sized):
        total = len(items)
    if not isinstance(items, Iterable) or isinstance(items, (str, bytes)):
        raise CommandError(
            f"{path}() gave a {type(items).__name__}; return an iterable of items, "
            "each one argument or a tuple of them"
        )
    return _numbered(path, items), total


def _numbered(path: str, items: Iterable[Any]) -> Iterator[Given]:
    with _raised_by(path):
        for number, item in enumerate(items, 1):
            yield number, Call(item if type(item) is tuple else (item,))


class _raised_by:
    """What the project's function raises, as a CommandError that names it."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception):
            raise CommandError(
                f"{self.path} raised {kind.__name__}: {error}; --traceback shows where"
            ) from error


# --- refreshing them -----------------------------------------------------------------


class Summary(NamedTuple):
    refreshed: int
    failed: int
    #: Left out: an earlier run has refreshed them.
    skipped: int


class _Item(NamedTuple):
    number: int
    call: Call
    key: str


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
        #: Where to note what is done.
        self.record: Record | None = None
        self.bar = bar
        self.tracebacks = tracebacks
        self.refreshed = self.failed = self.skipped = 0
        core = function._core
        self.path, self.alias, self.breaker = core.stats.path, core.alias, core.breaker
        self.size = 1 if core.many is None else CHUNK
        self.swallows = opened(core.alias)[1].swallows
        #: What keeps all of it from going on.
        self.trouble: BaseException | None = None
        self.stopped = False
        self._lock = threading.Lock()

    def summary(self) -> Summary:
        return Summary(self.refreshed, self.failed, self.skipped)

    def run(self, workers: int) -> None:
        """Raises CommandError when the items or the cache give out, and what stopped
        it, as KeyboardInterrupt; then what was under way has ended."""
        if workers > 1:
            self._run_threads(workers)
        else:
            for chunk in self._chunks():
                self._refresh(chunk)

    def _run_threads(self, workers: int) -> None:
        chunks: queue.Queue[list[_Item] | None] = queue.Queue(workers)

        def work() -> None:
            try:
                while (chunk := chunks.get()) is not None:
                    if self.stopped:
                        continue
                    try:
                        self._refresh(chunk)
                    except BaseException as error:
                        self.trouble, self.stopped = self.trouble or error, True
            finally:
                for close in pool.at_end:
                    close()

        threads = [
            threading.Thread(target=_with_context(work), name="memoize", daemon=True)
            for _ in range(workers)
        ]
        for thread in threads:
            thread.start()
        try:
            for chunk in self._chunks():
                if self.stopped:
                    break
                chunks.put(chunk)
        except KeyboardInterrupt:
            self.stopped = True
            raise
        finally:
            for _ in threads:
                chunks.put(None)
            for thread in threads:
                thread.join()
        if self.trouble is not None:
            raise self.trouble

    def _chunks(self) -> Iterator[list[_Item]]:
        """What is to be done, in portions that are computed together."""
        chunk: list[_Item] = []
        for number, call in self.given:
            if isinstance(call, ValueError):
                self._fail(number, str(call))
                continue
            try:
                key = self.function.get_cache_key(*call.args, **call.kwargs)
            except Exception as error:
                self._fail(number, type(error).__name__, error)
                continue
            if self.record is not None and key in self.record:
                with self._lock:
                    self.skipped += 1
                    self.bar.step(self.failed)
                continue
            chunk.append(_Item(number, call, key))
            if len(chunk) == self.size:
                yield chunk
                chunk = []
        if chunk:
            yield chunk

    def _refresh(self, chunk: list[_Item]) -> None:
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
            troubles = ["the cache is left alone for a while"]
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
            if self.record is not None:
                self.record.add(item.key)
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
