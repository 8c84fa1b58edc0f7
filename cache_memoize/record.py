"""What stands under a key: a pickled value and a trailer of 26 bytes. Pure.

The trailer comes last because ``pickle.loads`` ignores what follows a pickle: a hit
reads the value without cutting it out. All records are ``bytes``, so no backend
unpickles a value of the user's: a renamed class is a miss, everywhere.
"""

from __future__ import annotations

import math
import pickle
import struct
from typing import Any, NamedTuple, cast

__all__ = ["Record", "pack", "parse"]

#: In the high byte of every kind: this library, this format.
_FORMAT = 0xC300

ENTRY = _FORMAT | 1  # payload: the pickled result
RAISED = _FORMAT | 2  # payload: the pickled exception
RAN = _FORMAT | 3  # no payload: the mark of a guard
LEASE = _FORMAT | 4  # somebody is computing
RETRY = _FORMAT | 5  # ... after somebody whose computation failed
FAILED = _FORMAT | 6  # a computation brought nothing to store
#: Set where the record counts only while a second key holds its token (store.py).
VOUCHED = 0x80

ENTRIES = frozenset({ENTRY, RAISED, RAN})
LEASES = frozenset({LEASE, RETRY})

#: A hit needs only these, so they come last: start (seconds since the epoch),
#: timeout and cost (seconds), kind.
_FRESHNESS = struct.Struct("<dffH")
freshness = _FRESHNESS.unpack
FRESHNESS_SIZE = _FRESHNESS.size
TOKEN_SIZE = 8
TRAILER_SIZE = TOKEN_SIZE + FRESHNESS_SIZE

#: Seconds that another host's clock may be ahead. A record from further in the
#: future was written by a clock that has since been set right: it is a miss.
SKEW = 3600.0
#: For the hit path: what it would otherwise compute at every call.
AHEAD = -SKEW
TAIL = slice(-FRESHNESS_SIZE, None)


class Record(NamedTuple):
    raw: bytes
    token: bytes
    start: float
    timeout: float
    cost: float
    kind: int
    vouched: bool

    def is_fresh(self, now: float) -> bool:
        return self.kind in ENTRIES and AHEAD < now - self.start < self.timeout

    def remaining(self, now: float) -> float:
        return self.start + self.timeout - now


def pack(
    kind: int,
    token: bytes,
    payload: bytes = b"",
    *,
    start: float = 0.0,
    timeout: float = 0.0,
    cost: float = 0.0,
) -> bytes:
    return payload + token + _FRESHNESS.pack(start, timeout, cost, kind)


def parse(raw: Any) -> Record | None:
    """The record in ``raw``; None for what this library did not write."""
    if type(raw) is not bytes or len(raw) < TRAILER_SIZE:
        return None
    start, timeout, cost, kind = freshness(raw[TAIL])
    token = raw[-TRAILER_SIZE:-FRESHNESS_SIZE]
    known = kind & ~VOUCHED
    if known not in ENTRIES and known not in LEASES and known != FAILED:
        return None
    return Record(raw, token, start, timeout, cost, known, known != kind)


def with_token(raw: bytes, token: bytes) -> bytes:
    """The same entry, stamped by somebody else: for readers nothing has changed."""
    return raw[:-TRAILER_SIZE] + token + raw[-FRESHNESS_SIZE:]


def vouched(raw: bytes) -> bytes:
    """The same record, marked as one that a second key must vouch for."""
    kind = int.from_bytes(raw[-2:], "little") | VOUCHED
    return raw[:-2] + kind.to_bytes(2, "little")


def dumps(value: Any) -> bytes:
    return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)


loads = pickle.loads


def dumps_exception(error: Exception) -> bytes:
    """``error`` so that it comes back with its type, arguments and attributes.

    The default pickle calls the class with ``args`` again, which a custom
    ``__init__`` may refuse or understand otherwise (bpo-1692335). Where the round
    trip changes anything, the parts travel instead.
    """
    parts = _Parts(type(error), error.args, vars(error))
    for candidate in (error, parts):
        try:
            pickled = dumps(candidate)
            again = loads_exception(pickled)
            same = _Parts(type(again), again.args, vars(again)) == parts
            if same and _kept_by_c(again) == _kept_by_c(error):
                return pickled
        except Exception as trouble:  # the class decides what it raises
            reason = trouble
        else:
            reason = TypeError("it comes back changed")
    raise TypeError(f"{type(error).__qualname__} cannot be stored: {reason}")


def _kept_by_c(error: BaseException) -> Any:
    """Such as the filename of an OSError, which is not among its arguments."""
    builtin = next(c for c in type(error).__mro__ if c.__module__ == "builtins")
    return cast("Any", builtin).__reduce__(error)[1:]


class _Parts(NamedTuple):
    cls: type[Exception]
    args: tuple[Any, ...]
    attributes: dict[str, Any]


def loads_exception(raw: bytes) -> Exception:
    stored = loads(raw)
    if isinstance(stored, _Parts):
        error = stored.cls.__new__(stored.cls, *stored.args)
        error.args = stored.args
        error.__dict__.update(stored.attributes)
        return error
    return stored  # type: ignore[no-any-return]


def cap(timeout: float) -> float:
    """A timeout that fits the trailer's four bytes."""
    return timeout if timeout < 3e38 else math.inf
