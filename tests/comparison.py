"""What this library and its peers do, tried out one by one.

``python -m tests.comparison --peers FOLDER --rst docs/comparison-table.rst``; what has
to be in FOLDER is said in docs/comparison.rst. Each package runs in a process of its
own, with a Valkey server of its own, because cacheops changes Django's ORM.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import django
from django.conf import settings

from tests.servers import SERVERS
from tests.trials import NO, NONE, TRIALS, YES, answer, time_of_a_hit, worker

ROOT = Path(__file__).resolve().parent.parent
# --- what is looked up ---------------------------------------------------------------


FILES = {
    "types for type checkers": ("py.typed",),
    "an admin page": ("admin.py", "admin/__init__.py"),
    "a panel in django-debug-toolbar": ("panels.py", "panel.py"),
    "a management command": ("management/commands/*.py",),
    "helpers for tests": ("testing.py", "pytest_plugin.py"),
}


#: Where the tests of this library are for those that it has.
TESTS_OF_FILES = dict(
    zip(
        FILES,
        ("test_typing*.py", "test_admin*.py", "test_panel*.py", "test_command*.py")
        + ("test_testing*.py",),
        strict=True,
    )
)


def first_test(pattern: str) -> str | None:
    for path in sorted((ROOT / "tests").glob(pattern)):
        found = re.search(r"^(?:async )?def (test_\w+)", path.read_text(), re.M)
        if found:
            return found[1]
    return None


def has_file(package: Path, patterns: tuple[str, ...]) -> str:
    found = any(path for each in patterns for path in package.rglob(each))
    return answer(found)


class Source(NamedTuple):
    """What cannot be tried in a few lines: a cell, and a text in a file of the package
    that shows it."""

    cell: str
    file: str
    text: str


#: Feature → package → where. Who is not named has no such thing.
SOURCES: dict[str, dict[str, Source]] = {
    "stale values are served during a refresh": {
        "django-swr-memoize": Source(YES, "__init__.py", "def _start_refresh"),
        "dogpile.cache": Source(
            YES, "cache/region.py", "if self.async_creation_runner"
        ),
        "cashews": Source(YES, "wrapper/decorators.py", "def early"),
    },
    "random refresh before the timeout": {
        "cashews": Source("by age", "decorators/cache/early.py", "early_ttl"),
    },
    "tags": {
        "cacheops cached_as": Source("by model", "query.py", "def cached_as"),
        "cashews": Source(YES, "wrapper/decorators.py", "tags: Tags = ()"),
    },
    "saved rows invalidate calls": {
        "cacheops cached_as": Source(
            "by the conditions of a QuerySet", "query.py", "cond_dnfs = join_with"
        ),
    },
    "QuerySets are cached automatically": {
        "cacheops cached": Source(YES, "query.py", "monkey_mix(models.QuerySet"),
        "cacheops cached_as": Source(YES, "query.py", "monkey_mix(models.QuerySet"),
    },
    "many calls in one round trip": {
        "dogpile.cache": Source(YES, "cache/region.py", "def cache_multi_on_arguments"),
    },
    "exceptions can be stored": {
        "django-cache-memoize 0.2": Source(
            YES, "__init__.py", "except cache_exceptions"
        ),
        "cashews": Source("by condition", "decorators/cache/simple.py", "condition"),
    },
    "values are signed": {
        "cashews": Source(YES, "serialize.py", "class HashSigner"),
    },
    "hits and misses are counted": {
        "cachetools": Source(YES, "__init__.py", "info=False"),
        "lru_cache": Source(YES, "../functools.py", "def cache_info"),
        "cashews": Source(
            YES, "contrib/prometheus.py", "def create_metrics_middleware"
        ),
    },
    "the least used entries are evicted": {
        "cachetools": Source(YES, "__init__.py", "class LRUCache"),
        "lru_cache": Source(YES, "../functools.py", "maxsize"),
        "cashews": Source(YES, "backends/memory.py", "popitem"),
    },
    "rate limits, locks and similar decorators": {
        "cashews": Source(YES, "wrapper/decorators.py", "def rate_limit"),
    },
    "works without Django": {
        title: Source(YES, file, "import")
        for title, file in (
            ("dogpile.cache", "cache/region.py"),
            ("cashews", "key.py"),
            ("flask-caching", "__init__.py"),
            ("cachetools", "__init__.py"),
            ("lru_cache", "../functools.py"),
        )
    },
}

#: The test that proves a cell of this library; None where it has no such thing.
OURS: dict[str, str | None] = dict(
    zip(
        (*TRIALS, *SOURCES),
        (
            "test_one_two_three_spellings_of_one_are_five_values",
            "test_every_spelling_of_a_call_is_one_call",
            "test_none_is_a_result_like_any_other",
            "test_one_callers_changes_do_not_show_in_anothers_result",
            "test_a_service_object_is_its_class_in_every_process",
            "test_invalidate_forgets_this_call_and_no_other",
            "test_invalidate_all_invalidates_every_call_of_one_function",
            "test_forced_at_every_step_nothing_old_is_read_afterwards",
            "test_a_cold_key_is_computed_once_by_eight_threads",
            "test_a_cold_key_is_computed_once_by_four_processes",
            "test_crossed_calls_in_two_threads_end",
            "test_a_result_computed_after_writing_in_a_transaction_is_never_stored",
            "test_an_invalidation_applies_at_once_here_and_for_others_from_the_commit_on",
            "test_a_coroutine_function_is_one",
            "test_trouble_before_the_call",
            "test_prime_and_peek_on_a_dead_server_log_and_go_on",
            "test_the_old_value_at_once_and_the_new_one_from_then_on",
            "test_a_value_is_refreshed_early_by_luck_and_by_one",
            "test_a_tag_invalidates_the_calls_that_have_it_and_no_other",
            "test_a_created_a_saved_and_a_deleted_row_invalidate",
            None,
            "test_hits_are_one_command",
            "test_exceptions_are_stored_and_raised_again",
            "test_a_forged_entry_is_a_miss_and_nothing_is_unpickled",
            "test_a_hit_does_not_run_the_function",
            None,
            None,
            None,
        ),
        strict=True,
    )
)


def package_of(contender: type[Any], folder: Path) -> Path:
    package = contender.names[1]
    if contender.title == "django-cache-memoize 0.2":
        return folder / package
    found = find_spec(package)
    assert found
    places = found.submodule_search_locations
    return Path(places[0]) if places else Path(found.origin or "")


def cited(source: Source, package: Path) -> str:
    """``file:line``, or an error if the text is not there."""
    path = (package if package.is_dir() else package.parent / "x") / source.file
    path = path.resolve() if package.is_dir() else package
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if source.text in line:
            return f"{path.parent.name}/{path.name}:{number}"
    raise AssertionError(f"{path} does not say {source.text!r} any more")


def version_of(contender: type[Any], folder: Path) -> str:
    if contender.title == OURS_TITLE:
        import cache_memoize

        return cache_memoize.__version__
    if not contender.names[0]:
        return platform.python_version()
    where = metadata.distributions(name=contender.names[0], path=[str(folder)])
    return next(found.version for found in where)


# --- one process per contender -------------------------------------------------------


def prepare(apps: list[str], *, memory: bool) -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    url = f"redis://127.0.0.1:{SERVERS['valkey'].port}"
    backend = "django.core.cache.backends."
    settings.CACHES = {
        "default": {
            "BACKEND": backend + "redis.RedisCache",
            "LOCATION": url,
            "OPTIONS": {"socket_timeout": 2},
        }
    }
    if memory:
        settings.CACHES["default"] = {"BACKEND": backend + "locmem.LocMemCache"}
    settings.CACHEOPS_REDIS = f"{url}?socket_timeout=2"
    settings.CACHEOPS_DEGRADE_ON_FAILURE = True
    settings.CACHEOPS = {"tests.*": {"ops": (), "timeout": 60}}
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, *apps]
    django.setup()


def one(title: str, folder: Path, log: Path | None, *, memory: bool) -> None:
    """Print the cells of one contender as JSON."""
    server = SERVERS["valkey"]
    if log is None and not memory:
        server.start()
    prepare(["cacheops"] if title.startswith("cacheops") else [], memory=memory)
    from tests.contenders import CONTENDERS

    contender = CONTENDERS[title]
    cells: dict[str, str] = {}
    try:
        peer = contender(server.port, folder, memory=memory)
        if log is not None:
            worker(peer, log)
            return
        if memory:
            cells[HIT_IN_MEMORY] = tried(time_of_a_hit, peer)
        if not memory:
            from django.db import connection

            from tests.models import Post

            with connection.schema_editor() as editor:
                editor.create_model(Post)
            for feature, trial in TRIALS.items():
                cells[feature] = tried(trial, peer)
            package = package_of(contender, folder)
            for feature, patterns in FILES.items():
                cells[feature] = (
                    has_file(package, patterns) if package.is_dir() else NONE
                )
            for feature, by in SOURCES.items():
                if title in by:
                    cells[feature] = by[title].cell
                    cells[f"{feature}@"] = cited(by[title], package)
            cells["version"] = version_of(contender, folder)
        print(json.dumps(cells), flush=True)
    finally:
        server.stop()
    os._exit(0)  # past threads that wait for ever


def tried(trial: Callable[[Any], str], peer: Any) -> str:
    from tests.contenders import Unknown

    try:
        return trial(peer)
    except Unknown:
        return NO
    except Exception as error:
        print(f"{peer.title}, {trial.__name__}: {error!r}"[:300], file=sys.stderr)
        return f"{NO}: {type(error).__name__}"


# --- saying it -----------------------------------------------------------------------

OURS_TITLE = "this library"
HIT_IN_MEMORY = "microseconds per hit in process memory"


def list_table(title: str, rows: list[list[str]]) -> str:
    widths = [30, *[12] * (len(rows[0]) - 1)] if len(rows[0]) > 3 else []
    lines = [f".. list-table:: {title}", "   :header-rows: 1"]
    lines += [f"   :widths: {' '.join(map(str, widths))}"] if widths else []
    lines.append("")
    for row in rows:
        lines += [f"   {'*' if n == 0 else ' '} - {cell}" for n, cell in enumerate(row)]
    return "\n".join(lines) + "\n"


def tables_of(titles: dict[str, bool]) -> dict[str, list[str]]:
    """Title of a table → its packages. This library is in each.

    :param titles: package → whether it is for Django.
    """
    others = [title for title in titles if title != OURS_TITLE]
    return {
        "Packages for Django": [OURS_TITLE, *(t for t in others if titles[t])],
        "Other packages": [OURS_TITLE, *(t for t in others if not titles[t])],
    }


def cell_of(results: dict[str, dict[str, str]], title: str, feature: str) -> str:
    if title == OURS_TITLE and feature in SOURCES and OURS[feature]:
        return YES
    missing = NONE if feature == HIT_IN_MEMORY else NO
    return results[title].get(feature, missing)


def text_of(results: dict[str, dict[str, str]], titles: dict[str, bool]) -> str:
    parts = []
    for name, packages in tables_of(titles).items():
        versions = [f"{t} {results[t]['version']}" for t in packages]
        rows = [["", *(v.replace("0.2 0.2", "0.2") for v in versions)]]
        for feature in (*TRIALS, *SOURCES, *FILES, HIT_IN_MEMORY):
            rows.append([feature, *(cell_of(results, t, feature) for t in packages)])
        parts.append(list_table(name, rows))
    tests = OURS | {
        what: first_test(pattern)
        for what, pattern in TESTS_OF_FILES.items()
        if cell_of(results, OURS_TITLE, what) == YES
    }
    rows = [[what, f"``{test}``"] for what, test in tests.items() if test]
    parts.append(list_table("Tests of this library", [["Feature", "Test"], *rows]))
    rows = [
        [feature, title, f"``{results[title][feature + '@']}``"]
        for feature in SOURCES
        for title in titles
        if f"{feature}@" in results[title]
    ]
    parts.append(list_table("Lines", [["Feature", "Package", "Line"], *rows]))
    about = f"Python {platform.python_version()}, Django {django.__version__}"
    parts.append(f"{about}, Valkey, {os.cpu_count()} processors.\n")
    return "\n".join(parts)


def collect(title: str, folder: Path, *, memory: bool) -> dict[str, str]:
    command = [sys.executable, "-W", "ignore", "-m", "tests.comparison"]
    command += ["--peers", str(folder), "--one", title]
    command += ["--memory"] if memory else []
    done = subprocess.run(command, stdout=subprocess.PIPE, timeout=300, check=False)
    last = done.stdout.decode().strip().rpartition("\n")[2]
    return json.loads(last) if last else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--peers", type=Path, required=True, help="where packages are")
    parser.add_argument("--rst", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    folder = given.peers.resolve()
    sys.path.append(str(folder))  # after all that is installed
    if given.one:
        one(given.one, folder, given.worker, memory=given.memory)
        return
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    django.setup()
    from tests.contenders import CONTENDERS

    results = {}
    for title in CONTENDERS:
        print(title, file=sys.stderr, flush=True)
        results[title] = collect(title, folder, memory=False)
        if CONTENDERS[title].in_memory:
            results[title] |= collect(title, folder, memory=True)
    titles = {title: CONTENDERS[title].needs_django for title in results}
    text = text_of(results, titles)
    print(text)
    if given.rst:
        given.rst.write_text(text)


if __name__ == "__main__":
    main()
