"""What stands under a key: a pickled value and a trailer of 26 bytes or more. Pure.

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
BLOCK = _FORMAT | 7  # an invalidation is under way: compute, and store nothing
TAG = _FORMAT | 8  # stands under the key of a tag; its token is the tag's
#: Set where the record counts only while a second key holds its token (backends.py).
VOUCHED = 0x80
#: Set where the tokens of tags stand before the trailer, and their number.
TAGGED = 0x40
#: Set where somebody refreshes an entry that readers still get: when that began
#: (seconds since the epoch), for how long nobody else may, how often it was tried.
STAMPED = 0x20
_FLAGS = VOUCHED | TAGGED | STAMPED

#: Seconds for which a FAILED mark is kept: one, and another because Memcached's clock
#: counts whole seconds.
FAILED_FOR = 2

ENTRIES = frozenset({ENTRY, RAISED, RAN})
LEASES = frozenset({LEASE, RETRY})
_KINDS = ENTRIES | LEASES | {FAILED, BLOCK, TAG}

#: A hit needs only these, so they come last: start (seconds since the epoch),
#: timeout and cost (seconds), kind.
_FRESHNESS = struct.Struct("<dffH")
freshness = _FRESHNESS.unpack
FRESHNESS_SIZE = _FRESHNESS.size
KIND_SIZE = 2
TOKEN_SIZE = 8
TRAILER_SIZE = TOKEN_SIZE + FRESHNESS_SIZE

#: Seconds that another host's clock may be ahead. A record from further in the
#: future was written by a clock that has since been set right: it is a miss.
SKEW = 3600.0
#: For the hit path: what it would otherwise compute at every call.
AHEAD = -SKEW
TAIL = slice(-FRESHNESS_SIZE, None)

_STAMP = struct.Struct("<dfB")
_TAG_END = struct.pack("<H", TAG)


class Stamp(NamedTuple):
    """A refresh of an entry that is still served."""

    #: When it began, in seconds since the epoch.
    at: float
    #: For how many seconds it keeps others from refreshing.
    seconds: float
    #: How often it was tried.
    attempts: int


NO_STAMP = Stamp(0.0, 0.0, 0)


class Record(NamedTuple):
    raw: bytes
    token: bytes
    start: float
    timeout: float
    cost: float
    kind: int
    vouched: bool
    #: The tokens of its tags, as they were before the computation; empty: no tags.
    tags: bytes
    stamp: Stamp
    #: Where the payload ends, and the signature if there is one (signing.py).
    end: int

    def is_fresh(self, now: float, grace: float = 0.0) -> bool:
        """``grace``: how many seconds longer than its timeout."""
        return self.kind in ENTRIES and AHEAD < now - self.start < self.timeout + grace

    def is_claimed(self, now: float) -> bool:
        # The distance, so that a clock that jumps does not keep refreshers away.
        return abs(now - self.stamp.at) < self.stamp.seconds

    def is_same(self, other: Record) -> bool:
        """Whether it is the same value of the same computation, whoever stamped it."""
        return (
            (self.kind, self.start, self.timeout, self.cost, self.tags)
            == (other.kind, other.start, other.timeout, other.cost, other.tags)
        ) and self.raw[: self.end] == other.raw[: other.end]

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
    tags: bytes = b"",
    stamp: Stamp | None = None,
) -> bytes:
    more = tags
    if tags:
        kind |= TAGGED
    if stamp is not None:
        kind |= STAMPED
        more += _STAMP.pack(*stamp)
    return payload + more + token + _FRESHNESS.pack(start, timeout, cost, kind)


def parse(raw: Any) -> Record | None:
    """The record in ``raw``; None for what this library did not write."""
    if type(raw) is not bytes or len(raw) < TRAILER_SIZE:
        return None
    start, timeout, cost, kind = freshness(raw[TAIL])
    end = len(raw) - TRAILER_SIZE
    token = token_of(raw)
    known, tags, stamp = kind & ~_FLAGS, b"", NO_STAMP
    if known not in _KINDS or (known == TAG and end):
        return None  # a tag's record is its trailer
    if kind & STAMPED:
        end -= _STAMP.size
        if end < 0:
            return None
        stamp = Stamp(*_STAMP.unpack_from(raw, end))
    if kind & TAGGED:
        size = 1 + TOKEN_SIZE * raw[end - 1] if end else 0
        if not 0 < size <= end:
            return None
        end -= size
        tags = raw[end : end + size]
    vouched = bool(kind & VOUCHED)
    return Record(raw, token, start, timeout, cost, known, vouched, tags, stamp, end)


def restamp(found: Record, token: bytes, stamp: Stamp | None = None) -> bytes:
    """The same entry, stamped by somebody else: for readers nothing has changed."""
    return pack(
        found.kind,
        token,
        found.raw[: found.end],
        start=found.start,
        timeout=found.timeout,
        cost=found.cost,
        tags=found.tags,
        stamp=stamp,
    )


def token_of(raw: bytes) -> bytes:
    """The token of a record of ours."""
    return raw[-TRAILER_SIZE:-FRESHNESS_SIZE]


def tokens(stored: list[Any]) -> bytes:
    """The tokens of tags as records hold them, from what stands under the tags' keys;
    empty if one is missing or is not there to be relied on."""
    found = b""
    for raw in stored:
        if type(raw) is not bytes or len(raw) != TRAILER_SIZE or raw[-2:] != _TAG_END:
            return b""
        found += token_of(raw)
    return found + bytes((len(stored),))


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
