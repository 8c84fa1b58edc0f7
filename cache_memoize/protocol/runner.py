"""Finish a coroutine that never suspends: so one text serves sync and async code."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["run"]

T = TypeVar("T")


def run(flow: Coroutine[Any, Any, T]) -> T:
    """Finish a flow over a synchronous store."""
    try:
        flow.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    flow.close()
    raise RuntimeError("a flow over a synchronous store was suspended")
