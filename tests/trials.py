"""The trials of comparison.py. Each takes a contender and gives a cell of the table."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.servers import SERVERS

YES, NO, NONE = "yes", "no", "–"
LATE = 8  #: seconds after which somebody blocks


NUMBERS = itertools.count()


def count_runs(value: Callable[..., Any] = lambda *a: 0) -> tuple[Any, list[Any]]:
    runs: list[Any] = []

    def function(a, b=2):
        runs.append((a, b))
        return value(a, b)

    return named(function), runs


def named(function: Any) -> Any:
    """By a name of its own, so that no two trials share entries."""
    function.__qualname__ = function.__name__ = f"tried_{next(NUMBERS)}_"
    return function


def answer(good: bool) -> str:
    return YES if good else NO


def types_apart(peer: Any) -> str:
    function, runs = count_runs()
    f = peer.memoize(function)
    for value in (1, "1", True, 1.0, None, "None"):
        f(value)
    return answer(len(runs) == 6) if len(runs) in (1, 6) else f"{len(runs)} of 6"


def spellings(peer: Any) -> str:
    function, runs = count_runs()
    f = peer.memoize(function)
    f(1), f(a=1), f(1, 2), f(1, b=2), f(b=2, a=1)
    return answer(len(runs) == 1) if len(runs) in (1, 5) else f"{len(runs)} of 1"


def none_is_stored(peer: Any) -> str:
    function, runs = count_runs(lambda a, b: None)
    f = peer.memoize(function)
    f(1), f(1)
    return answer(len(runs) == 1)


def results_are_ones_own(peer: Any) -> str:
    function, _ = count_runs(lambda a, b: [a])
    f = peer.memoize(function)
    f(1)
    f(1).append("changed by a caller")
    return answer(f(1) == [1])


class Number:
    def __init__(self, number):
        self.number = number

    def double(self, factor):
        return self.number * factor


def instances(peer: Any) -> str:
    Number.double = peer.memoize(Number.double)  # type: ignore[method-assign]
    wrong = 0
    for number in range(200):
        wrong += Number(number).double(2) != number * 2
        gc.collect(0)
    return answer(not wrong) if wrong in (0, 199) else f"{NO}: {wrong} of 200 wrong"


def one_call_is_forgotten(peer: Any) -> str:
    function, runs = count_runs()
    f = peer.memoize(function)
    f(1), f(2)
    peer.invalidate(f, a=1)
    f(1), f(2)
    if len(runs) == 2:
        peer.invalidate(f, 1)
        f(1), f(2)
        return f"{YES}, as it was spelled" if len(runs) == 3 else NO
    return YES if len(runs) == 3 else "all or none"


def all_calls_are_forgotten(peer: Any) -> str:
    function, runs = count_runs()
    f = peer.memoize(function)
    f(1), f(2)
    peer.everything(f)
    f(1), f(2)
    return answer(len(runs) == 4)


def invalidated_in_flight(peer: Any) -> str:
    source = ["old"]
    started, go = threading.Event(), threading.Event()

    def function(a):
        value = source[0]
        if value == "old":
            started.set()
            go.wait(LATE)
        return value

    f = peer.memoize(named(function))
    reader = threading.Thread(target=f, args=(1,), daemon=True)
    reader.start()
    assert started.wait(LATE)
    source[0] = "new"
    peer.invalidate(f, 1)
    go.set()
    reader.join(LATE)
    return answer(f(1) == "new")


def one_runs_in_a_process(peer: Any) -> str:
    runs = []

    def function(a):
        runs.append(a)
        time.sleep(0.3)

    f = peer.memoize(named(function))
    threads = [threading.Thread(target=f, args=(1,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answer(len(runs) == 1) if len(runs) in (1, 8) else f"{len(runs)} of 8"


def one_runs_in_all(peer: Any) -> str:
    if not peer.shared:
        return NONE
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "runs"
        log.touch()
        command = [*this(peer), "--worker", str(log)]
        pipe = subprocess.PIPE
        workers = [
            subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment(peer))
            for _ in range(4)
        ]
        for worker in workers:
            assert worker.stdout and worker.stdout.readline() == b"ready\n"
        for worker in workers:
            worker.communicate(b"go\n", timeout=60)
        runs = len(log.read_text().split())
    return answer(runs == 1) if runs in (1, 16) else f"{runs} of 16"


def this(peer: Any) -> list[str]:
    command = [sys.executable, "-m", "tests.comparison", "--peers", str(peer.folder)]
    return [*command, "--one", peer.title]


def environment(peer: Any) -> dict[str, str]:
    return {**os.environ, "MEMOIZE_VALKEY": str(peer.port)}


def slow_and_noted(a):
    """What the workers call; they set where to note it."""
    with slow_and_noted.log.open("a") as file:  # type: ignore[attr-defined]
        file.write("run ")
    time.sleep(0.5)


def worker(peer: Any, log: Path) -> None:
    slow_and_noted.log = log  # type: ignore[attr-defined]
    f = peer.memoize(slow_and_noted)
    print("ready", flush=True)
    sys.stdin.readline()
    threads = [threading.Thread(target=f, args=(1,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def nobody_blocks(peer: Any) -> str:
    both = threading.Barrier(2)
    first = {"f": True, "g": True}
    done: list[str] = []

    def meet(name):
        if first[name]:
            first[name] = False
            both.wait(LATE)
            return True
        return False

    def of_f(a):
        return a + (g(1) if meet("f") else 0)

    def of_g(a):
        return a + (f(1) if meet("g") else 0)

    f, g = peer.memoize(of_f), peer.memoize(of_g)

    def call(function, name):
        function(1)
        done.append(name)

    threads = [
        threading.Thread(target=call, args=pair, daemon=True)
        for pair in ((f, "f"), (g, "g"))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LATE)
    return answer(len(done) == 2)


def rolled_back(peer: Any) -> str:
    from django.db import transaction

    from tests.models import Post

    if not peer.in_caller:
        return NONE
    Post.objects.create(pk=1, title="old")

    def title(pk):
        return Post.objects.get(pk=pk).title

    f = peer.memoize(title)
    try:
        with transaction.atomic():
            Post.objects.filter(pk=1).update(title="never")
            assert f(1) == "never"
            raise ZeroDivisionError
    except ZeroDivisionError:
        return answer(f(1) == "old")


def from_the_commit_on(peer: Any) -> str:
    from django.db import connection, transaction

    from tests.models import Post

    if not peer.in_caller:
        return NONE
    Post.objects.create(pk=2, title="old")

    def title_of(pk):
        return Post.objects.get(pk=pk).title

    f = peer.memoize(title_of)
    f(2)

    def others():
        f(2)
        connection.close()

    with transaction.atomic():
        Post.objects.filter(pk=2).update(title="new")
        peer.invalidate(f, 2)
        reader = threading.Thread(target=others)
        reader.start()
        reader.join(LATE)
    return answer(f(2) == "new")


def async_functions(peer: Any) -> str:
    runs = []

    async def function(a):
        runs.append(a)
        return a

    f = peer.amemoize(named(function))

    async def twice():
        return await f(1), await f(1)

    return answer(asyncio.run(twice()) == (1, 1) and len(runs) == 1)


def without_the_server(peer: Any) -> str:
    if not peer.shared:
        return NONE
    function, _ = count_runs(lambda a, b: a)
    f = peer.memoize(function)
    f(1)
    SERVERS["valkey"].stop()
    return answer(f(1) == 1)


def a_lost_invalidation(peer: Any) -> str:
    """After the one before: the server is gone."""
    if not peer.shared:
        return NONE
    f = peer.memoize(count_runs()[0])
    try:
        peer.invalidate(f, 1)
    except Exception:
        return YES
    return NO


def time_of_a_hit(peer: Any) -> str:
    function, _ = count_runs(lambda a, b: {"value": a})
    f = peer.plain(function)
    f(1)
    best = float("inf")
    for _ in range(30):
        started = time.perf_counter()
        for _ in range(100):
            f(1)
        best = min(best, (time.perf_counter() - started) / 100)
    return f"{best * 1e6:.2g}" if best < 1e-5 else f"{best * 1e6:.0f}"


TRIALS: dict[str, Callable[[Any], str]] = {
    "``1 '1' True 1.0 None 'None'`` are six calls": types_apart,
    "``f(1)``, ``f(a=1)``, ``f(1, b=2)`` (the default) are one call": spellings,
    "None is stored": none_is_stored,
    "a caller may change its result": results_are_ones_own,
    "methods of short-lived objects use the right instance": instances,
    "one call can be invalidated, by position or by name": one_call_is_forgotten,
    "all calls of a function can be invalidated": all_calls_are_forgotten,
    "no old value after invalidate, not even from a running computation": (
        invalidated_in_flight
    ),
    "eight threads: one computation": one_runs_in_a_process,
    "four processes: one computation": one_runs_in_all,
    "functions that call each other do not block each other": nobody_blocks,
    "values of a rolled-back transaction are not stored": rolled_back,
    "invalidate in a transaction applies on commit": from_the_commit_on,
    "async functions": async_functions,
    "the server is down: the function is called": without_the_server,
    "the server is down: invalidate raises": a_lost_invalidation,
}
