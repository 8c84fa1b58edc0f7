"""The line on each page: hit or miss, duration, and worker process."""

import os
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

# One variable per thread (and task): a call never reads another call's outcome.
_outcome: ContextVar[str] = ContextVar("outcome")


def hit(*args: Any, **kwargs: Any) -> None:
    """The `hit_callable` of the memoized functions."""
    _outcome.set("hit")


def miss(*args: Any, **kwargs: Any) -> None:
    """The `miss_callable` of the memoized functions."""
    _outcome.set("miss")


@dataclass
class Measured:
    call: str
    value: Any
    outcome: str
    milliseconds: float
    worker: int = field(default_factory=os.getpid)


def measured(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Measured:
    """Call the function; return its value, outcome and duration."""
    _outcome.set("neither")
    start = time.perf_counter()
    value = function(*args, **kwargs)
    milliseconds = (time.perf_counter() - start) * 1000
    call = f"{function.__name__}({', '.join(map(repr, args))})"
    return Measured(call, value, _outcome.get(), milliseconds)
