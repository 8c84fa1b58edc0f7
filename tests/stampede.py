"""What callers of one expensive function see: ``python -m tests.stampede``.

Four processes, with eight threads or eight tasks each, call one function of 200 ms all
the time, and what it returns expires every 2 s: without protection (``cache.get``, then
``cache.set``), waiting for the computation (the default), with ``early_refresh=1``,
with ``stale=30``, and without any expiry, as the measure of a plain hit. Last, the
function always raises: no caller gets what another one got before its call began.

The processes are workers that are told over a pipe what to do and when to begin.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
django.setup()

from django.core.cache import caches  # noqa: E402

from cache_memoize import cache_memoize  # noqa: E402
from tests.conftest import BACKENDS, close_connections  # noqa: E402
from tests.servers import SERVERS  # noqa: E402

ROOT = Path(__file__).parents[1]
PROCESSES = 4
CALLERS = 8
TAKES = 0.2
EXPIRY = 2
#: What a caller does between two calls, at most.
PAUSE = 0.02
PLAIN = "no protection"
#: The options of the decorator, by title.
MODES: dict[str, dict[str, Any]] = {
    PLAIN: {},
    "waiting (default)": {"timeout": EXPIRY},
    "early_refresh=1": {"timeout": EXPIRY, "early_refresh": 1},
    "stale=30": {"timeout": EXPIRY, "stale": 30},
    "plain hits, no expiry": {"timeout": 3600},
}
FAILING = "a function that raises"
KINDS = ("threads", "tasks")


class Failed(Exception):
    """Raised by the function; the argument is the time, which no other one has."""


class Figures(NamedTuple):
    alias: str
    #: The callers of a process.
    kind: str
    mode: str
    cold: int
    #: Computations of each expiry after that.
    expiries: list[int]
    calls: int
    #: Seconds.
    p50: float
    p99: float
    longest: float

    def row(self) -> list[str]:
        each = "–"
        if self.expiries:
            each = f"{mean(self.expiries):.1f} (at most {max(self.expiries)})"
        times = [f"{s * 1000:.1f}" for s in (self.p50, self.p99, self.longest)]
        where = f"{self.alias}, {self.kind}"
        return [where, self.mode, str(self.cold), each, f"{self.calls:,}", *times]


HEADINGS = [
    "processes on",
    "",
    "computations when cold",
    "computations per expiry",
    "warm calls",
]
HEADINGS += ["median (ms)", "99 % (ms)", "longest (ms)"]


# --- a worker ------------------------------------------------------------------------


class Work:
    """The calls of one process in one mode."""

    def __init__(
        self,
        alias: str,
        kind: str,
        mode: str,
        name: str,
        seconds: float,
        callers: int = CALLERS,
    ):
        self.callers = callers
        self.alias, self.mode, self.name, self.seconds = alias, mode, name, seconds
        self.kind = kind
        self.computations: list[float] = []
        #: When each call began, and how long it took.
        self.calls: list[tuple[float, float]] = []
        #: When each call that raised began and ended, and what it raised.
        self.raised: list[tuple[float, float, float]] = []
        options = {"timeout": EXPIRY, **MODES.get(mode, {})}
        options |= {"prefix": name, "cache_alias": alias}
        self.call: Callable[[], Any] = self.plain
        if kind == "tasks":
            self.call = self.aplain
        if mode == PLAIN:
            return

        def function() -> str:
            return self.compute()

        async def afunction() -> str:
            return await self.acompute()

        timeout = options.pop("timeout")
        chosen: Any = afunction if kind == "tasks" else function
        self.call = cache_memoize(timeout, **options)(chosen)

    def compute(self) -> str:
        self.computations.append(time.time())
        time.sleep(TAKES)
        return self.result()

    async def acompute(self) -> str:
        self.computations.append(time.time())
        await asyncio.sleep(TAKES)
        return self.result()

    def result(self) -> str:
        if self.mode == FAILING:
            raise Failed(time.time())
        return "value"

    def plain(self) -> str:
        value = caches[self.alias].get(self.name)
        if value is None:
            value = self.compute()
            caches[self.alias].set(self.name, value, EXPIRY)
        return value

    async def aplain(self) -> str:
        value = await caches[self.alias].aget(self.name)
        if value is None:
            value = await self.acompute()
            await caches[self.alias].aset(self.name, value, EXPIRY)
        return value

    @contextlib.contextmanager
    def seen(self, began: float) -> Iterator[None]:
        try:
            yield
        except Failed as error:
            self.raised.append((began, time.time(), error.args[0]))
        self.calls.append((began, time.time() - began))

    def caller(self) -> None:
        rng, end = random.Random(), time.time() + self.seconds
        while (began := time.time()) < end:
            with self.seen(began):
                assert self.call() == "value"
            time.sleep(rng.random() * PAUSE)
        close_connections()

    async def acaller(self) -> None:
        rng, end = random.Random(), time.time() + self.seconds
        while (began := time.time()) < end:
            with self.seen(began):
                assert await self.call() == "value"
            await asyncio.sleep(rng.random() * PAUSE)

    async def together(self) -> None:
        await asyncio.gather(*(self.acaller() for _ in range(self.callers)))

    def run(self) -> None:
        if self.kind == "tasks":
            asyncio.run(self.together())
            return
        threads = [threading.Thread(target=self.caller) for _ in range(self.callers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def worker() -> None:
    """Reads a line of what to do; says "ready"; reads "go"; says what came of it."""
    for line in sys.stdin:
        work = Work(*json.loads(line))
        print("ready", flush=True)
        sys.stdin.readline()
        work.run()
        said = {"computations": work.computations, "calls": work.calls}
        said["raised"] = work.raised
        print(json.dumps(said), flush=True)


# --- the others ----------------------------------------------------------------------


class Workers:
    def __init__(self, processes: int = PROCESSES) -> None:
        ports = {f"MEMOIZE_{name.upper()}": str(s.port) for name, s in SERVERS.items()}
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.stampede", "--worker"],
                env=os.environ | ports | {"PYTHONPATH": str(ROOT)},
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(processes)
        ]

    def say(self, line: str) -> None:
        for process in self.processes:
            assert process.stdin
            process.stdin.write(line + "\n")
            process.stdin.flush()

    def hear(self) -> list[str]:
        lines = []
        for process in self.processes:
            assert process.stdout
            lines.append(process.stdout.readline())
            assert lines[-1], "a worker ended"
        return lines

    def do(self, *what: object) -> list[dict[str, list[Any]]]:
        self.say(json.dumps(what))
        self.hear()
        self.say("go")
        return [json.loads(line) for line in self.hear()]

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()


def bursts(starts: list[float]) -> list[int]:
    """How many computations there were of each expiry: those that began before the
    first of them had ended."""
    found: list[int] = []
    first = 0.0
    for start in sorted(starts):
        if not found or start > first + TAKES:
            found.append(0)
            first = start
        found[-1] += 1
    return found


def figures(
    alias: str, kind: str, mode: str, said: list[dict[str, list[Any]]]
) -> Figures:
    starts = [start for one in said for start in one["computations"]]
    cold, *expiries = bursts(starts)
    raised = [tuple(call) for one in said for call in one["raised"]]
    ends: dict[float, float] = {}
    for _, ended, error in raised:
        ends[error] = min(ended, ends.get(error, ended))
    late = sum(began > ends[error] for began, _, error in raised)
    assert not late, f"{late} calls raised what others had raised before they began"
    warm = min(starts) + 2 * TAKES  # the cold key is a figure of its own
    calls = [call for one in said for call in one["calls"]]
    times = sorted(seconds for began, seconds in calls if began > warm)
    p50, p99 = (times[int(len(times) * part)] for part in (0.5, 0.99))
    return Figures(alias, kind, mode, cold, expiries, len(times), p50, p99, times[-1])


def measure(
    aliases: list[str], seconds: float, processes: int, callers: int
) -> list[Figures]:
    found = []
    workers = Workers(processes)
    try:
        for alias in aliases:
            for kind in KINDS:
                for number, mode in enumerate([*MODES, FAILING]):
                    name = f"stampede.{alias}.{kind}.{number}"
                    said = workers.do(alias, kind, mode, name, seconds, callers)
                    found.append(figures(alias, f"{callers} {kind}", mode, said))
                    print(*found[-1].row(), sep=" | ", file=sys.stderr, flush=True)
    finally:
        workers.close()
    return found


def list_table(rows: list[list[str]]) -> str:
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in rows:
        for n, cell in enumerate(row):
            lines.append(f"   {'*' if n == 0 else ' '} - {cell}".rstrip())
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="Valkey only, 5 s each")
    parser.add_argument("--processes", type=int, default=PROCESSES)
    parser.add_argument("--callers", type=int, default=CALLERS, help="per process")
    parser.add_argument("--seconds", type=float, help="for each; 20")
    parser.add_argument("--only", nargs="+", choices=BACKENDS, metavar="BACKEND")
    parser.add_argument("--rst", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.worker:
        worker()
        return
    seconds = options.seconds or (5 if options.quick else 20)
    aliases = options.only or (
        ["valkey"] if options.quick else ["valkey", "pymemcache"]
    )
    there = []
    for alias in aliases:
        server = BACKENDS[alias]
        if server and not SERVERS[server].binary:
            print(f"{alias}: needs {server}", file=sys.stderr)
        else:
            there.append(alias)
    try:
        for server in {BACKENDS[alias] for alias in there} & {*SERVERS}:
            SERVERS[server].start()
        found = measure(there, seconds, options.processes, options.callers)
    finally:
        for one in SERVERS.values():
            one.stop()
    headings = [f"{options.processes} {HEADINGS[0]}", *HEADINGS[1:]]
    text = list_table([headings, *(one.row() for one in found)])
    text += (
        f"\nPython {platform.python_version()}, Django {django.__version__}, "
        f"{os.cpu_count()} processors, {seconds:g} s each.\n"
    )
    print(text)
    if options.rst:
        options.rst.write_text(text)
    if options.json:
        options.json.write_text(
            json.dumps([one._asdict() for one in found], indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
