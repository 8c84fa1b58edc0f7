"""Counts stale reads, per backend: ``python -m tests.races [--trials N] [--rst FILE]``.

The random schedules of test_races.py, many more of them than a test run has time for,
and the same schedules for three wrong schemes: what finds nothing there sees nothing.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from pathlib import Path

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
django.setup()

from django.core.cache import caches  # noqa: E402
from django.core.management import call_command  # noqa: E402

from tests import test_races as races  # noqa: E402
from tests.conftest import ATOMIC, BACKENDS, DATABASES, close_connections  # noqa: E402
from tests.servers import SERVERS  # noqa: E402

CONTROLS = {
    "set after computing": races.SetAfterCompute,
    "version read after computing": races.VersionCounter,
    "compare, then set": races.CompareThenSet,
}


def count(alias: str, trials: int) -> dict[str, int]:
    """How many of so many schedules showed a stale read."""
    found = {}
    for name, scheme in {"ours": None, **CONTROLS}.items():
        stale = 0
        for seed in range(trials if scheme is None else trials // 10):
            source = races.Source()
            if scheme is None:
                f = races.trial_function(alias, source, seed)
            else:
                caches[alias].clear()
                f = scheme(alias, lambda source=source: races.slowly(source))
            stale += bool(races.random_trial(f, source, seed))
            print(f"\r{alias}: {name}, {seed + 1} trials, {stale} stale", end="")
        print()
        found[name] = stale
    caches[alias].clear()
    close_connections()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--rst", type=Path)
    options = parser.parse_args()
    rows = []
    try:
        for alias, server in BACKENDS.items():
            if server and not SERVERS[server].binary:
                print(f"{alias}: needs {server}")
                continue
            if server:
                SERVERS[server].start()
            if alias in DATABASES:
                call_command("createcachetable", database=DATABASES[alias], verbosity=0)
            rows.append((alias, count(alias, options.trials)))
    finally:
        for one in SERVERS.values():
            one.stop()
    few = options.trials // 10
    headings = [
        "backend",
        f"ours ({options.trials})",
        *(f"{c} ({few})" for c in CONTROLS),
    ]
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in [headings, *([alias, *found.values()] for alias, found in rows)]:
        lines += [f"   {'*' if n == 0 else ' '} - {cell}" for n, cell in enumerate(row)]
    lines += [
        "",
        f"Python {platform.python_version()}, Django {django.__version__}, 2 cores.",
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if options.rst:
        options.rst.write_text(text)
    sys.exit(any(found["ours"] for alias, found in rows if alias in ATOMIC))


if __name__ == "__main__":
    main()
