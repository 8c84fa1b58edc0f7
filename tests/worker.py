"""One process of several stampedes: ``python -m tests.worker``.

Reads ``ALIAS KIND CALLERS FILE`` from standard input, waits for another line, and calls
one memoized function from many threads or tasks at once. Each computation appends a
line to FILE. Then the next stampede is read.
"""

import asyncio
import os
import sys
import threading
import time
from pathlib import Path

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
django.setup()

from cache_memoize import cache_memoize  # noqa: E402


def main(alias: str, kind: str, callers: int, path: Path) -> None:
    def compute() -> str:
        with path.open("a") as file:
            file.write(f"{os.getpid()}\n")
        return "value"

    def function() -> str:
        time.sleep(0.2)  # the computation that many want at once
        return compute()

    async def afunction() -> str:
        await asyncio.sleep(0.2)
        return compute()

    memoize = cache_memoize(60, prefix="stampede", cache_alias=alias)
    print("ready", flush=True)
    sys.stdin.readline()  # "go"
    if kind == "async":
        call = memoize(afunction)

        async def together() -> list[str]:
            return await asyncio.gather(*(call() for _ in range(callers)))

        results = asyncio.run(together())
    else:
        memoized = memoize(function)
        results = []
        threads = [
            threading.Thread(target=lambda: results.append(memoized()))
            for _ in range(callers)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert results == ["value"] * callers, results
    print("done", flush=True)


if __name__ == "__main__":
    while line := sys.stdin.readline():
        alias, kind, callers, file = line.split(maxsplit=3)
        main(alias, kind, int(callers), Path(file.rstrip("\n")))
