"""The charts of the last minutes, as SVG paths and in numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..stats.sitewide import Minute

#: Units of the mark above a minute in which something failed.
MARK = 4


class Chart(NamedTuple):
    """Bars, one per minute: misses at the foot, stale hits on them, then other hits; a
    mark at the top of each minute in which something failed."""

    width: int
    height: int
    #: The ``d`` of an SVG path; empty without any.
    hits: str
    stale: str
    misses: str
    failing: str
    #: Calls in the busiest minute, and those of a bar of the full height.
    most: int
    scale: int
    minutes: int
    sums: Minute


def busiest(minutes: Sequence[Minute]) -> int:
    """Return the calls of the busiest minute."""
    return max((m.hits + m.misses for m in minutes), default=0)


def sum_minutes(minutes: Sequence[Minute]) -> Minute:
    return Minute(*map(sum, zip(*minutes, strict=True))) if minutes else Minute()


def draw_chart(
    minutes: Sequence[Minute],
    scale: int = 0,
    failing: int = 0,
    width: int = 120,
    height: int = 32,
) -> Chart:
    """Draw a chart.

    :param scale: calls of a bar of the full height; 0: those of the busiest minute.
    :param failing: the number of the last minutes in which refreshes failed.
    """
    most = busiest(minutes)
    scale = scale or most
    bar = width // max(len(minutes), 1)
    room = height - MARK - 1
    paths: dict[str, list[str]] = {"hits": [], "stale": [], "misses": [], "failing": []}
    for number, minute in enumerate(minutes):
        x, thick = number * bar, max(bar - 1, 1)
        stale = min(minute.stale, minute.hits)
        parts = {"misses": minute.misses, "stale": stale, "hits": minute.hits - stale}
        foot = float(height)
        for name, count in parts.items():
            if count:
                # At least 1 unit, so that it can be seen.
                tall = max(round(count / scale * room, 1), 1.0)
                paths[name].append(_draw_bar(x, foot, thick, tall))
                foot -= tall
        if minute.errors or number >= len(minutes) - failing:
            paths["failing"].append(_draw_bar(x, MARK, thick, MARK))
    return Chart(
        width,
        height,
        most=most,
        scale=scale,
        minutes=len(minutes),
        sums=sum_minutes(minutes),
        **{name: "".join(found) for name, found in paths.items()},
    )


def _draw_bar(x: float, y: float, width: float, height: float) -> str:
    return f"M{x} {y:g}v{-height:g}h{width}v{height:g}z"
