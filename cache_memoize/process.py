"""Forks and the ends of threads: one place to register for them.

A fork copies the memory of all threads, but only the thread that forked goes on in the
child. A lock that another thread held stays locked there for ever, and sockets are
shared with the parent. So each module with a lock, a thread or a connection registers
the function that gives the child its own. A thread of ours, unlike one that serves
requests, gets no signal from Django to close its connections: it calls
:func:`end_thread`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

from .log import logger

__all__ = ["after_fork", "at_thread_end", "end_thread"]

F = TypeVar("F", bound=Callable[[], None])

_at_thread_end: list[Callable[[], None]] = []


def after_fork(in_child: F, **others: Callable[[], None]) -> F:
    """Have ``in_child`` called in every forked child, in the order of registration.

    :param others: ``before`` and ``after_in_parent``, as of ``os.register_at_fork``.
    """
    if hasattr(os, "register_at_fork"):  # pragma: no branch
        os.register_at_fork(after_in_child=in_child, **others)
    return in_child


def at_thread_end(function: F) -> F:
    """Have ``function`` called in each of our threads before it ends."""
    _at_thread_end.append(function)
    return function


def end_thread() -> None:
    """Close the connections that this thread has opened. Log errors, raise none."""
    for function in _at_thread_end:
        try:
            function()
        except Exception:
            logger.exception("a thread could not clean up")
