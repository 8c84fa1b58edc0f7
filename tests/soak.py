"""Everything at once, and processes that die: ``python -m tests.soak --seconds 60``.

Three processes with four threads each call functions at random on Valkey: crossed,
recursive, tagged, with stale values and early refreshes, and refresh and invalidate
them. At random, one process is killed and started again.

Every call must return in time (a lease that a dead process left, plus a computation)
with its own value, and not with one that is older than what was forgotten before. It
exits with 1 otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
django.setup()

import redis  # noqa: E402

from cache_memoize import cache_memoize, invalidate_tags  # noqa: E402
from tests.conftest import close_connections  # noqa: E402
from tests.servers import SERVERS  # noqa: E402

ROOT = Path(__file__).parents[1]
PROCESSES = 3
THREADS = 4
#: Arguments of the functions; each is written by one thread only.
NUMBERS = range(2 * PROCESSES * THREADS)
LEASE = 1
#: A computation takes at most so long, with what it calls.
TAKES = 0.2
ALIAS = "valkey"


class Truth:
    """What the functions compute from, and what readers may at least expect: in the
    same server, but not by way of the cache."""

    def __init__(self) -> None:
        port = SERVERS["valkey"].port
        self.server = redis.Redis(port=port, db=1, decode_responses=True)

    def value(self, n: int) -> int:
        return int(self.server.get(f"truth{n}") or 0)

    def oldest(self, n: int) -> int:
        return int(self.server.get(f"oldest{n}") or 0)

    def change(self, n: int) -> int:
        return int(self.server.incr(f"truth{n}"))

    def forgotten(self, n: int, value: int) -> None:
        self.server.set(f"oldest{n}", value)


truth = Truth()
options: dict[str, Any] = {"cache_alias": ALIAS, "lease": LEASE}


def computed(n: int) -> list[int]:
    value = truth.value(n)
    time.sleep(random.random() * 0.02)
    return [n, value]


@cache_memoize(60, **options)
def simple(n):
    return computed(n)


@cache_memoize(1, tags=lambda n: [f"soak{n}", "soak"], **options)
def tagged(n):
    return computed(n)


@cache_memoize(0.05, stale=60, tags=lambda n: [f"soak{n}"], **options)
def stale(n):
    return computed(n)


@cache_memoize(0.2, early_refresh=1, jitter=0.5, **options)
def early(n):
    return computed(n)


@cache_memoize(60, ignore=["inner"], **options)
def left(n, inner=True):
    if inner:
        right((n + 1) % len(NUMBERS), inner=False)
    return computed(n)


@cache_memoize(60, ignore=["inner"], **options)
def right(n, inner=True):
    if inner:
        left((n + 1) % len(NUMBERS), inner=False)
    return computed(n)


@cache_memoize(60, ignore=["depth"], **options)
def recursive(n, depth=0):
    if depth < 3:
        recursive(n if depth % 2 else (n + 1) % len(NUMBERS), depth + 1)
    return computed(n)


FUNCTIONS = [simple, tagged, stale, early, left, right, recursive]


def forget(n: int) -> None:
    """All that was computed from this number."""
    invalidate_tags(f"soak{n}", cache_alias=ALIAS)
    for function in FUNCTIONS:
        if function not in (tagged, stale):
            function.invalidate(n)


class Worker:
    """One thread of a process."""

    def __init__(self, number: int, end: float, bound: float) -> None:
        self.number, self.end, self.bound = number, end, bound
        self.rng = random.Random()
        self.calls: Counter[str] = Counter()
        self.slowest = 0.0
        self.wrong: list[str] = []

    def run(self) -> None:
        try:
            while time.time() < self.end:
                self.step()
        except Exception as error:
            self.wrong.append(repr(error))
        finally:
            close_connections()

    def step(self) -> None:
        chance = self.rng.random()
        n = self.rng.choice(NUMBERS)
        began = time.time()
        if chance < 0.1:
            # Only its own numbers: so what it publishes is in order.
            own = self.number + (n % 2) * PROCESSES * THREADS
            value = truth.change(own)
            forget(own)
            truth.forgotten(own, value)
            self.calls["invalidate"] += 1
        elif chance < 0.12:
            tagged.invalidate_all()
            self.calls["invalidate_all"] += 1
        else:
            function = self.rng.choice(FUNCTIONS)
            call = function.refresh if chance < 0.2 else function
            oldest = truth.oldest(n)
            found = call(n)
            newest = truth.value(n)
            self.calls[function.__name__] += 1
            if found[0] != n or not oldest <= found[1] <= newest:
                name = f"{function.__name__}({n})"
                self.wrong.append(f"{name}: {found}, not {oldest} to {newest}")
        took = time.time() - began
        self.slowest = max(self.slowest, took)
        if took > self.bound:
            self.wrong.append(f"took {took:.1f} s")


def work(number: int, end: float, bound: float) -> None:
    """One process; says what it finds."""
    workers = [Worker(number * THREADS + n, end, bound) for n in range(THREADS)]
    threads = [threading.Thread(target=one.run, daemon=True) for one in workers]
    for thread in threads:
        thread.start()
    while any(t.is_alive() for t in threads) and time.time() < end + bound:
        time.sleep(0.25)
        report(workers, [])
    blocked = ["a thread is blocked" for thread in threads if thread.is_alive()]
    report(workers, blocked)
    if blocked:
        os._exit(1)


def report(workers: list[Worker], more: list[str]) -> None:
    """A line of what there is so far: this process may be killed at any time."""
    calls = sum((one.calls.copy() for one in workers), Counter())
    wrong = [trouble for one in workers for trouble in one.wrong] + more
    slowest = max(one.slowest for one in workers)
    said = {"wrong": wrong, "calls": calls, "slowest": slowest}
    print(json.dumps(said), flush=True)


# --- the one who kills ---------------------------------------------------------------


class Process:
    def __init__(self, number: int, bound: float) -> None:
        self.what = [str(number), str(bound)]
        self.start()

    def start(self) -> None:
        ports = {f"MEMOIZE_{name.upper()}": str(s.port) for name, s in SERVERS.items()}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.soak", "--worker", *self.what],
            env=os.environ | ports | {"PYTHONPATH": str(ROOT)},
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def wait(self) -> None:
        """Until it is ready to work: on a busy machine that takes a while."""
        assert self.process.stdout
        assert self.process.stdout.readline() == "ready\n"

    def begin(self, end: float) -> None:
        assert self.process.stdin
        self.process.stdin.write(f"{end}\n")
        self.process.stdin.flush()

    def kill(self) -> str:
        self.process.send_signal(signal.SIGKILL)
        return self.process.communicate()[0]


class Tally:
    """What all of them found, also those that were killed."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.slowest = 0.0
        self.kills = 0

    def add(self, text: str) -> None:
        """The last whole line is what counts; a process that was young has none."""
        lines = text.split("\n")[:-1]
        if lines:
            said = json.loads(lines[-1])
            self.calls.update(said["calls"])
            self.wrong += said["wrong"]
            self.slowest = max(self.slowest, said["slowest"])


def soak(seconds: float, bound: float, seed: int) -> Tally:
    """Let them work, and kill some."""
    rng, tally = random.Random(seed), Tally()
    processes = [Process(number, bound) for number in range(PROCESSES)]
    try:
        for one in processes:
            one.wait()
        end = time.time() + seconds
        for one in processes:
            one.begin(end)
        # Not in the last seconds: a process needs one to start.
        while (left := end - time.time()) > 3:
            time.sleep(min(1.5 + rng.random() * 2, left))
            victim = rng.choice(processes)
            tally.add(victim.kill())
            victim.start()
            victim.wait()
            victim.begin(end)
            tally.kills += 1
        for one in processes:
            limit = max(end - time.time(), 0) + 2 * bound
            try:
                text, _ = one.process.communicate(timeout=limit)
            except subprocess.TimeoutExpired:
                tally.wrong.append("a process did not come to its end")
                text = one.kill()
            else:
                if one.process.returncode:
                    tally.wrong.append("a process failed")
            tally.add(text)
    finally:
        for one in processes:
            if one.process.poll() is None:
                one.kill()
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0, help="of who is killed when")
    parser.add_argument(
        "--bound",
        type=float,
        default=LEASE + TAKES + 1.8,
        help="seconds that a call may take: lease, computation, and a busy machine",
    )
    options = parser.parse_args()
    if options.worker:
        number, bound = options.worker
        print("ready", flush=True)
        work(int(number), float(sys.stdin.readline()), float(bound))
        return
    started = SERVERS["valkey"].process is None and "MEMOIZE_VALKEY" not in os.environ
    if not SERVERS["valkey"].binary:
        sys.exit("needs valkey")
    if started:
        SERVERS["valkey"].start()
    try:
        found = soak(options.seconds, options.bound, options.seed)
    finally:
        SERVERS["valkey"].stop()
    for name, number in sorted(found.calls.items()):
        print(f"{name}: {number:,}")
    total = sum(found.calls.values())
    print(f"{total:,} calls, {found.kills} processes killed")
    print(f"slowest: {found.slowest:.2f} s")
    for trouble in found.wrong[:20]:
        print(f"WRONG: {trouble}")
    sys.exit(bool(found.wrong or not total or not found.kills))


if __name__ == "__main__":
    main()
