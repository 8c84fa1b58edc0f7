"""A chart of an hour as paths of an SVG, and in words. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

__all__ = ["Chart", "draw"]


class Counted(Protocol):
    """What was counted in one minute."""

    @property
    def hits(self) -> int: ...
    @property
    def misses(self) -> int: ...


class Chart(NamedTuple):
    """Bars, one per minute: misses at the foot, hits on top of them."""

    width: int
    height: int
    #: The ``d`` of a path; empty where there was none.
    hits: str
    misses: str
    #: Calls of the minute with the most: the height of the chart.
    most: int
    #: (hits, misses) of all minutes.
    sums: tuple[int, int]


def draw(minutes: Sequence[Counted], bar: int = 2, height: int = 32) -> Chart:
    """``bar``: units from one minute to the next; one of them is the gap."""
    most = max((m.hits + m.misses for m in minutes), default=0)
    hits, misses = [], []
    for number, minute in enumerate(minutes):
        x, width = number * bar, max(bar - 1, 1)
        foot = _tall(minute.misses, most, height)
        head = _tall(minute.hits + minute.misses, most, height)
        if minute.misses:
            misses.append(_bar(x, height, width, foot))
        if minute.hits:
            hits.append(_bar(x, height - foot, width, head - foot))
    return Chart(
        len(minutes) * bar,
        height,
        "".join(hits),
        "".join(misses),
        most,
        (sum(m.hits for m in minutes), sum(m.misses for m in minutes)),
    )


def _tall(count: int, most: int, height: int) -> float:
    """What was counted at all is seen."""
    return max(round(count / most * height, 1), 1.0) if count else 0.0


def _bar(x: float, y: float, width: float, tall: float) -> str:
    return f"M{x} {y:g}v{-tall:g}h{width}v{tall:g}z"
