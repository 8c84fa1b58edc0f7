"""Caches that do not work: errors, probes and warnings of the command.

A control answers a caller even if the cache fails, and logs the error. A command that
reports success must not be so tolerant.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from django.core.management.base import CommandError, OutputWrapper

from .. import signals
from ..cache import record
from ..cache.breaker import Breaker
from ..cache.connections import opened
from ..cache.errors import MISTAKES, CacheDidNotAnswer
from ..cache.store import Store, run
from ..clock import Clock
from ..describe import FunctionInfo
from ..signals import Event
from . import Options

_current: ContextVar[object] = ContextVar("memoize_noticing", default=None)


@contextmanager
def notice_errors(info: FunctionInfo) -> Iterator[list[str]]:
    """Yield a list that receives the cache errors of a function in this context."""
    found: list[str] = []

    def add_error(*, event: Event, **kwargs: Any) -> None:
        if _current.get() is found:  # not of another thread
            found.append(event.detail)

    token = _current.set(found)
    signals.error.connect(add_error, sender=info.function, weak=False)
    try:
        yield found
    finally:
        signals.error.disconnect(add_error, sender=info.function)
        _current.reset(token)


@contextmanager
def cache_errors(alias: str) -> Iterator[None]:
    """Turn the exceptions of a cache into CommandErrors that name it."""
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


def probe_cache(alias: str) -> None:
    """Raise CommandError unless this cache keeps a value that is written to it."""
    # A breaker of its own: failures of other callers do not count.
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
        # A record, because vouchers are written into it.
        run(store.set(key, record.pack(record.CLEARED, token), 10))
        found = run(store.get(key))
        run(store.delete(key))
    if not isinstance(found, record.Record) or found.token != token:
        raise CommandError(
            f"the cache {alias!r} does not keep what is written to it; see whether its "
            "server runs, and takes writes"
        )


def warn_of_own_memory(options: Options, stderr: OutputWrapper, *aliases: str) -> None:
    """Warn that a cache in local memory is not that of the server's processes."""
    if not options["alone"]:
        return
    for alias in aliases:
        with cache_errors(alias):
            backend = opened(alias)[1]
        if backend.in_memory and backend.stores:
            stderr.write(
                f"the cache {alias!r} is the memory of this process: the entries of "
                "other processes are neither read nor changed; use a cache that all "
                "processes share"
            )
