"""No old value under faults: ``python -m benchmarks.soak --url redis://… --minutes 5``

Threads and tasks of several processes read, refresh, prime, invalidate, commit and
evict through the cache at a URL of yours, or on a server that this starts and stops
(``--url valkey``, ``redis``, ``memcached``, ``postgresql``, ``mariadb``). What they do
is in ``benchmarks/actors.py``: a read that is older than a refresh, a prime, an
invalidation or a commit that had returned before it began is *old*; an operation that
takes longer than ``--bound`` seconds *hangs*.

Meanwhile there are faults. Every second process reaches the server through a proxy that
delays answers, loses them, cuts connections, and stands still for longer than a lease.
Processes are stopped for longer than a lease, or killed and started again.

``--broken`` takes the comparison out of the replacement of values, or with ``--local
process`` the waiting for processes that hold copies: the soak has to find old values
then. ``--vouchers`` treats the cache as one that is not known, ``--sign`` signs the
entries. All keys and the table have names of their own, and expire or are
dropped.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from benchmarks.actors import LEASE, NUMBERS, Board, configure
from tests.proxy import Proxy
from tests.servers import SERVERS

ROOT = Path(__file__).parents[1]
BACKENDS = "django.core.cache.backends"
#: The URLs of servers that this starts.
STARTED = {
    "valkey": "redis://127.0.0.1:{}",
    "redis": "redis://127.0.0.1:{}",
    "memcached": "memcached://127.0.0.1:{}",
    "postgresql": "postgresql://tests@127.0.0.1:{}/postgres",
    "mariadb": "mysql://root@127.0.0.1:{}/mysql",
}
DATABASES = ("postgresql", "mysql", "sqlite")
PORTS = {"redis": 6379, "memcached": 11211, "postgresql": 5432, "mysql": 3306}
#: Seconds between two faults, and of a short one.
BETWEEN, SHORT = (1.0, 4.0), 0.5
#: Seconds for which a proxy or a process stands still: longer than a lease.
STANDS_STILL = LEASE * 1.5


class Place:
    """The cache at a URL: its settings, by the port at which it is reached."""

    def __init__(self, url: str, client: str, folder: Path, prefix: str) -> None:
        self.url, self.client = urlsplit(url), client
        self.kind = self.url.scheme.partition("+")[0]
        self.folder, self.prefix = folder, prefix
        self.port = self.url.port or PORTS.get(self.kind)
        if self.kind not in (*PORTS, "sqlite", "file", "locmem"):
            sys.exit(
                f"{url}: write redis, memcached, postgresql, mysql, sqlite, file "
                "or locmem in front of ://, or the name of a server to start"
            )

    @property
    def host(self) -> str:
        return self.url.hostname or "127.0.0.1"

    def cache(self, port: int | None) -> dict[str, Any]:
        at = f"{self.host}:{port}" if port == self.port else f"127.0.0.1:{port}"
        options: dict[str, Any] = {}
        if self.kind == "redis" and self.client == "django-redis":
            backend = "django_redis.cache.RedisCache"
            options = {"SOCKET_TIMEOUT": SHORT, "SOCKET_CONNECT_TIMEOUT": SHORT}
        elif self.kind == "redis":
            backend = f"{BACKENDS}.redis.RedisCache"
            options = {"socket_timeout": SHORT, "socket_connect_timeout": SHORT}
        elif self.client == "pylibmc":
            backend = f"{BACKENDS}.memcached.PyLibMCCache"
            behaviors = {"cas": True, "connect_timeout": 500, "_poll_timeout": 500}
            options = {"behaviors": behaviors}
        elif self.kind == "memcached":
            backend = f"{BACKENDS}.memcached.PyMemcacheCache"
            options = dict.fromkeys(("timeout", "connect_timeout"), SHORT)
            options |= {"no_delay": True, "dead_timeout": 1, "retry_timeout": 1}
        elif self.kind == "file":
            backend, at = f"{BACKENDS}.filebased.FileBasedCache", self.path
        elif self.kind == "locmem":
            backend, at = f"{BACKENDS}.locmem.LocMemCache", ""
        else:
            backend, at = f"{BACKENDS}.db.DatabaseCache", self.table
        if self.kind == "redis":
            login = self.url.netloc.rpartition("@")[0]
            at = f"redis://{login and login + '@'}{at}{self.url.path}"
        found = {"BACKEND": backend, "LOCATION": at, "KEY_PREFIX": self.prefix}
        return {**found, "OPTIONS": options}

    @property
    def path(self) -> str:
        return str(Path(self.url.path or self.folder) / self.prefix)

    @property
    def table(self) -> str:
        return self.prefix.replace("-", "_")

    def databases(self, port: int | None) -> dict[str, Any]:
        """The database of the rows, and that of the cache if it is in one."""
        sqlite = {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": str(self.folder / "rows.sqlite3"),
            "OPTIONS": {"transaction_mode": "IMMEDIATE"},
        }
        if self.kind == "sqlite":
            cache = str(self.folder / "cache.sqlite3")
            return {"default": sqlite, "cache": sqlite | {"NAME": cache}}
        if self.kind not in DATABASES:
            return {"default": sqlite}
        rows = {
            "ENGINE": f"django.db.backends.{self.kind}",
            "NAME": self.url.path.strip("/"),
            "USER": unquote(self.url.username or ""),
            "PASSWORD": unquote(self.url.password or ""),
            "HOST": self.host,
            "PORT": str(self.port),
            "OPTIONS": {"connect_timeout": 5},
        }
        through = {"HOST": "127.0.0.1", "PORT": str(port)}
        return {"default": rows, "cache": rows | (through if port != self.port else {})}

    def title(self) -> str:
        """What the server says that it is."""
        from django.db import connections

        if self.kind in DATABASES:
            connection = connections["cache"]
            connection.ensure_connection()
            version = ".".join(map(str, connection.get_database_version()))
            return f"{connection.display_name} {version}"
        if self.kind == "redis":
            import redis

            with redis.Redis.from_url(self.cache(self.port)["LOCATION"]) as client:
                info: Any = client.info("server")
            title = f"Redis {info['redis_version']}"
            if "valkey_version" in info:
                title = f"Valkey {info['valkey_version']}"
            return f"{title} by django-redis" if self.client else title
        if self.kind == "memcached":
            import socket

            with socket.create_connection((self.host, self.port), 5) as server:
                server.sendall(b"version\r\n")
                version = server.recv(99).split()[1].decode()
            return f"Memcached {version} by {self.client or 'pymemcache'}"
        return {"file": "files", "locmem": "local memory"}[self.kind]


# --- processes and faults ------------------------------------------------------------


class Process:
    """One process with its actors; it can be stopped, and killed and started again."""

    def __init__(self, number: int, given: dict[str, Any]) -> None:
        self.number, self.given, self.turn = number, given, 0
        self.start()

    def start(self) -> None:
        given = json.dumps(self.given | {"turn": self.turn})
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.actors", given],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        self.turn += 1

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.start()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGSTOP)
        time.sleep(STANDS_STILL)
        self.process.send_signal(signal.SIGCONT)


class Faults:
    """One fault after the other, at random."""

    def __init__(
        self, rng: random.Random, processes: list[Process], proxy: Proxy | None
    ) -> None:
        self.rng, self.processes, self.proxy = rng, processes, proxy
        self.number = 0
        self.kinds = [self.stop_process, self.kill_process]
        if proxy is not None:
            self.kinds += [self.cut, self.delay, self.lose, self.stop_network] * 2

    def go_on(self, end: float) -> None:
        while (left := end - time.time() - STANDS_STILL) > BETWEEN[0]:
            time.sleep(min(self.rng.uniform(*BETWEEN), left))
            self.rng.choice(self.kinds)()
            self.number += 1

    def stop_process(self) -> None:
        self.rng.choice(self.processes).stop()

    def kill_process(self) -> None:
        self.rng.choice(self.processes).kill()

    def cut(self) -> None:
        assert self.proxy
        self.proxy.cut()

    def delay(self) -> None:
        assert self.proxy
        self.proxy.delay = self.rng.random() * 0.1
        time.sleep(SHORT)
        self.proxy.delay = 0.0

    def lose(self) -> None:
        assert self.proxy
        self.proxy.loses = lambda answer: self.rng.random() < 0.2
        time.sleep(SHORT)
        self.proxy.loses = lambda answer: False

    def stop_network(self) -> None:
        assert self.proxy
        self.proxy.stop()
        time.sleep(STANDS_STILL)
        self.proxy.go_on()


@contextlib.contextmanager
def prepared(place: Place, given: dict[str, Any]) -> Iterator[str]:
    """Make the tables; drop them afterwards."""
    from django.core.management import call_command
    from django.db import connections

    configure(given)
    cursor = connections["default"].cursor()
    try:
        if "cache" in connections.settings:
            call_command("createcachetable", database="cache", verbosity=0)
        for each in connections.all():
            if each.vendor == "sqlite":
                with each.cursor() as one:
                    one.execute("PRAGMA journal_mode=WAL")
                    one.fetchall()
        rows = given["rows"]
        cursor.execute(f"CREATE TABLE {rows} (n INTEGER PRIMARY KEY, value BIGINT)")
        values = [[n, 0] for n in range(NUMBERS)]
        cursor.executemany(f"INSERT INTO {rows} VALUES (%s, %s)", values)
        title = place.title()
        connections.close_all()  # before processes are started
        yield title
    finally:
        connections["default"].cursor().execute(f"DROP TABLE {given['rows']}")
        if "cache" in connections.settings:
            connections["cache"].cursor().execute(f"DROP TABLE {place.table}")
        connections.close_all()


def soak(place: Place, options: argparse.Namespace) -> str:
    """Let the actors work while faults happen; return the result as a line."""
    in_memory = place.kind == "locmem"
    number = 1 if in_memory else options.processes
    each = options.threads + options.tasks
    if number * each > NUMBERS:
        sys.exit(f"at most {NUMBERS} threads and tasks in all processes together")
    seconds = options.minutes * 60
    given: dict[str, Any] = {
        "seed": options.seed,
        "bound": options.bound,
        "broken": options.broken,
        "sign": options.sign,
        "vouchers": options.vouchers,
        "reads": options.reads,
        "defaults": {"local": options.local} if options.local else {},
        "rows": f"{place.table}_rows",
        "folder": str(place.folder),
        "of": number * each,
        "cache": place.cache(place.port),
        "databases": place.databases(place.port),
    }
    board = Board(place.folder / "board", number * each)
    with contextlib.ExitStack() as stack:
        title = stack.enter_context(prepared(place, given))
        proxy = None
        if place.port:
            proxy = stack.enter_context(Proxy(place.port, place.host))
        processes = []
        for n in range(number):
            port = proxy.port if proxy and n % 2 else place.port
            mine: dict[str, Any] = {"slots": [*range(n * each, (n + 1) * each)]}
            mine |= {"cache": place.cache(port), "databases": place.databases(port)}
            processes.append(Process(n, given | mine))
        faults = Faults(random.Random(options.seed), processes, proxy)
        try:
            while not all(map(board.has_begun, range(0, number * each, each))):
                assert all(one.process.poll() is None for one in processes)
                time.sleep(0.05)
            board.end = end = time.time() + seconds
            if not options.quiet:
                faults.go_on(end)
            limit = seconds + 4 * options.bound
            failed = [one.process.wait(limit) for one in processes]
        finally:
            for one in processes:
                if one.process.poll() is None:
                    one.process.kill()
                    one.process.wait()
    found = board.totals() | {"faults": faults.number, "minutes": options.minutes}
    found["hung"] += sum(map(bool, failed))
    extras = {" with vouchers": options.vouchers, ", signed": options.sign}
    return say(title + "".join(each for each in extras if extras[each]), found)


def say(title: str, found: dict[str, Any]) -> str:
    minutes = found["minutes"]
    span = f"{minutes:g} minutes" if minutes >= 1 else f"{minutes * 60:g} seconds"
    reads = f"{found['reads'] / 1e6:.1f} million reads"
    if found["reads"] < 1e6:
        reads = f"{found['reads']:,} reads"
    return (
        f"{reads} ({found['hits'] / max(found['reads'], 1):.0%} hits; "
        f"{found['after refreshes']:,} of values that are refreshed, "
        f"{found['after invalidations']:,} of values that are invalidated), "
        f"{found['refreshes']:,} refreshes, {found['primes']:,} primes, "
        f"{found['invalidations']:,} invalidations, {found['commits']:,} commits, "
        f"{found['evictions']:,} evictions, {found['faults']} faults in {span} on "
        f"{title}: {found['old']} old, {found['hung']} hung, {found['raised']} raised"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--url", required=True, help="of the cache, or a server's name")
    parser.add_argument("--client", default="", help="django-redis or pylibmc")
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--threads", type=int, default=3, help="per process")
    parser.add_argument("--tasks", type=int, default=3, help="per process")
    parser.add_argument("--reads", type=int, default=40, help="between two writes")
    parser.add_argument(
        "--local",
        type=lambda given: given if given == "process" else float(given),
        help="process, or seconds: hits from copies in the memory of each process",
    )
    parser.add_argument("--bound", type=float, default=15, help="seconds; longer hangs")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--quiet", action="store_true", help="no faults")
    parser.add_argument("--sign", action="store_true", help="entries are signed")
    parser.add_argument("--vouchers", action="store_true", help="as an unknown cache")
    parser.add_argument("--broken", action="store_true", help="it must find old values")
    options = parser.parse_args()
    print(f"--seed {options.seed}", flush=True)
    name, url = options.url, options.url
    server = SERVERS.get(name)
    if server is not None:
        if not server.binary:
            sys.exit(f"{name} is not installed")
        url = STARTED[name].format(server.port)
        server.start()
    try:
        with tempfile.TemporaryDirectory(prefix="memoize-soak-") as folder:
            prefix = f"soak-{os.getpid()}-{options.seed}"
            place = Place(url, options.client, Path(folder), prefix)
            line = soak(place, options)
            findings = Path(folder) / "findings"
            if findings.exists():
                print("".join(findings.read_text().splitlines(True)[:200]))
    finally:
        if server is not None:
            server.stop()
    print(line, flush=True)
    wrong = not line.endswith(": 0 old, 0 hung, 0 raised")
    sys.exit(wrong != options.broken)


if __name__ == "__main__":
    main()
