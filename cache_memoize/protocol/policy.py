"""The policy of a function: its options, checked once and frozen. Pure.

Durations are seconds as float; ``math.inf`` is unlimited, and ``BACKEND`` the default
timeout of the backend.
"""

from __future__ import annotations

import datetime
import inspect
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.core.cache.backends.base import DEFAULT_TIMEOUT

from ..cache.compression import LEAST
from ..options import Options

__all__ = ["BACKEND", "Policy", "to_seconds"]

BACKEND: Any = DEFAULT_TIMEOUT

#: First and longest pause of a waiting caller in seconds, and the factor of growth.
FIRST_PAUSE, LONGEST_PAUSE, GROWTH = 0.010, 0.100, 1.5
#: After a run that outlasted its lease, leases last this multiple of the slowest run.
LEASE_FACTOR = 3
#: Seconds of the longest lease that ``lease=`` does not ask for. A process that was
#: stopped for hours looks like a slow function.
LONGEST_LEASE = 600.0
#: Seconds for which an invalidation inside a transaction keeps others from storing.
#: A process that dies between commit and hook leaves the block, and nothing stale.
BLOCK_FOR = 10
#: Seconds of the longest pause after refreshes that failed.
LONGEST_RETRY = 60.0
#: A hit is early with probability exp(-(time left) / (beta * cost)). With this multiple
#: of beta * cost left, that is one in five hundred million; with more, none is early.
EARLY_ZONE = 20


#: The values that a duration takes besides numbers, and the meaning of its extremes.
_WORDS = {
    "timeout": (
        ", a timedelta, None (unlimited) or DEFAULT_TIMEOUT",
        "stores nothing, None stores without a limit",
    ),
    "stale": (
        ", a timedelta or None (unlimited)",
        "serves no stale values, None serves them without a limit",
    ),
    "wait": (", a timedelta or None (as long as a lease)", "does not wait"),
    "lease": (" or a timedelta", "is refused too"),
    "hold": (" or a timedelta", "does not block"),
    "local": (", a timedelta, 'process', 'request' or None", "keeps no copies"),
}


def to_seconds(value: Any, option: str, owner: str) -> Any:
    """Return a duration as seconds, ``math.inf`` or ``BACKEND``."""
    if value is None:
        return math.inf
    if value is BACKEND:
        return BACKEND
    if isinstance(value, datetime.timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(
            f"cache_memoize: {option}= of {owner} takes seconds (int or float)"
            f"{_WORDS[option][0]}, not {type(value).__name__}"
        )
    if not value >= 0:  # nor NaN
        raise ValueError(
            f"cache_memoize: {option}= of {owner} must not be negative; 0 "
            f"{_WORDS[option][1]}"
        )
    return float(value) if value <= sys.float_info.max else math.inf


def _seconds(value: Any, option: str, owner: str) -> float:
    number = to_seconds(value, option, owner)
    if number is BACKEND:
        raise TypeError(f"cache_memoize: {option}= of {owner} takes seconds")
    return float(number)


def _check_factor(value: Any, option: str, owner: str, most: float = math.inf) -> float:
    """Return a number from 0 to ``most``."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(
            f"cache_memoize: {option}= of {owner} takes a number, not "
            f"{type(value).__name__}"
        )
    if not 0 <= value <= min(most, sys.float_info.max):
        limits = "from 0 to 1" if most == 1 else "of 0 or more"
        raise ValueError(
            f"cache_memoize: {option}= of {owner} takes a number {limits}; 0 for none"
        )
    return float(value)


def _bytes(value: Any, option: str, owner: str) -> float:
    """Return a number of bytes; None is unlimited."""
    if value is None:
        return math.inf
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(
            f"cache_memoize: {option}= of {owner} takes a number of bytes (int), not "
            f"{type(value).__name__}"
        )
    if value <= 0:
        raise ValueError(
            f"cache_memoize: {option}= of {owner} must be more than 0 bytes; None for "
            "no limit"
        )
    return float(value)


def _audit(given: Any, owner: str) -> tuple[float, Callable[[Any, Any], object] | None]:
    """Return the fraction of hits to audit, and the function that compares."""
    fraction, same = given if isinstance(given, tuple) and given[1:] else (given, None)
    if same is not None and not callable(same):
        raise TypeError(
            f"cache_memoize: audit= of {owner} has a {type(same).__name__} beside the "
            "fraction; write a function of the old and the new result that returns "
            "whether they are the same: audit=(0.001, same)"
        )
    return _check_factor(fraction, "audit", owner, 1.0), same


@dataclass(frozen=True, slots=True)
class Policy:
    """The options of a memoized function, except those that make its key."""

    owner: str
    timeout: Any = BACKEND
    store_result: bool = True
    cache_exceptions: tuple[type[Exception], ...] = ()
    cache_if: Callable[..., object] | None = None
    wait: float | None = None
    lease: float = 10.0
    stale: float = 0.0
    early_refresh: float = 0.0
    jitter: float = 0.0
    hold: float = 0.0
    #: Seconds for which a copy of an entry is served; None: no number was given.
    local: float | None = None
    #: Bytes of a payload above which it is compressed, and of the largest entry.
    compress: float = math.inf
    max_bytes: float = math.inf
    #: The fraction of hits that are computed again, and a function of the old and the
    #: new result that returns whether they are the same; None: that of audit.py.
    audited: float = 0.0
    same: Callable[[Any, Any], object] | None = None
    #: Whether results depend on the calls that were made for them.
    inherit: bool = True
    #: False: the cache is neither read nor written.
    enabled: bool = True

    @classmethod
    def from_options(cls, owner: str, options: Options, enabled: bool = True) -> Policy:
        """Return the policy; raise TypeError or ValueError for impossible values."""
        timeout, wait, compress = options.timeout, options.wait, options.compress
        if isinstance(compress, bool):
            compress = LEAST if compress else None
        lease = _seconds(options.lease, "lease", owner)
        if not 0 < lease < math.inf:
            raise ValueError(
                f"cache_memoize: lease= of {owner} must be more than 0 seconds and "
                "not unlimited: its end frees the key of a process that died"
            )
        hold = _seconds(options.hold, "hold", owner)
        if hold == math.inf:
            raise ValueError(
                f"cache_memoize: hold= of {owner} must not be unlimited: nothing is "
                "stored for that long after an invalidation"
            )
        local = None
        if options.local is not None and not isinstance(options.local, str):
            local = _seconds(options.local, "local", owner)
        if local == math.inf:
            raise ValueError(
                f"cache_memoize: local= of {owner} must not be unlimited: changes by "
                "other processes are seen that much later; on Redis and Valkey, "
                "local='process' sees them at once"
            )
        audited, same = _audit(options.audit, owner)
        policy = cls(
            owner=owner,
            timeout=timeout
            if callable(timeout)
            else to_seconds(timeout, "timeout", owner),
            store_result=bool(options.store_result),
            cache_exceptions=_exception_classes(options.cache_exceptions, owner),
            cache_if=options.cache_if,
            wait=None if wait is None else _seconds(wait, "wait", owner),
            lease=lease,
            stale=_seconds(options.stale, "stale", owner),
            early_refresh=_check_factor(options.early_refresh, "early_refresh", owner),
            jitter=_check_factor(options.jitter, "jitter", owner, 1.0),
            hold=hold,
            local=local,
            compress=_bytes(compress, "compress", owner),
            max_bytes=_bytes(options.max_bytes, "max_bytes", owner),
            audited=audited,
            same=same,
            # A guard runs once per timeout, whatever it calls.
            inherit=bool(options.inherit and options.store_result),
            enabled=enabled,
        )
        if (policy.revalidates or audited) and not policy.store_result:
            raise ValueError(
                f"cache_memoize: {owner} is a guard (store_result=False): it has no "
                "value that stale= or early_refresh= could serve, or audit= compare; "
                "leave them out"
            )
        return policy

    @property
    def revalidates(self) -> bool:
        """Return whether callers may get a value while its successor is computed."""
        return bool(self.stale or self.early_refresh)

    @property
    def early_zone(self) -> float:
        """The last part of a timeout, in which entries may be refreshed, in costs."""
        return EARLY_ZONE * self.early_refresh

    def is_early(self, age: float, timeout: float, cost: float, random: float) -> bool:
        """Return whether to refresh a fresh entry now; ``random`` is in [0, 1).

        XFetch: Vattani, Chierichetti, Lowenstein, Optimal Probabilistic Cache Stampede
        Prevention, VLDB 2015.
        """
        return age - cost * self.early_refresh * math.log(1 - random) >= timeout

    def with_jitter(self, timeout: float, random: float) -> float:
        """Return ``timeout``, shortened by at most the fraction ``jitter``."""
        return timeout * (1 - self.jitter * random) if self.jitter else timeout

    def refresh_seconds(self, slowest: float, attempts: int) -> float:
        """Return the seconds for which a refresh keeps others from starting."""
        longest = max(self._lease_after(slowest), LONGEST_RETRY)
        return float(min(self._lease_after(slowest) * 2 ** min(attempts, 20), longest))

    @staticmethod
    def retry_after(attempts: int) -> float:
        """Return the seconds until a refresh is tried again after that many failed."""
        return float(min(2 ** min(attempts - 1, 20), LONGEST_RETRY))

    @property
    def can_store(self) -> bool:
        """Return whether results can be stored at all."""
        return self.enabled and bool(self.timeout != 0)

    @property
    def longest(self) -> float:
        """The age in seconds from which on an entry has expired, whatever its timeout
        was when it was stored."""
        fixed = not callable(self.timeout) and self.timeout is not BACKEND
        return float(self.timeout) if fixed else math.inf

    def timeout_for(self, result: Any, args: Any, kwargs: Any) -> Any:
        """Return seconds, ``math.inf`` or ``BACKEND`` for a result; 0: do not store."""
        if not callable(self.timeout):
            return self.timeout
        given = self.timeout(result, *args, **kwargs)
        return to_seconds(given, "timeout", self.owner)

    def should_store(self, result: Any, args: Any, kwargs: Any) -> bool:
        return self.cache_if is None or bool(self.cache_if(result, *args, **kwargs))

    def lease_for(self, slowest: float) -> float:
        """Return the seconds of the next lease, after a run of ``slowest`` seconds.

        The lease of a guard (``store_result=False``) lasts as long as its mark would:
        one run per timeout, also when that run takes longer than a lease.
        """
        if not self.store_result and self.longest < math.inf:
            return max(self.lease, self.longest)
        return self._lease_after(slowest)

    def _lease_after(self, slowest: float) -> float:
        if slowest <= self.lease:
            return self.lease
        return max(self.lease, min(LEASE_FACTOR * slowest, LONGEST_LEASE))

    def wait_budget(self, slowest: float) -> float:
        """Return the total seconds that a caller waits for other computations."""
        if self.wait is not None:
            return self.wait
        return self._lease_after(slowest)

    @staticmethod
    def wait_pause(attempt: int, random: float) -> float:
        """Return the seconds to the next look; ``random`` in [0, 1] spreads callers."""
        grown: float = FIRST_PAUSE * GROWTH ** min(attempt, 20)
        return min(grown, LONGEST_PAUSE) * (0.5 + random / 2)


def _exception_classes(value: Any, owner: str) -> tuple[type[Exception], ...]:
    one = inspect.isclass(value) or isinstance(value, (str, BaseException))
    try:
        classes = (value,) if one else tuple(value or ())
    except TypeError:  # not iterable
        classes = (value,)
    for each in classes:
        if not (inspect.isclass(each) and issubclass(each, Exception)):
            raise TypeError(
                f"cache_memoize: cache_exceptions= of {owner} takes subclasses of "
                f"Exception, not {each!r}"
            )
    return classes
