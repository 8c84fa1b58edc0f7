"""Which writes leave an old result, of this library and of others?

``python -m benchmarks.writes --peers FOLDER --rst FILE`` caches six shapes of functions
that read four tables, and then writes to these tables in every way. A later result
that is not what the database holds is *old*. Each package runs in its own processes,
because some change Django's ORM, on SQLite and PostgreSQL, with Valkey as the cache.

FOLDER has the other packages: ``pip install --no-deps --target FOLDER django-cacheops
django-cachalot funcy``.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import django
from django.conf import settings
from django.core.cache import cache
from django.db import connection
from django.db.models import signals
from django.test.utils import CaptureQueriesContext

ROOT = Path(__file__).parents[1]
DATABASES = {"sqlite3": "SQLite", "postgresql": "PostgreSQL"}
HOUR = 60 * 60
NUMBER_OF_SHAPES = 6


# --- the packages --------------------------------------------------------------------


def with_reads() -> Callable[[Any], Any]:
    from cache_memoize import cache_memoize

    return lambda f: cache_memoize(HOUR, depends_on="reads")(f)


def with_models() -> Callable[[Any], Any]:
    from benchmarks.models import Book, Note, Shelf, Tag
    from cache_memoize import cache_memoize

    return lambda f: cache_memoize(HOUR, depends_on=[Book, Shelf, Tag, Note])(f)


def with_cacheops() -> Callable[[Any], Any]:
    from benchmarks.models import Book, Note, Shelf, Tag

    cached_as = importlib.import_module("cacheops").cached_as
    read: list[Any] = [Book, Shelf, Tag, Note, Book.tags.through]
    return lambda f: cached_as(*(m.objects.all() for m in read), timeout=HOUR)(f)


def with_cachalot() -> Callable[[Any], Any]:
    return lambda f: f  # it caches each query


def with_signals() -> Callable[[Any], Any]:
    """As it is written by hand: receivers that delete the key."""
    from benchmarks.models import Book, Note, Shelf, Tag

    def decorate(f: Any) -> Any:
        key = f"by-hand:{f.__name__}"

        def call() -> Any:
            found = cache.get(key)
            if found is None:
                found = f()
                cache.set(key, found, HOUR)
            return found

        def delete(**kwargs: Any) -> None:
            cache.delete(key)

        for model in (Book, Shelf, Tag, Note):
            signals.post_save.connect(delete, model, weak=False)
            signals.post_delete.connect(delete, model, weak=False)
        signals.m2m_changed.connect(delete, Book.tags.through, weak=False)
        return call

    return decorate


class Package(NamedTuple):
    title: str
    decorator: Callable[[], Callable[[Any], Any]]
    app: str = ""
    distribution: str = ""


PACKAGES = {
    "reads": Package('``depends_on="reads"``', with_reads, "cache_memoize"),
    "models": Package("``depends_on=`` models", with_models, "cache_memoize"),
    "cacheops": Package(
        "cacheops ``cached_as``", with_cacheops, "cacheops", "django-cacheops"
    ),
    "cachalot": Package(
        "django-cachalot", with_cachalot, "cachalot", "django-cachalot"
    ),
    "signals": Package("signals by hand", with_signals),
}


# --- a process ---------------------------------------------------------------------


def configure(package: str, given: dict[str, Any]) -> None:
    app = PACKAGES[package].app
    settings.configure(
        CACHES={
            "default": {
                "BACKEND": "django.core.cache.backends.redis.RedisCache",
                "LOCATION": given["valkey"],
            }
        },
        DATABASES={"default": given["database"]},
        CACHEOPS_REDIS=given["valkey"],
        CACHEOPS={"*.*": {"ops": (), "timeout": HOUR}},
        CACHALOT_TIMEOUT=HOUR,
        INSTALLED_APPS=["benchmarks", *([app] if app else [])],
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        USE_TZ=True,
    )
    django.setup()


def command(given: dict[str, Any]) -> list[str]:
    return [sys.executable, "-m", "benchmarks.writes", "--child", json.dumps(given)]


def child(given: dict[str, Any]) -> None:
    """Try one package on one database; print the number of old results by the write."""
    package = given["package"]
    configure(package, given)
    from benchmarks import rows
    from benchmarks.models import Book, Note, Publisher, Shelf, Tag

    if given.get("writes"):
        return rows.save()
    decorate = PACKAGES[package].decorator()
    functions = {shape: decorate(shape) for shape in rows.SHAPES}
    with connection.schema_editor() as editor:
        for model in (Shelf, Tag, Book, Publisher, Note):
            editor.create_model(model)

    def read() -> None:
        for function in functions.values():
            function()

    def second_process(read: Callable[[], None]) -> None:
        subprocess.run(command(given | {"writes": True}), check=True)

    found = {}
    writes = rows.WRITES | {"a process that does not import it": second_process}
    for title, write in writes.items():
        cache.clear()
        rows.fill()
        cache.clear()
        read()
        stored = []
        for shape, function in functions.items():
            with CaptureQueriesContext(connection) as sent:
                function()
            if not len(sent):
                stored.append(shape)
        before = {shape: truth(shape, package) for shape in stored}
        write(read)
        now = {shape: truth(shape, package) for shape in stored}
        assert "rolled back" in title or not before.items() & now.items(), title
        old = [s.__name__ for s in stored if plainly(functions[s]) != now[s]]
        found[title] = {"stored": len(stored), "old": old}
    print(json.dumps(found))


def plainly(function: Callable[[], Any]) -> str:
    return json.dumps(function())


def truth(shape: Callable[[], Any], package: str) -> str:
    """Return the result of the rows as they are."""
    if package != "cachalot":
        return plainly(shape)
    disabled = importlib.import_module("cachalot.api").cachalot_disabled
    with disabled():
        return plainly(shape)


# --- the table -----------------------------------------------------------------------


def cell(found: dict[str, Any] | None) -> str:
    if found is None or not found["stored"]:
        return "–"
    old, of = len(found["old"]), found["stored"]
    return f"{old}" if of == NUMBER_OF_SHAPES else f"{old} of {of}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--child", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--peers", type=Path, help="the folder of the other packages")
    parser.add_argument("--only", nargs="+", choices=PACKAGES, default=list(PACKAGES))
    parser.add_argument("--rst", type=Path, help="a file for the table")
    options = parser.parse_args()
    if options.child:
        return child(options.child)
    from benchmarks.report import simple_table
    from tests.servers import SERVERS

    path = [str(ROOT), *([str(options.peers.resolve())] if options.peers else [])]
    os.environ["PYTHONPATH"] = os.pathsep.join(path)
    found: dict[tuple[str, str], dict[str, Any]] = {}
    servers = [SERVERS["valkey"], SERVERS["postgresql"]]
    try:
        for server in servers:
            server.start()
        for engine in DATABASES:
            for package in options.only:
                found[package, engine] = run(package, engine, *servers)
    finally:
        for server in servers:
            server.stop()
    rows = [["write", *(PACKAGES[name].title for name in options.only)]]
    for title in next(iter(found.values())):
        cells = []
        for name in options.only:
            both = [cell(found[name, engine].get(title)) for engine in DATABASES]
            cells.append(" / ".join(both))
        rows.append([title, *cells])
    text = simple_table(rows)
    versions = [f"Django {django.__version__}"]
    for name in options.only:
        named = PACKAGES[name].distribution
        if named and options.peers:
            (one,) = metadata.distributions(name=named, path=[str(options.peers)])
            versions.append(f"{named} {one.version}")
    text = f"{', '.join(versions)}:\n\n{text}"
    print(text)
    for (name, engine), each in found.items():
        for title, one in each.items():
            if one["old"]:
                print(f"{name}, {engine}, {title}: {', '.join(one['old'])}")
    if options.rst:
        options.rst.write_text(text + "\n")


def run(package: str, engine: str, valkey: Any, postgresql: Any) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="memoize-benchmarks-") as folder:
        database: dict[str, Any] = {"ENGINE": f"django.db.backends.{engine}"}
        if engine == "sqlite3":
            database |= {"NAME": f"{folder}/db.sqlite3"}
            quick = "PRAGMA synchronous=OFF"
            database["OPTIONS"] = {"timeout": 30, "init_command": quick}
        else:
            name = f"writes_{package}"
            database |= {"NAME": name, "USER": "tests", "HOST": "127.0.0.1"}
            database["PORT"] = postgresql.port
            create_database(name, postgresql.port)
        place = f"redis://127.0.0.1:{valkey.port}"
        given = {"package": package, "database": database, "valkey": place}
        done = subprocess.run(command(given), stdout=subprocess.PIPE, text=True)
    if done.returncode:
        return {}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def create_database(name: str, port: int) -> None:
    import psycopg

    to = f"host=127.0.0.1 port={port} user=tests dbname=postgres"
    with psycopg.connect(to, autocommit=True) as server:
        server.execute(f'DROP DATABASE IF EXISTS "{name}"')
        server.execute(f'CREATE DATABASE "{name}"')


if __name__ == "__main__":
    main()
