"""The last things that happened to entries, from which :mod:`cache_memoize.explain`
finds the reason of a miss.

A function remembers the entries that it has stored, and a cache the invalidations of
its keys and tags: the last of each key only, so that a call or a table which changes
all the time does not displace the others. Keys, tags and parts of keys are digests; no
argument and no result is remembered.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

__all__ = ["History", "Trace", "acting", "cause", "digest_of", "parse", "place"]

#: Traces that one process remembers, of a function or a cache, and those that all
#: processes share.
MOST, MOST_SHARED = 256, 32
#: Seconds between two traces of a function with the parts of their keys, at least.
PARTS_EVERY = 0.1
#: The time from which on an entry is kept for ever, in seconds since the epoch.
LATEST = 1e12
#: Characters of a text, and tags or parts of a key, at most.
LONGEST, WIDEST = 120, 16

_NO_PARTS: Mapping[str, str] = MappingProxyType({})

_actor: ContextVar[str] = ContextVar("cache_memoize actor", default="")


@contextmanager
def acting(name: str) -> Iterator[None]:
    """Have explanations name a person, or a program, as the cause of the invalidations
    in this block, in place of a line of code."""
    token = _actor.set(name)
    try:
        yield
    finally:
        _actor.reset(token)


class Trace(NamedTuple):
    """The last that happened under a key, in seconds since the epoch."""

    at: float
    #: When the entry is too old to be served; 0.0: none was stored.
    until: float = 0.0
    #: The cause of an invalidation, or the reason why nothing was stored.
    text: str = ""
    #: The tags that the entry depends on: their keys, or digests of them.
    tags: tuple[str, ...] = ()
    #: Digests of the parts of the key, by name.
    parts: Mapping[str, str] = _NO_PARTS
    #: ``at`` and ``until`` of the entry before this one; empty: none is known.
    before: tuple[float, ...] = ()

    def after(self, other: Trace | None) -> Trace:
        """Return this trace, with the entry of an earlier one as the one before."""
        if other is None or not other.until or other.at <= (*self.before, 0.0)[0]:
            return self
        return self._replace(before=(other.at, other.until))


def digest_of(text: str) -> str:
    """Return 10 characters for a key, a tag or a part of a key."""
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:10]


class History:
    """Traces by their keys; the oldest ones are dropped."""

    def __init__(self) -> None:
        # Its methods are atomic: a lock might be held by another thread at a fork.
        self._traces: OrderedDict[str, Trace] = OrderedDict()
        self._parts_at = 0.0

    def wants_parts(self, now: float) -> bool:
        """Return whether a trace is to have its parts: that takes time, so the traces
        of a busy function have none."""
        wanted = abs(now - self._parts_at) >= PARTS_EVERY
        self._parts_at = now if wanted else self._parts_at
        return wanted

    def note(self, key: str, trace: Trace) -> None:
        self._traces[key] = trace.after(self._traces.get(key))
        try:
            self._traces.move_to_end(key)
            if len(self._traces) > MOST:
                self._traces.popitem(last=False)
        except KeyError:  # another thread has dropped it
            pass

    def copy(self) -> dict[str, Trace]:
        """Return the traces by the digests of their keys, with digests of tags."""
        return {
            digest_of(key): trace._replace(tags=tuple(map(digest_of, trace.tags)))
            for key, trace in self._traces.copy().items()
        }


def merge(one: Mapping[str, Trace], other: Mapping[str, Trace]) -> dict[str, Trace]:
    """Return the latest trace of each key, in their order."""
    found: dict[str, Trace] = {}
    for name, trace in sorted([*one.items(), *other.items()], key=lambda e: e[1].at):
        earlier = found.pop(name, None)  # the latest go to the end
        same = earlier is not None and earlier.at == trace.at
        found[name] = trace.after(None if same else earlier)
    return found


def shared(traces: Mapping[str, Trace], end: float = LATEST) -> list[Any]:
    """Return the latest traces before a time, for JSON: those of a clock that is ahead
    would stay the latest for as long."""
    latest = [each for each in traces.items() if each[1].at < end][-MOST_SHARED:]
    return [
        [
            name,
            trace.at,
            min(trace.until, LATEST),
            trace.text[:LONGEST],
            trace.tags[:WIDEST],
            {part[:40]: trace.parts[part] for part in [*trace.parts][:WIDEST]},
            trace.before,
        ]
        for name, trace in latest
    ]


def parse(found: Any) -> dict[str, Trace]:
    """Return the traces in what :func:`shared` has returned; raise ValueError or
    TypeError for anything else."""
    traces = {}
    for name, at, until, text, tags, parts, before in found[:MOST_SHARED]:
        _check(float, at, until, *before)
        _check(str, name, text, *tags, *parts, *parts.values())
        traces[name] = Trace(at, until, text, tuple(tags), parts, tuple(before))
    return traces


def _check(kind: type, *found: Any) -> None:
    for each in found:
        good = (str,) if kind is str else (int, float)
        if type(each) not in good or (kind is str and len(each) > LONGEST):
            raise ValueError(each)


# --- causes --------------------------------------------------------------------------

#: Packages whose lines of code are nobody's reason.
_PASSED = frozenset(
    "cache_memoize django asgiref asyncio concurrent contextlib functools threading"
    " contextvars".split()
)


def cause() -> str:
    """Return the person who acts, or the line of the project's code that called this
    package, as ``shop/models.py:12``; empty if there is neither."""
    if actor := _actor.get():
        return actor
    frame = sys._getframe(1)
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] not in _PASSED:
            return place(frame.f_code.co_filename, frame.f_lineno, module)
        frame = frame.f_back  # type: ignore[assignment]
    return ""


def place(file: str, line: int, module: str) -> str:
    """Return a line of code as ``shop/catalogue.py:12``, from the package on."""
    return f"{_from_package(file, module)}:{line}"


@lru_cache(256)
def _from_package(file: str, module: str) -> str:
    parts = Path(file).parts
    depth = module.count(".") + 1 + (parts[-1] == "__init__.py")
    return "/".join(parts[-depth:])
