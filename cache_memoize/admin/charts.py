"""The chart of an hour, as SVG paths and in numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..stats.sitewide import Minute


class Chart(NamedTuple):
    """Bars, one per minute: misses at the foot, hits on top of them."""

    width: int
    height: int
    #: The ``d`` of an SVG path; empty without any hit.
    hits: str
    misses: str
    #: Calls in the busiest minute, which has the full height.
    most: int
    #: All hits, and all misses.
    sums: tuple[int, int]


def draw_chart(minutes: Sequence[Minute], bar: int = 2, height: int = 32) -> Chart:
    """Draw a chart in which a minute is `bar` units wide, 1 of them a gap."""
    most = max((m.hits + m.misses for m in minutes), default=0)
    hits, misses = [], []
    for number, minute in enumerate(minutes):
        x, width = number * bar, max(bar - 1, 1)
        foot = _height_of(minute.misses, most, height)
        head = _height_of(minute.hits + minute.misses, most, height)
        if minute.misses:
            misses.append(_draw_bar(x, height, width, foot))
        if minute.hits:
            hits.append(_draw_bar(x, height - foot, width, head - foot))
    return Chart(
        len(minutes) * bar,
        height,
        "".join(hits),
        "".join(misses),
        most,
        (sum(m.hits for m in minutes), sum(m.misses for m in minutes)),
    )


def _height_of(count: int, most: int, height: int) -> float:
    """Return at least 1 unit for any count, so that it can be seen."""
    return max(round(count / most * height, 1), 1.0) if count else 0.0


def _draw_bar(x: float, y: float, width: float, height: float) -> str:
    return f"M{x} {y:g}v{-height:g}h{width}v{height:g}z"
