"""What does it cost to see the tables that are read and written?

``python -m benchmarks.tables`` compares, on SQLite and PostgreSQL with Valkey as the
cache: a query within a computation that notes the tables it reads with the same query
outside; a miss of a function with ``depends_on=`` with one without; and an ``UPDATE``
that invalidates with one that is not watched, in autocommit and in a transaction, if no
result depends on the table, and if one does, whose tag is then stored anew each time.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import django
from django.conf import settings
from django.core.cache import caches
from django.db import connections, transaction

from benchmarks.measure import Batch, interleave, ratio
from benchmarks.report import Report, parser
from tests.servers import SERVERS

ROUNDS, QUICK = 400, 20
#: Calls in a batch.
NUMBER = 5


def configure(folder: Path) -> None:
    port = SERVERS["postgresql"].port
    databases: dict[str, Any] = {
        "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": folder / "db"},
        "postgresql": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": "postgres",
            "USER": "tests",
            "HOST": "127.0.0.1",
            "PORT": port,
        },
    }
    cache = {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": f"redis://127.0.0.1:{SERVERS['valkey'].port}",
    }
    settings.configure(
        CACHES={"default": cache},
        DATABASES=databases,
        INSTALLED_APPS=["benchmarks", "cache_memoize"],
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        USE_TZ=True,
    )
    django.setup()


def timed(call: Callable[[], object], before: Callable[[], object] = int) -> Batch:
    """Return the calls alone as a batch, each after something that is not timed."""

    def run(number: int) -> float:
        seconds = 0.0
        for _ in range(number):
            before()
            began = perf_counter()
            call()
            seconds += perf_counter() - began
        return seconds

    return run


def rows_of(alias: str) -> Any:
    from benchmarks.models import Post

    return Post.objects.using(alias).filter(pk=1)


def reads(alias: str) -> dict[str, Batch]:
    """Return a query and a miss with their tables, and without."""
    from benchmarks.models import Post
    from cache_memoize import cache_memoize
    from cache_memoize.protocol.capture import Computation, Origins

    numbers = itertools.count()

    def query(number: int = 0) -> list[str]:
        return list(rows_of(alias).values_list("title", flat=True))

    def captured(number: int) -> float:
        computation = Computation(Origins("default", reads=True))
        try:
            query()  # reads the token of the table, once per computation
            return timed(query)(number)
        finally:
            computation.end()

    def miss(**options: Any) -> Batch:
        f = cache_memoize(60, prefix=f"{alias} {options}", **options)(query)
        return timed(lambda: f(next(numbers)))

    return {
        "a query": timed(query),
        "a query, tables noted": captured,
        "a miss": miss(),
        "a miss, depends_on=Post": miss(depends_on=Post),
        'a miss, depends_on="reads"': miss(depends_on="reads"),
    }


def writes(alias: str, block: Callable[[], Any], title: str) -> dict[str, Batch]:
    """Return an UPDATE that is watched, and one that is not."""
    from benchmarks.models import Post
    from cache_memoize import cache_memoize
    from cache_memoize.protocol import transactions

    rows, observer = rows_of(alias), transactions.observer
    numbers = itertools.count()
    f = cache_memoize(60, prefix=f"{alias} {title}", depends_on=Post)(lambda: 0)

    def update() -> None:
        with block():
            rows.update(title=str(next(numbers)))

    def unwatched(number: int) -> float:
        transactions.observer = None
        try:
            return timed(update)(number)
        finally:
            transactions.observer = observer

    return {
        f"an UPDATE{title}": unwatched,
        f"an UPDATE{title}, no result depends on it": timed(update, invalidated),
        f"an UPDATE{title}, a result depends on it": timed(update, f),
    }


def invalidated() -> None:
    """Leave no tag of the table in the cache."""
    from cache_memoize.keys.tags import table_tag

    caches["default"].delete(table_tag("benchmarks_post"))


def tell(report: Report, title: str, batches: dict[str, Batch], rounds: int) -> None:
    seconds = interleave(batches, rounds=rounds, number=NUMBER)
    rows = [["", "µs", "ratio"]]
    plain = ""
    for name, found in seconds.items():
        plain = name if "," not in name else plain
        compared = "" if name == plain else str(ratio(found, seconds[plain]))
        rows.append([name, f"{median(found) * 1e6:,.0f}", compared])
    report.table(title, rows)
    report.raw.append({"table": title, "seconds": seconds})


def main() -> None:
    options = parser(__doc__).parse_args()
    report = Report("The tables that are read and written", options)
    servers = [SERVERS["valkey"], SERVERS["postgresql"]]
    with tempfile.TemporaryDirectory(prefix="memoize-benchmarks-") as folder:
        configure(Path(folder))
        from benchmarks.models import Post

        try:
            for server in servers:
                server.start()
            caches["default"].clear()
            for alias in connections:
                connection = connections[alias]
                with connection.schema_editor() as editor:
                    editor.create_model(Post)
                rows_of(alias).create(pk=1, title="first")
                atomic = lambda alias=alias: transaction.atomic(using=alias)  # noqa: E731
                batches = reads(alias) | writes(alias, nullcontext, "")
                batches |= writes(alias, atomic, " in a transaction")
                name = connection.display_name
                tell(report, name, batches, QUICK if options.quick else ROUNDS)
        finally:
            connections.close_all()
            for server in servers:
                server.stop()
    report.finish()


if __name__ == "__main__":
    main()
