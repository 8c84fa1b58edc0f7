"""Findings of ``manage.py memoize doctor``: decisions on figures, without I/O.

A finding is a message of Django's checks: SILENCED_SYSTEM_CHECKS is valid for it, and
it is printed beside the messages of our checks.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

from django.core import checks

from ..cache.vouchers import ServerMemory
from ..describe import format_count, format_duration, format_percent, format_size
from ..stats.totals import Totals

#: Calls, or runs, below which figures are left alone.
FEW = 100
#: The part of the runs without a stored result from which on it is a finding.
SHARE = 0.2
#: Commands of a miss: a read, the lease, its replacement by the entry.
COMMANDS_OF_MISS = 3

#: By id: the level, the message and the hint.
TEXTS = {
    "cache_memoize.D001": (
        checks.WARNING,
        "{} misses in {}, and no hit.",
        "Compare the keys of two calls that should have one entry: manage.py memoize "
        "key. Leave an argument that differs in each call out of it (ignore=, "
        "args_rewrite=). If entries expire, or are invalidated, before they are read, "
        "remove cache_memoize().",
    ),
    "cache_memoize.D002": (
        checks.WARNING,
        "In {}, hits have saved {} of computation, and the cache has cost {}: a hit "
        "takes {}, a run {}; {} of the calls are hits.",
        'Remove cache_memoize(), or write local="request" or local="process" to read '
        "from memory, or a longer timeout= if most calls are misses.",
    ),
    "cache_memoize.D003": (
        checks.WARNING,
        "{} of {} results were larger than max_bytes=, and not stored.",
        "Return less, such as primary keys in place of rows, or write compress=, or a "
        "larger max_bytes=.",
    ),
    "cache_memoize.D004": (
        checks.WARNING,
        "{} of {} results were not stored; operations of the cache failed {} times.",
        "manage.py memoize refresh names the reason for one call: the function raises "
        "(cache_exceptions= stores that), the result cannot be pickled, cache_if= "
        "refuses it. Calls in a transaction that has written store nothing, too.",
    ),
    "cache_memoize.D005": (
        checks.WARNING,
        "Callers get values from before {}: {} refreshes have failed.",
        "manage.py memoize refresh shows what the function raises; so does the log "
        "cache_memoize.",
    ),
    "cache_memoize.D006": (
        checks.WARNING,
        "Operations of the cache failed {} times in the last hour.",
        "The log cache_memoize has each error.",
    ),
    "cache_memoize.D007": (
        checks.ERROR,
        "{}.",
        "Until it works, each call computes, and invalidations fail.",
    ),
    "cache_memoize.D008": (
        checks.WARNING,
        "The server takes no more than {} (maxmemory-policy noeviction): then nothing "
        "is stored, and each call computes.",
        "Set maxmemory-policy to allkeys-lru or allkeys-lfu.",
    ),
    "cache_memoize.D009": (
        checks.INFO,
        "The server has removed {} entries before their timeout in {} (maxmemory {}, "
        "{}).",
        "If hit rates are low, increase maxmemory, or write compress= or max_bytes=.",
    ),
    "cache_memoize.D010": (
        checks.WARNING,
        "Nothing is memoized: CACHE_MEMOIZE['ENABLED'] is False.",
        "Remove it, or write True.",
    ),
    "cache_memoize.D011": (
        checks.ERROR,
        "{} of {} audited hits were wrong.",
        "What the function reads has changed without an invalidation: write "
        "depends_on=, or invalidate where it changes. The log cache_memoize names the "
        "keys and tables.",
    ),
}


class Usage(NamedTuple):
    """A function with its figures."""

    path: str
    alias: str
    totals: Totals = Totals()
    #: Hours since the first report; 0.0: no report.
    hours: float = 0.0
    #: Seconds of a hit on an entry of the mean size; None: not known.
    hit: float | None = None
    old_since: datetime | None = None
    #: Failed operations of the cache in the last hour.
    recent_errors: int = 0
    #: Whether all results are to be stored, except for exceptions.
    stores_all: bool = True
    #: Whether any are: not with ENABLED False or timeout=0.
    stores_any: bool = True
    #: Whether only the fact is stored that the function ran (store_result=False).
    is_guard: bool = False

    @property
    def cost(self) -> float | None:
        """Seconds that hits, misses and waits have taken, at most: a wait is as long as
        a run."""
        if self.hit is None:
            return None
        totals = self.totals
        reads = totals.hits - totals.near + COMMANDS_OF_MISS * totals.misses
        return reads * self.hit + totals.waits * totals.mean

    @property
    def net(self) -> float | None:
        """Seconds saved per hour, less those that the cache takes."""
        if self.cost is None or not self.hours:
            return None
        return (self.totals.saved - self.cost) / self.hours


class CacheState(NamedTuple):
    """A cache as it answers now."""

    alias: str
    #: The name of the class.
    backend: str
    #: Seconds of a set, a get and a delete; None: no answer.
    seconds: float | None = None
    error: str = ""
    shared: bool = False
    breaker: str = "closed"
    memory: ServerMemory | None = None


def make_finding(id: str, subject: str, *words: Any) -> checks.CheckMessage:
    level, message, hint = TEXTS[id]
    return checks.CheckMessage(level, message.format(*words), hint, subject, id)


def judge_function(usage: Usage) -> Iterator[checks.CheckMessage]:
    totals, runs = usage.totals, usage.totals.computations
    count, time = format_count, format_duration
    during = time(usage.hours * 60 * 60)

    def find(number: str, *words: str) -> checks.CheckMessage:
        return make_finding(f"cache_memoize.{number}", usage.path, *words)

    is_used = totals.calls >= FEW and totals.stored and not usage.is_guard
    if is_used and not totals.hits:
        yield find("D001", count(totals.misses), during)
    elif is_used and usage.net is not None and usage.net < 0:
        sums = time(totals.saved), time(usage.cost or 0)
        each = time(usage.hit or 0), time(totals.mean)
        yield find("D002", during, *sums, *each, format_percent(totals.hit_rate))
    if runs >= FEW and totals.too_large >= SHARE * runs:
        yield find("D003", count(totals.too_large), count(runs))
    unstored = max(runs - totals.stored - totals.too_large, 0)
    is_expected = totals.stored and not usage.stores_all
    is_lost = usage.stores_any and runs >= FEW and unstored >= SHARE * runs
    if is_lost and not is_expected:
        yield find("D004", count(unstored), count(runs), count(totals.errors))
    elif usage.recent_errors:
        yield find("D006", count(usage.recent_errors))
    if totals.wrong:
        yield find("D011", count(totals.wrong), count(totals.audited))
    if usage.old_since is not None:
        since = f"{usage.old_since:%Y-%m-%d %H:%M} UTC"
        yield find("D005", since, count(totals.failed))


def judge_cache(state: CacheState) -> Iterator[checks.CheckMessage]:
    name, memory = f"cache {state.alias!r}", state.memory
    if state.error:
        error = state.error.removeprefix(f"the {name} ")
        yield make_finding("cache_memoize.D007", name, error)
    if memory is None:
        return
    limit = format_size(memory.limit)
    if memory.limit and memory.policy == "noeviction":
        yield make_finding("cache_memoize.D008", name, limit)
    if memory.evicted:
        during = format_duration(memory.uptime)
        words = format_count(memory.evicted), during, limit, memory.policy
        yield make_finding("cache_memoize.D009", name, *words)
