"""What the options mean: a frozen value, checked once. Pure: no cache, no clock.

Durations are seconds as float; ``math.inf`` is for ever and ``BACKEND`` what the
backend does when nobody says anything.
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

from ..options import Options

__all__ = ["BACKEND", "Policy", "seconds"]

BACKEND: Any = DEFAULT_TIMEOUT

#: The first and the longest pause of a caller that waits, in seconds.
FIRST_PAUSE, LONGEST_PAUSE, GROWTH = 0.010, 0.100, 1.5
#: A lease that was too short is followed by this multiple of the slowest run.
LEASE_FACTOR = 3
#: Seconds for which an invalidation inside a transaction keeps others from storing. A
#: process that dies between commit and hook leaves that behind, and nothing stale.
BLOCK_FOR = 10
#: The longest pause after refreshes that failed, in seconds.
LONGEST_RETRY = 60.0
#: A hit is early with probability exp(-(time left) / (beta * cost)): so many times
#: beta * cost before the timeout that is one in five hundred million, and not drawn.
EARLY_ZONE = 20


#: What a duration takes, and what its extremes mean.
_WORDS = {
    "timeout": (
        ", a timedelta, None (for ever) or DEFAULT_TIMEOUT",
        "stores nothing, None stores for ever",
    ),
    "stale": (", a timedelta or None (for ever)", "is not at all, None for ever"),
    "wait": (", a timedelta or None (as long as a lease)", "is not to wait"),
    "lease": (" or a timedelta", "is none"),
    "hold": (" or a timedelta", "is not at all"),
}


def seconds(value: Any, option: str, owner: str) -> Any:
    """``value`` as seconds, ``math.inf`` or ``BACKEND``; an error names the cure."""
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


def _number(value: Any, option: str, owner: str) -> float:
    number = seconds(value, option, owner)
    if number is BACKEND:
        raise TypeError(f"cache_memoize: {option}= of {owner} takes seconds")
    return float(number)


def _factor(value: Any, option: str, owner: str, most: float) -> float:
    """A plain number from 0 to ``most``."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(
            f"cache_memoize: {option}= of {owner} takes a number, not "
            f"{type(value).__name__}"
        )
    if not 0 <= value <= min(most, sys.float_info.max):
        limits = "from 0 to 1" if most == 1 else "of 0 or more"
        raise ValueError(
            f"cache_memoize: {option}= of {owner} takes a number {limits}; 0 is off"
        )
    return float(value)


@dataclass(frozen=True, slots=True)
class Policy:
    """The options of one memoized function, except what makes up its key."""

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
    #: False: nothing is read and nothing stored, for the time being.
    enabled: bool = True

    @classmethod
    def of(cls, owner: str, options: Options, *, enabled: bool = True) -> Policy:
        """Return the policy of a function; raise TypeError or ValueError for a value
        that cannot be right."""
        timeout: Any = options.timeout
        wait = options.wait
        if not callable(timeout):
            timeout = seconds(timeout, "timeout", owner)
        lease = _number(options.lease, "lease", owner)
        if not 0 < lease < math.inf:
            raise ValueError(
                f"cache_memoize: lease= of {owner} must be more than 0 seconds and "
                "end some day: it is what frees the key when a process dies"
            )
        hold = _number(options.hold, "hold", owner)
        if hold == math.inf:
            raise ValueError(
                f"cache_memoize: hold= of {owner} must end some day: nothing is stored "
                "for that long after an invalidation"
            )
        policy = cls(
            owner=owner,
            timeout=timeout
            if callable(timeout)
            else seconds(timeout, "timeout", owner),
            store_result=bool(options.store_result),
            cache_exceptions=_exceptions(options.cache_exceptions, owner),
            cache_if=options.cache_if,
            wait=None if wait is None else _number(wait, "wait", owner),
            lease=lease,
            stale=_number(options.stale, "stale", owner),
            early_refresh=_factor(
                options.early_refresh, "early_refresh", owner, math.inf
            ),
            jitter=_factor(options.jitter, "jitter", owner, 1.0),
            hold=hold,
            enabled=enabled,
        )
        if policy.revalidates and not policy.store_result:
            raise ValueError(
                f"cache_memoize: {owner} is a guard (store_result=False): it has no "
                "value that stale= or early_refresh= could serve; leave them out"
            )
        return policy

    @property
    def revalidates(self) -> bool:
        """Whether readers may get a value while another one is computed for it."""
        return bool(self.stale or self.early_refresh)

    @property
    def zone(self) -> float:
        """So many times its cost before its timeout, an entry may be refreshed."""
        return EARLY_ZONE * self.early_refresh

    def is_early(self, age: float, timeout: float, cost: float, random: float) -> bool:
        """Whether to refresh now what is still fresh; ``random`` in 0..1, 1 excluded.

        XFetch: Vattani, Chierichetti, Lowenstein, Optimal Probabilistic Cache Stampede
        Prevention, VLDB 2015.
        """
        return age - cost * self.early_refresh * math.log(1 - random) >= timeout

    def jittered(self, timeout: float, random: float) -> float:
        """``timeout``, shortened by up to the fraction ``jitter``."""
        return timeout * (1 - self.jitter * random) if self.jitter else timeout

    def claim_for(self, slowest: float, attempts: int) -> float:
        """Seconds for which a refresh, after so many tries, keeps others from it."""
        longest = max(self._grown(slowest), LONGEST_RETRY)
        return float(min(self._grown(slowest) * 2 ** min(attempts, 20), longest))

    @staticmethod
    def retry_after(attempts: int) -> float:
        """Seconds until a refresh that failed for so many times is tried again."""
        return float(min(2 ** min(attempts - 1, 20), LONGEST_RETRY))

    @property
    def stores(self) -> bool:
        """Whether anything can ever be stored."""
        return self.enabled and bool(self.timeout != 0)

    def timeout_for(self, result: Any, args: Any, kwargs: Any) -> Any:
        """Seconds, ``math.inf`` or ``BACKEND`` for this result; 0: do not store."""
        if not callable(self.timeout):
            return self.timeout
        given = self.timeout(result, *args, **kwargs)
        return seconds(given, "timeout", self.owner)

    def wants(self, result: Any, args: Any, kwargs: Any) -> bool:
        return self.cache_if is None or bool(self.cache_if(result, *args, **kwargs))

    def lease_for(self, slowest: float) -> float:
        """Seconds of the next lease, after a run that took ``slowest`` seconds.

        The lease of a guard (``store_result=False``) lasts as long as its mark would:
        one run per timeout, also when that run takes longer than a lease.
        """
        known = not callable(self.timeout) and self.timeout is not BACKEND
        if not self.store_result and known and self.timeout < math.inf:
            return float(max(self.lease, self.timeout))
        return self._grown(slowest)

    def _grown(self, slowest: float) -> float:
        return self.lease if slowest <= self.lease else LEASE_FACTOR * slowest

    def budget(self, slowest: float) -> float:
        """Seconds that a caller waits, in all, for the computations of others."""
        if self.wait is not None:
            return self.wait
        return self._grown(slowest)

    @staticmethod
    def pause(attempt: int, random: float) -> float:
        """Seconds before the next look; ``random`` in 0..1 spreads the waiters."""
        grown: float = FIRST_PAUSE * GROWTH ** min(attempt, 20)
        return min(grown, LONGEST_PAUSE) * (0.5 + random / 2)


def _exceptions(value: Any, owner: str) -> tuple[type[Exception], ...]:
    one = inspect.isclass(value) or isinstance(value, (str, BaseException))
    try:
        classes = (value,) if one else tuple(value or ())
    except TypeError:  # no iterable
        classes = (value,)
    for each in classes:
        if not (inspect.isclass(each) and issubclass(each, Exception)):
            raise TypeError(
                f"cache_memoize: cache_exceptions= of {owner} takes subclasses of "
                f"Exception, not {each!r}"
            )
    return classes
