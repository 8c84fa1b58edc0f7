"""A panel for django-debug-toolbar: the memoized calls of one request.

It listens to the signals while a request is being watched, and patches nothing. What is
watched is in a context variable, so that requests in other threads and tasks keep
apart; threads and tasks that a request started, and the refreshes that it set off,
count for it until it has ended.
"""

from __future__ import annotations

import asyncio
import threading
from asyncio import _get_running_loop
from contextvars import ContextVar
from pathlib import Path
from time import perf_counter
from typing import Any
from weakref import WeakSet

from django.core.exceptions import ImproperlyConfigured
from django.template import Context, Engine
from django.utils.safestring import SafeString

try:
    from debug_toolbar.panels import Panel
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"cache_memoize.panels: {error}; pip install 'django-cache-memoize[toolbar]'",
        name=error.name,
    ) from error

from .planning import plan_of, planned
from .signals import ALL, Event

__all__ = ["MemoizePanel"]

#: So many events are listed; all are counted.
MOST = 1_000
#: The events of reads of the cache.
SERVED = ("hit", "stale")
READS = (*SERVED, "miss")
#: Those after which the memory of ``local="request"`` would have been asked in vain.
_FORGOTTEN = ("miss", "computed", "invalidated")

_KINDS = list(ALL)
_NONE: dict[str, Any] = {"count": 0, "seconds": 0.0}


class Recording:
    """The events of one request."""

    def __init__(self) -> None:
        self.began = perf_counter()
        self.closed = False
        self.events: list[tuple[float, Event]] = []
        self.number = 0
        self._lock = threading.Lock()
        #: By function and alias, by kind: how many there were, and their seconds.
        self.totals: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
        #: By function, alias and key: how often it was read.
        self.reads: dict[tuple[str, str, str], int] = {}
        #: The same: the reads that a memory of the request would have spared.
        self.spared: dict[tuple[str, str, str], int] = {}
        self._remembered: set[tuple[str, str, Any]] = set()
        #: The functions by their paths, to ask for their options.
        self.functions: dict[str, list[Any]] = {}

    def note(self, event: Event, function: Any) -> None:
        since = perf_counter() - self.began
        with self._lock:
            if self.closed:
                return
            self.number += 1
            if len(self.events) < MOST:
                self.events.append((since, event))
            of = self.totals.setdefault((event.function, event.alias), {})
            total = of.setdefault(event.kind, dict(_NONE))
            total["count"] += 1
            total["seconds"] += event.seconds
            known = self.functions.setdefault(event.function, [])
            if not any(function is one for one in known):
                known.append(function)
            self._note_read(event)

    def _note_read(self, event: Event) -> None:
        call = (event.function, event.alias, event.key)
        if event.kind in READS:
            self.reads[call] = self.reads.get(call, 0) + 1
        if event.kind == "invalidated" and call not in self.reads:
            self._remembered.clear()  # a tag: who knows which calls had it
        elif event.kind in _FORGOTTEN:
            at = event.alias, event.key
            self._remembered = {one for one in self._remembered if one[:2] != at}
        elif event.kind in READS:
            at_here = event.alias, event.key, _owner()
            if at_here in self._remembered:
                self.spared[call] = self.spared.get(call, 0) + 1
            self._remembered.add(at_here)

    def close(self) -> None:
        with self._lock:
            self.closed = True


def _owner() -> Any:
    """Whose memory ``local="request"`` would be: that of a task, or of a thread."""
    task = None if _get_running_loop() is None else asyncio.current_task()
    return threading.get_ident() if task is None else id(task)


# --- listening -----------------------------------------------------------------------

_current: ContextVar[Recording | None] = ContextVar("memoize_panel", default=None)
#: Weak: a request whose end nobody told does not keep the receivers for ever.
_recordings: WeakSet[Recording] = WeakSet()
_lock = threading.Lock()


def _heard(sender: Any, event: Event, **kwargs: Any) -> None:
    recording = _current.get()
    if recording is not None:
        recording.note(event, sender)


def _begin(recording: Recording) -> None:
    with _lock:
        if not _recordings:
            for signal in ALL.values():
                signal.connect(_heard, dispatch_uid="cache_memoize.panels")
        _recordings.add(recording)


def _end(recording: Recording) -> None:
    recording.close()
    with _lock:
        _recordings.discard(recording)
        if not _recordings:
            for signal in ALL.values():
                signal.disconnect(dispatch_uid="cache_memoize.panels")


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
        context = Context({"most": MOST, "kinds": _KINDS, **self._shown})
        return _engine.get_template(self.template).render(context)

    def enable_instrumentation(self) -> None:
        if self._recording is None:
            self._recording = Recording()
            self._outer = _current.get()
            _begin(self._recording)
            _current.set(self._recording)

    def disable_instrumentation(self) -> None:
        if self._recording is not None and not self._recording.closed:
            _end(self._recording)
            _current.set(self._outer)

    def generate_stats(self, request: Any, response: Any) -> None:
        panel: Any = self
        panel.record_stats(_figures(self._recording or Recording()))


def _figures(recording: Recording) -> dict[str, Any]:
    """What is shown: text and numbers only, as the toolbar may store it as JSON."""
    functions = [
        {
            "function": function,
            "alias": alias,
            "counts": [of.get(kind, _NONE)["count"] for kind in _KINDS],
            "spent": _text(of.get("computed", _NONE)["seconds"]),
            "saved": _text(sum(of.get(kind, _NONE)["seconds"] for kind in SERVED)),
        }
        for (function, alias), of in recording.totals.items()
    ]
    counts = dict.fromkeys(_KINDS, 0)
    for each in functions:
        for kind, number in zip(_KINDS, each["counts"], strict=True):
            counts[kind] += number
    forgetful = _without_memory(recording)
    repeated = [
        (reads, recording.spared.get(call, 0), *call)
        for call, reads in recording.reads.items()
        if reads > 1 and call[0] in forgetful
    ]
    events = [
        {
            "at": _text(since),
            "cost": _text(event.seconds) if event.kind in _COST else "",
            "means": _COST.get(event.kind, ""),
            **event._asdict(),
        }
        for since, event in recording.events
    ]
    return {
        "calls": sum(counts[kind] for kind in READS),
        "hits": sum(counts[kind] for kind in SERVED),
        "number": recording.number,
        "functions": functions,
        "duplicates": sorted(repeated, reverse=True),
        "repeated": sum(reads - 1 for reads, *_ in repeated),
        "spared": sum(spared for _, spared, *_ in repeated),
        "events": events,
    }


#: What the seconds of an event are.
_COST = {"hit": "saved", "stale": "saved", "computed": "spent"}


def _without_memory(recording: Recording) -> set[str]:
    """The paths of the functions that are not ``local="request"`` already."""
    try:
        local = [each.func for each in planned() if plan_of(each).options.local]
    except ImproperlyConfigured:  # of a function that this page may not even call
        local = []
    return {
        path
        for path, functions in recording.functions.items()
        if not all(any(one is each for each in local) for one in functions)
    }


def _text(seconds: float) -> str:
    return f"{seconds * 1000:,.2f} ms"
