"""Where the benchmarks happen: Django with one cache alias per backend, and servers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import django
from django.conf import settings
from django.core.cache import caches
from django.core.management import call_command

from benchmarks.report import Report
from tests.servers import SERVERS


class Backend(NamedTuple):
    title: str
    alias: str
    #: Calls in a batch.
    number: int
    server: str | None = None


LOCAL = Backend("local memory", "default", 50)
VALKEY = Backend("Valkey", "valkey", 5, "valkey")
MEMCACHED = Backend("Memcached", "memcached", 5, "memcached")
DATABASE = Backend("database (SQLite)", "database", 5)
FILE = Backend("file", "file", 10)

#: The setting of cache-results, which it reads at every call.
CACHE_RESULTS: dict[str, str] = {}


def configure(folder: Path, **options: Any) -> None:
    """Defaults everywhere, but for where the caches are. ``options`` are of all."""
    backends = "django.core.cache.backends"
    valkey, memcached = (SERVERS[name].port for name in ("valkey", "memcached"))
    places: dict[str, dict[str, Any]] = {
        LOCAL.alias: {"BACKEND": f"{backends}.locmem.LocMemCache"},
        VALKEY.alias: {
            "BACKEND": f"{backends}.redis.RedisCache",
            "LOCATION": f"redis://127.0.0.1:{valkey}",
        },
        MEMCACHED.alias: {
            "BACKEND": f"{backends}.memcached.PyMemcacheCache",
            "LOCATION": f"127.0.0.1:{memcached}",
        },
        DATABASE.alias: {
            "BACKEND": f"{backends}.db.DatabaseCache",
            "LOCATION": "cache",
        },
        FILE.alias: {
            "BACKEND": f"{backends}.filebased.FileBasedCache",
            "LOCATION": str(folder / "cache"),
        },
    }
    for alias in (LOCAL.alias, DATABASE.alias, FILE.alias):
        places[alias]["OPTIONS"] = options
    sqlite = {"ENGINE": "django.db.backends.sqlite3", "NAME": folder / "db.sqlite3"}
    settings.configure(
        CACHES=places,
        CACHE_RESULTS=CACHE_RESULTS,
        CACHEOPS_REDIS=f"redis://127.0.0.1:{valkey}",
        DATABASES={"default": sqlite},
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        INSTALLED_APPS=["benchmarks"],
        USE_TZ=True,
    )
    django.setup()


@contextmanager
def places(
    report: Report, *backends: Backend, **options: Any
) -> Iterator[list[Backend]]:
    """Those of the backends that are there; their servers are stopped afterwards."""
    with tempfile.TemporaryDirectory(prefix="memoize-benchmarks-") as name:
        configure(Path(name), **options)
        call_command("createcachetable", verbosity=0)
        there = []
        try:
            for backend in backends:
                server = SERVERS[backend.server] if backend.server else None
                if server and not server.binary:
                    report.without(backend.title, "no server", "whole")
                    continue
                if server:
                    server.start()
                there.append(backend)
            yield there
        finally:
            for cache in caches.all(initialized_only=True):
                cache.close()
            for server in SERVERS.values():
                server.stop()
