"""Timing candidates against each other on a machine that others use too.

A shared machine is twice as fast in one minute as in the next. So nothing is timed on
its own: every round times a short batch of each candidate, in another order each time,
and only what was timed in the same rounds is compared.
"""

from __future__ import annotations

import asyncio
import random
import timeit
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any, NamedTuple

#: Makes so many calls and gives the seconds that they took.
Batch = Callable[[int], float]

_ASYNC = """
import gc
from itertools import repeat
from time import perf_counter

async def loop(number):
    gc.disable()
    try:
        started = perf_counter()
        for _ in repeat(None, number):
            await {statement}
        return perf_counter() - started
    finally:
        gc.enable()
"""


def batch(statement: str, names: Mapping[str, Any]) -> Batch:
    """Without garbage collection, and with the statement compiled into the loop: a
    function around it would be part of what is measured."""
    return timeit.Timer(statement, globals=dict(names)).timeit


def async_batch(
    runner: asyncio.Runner, statement: str, names: Mapping[str, Any]
) -> Batch:
    """The same for something to await, in the event loop of ``runner``."""
    scope = dict(names)
    exec(
        "import gc\nfrom itertools import repeat\nfrom time import perf_counter", scope
    )
    exec(_ASYNC.format(statement=statement), scope)
    return lambda number: runner.run(scope["loop"](number))


def interleave(
    batches: Mapping[str, Batch], *, rounds: int, number: int
) -> dict[str, list[float]]:
    """Time the candidates in turn: ``rounds`` times a batch of ``number`` calls.

    The n-th number of every candidate, in seconds per call, is of the n-th round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in batches}
    for run in batches.values():
        run(number)  # warms up
    names, order = list(batches), random.Random(0)
    for _ in range(rounds):
        order.shuffle(names)  # nobody always comes after the same one
        for name in names:
            seconds[name].append(batches[name](number) / number)
    return seconds


class Ratio(NamedTuple):
    """How much slower one candidate is than another, seen in three ways.

    Where the machine was slow for about half of the rounds, the medians of two
    candidates may stem from different halves; the ratios within each round do not.
    """

    within_rounds: float
    of_medians: float
    of_minima: float

    def __str__(self) -> str:
        return " / ".join(f"{ratio:.2f}" for ratio in self)


def ratio(seconds: list[float], to: list[float]) -> Ratio:
    within = median(a / b for a, b in zip(seconds, to, strict=True))
    return Ratio(within, median(seconds) / median(to), min(seconds) / min(to))
