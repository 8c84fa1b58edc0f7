"""``local="process"``, ``local=<seconds>``: copies of entries in the process's memory.

A hit on a server costs a round trip, of which all but a hundredth is the way. Copies in
the process's memory are the obvious cure, and the obvious trouble: another process may
invalidate what they are copies of. A copy is served only under a lease. With
``local="process"`` all copies of a cache have one lease, which holders.py keeps: while
it runs, no invalidation returns before this process has dropped its copy. With
``local=<seconds>`` each copy has a lease of its own, and what another process
invalidates is seen that much later. What this process writes is dropped at once.

A hit takes no lock. Whatever is dropped changes the generation, and a copy of what was
read before that is not kept.
"""

from __future__ import annotations

import atexit
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterable
from typing import Any, Protocol

from .. import process
from ..conf import NEAR, conf, on_change
from ..keys.tags import TaggedKey, common_group, group_of
from . import record
from .connections import (
    afetch,
    aread_with_tags,
    fetch,
    has_key_function,
    pick_entries,
    pick_entry,
    place_of,
    read_with_tags,
)
from .holders import Holder, Lease, known, may_be_held, tell
from .record import KIND_SIZE, TAIL, TRAILER_SIZE, freshness

__all__ = ["Near", "copies_of", "drop_everywhere", "drop_key", "may_have_copies"]

#: Bytes of a copy, at most.
LARGEST = 64 * 1024
_NO_TAGS: tuple[str, ...] = ()
#: Bytes that a copy takes besides its entry and its tags, about.
_OVERHEAD = 300


class _Copy:
    __slots__ = ("every", "lease", "raw", "tags", "used")

    def __init__(
        self, lease: Lease, raw: bytes, tags: tuple[str, ...], every: tuple[Any, ...]
    ) -> None:
        self.lease = lease
        self.raw = raw
        #: The tags of its call.
        self.tags = tags
        #: All tags that it depends on.
        self.every = every
        #: Whether it was served since it was last passed over for removal.
        self.used = False

    def size(self) -> int:
        return len(self.raw) + sum(map(len, self.every)) + _OVERHEAD


class Copies:
    """The copies of one cache, bounded in number and bytes.

    The oldest goes first, but those that were served since are passed over once.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self.by_place: OrderedDict[Any, _Copy] = OrderedDict()
        self.generation = 0
        self.size = 0
        self._most, self._most_bytes = most, most_bytes
        self._by_tag: dict[Any, set[Any]] = {}
        self._lock = threading.Lock()

    def keep(self, place: Any, copy: _Copy, generation: int) -> None:
        """Keep a copy of what was read in this generation, if that has not ended."""
        size = copy.size()
        if len(copy.raw) > LARGEST or size > self._most_bytes:
            return
        with self._lock:
            if generation != self.generation:
                return
            self._remove(place)
            while self.by_place and (
                len(self.by_place) >= self._most or self.size + size > self._most_bytes
            ):
                oldest, passed = next(iter(self.by_place.items()))
                if passed.used:
                    passed.used = False
                    self.by_place.move_to_end(oldest)
                else:
                    self._remove(oldest)
            self.by_place[place] = copy
            self.size += size
            for tag in copy.every:
                self._by_tag.setdefault(tag, set()).add(place)

    def drop(self, places: Iterable[Any]) -> None:
        """Drop the copies of these entries, and those that have one of these tags."""
        with self._lock:
            self.generation += 1
            for place in places:
                for each in (place, *self._by_tag.get(place, ())):
                    self._remove(each)

    def clear(self) -> None:
        with self._lock:
            self.generation += 1
            self.by_place.clear()
            self._by_tag.clear()
            self.size = 0

    def _remove(self, place: Any) -> None:
        copy = self.by_place.pop(place, None)
        if copy is None:
            return
        self.size -= copy.size()
        for tag in copy.every:
            having = self._by_tag[tag]
            having.discard(place)
            if not having:
                del self._by_tag[tag]


#: By alias.
_copies: dict[str, Copies] = {}


def copies_of(alias: str) -> Copies:
    """Return the copies of one cache."""
    found = _copies.get(alias)
    if found is None:
        bounds = NEAR | conf().NEAR
        found = _copies.setdefault(alias, Copies(bounds["entries"], bounds["bytes"]))
    return found


# --- reading -------------------------------------------------------------------------


class _Stats(Protocol):
    near: int


class Near:
    """The reads of one function, which look for copies first.

    :param kinds: of the records that are kept: those that a hit may return.
    :param seconds: of the lease of each copy; None: copies are served while this
        process is a holder.
    :param group: of the function.
    :param stats: counts as ``near`` what is served.
    :param source: has the function ``monotonic()``.
    """

    def __init__(
        self,
        alias: str,
        kinds: Iterable[int],
        seconds: float | None,
        group: str,
        stats: _Stats,
        source: Any,
    ) -> None:
        self._alias = alias
        self._ends = tuple(kind.to_bytes(KIND_SIZE, "little") for kind in kinds)
        self._seconds = seconds
        self._group = group
        self._stats = stats
        self._source = source
        self._copies = copies = copies_of(alias)
        self._get = copies.by_place.get
        self._is_plain = not has_key_function(alias)

    def fetch(self, alias: str, key: str) -> Any:
        """Do what ``fetch`` and ``fetch_tagged`` do."""
        raw = self._copy_of(key)
        if raw is None:
            begun = self._begin()
            raw, may_keep = _read(alias, key)
            self._keep(key, raw, may_keep, *begun)
        return raw

    async def afetch(self, alias: str, key: str) -> Any:
        raw = self._copy_of(key)
        if raw is None:
            begun = self._begin()
            raw, may_keep = await _aread(alias, key)
            self._keep(key, raw, may_keep, *begun)
        return raw

    def fetch_many(self, alias: str, keys: list[str]) -> dict[str, Any]:
        near, far = self._divide(keys)
        if not far:
            return near
        begun, found = self._begin(), read_with_tags(alias, far)
        return near | self._pick(far, found, *begun)

    async def afetch_many(self, alias: str, keys: list[str]) -> dict[str, Any]:
        near, far = self._divide(keys)
        if not far:
            return near
        begun, found = self._begin(), await aread_with_tags(alias, far)
        return near | self._pick(far, found, *begun)

    def _place(self, key: str) -> Any:
        return key if self._is_plain else place_of(self._alias, key)[1]

    def _copy_of(self, key: str) -> bytes | None:
        copy = self._get(key if self._is_plain else self._place(key))
        if (
            copy is None
            or self._source.monotonic() >= copy.lease.until
            or copy.tags is not _NO_TAGS
            and copy.tags != getattr(key, "tags", ())
        ):
            return None
        copy.used = True
        self._stats.near += 1
        return copy.raw

    def _divide(self, keys: list[str]) -> tuple[dict[str, Any], list[str]]:
        """Return the copies of these entries, and the keys that have none."""
        near = {key: raw for key in keys if (raw := self._copy_of(key)) is not None}
        return near, [key for key in keys if key not in near]

    def _begin(self) -> tuple[int, Lease]:
        """Return what a copy of an entry that is read from now on depends on."""
        if self._seconds is not None:
            lease = Lease(self._source.monotonic() + self._seconds)
        else:
            lease = holder_of(self._alias).lease
        return self._copies.generation, lease

    def _keep(
        self, key: str, raw: Any, may_keep: bool, generation: int, lease: Lease
    ) -> None:
        if type(raw) is not bytes or not raw.endswith(self._ends):
            return
        every: tuple[str, ...] = getattr(key, "all_tags", ())
        if not may_keep or self._source.monotonic() >= lease.until:
            return
        if self._seconds is None:
            groups = {self._group, *filter(None, map(group_of, every))}
            if not holder_of(self._alias).may_keep(groups):
                return
        tags = getattr(key, "tags", None) or _NO_TAGS
        copy = _Copy(lease, raw, tags, tuple(map(self._place, every)))
        self._copies.keep(self._place(str(key)), copy, generation)

    def _pick(
        self, keys: list[str], found: dict[str, Any], generation: int, lease: Lease
    ) -> dict[str, Any]:
        picked = pick_entries(keys, found)
        may_keep = not _is_limited(found.values())
        for key, raw in picked.items():
            self._keep(key, raw, may_keep, generation, lease)
        return picked


def _read(alias: str, key: str) -> tuple[Any, bool]:
    """Return the entry of a call, or what was read in its place, and whether a copy of
    it may be kept."""
    if not isinstance(key, TaggedKey):
        return fetch(alias, key), True
    found = read_with_tags(alias, [key])
    return pick_entry(key, found), not _is_limited(found.values())


async def _aread(alias: str, key: str) -> tuple[Any, bool]:
    if not isinstance(key, TaggedKey):
        return await afetch(alias, key), True
    found = await aread_with_tags(alias, [key])
    return pick_entry(key, found), not _is_limited(found.values())


def _is_limited(values: Iterable[Any]) -> bool:
    """Return whether one of these is a tag that a transaction is about to invalidate:
    if its process dies after the commit, the tag expires, but no holder is told."""
    return any(
        type(raw) is bytes
        and len(raw) == TRAILER_SIZE
        and freshness(raw[TAIL])[2:] == (record.LIMITED, record.TAG)
        for raw in values
    )


# --- writing -------------------------------------------------------------------------


def drop_key(alias: str, key: str) -> None:
    """Drop the copy of an entry, or all copies with a tag: it was written."""
    if copies := _copies.get(alias):
        copies.drop(_places(alias, [key]))


def may_have_copies(alias: str, tells: bool) -> bool:
    """Return whether this process, or another one, may have copies of the entries of a
    cache.

    :param tells: whether the server can tell processes of changes.
    """
    return alias in _copies or (tells and may_be_held(alias))


def drop_everywhere(alias: str, tells: bool, keys: Collection[str]) -> None:
    """Return when no process serves copies from before this call, of the entries under
    these keys and of those with these tags. Raises the error of the server."""
    places = _places(alias, keys)
    if copies := _copies.get(alias):
        copies.drop(places)
    if tells and may_be_held(alias):
        tell(alias, places, common_group(keys))


def _places(alias: str, keys: Iterable[str]) -> list[str]:
    if not has_key_function(alias):
        return [str(key) for key in keys]
    return [place_of(alias, key)[1] for key in keys]


_lock = threading.Lock()


def holder_of(alias: str) -> Holder:
    """Return this process as a holder of copies; its thread begins with the first
    call."""
    found = known.own.get(alias)
    if found is None:
        with _lock:
            found = known.own.get(alias) or Holder(alias, copies_of(alias))
    return found


def close() -> None:
    """Serve no copy any more."""
    for holder in [*known.own.values()]:
        holder.stop()
    known.reset()
    for copies in [*_copies.values()]:
        copies.clear()
    _copies.clear()


on_change(close)
on_change(close, "CACHES")


@process.after_fork
def _after_fork() -> None:
    """Start anew in a child, which has no thread: the lists know only the parent."""
    global _lock
    _lock = threading.Lock()
    for holder in known.own.values():  # of the parent, which stays on the list
        atexit.unregister(holder.leave)
    known.reset()
    _copies.clear()
