"""What do callers of an expensive function see, cold and at expiry, per protection?

``python -m benchmarks.stampede`` lets 1, 2, 4 and 8 processes of 8 threads call one
function of 200 ms on Valkey all the time; its value expires every 2 s. The processes
and the protections are those of tests/stampede.py. The modes take turns, in another
order in each round.

A call is *at expiry* if it overlaps with the first computation of a new value: so
early_refresh and stale are looked at in the same moment as the others. The goal
compares the p99 of these calls with that of plain hits under the same load.
"""

from __future__ import annotations

import random
from statistics import median
from typing import Any, NamedTuple

from benchmarks.measure import ratio
from benchmarks.report import Bar, Report, parser
from tests import stampede
from tests.servers import SERVERS

HITS = "plain hits, no expiry"
STALE = "stale=30"
#: At this number of processes, the goal is to be reached.
PROCESSES = 4
GOAL = 5
SHARES = {"p50": 0.5, "p99": 0.99}


class Seen(NamedTuple):
    """By the callers of one mode in one round."""

    cold: int
    expiries: list[int]
    #: Seconds of the calls at the cold key, and at expiry (plain hits: after that).
    at_cold: list[float]
    at_expiry: list[float]


def seen(said: list[dict[str, list[Any]]], hits: bool) -> Seen:
    """From the moments of computations and calls that all processes tell."""
    starts = sorted(start for one in said for start in one["computations"])
    calls = [tuple(call) for one in said for call in one["calls"]]
    cold, *expiries = stampede.bursts(starts)
    firsts = starts[:1]
    for start in starts:
        if start > firsts[-1] + stampede.TAKES:
            firsts.append(start)
    warm = firsts[0] + 2 * stampede.TAKES

    def expired(began: float, took: float) -> bool:
        return any(
            began <= first + stampede.TAKES and first <= began + took
            for first in firsts[1:]
        )

    later = [(began, took) for began, took in calls if began > warm]
    return Seen(
        cold,
        expiries,
        sorted(took for began, took in calls if began < firsts[0] + stampede.TAKES),
        sorted(took for began, took in later if hits or expired(began, took)),
    )


def percentile(ordered: list[float], share: float) -> float:
    return ordered[int(len(ordered) * share)]


def milliseconds(ordered: list[float]) -> list[str]:
    """The median, the 99th percentile and the longest."""
    if not ordered:
        return ["–"] * 3
    found = [percentile(ordered, share) for share in SHARES.values()]
    return [f"{seconds * 1000:.1f}" for seconds in (*found, ordered[-1])]


def row(title: str, rounds: list[Seen]) -> list[str]:
    """All rounds of a mode."""
    expiries = [n for one in rounds for n in one.expiries]
    each = "–"
    if expiries and title != HITS:
        each = f"{sum(expiries) / len(expiries):.1f} (at most {max(expiries)})"
    cold = sorted(t for one in rounds for t in one.at_cold)
    expiry = sorted(t for one in rounds for t in one.at_expiry)
    computed = f"{median(one.cold for one in rounds):g}"
    return [title, computed, each, *milliseconds(cold), *milliseconds(expiry)]


HEAD = "protection,computed cold,per expiry,cold p50,p99,max,expiry p50,p99,max"


def measure(processes: int, seconds: float, rounds: int, bar: Any) -> dict[str, Any]:
    """What was seen in each mode, by round."""
    found: dict[str, list[Seen]] = {mode: [] for mode in stampede.MODES}
    order, modes = random.Random(processes), list(stampede.MODES)
    workers = stampede.Workers(processes)
    try:
        # Connections are made, and what is imported late is there.
        workers.do("valkey", "threads", HITS, f"stampede.{processes}", 0.5)
        for n in range(rounds):
            order.shuffle(modes)
            for mode in modes:
                bar.set_description(f"{processes} processes, {mode}", False)
                name = f"stampede.{processes}.{n}.{modes.index(mode)}"
                said = workers.do("valkey", "threads", mode, name, seconds)
                found[mode].append(seen(said, mode == HITS))
                bar.update()
    finally:
        workers.close()
    return found


def tell(report: Report, processes: int, found: dict[str, list[Seen]]) -> None:
    title = f"{processes} processes of 8 threads (latencies in ms)"
    report.table(title, [HEAD.split(","), *(row(m, r) for m, r in found.items())])
    p99 = {
        mode: [percentile(one.at_expiry, 0.99) for one in rounds if one.at_expiry]
        for mode, rounds in found.items()
    }
    plain = {mode: [one._asdict() for one in rounds] for mode, rounds in found.items()}
    report.raw.append([processes, plain])
    if not all(p99.values()):
        report.note("Too short: no value expired.")
        return
    bars = [Bar(mode, median(each) * 1000, mode == STALE) for mode, each in p99.items()]
    report.group(f"{processes} × 8 callers at expiry: p99 in ms", bars)
    if processes == PROCESSES and len(p99[STALE]) == len(p99[HITS]):
        what = f"{processes} × 8 at expiry with stale: p99 to that of plain hits"
        report.goal(what, ratio(p99[STALE], p99[HITS]), most=GOAL)


def main() -> None:
    options = parser(__doc__).parse_args()
    report = Report("A stampede", options)
    counts = [1, PROCESSES] if options.quick else [1, 2, PROCESSES, 8]
    counts = [n for n in counts if report.wanted(f"{n} processes")]
    seconds, rounds = (3.5, 1) if options.quick else (7, 3)
    server = SERVERS["valkey"]
    if not server.binary:
        report.without("Valkey", "no server", "whole")
        report.finish()
        return
    server.start()
    try:
        with report.progress(len(counts) * len(stampede.MODES) * rounds) as bar:
            for processes in counts:
                found = measure(processes, seconds, rounds, bar)
                tell(report, processes, found)
    finally:
        server.stop()
    report.finish()


if __name__ == "__main__":
    main()
