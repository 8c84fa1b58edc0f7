"""The bytes stored under a key: a pickled value, then a trailer. Pure.

A reader needs more than the value: its age, its cost, the kind of the record, and a
token that only the writer knows. A tuple of these would be the obvious record, but then
the backend would pickle it, and unpickle the value of the user with it: on some
backends a renamed class would be an error, or make a ``get_many`` fail. Bytes are
stored as they are. The trailer comes last because ``pickle.loads`` ignores what follows
a pickle: a hit unpickles the value without a copy. Nearest to the end is what a hit
looks at; before it are the token, the stamp of a refresh, the tokens of tags, and a
signature.
"""

from __future__ import annotations

import math
import pickle
import struct
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, cast

from .pickler import dumps

__all__ = ["Record", "dumps", "pack", "parse"]

#: In the high byte of every kind: this library, this format.
_FORMAT = 0xC300

ENTRY = _FORMAT | 1  # payload: the pickled result
RAISED = _FORMAT | 2  # payload: the pickled exception
RAN = _FORMAT | 3  # no payload: the mark of a guard
LEASE = _FORMAT | 4  # a caller is computing
RETRY = _FORMAT | 5  # the same after another one failed; payload: that of its mark
FAILED = _FORMAT | 6  # a computation stored no result; payload: its exception, if any
BLOCK = _FORMAT | 7  # invalidations are under way: compute, and store nothing
TAG = _FORMAT | 8  # of a tag, whose token it holds
CLEARED = _FORMAT | 9  # invalidated a moment ago: the key is empty
#: Flag: the record is valid only while a second key holds its token (vouchers.py).
VOUCHED = 0x80
#: Flag: the tokens of the tags and their number precede the trailer.
TAGGED = 0x40
#: Flag: an entry that is still served is being refreshed; see :class:`Stamp`.
STAMPED = 0x20
#: Flag: tags that were found during the computation precede those of the call.
DEPENDS = 0x10
_FLAGS = VOUCHED | TAGGED | STAMPED | DEPENDS

#: The cost of a tag whose lifetime a transaction has limited, which nothing extends.
LIMITED = -1.0
#: Seconds for which a FAILED mark is stored: one, and another because Memcached counts
#: whole seconds.
FAILED_FOR = 2
#: Seconds for which a CLEARED mark is stored: a command that a client sent before it
#: gave up may arrive that late.
CLEARED_FOR = 30
#: Seconds by which a server that counts whole seconds may keep a block longer.
_LONGER = 2

ENTRIES = frozenset({ENTRY, RAISED, RAN})
LEASES = frozenset({LEASE, RETRY})
_KINDS = ENTRIES | LEASES | {FAILED, BLOCK, TAG, CLEARED}

#: The part that a hit needs: start (seconds since the epoch), timeout and cost
#: (seconds), kind.
_FRESHNESS = struct.Struct("<dffH")
freshness = _FRESHNESS.unpack
FRESHNESS_SIZE = _FRESHNESS.size
KIND_SIZE = 2
TOKEN_SIZE = 8
TRAILER_SIZE = TOKEN_SIZE + FRESHNESS_SIZE

#: Seconds by which the clocks of two hosts may differ. A record from further in the
#: future was written by a clock that has been corrected since: it is a miss.
SKEW = 3600.0
#: For the hit path, which would else compute them on every call.
AHEAD = -SKEW
TAIL = slice(-FRESHNESS_SIZE, None)

_STAMP = struct.Struct("<dfBHH")
_FLOAT = struct.Struct("<f")
#: An invalidation that blocks a key, and for how many more seconds.
_BLOCKED = struct.Struct("<8sd")
_TAG_END = struct.pack("<H", TAG)
#: After names and tokens of dependencies: the bytes of the names, and of both.
_DEPENDS_END = struct.Struct("<HI")


class Stamp(NamedTuple):
    """A refresh of an entry that is still served."""

    #: When the refresh began, in seconds since the epoch.
    at: float
    #: Seconds for which no other caller refreshes.
    seconds: float
    #: Number of attempts, this one included.
    attempts: int
    #: Number of refreshes that have begun since the entry got its token. A refresh has
    #: the number that it began with.
    begun: int = 0
    #: The number of the refresh that computed the value; 0: it is older than them all.
    stored: int = 0


NO_STAMP = Stamp(0.0, 0.0, 0)
#: The highest number of a refresh.
LAST_NUMBER = 2**16 - 1


class Record(NamedTuple):
    raw: bytes
    token: bytes
    start: float
    timeout: float
    cost: float
    kind: int
    vouched: bool
    #: The tokens of the tags from before the computation; empty: no tags.
    tags: bytes
    stamp: Stamp
    #: The length of the payload, with the signature if it has one (signing.py).
    end: int
    #: The tags found during the computation, as ``pack_dependencies()`` returns them.
    depends: bytes = b""

    def is_fresh(self, now: float, grace: float = 0.0) -> bool:
        """Return whether the entry is younger than its timeout and ``grace``
        seconds."""
        return self.kind in ENTRIES and AHEAD < now - self.start < self.timeout + grace

    def is_claimed(self, now: float) -> bool:
        """Return whether a refresh is under way."""
        # The distance, so that a clock that was set back does not delay refreshes.
        return abs(now - self.stamp.at) < self.stamp.seconds

    def lasts(self, now: float, seconds: float) -> bool:
        """Return whether the record of a tag is kept for so long, by any clock."""
        limited = 0 < self.timeout < math.inf
        latest = self.timeout - seconds - SKEW
        return not limited or -SKEW <= now - self.start <= latest

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
    depends: bytes = b"",
    stamp: Stamp | None = None,
) -> bytes:
    more = depends + tags
    if depends:
        kind |= DEPENDS
    if tags:
        kind |= TAGGED
    if stamp is not None:
        kind |= STAMPED
        more += _STAMP.pack(*stamp)
    return payload + more + token + _FRESHNESS.pack(start, timeout, cost, kind)


def parse(raw: Any) -> Record | None:
    """Return the record in ``raw``; None for values that this library did not write."""
    if type(raw) is not bytes or len(raw) < TRAILER_SIZE:
        return None
    start, timeout, cost, kind = freshness(raw[TAIL])
    end = len(raw) - TRAILER_SIZE
    token = token_of(raw)
    known, tags, depends, stamp = kind & ~_FLAGS, b"", b"", NO_STAMP
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
    if kind & DEPENDS:
        size = _size_of_dependencies(raw, end)
        if not 0 < size <= end:
            return None
        end -= size
        depends = raw[end : end + size]
    vouched = bool(kind & VOUCHED)
    return Record(
        raw, token, start, timeout, cost, known, vouched, tags, stamp, end, depends
    )


def _size_of_dependencies(raw: bytes, end: int) -> int:
    """Return the bytes before ``end`` that hold dependencies; 0 if they are wrong."""
    start = end - _DEPENDS_END.size
    if start < 0:
        return 0
    names, both = _DEPENDS_END.unpack_from(raw, start)
    count = raw.count(b"\n", max(0, start - both), max(0, start - both) + names)
    return both + _DEPENDS_END.size if both == names + TOKEN_SIZE * count else 0


def pack_names(names: Iterable[str]) -> bytes:
    """Return the names of tags as a record holds them: each ends with a newline."""
    return "".join(f"{name}\n" for name in names).encode()


def pack_dependencies(names: bytes, tokens: bytes) -> bytes:
    """Return tags found during a computation, as a record holds them.

    :param names: as ``pack_names()`` returns them.
    :param tokens: their tokens, in the same order.
    """
    both = names + tokens
    return both + _DEPENDS_END.pack(len(names), len(both))


def dependencies(depends: bytes) -> tuple[bytes, dict[str, bytes]]:
    """Return the packed names, and the token by name, of a record's dependencies."""
    if not depends:
        return b"", {}
    end = len(depends) - _DEPENDS_END.size
    size, _ = _DEPENDS_END.unpack_from(depends, end)
    names, tokens = depends[:size], depends[size:end]
    each = [tokens[n : n + TOKEN_SIZE] for n in range(0, len(tokens), TOKEN_SIZE)]
    keys = names.decode("utf-8", "replace").split("\n")[:-1]
    return names, dict(zip(keys, each, strict=True))


def restamp(found: Record, stamp: Stamp, token: bytes = b"") -> bytes:
    """Return the entry with another stamp, and perhaps another token. Readers see no
    difference."""
    return pack(
        found.kind,
        token or found.token,
        found.raw[: found.end],
        start=found.start,
        timeout=found.timeout,
        cost=found.cost,
        tags=found.tags,
        depends=found.depends,
        stamp=stamp,
    )


def pack_blocks(token: bytes, blocks: Mapping[bytes, float], now: float) -> bytes:
    """Return the record of a key that invalidations block, each for some seconds."""
    payload = b"".join(_BLOCKED.pack(*each) for each in blocks.items())
    return pack(BLOCK, token, payload, start=now)


def blocks(found: Record | None, now: float) -> dict[bytes, float]:
    """Return the invalidations that block a key, and the seconds that each has left:
    all of them, if the age of the record shows that another clock has written it."""
    if not isinstance(found, Record) or found.kind != BLOCK or found.end % 16:
        return {}
    each, age = dict(_BLOCKED.iter_unpack(found.raw[: found.end])), now - found.start
    if not 0 <= age < max(each.values(), default=0.0) + _LONGER:
        age = 0.0
    return {token: seconds - age for token, seconds in each.items() if seconds > age}


def token_of(raw: bytes) -> bytes:
    """Return the token of a record that is known to be one."""
    return raw[-TRAILER_SIZE:-FRESHNESS_SIZE]


def tokens(stored: list[Any]) -> bytes:
    """Return the tokens of tags as a record holds them, from the values stored under
    the keys of the tags; empty if one of them is no token."""
    found = bare_tokens(stored)
    return found + bytes((len(stored),)) if found else b""


def bare_tokens(stored: list[Any]) -> bytes:
    """Like :func:`tokens`, without their number."""
    found = b""
    for raw in stored:
        if type(raw) is not bytes or len(raw) != TRAILER_SIZE or raw[-2:] != _TAG_END:
            return b""
        found += token_of(raw)
    return found


def vouched(raw: bytes) -> bytes:
    """Return the record with the flag VOUCHED."""
    kind = int.from_bytes(raw[-2:], "little") | VOUCHED
    return raw[:-2] + kind.to_bytes(2, "little")


loads = pickle.loads


def dumps_exception(error: Exception) -> bytes:
    """Pickle ``error`` so that type, arguments and attributes survive.

    Pickle calls the class with ``args`` again, which a custom ``__init__`` may refuse
    or interpret differently (bpo-1692335). Where the round trip changes anything, the
    parts are pickled instead. Raise TypeError if they do not survive either.
    """
    for by_parts in (False, True):
        try:
            pickled = dumps(error, by_parts=by_parts)
            if _is_same(error, loads(pickled)):
                return pickled
        except Exception as trouble:  # the class decides what it raises
            reason = f"pickling it raises {type(trouble).__name__}"
        else:
            reason = "it comes back changed"
    raise TypeError(f"{type(error).__qualname__} cannot be stored: {reason}")


def _is_same(one: Any, other: Any) -> bool:
    """Return whether two values are equal as far as they can be compared: objects of a
    class without ``__eq__``, as an HTTP response, are compared by their class."""
    cls = type(one)
    if cls is not type(other):
        return False
    if isinstance(one, BaseException):
        states = [(e.args, vars(e), _state_in_c(e)) for e in (one, other)]
        return _is_same(*states)
    if cls in (tuple, list):
        return len(one) == len(other) and all(map(_is_same, one, other))
    if cls is dict:
        return one.keys() == other.keys() and all(
            _is_same(value, other[key]) for key, value in one.items()
        )
    if cast("Any", cls).__eq__ is object.__eq__:
        return True
    return bool(one == other or one != one)  # NaN


def _state_in_c(error: BaseException) -> Any:
    """Return state such as the filename of an OSError, which is not in its ``args``."""
    builtin = next(c for c in type(error).__mro__ if c.__module__ == "builtins")
    return cast("Any", builtin).__reduce__(error)[1:]


def cap(timeout: float) -> float:
    """Return a timeout as four bytes hold it; a longer one is unlimited."""
    if not timeout < 3e38:
        return math.inf
    rounded: float = _FLOAT.unpack(_FLOAT.pack(timeout))[0]
    return rounded
