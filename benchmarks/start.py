"""What does the library cost before its first call: its import, and a decoration?

``python -m benchmarks.start`` imports it in fresh processes after ``django.setup()``,
as a site with nothing but a cache does; the peers too, in turn with it. ``-X
importtime`` says which modules take the time (by themselves, without what they
import). A decoration is timed in one more process each, of 1 and of 1,000 functions.

The goal is the one here that is no ratio: milliseconds, of this machine.
"""

from __future__ import annotations

import atexit
import functools
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from benchmarks.measure import ratio
from benchmarks.report import Bar, Report, parser

ROOT = Path(__file__).parents[1]
OURS, PEER = "this library", "django-cache-memoize"
#: Milliseconds of the import.
GOAL = 15
#: Modules that are named.
TOP = 10

_DJANGO = """
import sys, time
import django
from django.conf import settings
settings.configure()
django.setup()
from django.core.cache import cache  # a site that memoizes has it
began = time.perf_counter()
"""
_TOLD = "print(time.perf_counter() - began)\n"
#: What is imported, by name.
IMPORTS = {
    OURS: "import cache_memoize",
    PEER: "import cache_memoize",
    "cache-results": "import cache_results",
    "django-memoize-compat": "import memoize_compat",
    "django-swr-memoize": "import swr_memoize",
    "dogpile.cache": "import dogpile.cache",
    "cashews": "import cashews",
    "flask-caching": "import flask_caching",
    "django-cacheops": "import cacheops",
}
_FUNCTIONS = """
{setup}
import functools
functions = []
for n in range({number}):
    def related(post, limit=10):
        return [post]
    related.__name__ = related.__qualname__ = f"related_{{n}}"
    functions.append(related)
began = time.perf_counter()
for f in functions:
    {decorate}
"""
DECORATORS = {
    OURS: ("from cache_memoize import cache_memoize", "cache_memoize(60)(f)"),
    PEER: ("from cache_memoize import cache_memoize", "cache_memoize(60)(f)"),
    "functools.lru_cache": ("", "functools.lru_cache(f)"),
}
NUMBERS = [1, 1000]


class Failed(Exception):
    """A process ended with an error; the message is its last line."""


@functools.cache
def compiled() -> str:
    """A folder for the bytecode of everything that is imported."""
    folder = tempfile.mkdtemp(prefix="memoize-benchmarks-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def run(code: str, name: str, peers: Path | None, *options: str) -> tuple[str, str]:
    """What a fresh process says, and its standard error."""
    path = peers if name == PEER and peers else ROOT
    environment = os.environ | {"PYTHONPATH": str(path), "PYTHONHASHSEED": "0"}
    # What is installed is compiled, whatever is wanted here.
    environment["PYTHONPYCACHEPREFIX"] = compiled()
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(
        [sys.executable, *options, "-c", code],
        env=environment,
        cwd=path,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise Failed(done.stderr.strip().rpartition("\n")[2])
    return done.stdout, done.stderr


def interleaved(
    report: Report, codes: dict[str, str], rounds: int, what: str
) -> dict[str, list[float]]:
    """The seconds that the processes tell; without those that fail."""
    seconds: dict[str, list[float]] = {}
    for name, code in codes.items():
        if name == PEER and not report.options.peers:
            report.without(name, "not in the folder given by --peers", what)
            continue
        try:
            run(code, name, report.options.peers)  # compiles
        except Failed as why:
            report.without(name, str(why), what)
        else:
            seconds[name] = []
    names, order = list(seconds), random.Random(0)
    with report.progress(rounds * len(names)) as bar:
        bar.set_description(what, False)
        for _ in range(rounds):
            order.shuffle(names)
            for name in names:
                said, _ = run(codes[name], name, report.options.peers)
                seconds[name].append(float(said))
                bar.update()
    report.raw.append([what, seconds])
    return seconds


def imports(report: Report, rounds: int) -> None:
    codes = {name: f"{_DJANGO}{line}\n{_TOLD}" for name, line in IMPORTS.items()}
    seconds = interleaved(report, codes, rounds, "an import")
    rows = [["an import after django.setup()", "median (ms)", "fastest (ms)", "ratio"]]
    bars = []
    for name, each in seconds.items():
        found = [median(each) * 1e3, min(each) * 1e3]
        times = str(ratio(each, seconds[OURS]))
        rows.append([name, *(f"{ms:.1f}" for ms in found), times])
        bars.append(Bar(name, found[0], name == OURS))
        if name == OURS:
            report.goal("import: median and fastest, ms", found, most=GOAL)
    report.table("An import (the ratio is to this library)", rows)
    report.group("import, ms (median)", bars, GOAL)


def longest(said: str) -> list[tuple[str, float]]:
    """The modules that take longest by themselves, in ms, of ``-X importtime``."""
    line = re.compile(r"^import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)$", re.MULTILINE)
    found = [(name, int(micro) / 1e3) for micro, name in line.findall(said)]
    return sorted(found, key=lambda each: -each[1])[:TOP]


def modules(report: Report) -> None:
    """Those that are there because of us; Django's own are imported before."""
    mark = "MARK"
    code = f"{_DJANGO}print({mark!r}, file=sys.stderr, flush=True)\n{IMPORTS[OURS]}"
    said = run(code, OURS, None, "-X", "importtime")[1].partition(mark)[2]
    rows = [["module", "itself (ms)"]]
    rows += [[name, f"{ms:.2f}"] for name, ms in longest(said)]
    report.table(f"The {TOP} modules whose import takes longest", rows)


def decorations(report: Report, rounds: int) -> None:
    rows = [["a decoration", *(f"of {n:,} (µs each)" for n in NUMBERS), "of one more"]]
    found: dict[str, list[float]] = {}
    for number in NUMBERS:
        codes = {
            name: _FUNCTIONS.format(
                setup=_DJANGO + setup, number=number, decorate=decorate
            )
            + _TOLD
            for name, (setup, decorate) in DECORATORS.items()
        }
        seconds = interleaved(report, codes, rounds, f"{number:,} decorations")
        for name, each in seconds.items():
            found.setdefault(name, []).append(median(each) * 1e6)
    for name, (first, all_) in found.items():
        many = NUMBERS[-1]
        one_more = (all_ - first) / (many - 1)
        rows.append([name, f"{first:.1f}", f"{all_ / many:.1f}", f"{one_more:.1f}"])
    report.table("A decoration, in a process of its own", rows)
    bars = [
        Bar(name, all_ / NUMBERS[-1], name == OURS) for name, (_, all_) in found.items()
    ]
    report.group(f"a decoration, µs ({NUMBERS[-1]:,} functions)", bars)


def main() -> None:
    options = parser(__doc__).parse_args()
    report = Report("The start", options)
    rounds = 5 if options.quick else 20
    if report.wanted("import"):
        imports(report, rounds)
        modules(report)
    if report.wanted("decoration"):
        decorations(report, rounds)
    report.finish()


if __name__ == "__main__":
    main()
