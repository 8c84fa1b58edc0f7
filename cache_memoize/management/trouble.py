"""How the command notices that a cache does not work.

Controls answer whatever the cache does, and log what was wrong. A command that says it
is done must not be so patient.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError, OutputWrapper

from .. import signals
from ..cache.breaker import Breaker
from ..cache.connections import MISTAKES, opened
from ..cache.store import CacheDidNotAnswer, Store, run
from ..clock import Clock
from ..signals import Event
from .outcome import Options

__all__ = [
    "cache_errors",
    "listening",
    "noticing",
    "probe",
    "settings_errors",
    "tell_own_memory",
]

_Noticed = tuple[str, list[str]]
_noticed: ContextVar[_Noticed | None] = ContextVar("memoize_noticed", default=None)


def _note(*, event: Event, **kwargs: Any) -> None:
    noticed = _noticed.get()
    if noticed is not None and noticed[0] == event.function:
        noticed[1].append(event.detail)


@contextmanager
def listening() -> Iterator[None]:
    """Around everything that uses :func:`noticing`."""
    signals.error.connect(_note)
    try:
        yield
    finally:
        signals.error.disconnect(_note)


@contextmanager
def noticing(function: str) -> Iterator[list[str]]:
    """How the cache fails a function, in this context: filled as it happens."""
    found: list[str] = []
    token = _noticed.set((function, found))
    try:
        yield found
    finally:
        _noticed.reset(token)


@contextmanager
def settings_errors() -> Iterator[None]:
    """What is wrong in the settings is no traceback."""
    try:
        yield
    except ImproperlyConfigured as error:
        raise CommandError(str(error)) from error


@contextmanager
def cache_errors(alias: str) -> Iterator[None]:
    """What a cache raises, as a CommandError that names it."""
    try:
        yield
    except CommandError:
        raise
    except (*MISTAKES, CacheDidNotAnswer) as error:
        raise CommandError(f"the cache {alias!r}: {error}") from error
    except Exception as error:
        raise CommandError(
            f"the cache {alias!r} does not work: {type(error).__name__}: {error}; see "
            f"whether its server runs, and CACHES[{alias!r}]"
        ) from error


def probe(alias: str) -> None:
    """Raises CommandError unless this cache keeps what is written to it."""
    # A breaker of its own: the cache is asked, whatever others have seen.
    clock = Clock()
    store = Store(alias, Breaker(), clock)
    with cache_errors(alias):
        if not opened(alias)[1].stores:
            raise CommandError(
                f"the cache {alias!r} stores nothing, as its BACKEND says; choose "
                "another for it in CACHES"
            )
        token = clock.token()
        key = f"cache_memoize.probe:{token.hex()}"
        run(store.set(key, token, 10))
        there = run(store.raw(key))
        run(store.delete(key))
    if there != token:
        raise CommandError(
            f"the cache {alias!r} does not keep what is written to it; see whether its "
            "server runs, and takes writes"
        )


def tell_own_memory(options: Options, stderr: OutputWrapper, *aliases: str) -> None:
    """It was in vain: what the processes of a server have in memory is not seen."""
    if not options["alone"]:
        return
    for alias in aliases:
        with cache_errors(alias):
            backend = opened(alias)[1]
        if backend.in_memory and backend.stores:
            stderr.write(
                f"the cache {alias!r} is the memory of this process: what others have "
                "in theirs was neither looked at nor changed; use a cache that all "
                "processes share"
            )
