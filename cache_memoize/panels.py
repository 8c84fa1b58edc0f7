"""A panel for django-debug-toolbar: the memoized calls of one request.

It listens to the signals while a request is recorded, and patches nothing; the place
and the arguments of a call are found in the frames above the receiver. The
recording is in a context variable, so requests in other threads and tasks stay apart;
threads and tasks that a request starts, and the refreshes that it causes, belong to it
until it has ended.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from inspect import iscoroutinefunction
from itertools import chain
from pathlib import Path
from reprlib import repr as saferepr
from time import perf_counter
from types import CodeType
from typing import Any, NamedTuple
from weakref import WeakSet

from django.core.exceptions import ImproperlyConfigured
from django.template import Context, Engine
from django.utils.safestring import SafeString, mark_safe

try:
    from debug_toolbar.panels import Panel
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"cache_memoize.panels: {error}; pip install 'django-cache-memoize[toolbar]'",
        name=error.name,
    ) from error

from . import decorator, planning
from .cache.store import Store
from .conf import is_debug
from .describe import (
    FunctionInfo,
    describe_dependencies,
    describe_users,
    format_duration,
    list_functions,
)
from .explain import explain_call
from .process import printable
from .protocol.call import Call
from .protocol.capture import computation
from .signals import ALL, Event
from .stats.history import cause

__all__ = ["MemoizePanel"]

#: The number of events that are listed; all are counted.
MOST = 1_000
#: The number of calls whose miss is explained, and characters of arguments.
MOST_EXPLAINED, MOST_CHARACTERS = 50, 200
#: Kinds of events: reads that were served from the cache, and all reads.
SERVED = ("hit", "stale")
READS = (*SERVED, "miss")
#: Kinds of events after which ``local="request"`` has to read the cache again.
_DROPPING = ("miss", "computed", "invalidated")
#: The meaning of an event's seconds, by its kind.
_COST = {"hit": "saved", "stale": "saved", "computed": "spent"}

#: The path of a function, an alias, and a key or the kind of an event.
_Call = tuple[str, str, str]


class Recording:
    """The events of one request."""

    def __init__(self) -> None:
        self.began = perf_counter()
        self.closed = False
        #: Seconds since the beginning, the event, and where the call was made.
        self.events: list[tuple[float, Event, Made]] = []
        #: Seconds of commands on caches.
        self.in_caches = 0.0
        self.number = 0
        self._lock = threading.Lock()
        #: Number and seconds of events, by the path, the alias and the kind.
        self.counts: dict[tuple[str, str], Counter[str]] = {}
        self.seconds: defaultdict[_Call, float] = defaultdict(float)
        self.reads: Counter[_Call] = Counter()
        #: Reads that a memory of the request would have saved.
        self.savable: Counter[_Call] = Counter()
        self._remembered: set[tuple[str, str, Any]] = set()
        #: The functions by their paths, to ask for their options.
        self.functions: dict[str, list[Any]] = {}

    def add_event(self, event: Event, function: Any) -> None:
        since = perf_counter() - self.began
        with self._lock:
            if self.closed:
                return
            self.number += 1
            if len(self.events) < MOST:
                self.events.append((since, event, Made.here()))
            name = event.function, event.alias
            self.counts.setdefault(name, Counter())[event.kind] += 1
            self.seconds[*name, event.kind] += event.seconds
            known = self.functions.setdefault(event.function, [])
            if not any(function is one for one in known):
                known.append(function)
            self._add_read(event)

    def _add_read(self, event: Event) -> None:
        call = (event.function, event.alias, event.key)
        if event.kind in READS:
            self.reads[call] += 1
        if event.kind == "invalidated" and call not in self.reads:
            self._remembered.clear()  # a tag, of calls that are not known
        elif event.kind in _DROPPING:
            at = event.alias, event.key
            self._remembered = {one for one in self._remembered if one[:2] != at}
        elif event.kind in READS:
            at_here = event.alias, event.key, _owner_of_memory()
            self.savable[call] += at_here in self._remembered
            self._remembered.add(at_here)

    def close(self) -> None:
        with self._lock:
            self.closed = True


class Made(NamedTuple):
    """The call of an event: where it was made, and with which arguments."""

    place: str
    #: The number of computations around it.
    depth: int
    #: None where they are not known, as in a refresh in the background.
    call: Call | None

    @classmethod
    def here(cls) -> Made:
        frame, found, outer = sys._getframe(1), None, computation()
        while frame is not None and found is None:
            given = frame.f_locals if frame.f_code in _WRAPPERS else {}
            if "key" in given and "plan" in given:
                names = "function", "plan", "key", "args", "kwargs"
                function, plan, key, args, kwargs = map(given.__getitem__, names)
                found = Call(function, plan, plan.store, key, args, kwargs)
            frame = frame.f_back  # type: ignore[assignment]
        depth = 0
        while outer is not None:
            depth, outer = depth + 1, outer.outer
        return cls(cause(), depth, found)


#: The code of the wrappers around functions, in whose frames calls are found.
_WRAPPERS = {
    each
    for make in (decorator._sync_wrapper, decorator._async_wrapper)
    for each in make.__code__.co_consts
    if isinstance(each, CodeType)
}


def _owner_of_memory() -> int:
    """Return the id of the task or thread that has a ``local="request"`` memory."""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no running loop
        task = None
    return threading.get_ident() if task is None else id(task)


# --- commands on caches --------------------------------------------------------------


def _add_seconds(seconds: float) -> None:
    recording = _current.get()
    if recording is not None:
        recording.in_caches += seconds


def _timed(read: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that reads a cache, and adds its seconds to the recording."""

    def timed(*args: Any) -> Any:
        began = perf_counter()
        try:
            return read(*args)
        finally:
            _add_seconds(perf_counter() - began)

    async def atimed(*args: Any) -> Any:
        began = perf_counter()
        try:
            return await read(*args)
        finally:
            _add_seconds(perf_counter() - began)

    return atimed if iscoroutinefunction(read) else timed


# --- listening -----------------------------------------------------------------------

_current: ContextVar[Recording | None] = ContextVar("memoize_panel", default=None)
#: Weak: a request without an end does not keep the receivers connected.
_recordings: WeakSet[Recording] = WeakSet()
_lock = threading.Lock()


def _record_event(sender: Any, event: Event, **kwargs: Any) -> None:
    recording = _current.get()
    if recording is not None:
        recording.add_event(event, sender)


def _begin_recording(recording: Recording) -> None:
    with _lock:
        if not _recordings:
            for signal in ALL.values():
                signal.connect(_record_event, dispatch_uid="cache_memoize.panels")
            planning.watch_reads(_timed)
            Store.heard = staticmethod(_add_seconds)
        _recordings.add(recording)


def _end_recording(recording: Recording) -> None:
    recording.close()
    with _lock:
        _recordings.discard(recording)
        if not _recordings:
            for signal in ALL.values():
                signal.disconnect(dispatch_uid="cache_memoize.panels")
            planning.watch_reads(None)
            Store.heard = None


# --- the panel -----------------------------------------------------------------------

# Its template is found without "cache_memoize" in INSTALLED_APPS.
_engine = Engine(dirs=[str(Path(__file__).parent / "templates")])


class MemoizePanel(Panel):
    """``DEBUG_TOOLBAR_PANELS += ["cache_memoize.panels.MemoizePanel"]``."""

    is_async = True
    title = "Memoized calls"
    nav_title = "Memoize"
    template = "cache_memoize/panel.html"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._recording: Recording | None = None
        self._outer: Recording | None = None

    @property
    def _shown(self) -> dict[str, Any]:
        panel: Any = self  # the toolbar's own methods have no types
        found: dict[str, Any] = panel.get_stats()
        return found

    @property
    def nav_subtitle(self) -> str:
        names = "calls", "hits", "repeated"
        calls, hits, again = (self._shown.get(name, 0) for name in names)
        text = f"{calls} call{'' if calls == 1 else 's'}, {hits} from the cache"
        return f"{text}, {again} repeated" if again else text

    @property
    def content(self) -> SafeString:
        context = Context({"most": MOST, "kinds": list(ALL), **self._shown})
        text = _engine.get_template(self.template).render(context)
        return mark_safe(printable(text, keep="\t\n\r"))

    def enable_instrumentation(self) -> None:
        if self._recording is None:
            self._recording = Recording()
            self._outer = _current.get()
            _begin_recording(self._recording)
            _current.set(self._recording)

    def disable_instrumentation(self) -> None:
        if self._recording is not None and not self._recording.closed:
            _end_recording(self._recording)
            _current.set(self._outer)

    def generate_stats(self, request: Any, response: Any) -> None:
        panel: Any = self
        panel.record_stats(_describe_recording(self._recording or Recording()))


# --- what is shown: text and numbers, which the toolbar may store as JSON ------------


def _describe_recording(recording: Recording) -> dict[str, Any]:
    counts = sum(recording.counts.values(), Counter[str]())
    infos = _find_infos(recording)
    remembering = {
        path
        for path, found in infos.items()
        if found and all(info.options.local for info in found)
    }
    repeated = [
        (reads, recording.savable[call], *call)
        for call, reads in recording.reads.items()
        if reads > 1 and call[0] not in remembering
    ]
    return {
        "calls": sum(counts[kind] for kind in READS),
        "hits": sum(counts[kind] for kind in SERVED),
        "number": recording.number,
        "functions": _describe_functions(recording),
        "depends": _depends(infos),
        "users": describe_users(chain.from_iterable(infos.values())),
        "duplicates": sorted(repeated, reverse=True),
        "repeated": sum(reads - 1 for reads, *_ in repeated),
        "spared": sum(savable for _, savable, *_ in repeated),
        "in_caches": format_duration(recording.in_caches),
        "computing": format_duration(_computing(recording)),
        "events": _describe_events(recording),
    }


def _computing(recording: Recording) -> float:
    """Return the seconds of computations that are not part of another one."""
    return sum(
        event.seconds
        for _, event, made in recording.events
        if event.kind == "computed" and made.depth <= 1
    )


def _describe_events(recording: Recording) -> list[dict[str, Any]]:
    """Return the events; the same ones in a row are one, with their number."""
    rows: list[dict[str, Any]] = []
    last: Any = None
    explained: dict[str, str] = {}
    for since, event, made in recording.events:
        same = event.kind, event.key, event.function, made.place
        if same == last:
            rows[-1]["times"] += 1
            continue
        last = same
        own = event.kind in ("miss", "computed")  # they are inside of their computation
        depth = made.depth - own
        row = _describe_event(since, event)
        row |= {"times": 1, "place": made.place, "levels": "↳ " * depth}
        row["args"] = _describe_arguments(made.call)
        row["why"] = ""
        if event.kind == "miss" and made.call and len(explained) < MOST_EXPLAINED:
            if event.key not in explained:
                explained[event.key] = _explain(made.call)
            row["why"] = explained[event.key]
        rows.append(row)
    return rows


def _explain(call: Call) -> str:
    with suppress(Exception):  # an argument has changed, or the cache fails
        reason = explain_call(call).reason
        return f"{reason.kind}: {reason.text}"
    return ""


def _describe_arguments(call: Call | None) -> str:
    """Return the arguments of a call as text, in debug mode only."""
    if call is None or not is_debug():
        return ""
    shown = [saferepr(each) for each in call.args]
    shown += [f"{name}={saferepr(each)}" for name, each in call.kwargs.items()]
    return ", ".join(shown)[:MOST_CHARACTERS]


def _depends(infos: dict[str, list[FunctionInfo]]) -> dict[str, list[str]]:
    """Return what results were made of, by the paths of the functions."""
    found = {
        path: [name for info in each for name in describe_dependencies(info).depends_on]
        for path, each in infos.items()
    }
    return {path: [*dict.fromkeys(names)] for path, names in found.items() if names}


def _describe_functions(recording: Recording) -> list[dict[str, Any]]:
    seconds = recording.seconds
    return [
        {
            "function": function,
            "alias": alias,
            "counts": [counts[kind] for kind in ALL],
            "spent": format_duration(seconds[function, alias, "computed"]),
            "saved": format_duration(sum(seconds[function, alias, k] for k in SERVED)),
        }
        for (function, alias), counts in recording.counts.items()
    ]


def _describe_event(since: float, event: Event) -> dict[str, Any]:
    meaning = _COST.get(event.kind, "")
    return {
        "at": format_duration(since),
        "cost": format_duration(event.seconds) if meaning else "",
        "means": meaning,
        **event._asdict(),
    }


def _find_infos(recording: Recording) -> dict[str, list[FunctionInfo]]:
    """Return the functions of a request by their paths; nothing if the settings do not
    fit a function, perhaps one that this page does not call."""
    try:
        known = {info.function: info for info in list_functions()}
    except ImproperlyConfigured:
        return {}
    return {
        path: [known[one] for one in functions if one in known]
        for path, functions in recording.functions.items()
    }
