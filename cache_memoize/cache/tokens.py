"""The tokens of tags, and looks at the records of calls.

A record is valid only while its tags have the tokens that it holds. So a look at a
record is one at its tags too: those of the call, and those that the record names. A
missing tag gets a new token, and no record with the old one is valid any more.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from ..keys.tags import TaggedKey, young_key
from . import record
from .connections import UNREAD, UNREADABLE
from .record import Record

if TYPE_CHECKING:
    from .store import Store

__all__ = [
    "DAY",
    "FOR_EVER",
    "PATIENCE",
    "Look",
    "Terms",
    "look_after",
    "look_at",
    "read_tokens",
    "tokens_of",
]

DAY = 24 * 60 * 60.0
#: Reads in a row without waiting, after which the answers of a cache are taken to be
#: wrong.
PATIENCE = 8


class Look(NamedTuple):
    """The record under a key, and the present tokens of the tags of the call."""

    #: None: no value; ``UNREADABLE``: no value that this library has written.
    record: Record | None
    #: The tokens of the tags, as in a record; empty: the call has no tags. None: a tag
    #: is being invalidated, so no entry is valid, and none may be stored.
    tags: bytes | None = b""
    #: Whether one of the tags got its token less than ``hold`` seconds ago.
    is_young: bool = False
    #: The present tokens of the tags that the record depends on besides, by name.
    known: Mapping[str, bytes] = MappingProxyType({})
    #: Whether these are the tokens that the record has.
    valid: bool = True


class Terms(NamedTuple):
    """The terms of a look at tags."""

    #: Seconds for which the tokens are needed at least.
    kept: float = math.inf
    #: Seconds for which a token is young.
    hold: float = 0.0
    #: Whether missing tags get new tokens.
    may_write: bool = True


FOR_EVER = Terms()
ONLY_READ = Terms(may_write=False)

#: Kinds of records under the key of a tag.
_TAGS = frozenset({record.TAG, record.BLOCK, record.CLEARED})


async def look_at(store: Store, key: str, terms: Terms = FOR_EVER) -> Look:
    """Return the record under ``key`` and the tokens of its tags."""
    if not isinstance(key, TaggedKey):
        return await _with_dependencies(store, Look(await store.get(key)))
    marks = [young_key(tag) for tag in key.tags if terms.hold]
    found = await store.execute("read_many", [key, *key.all_tags, *marks])
    return await _resolve(store, key, found, terms)


async def look_after(
    store: Store, key: str, first: Any, terms: Terms = FOR_EVER
) -> Look:
    """Like :func:`look_at`, for what ``fetch`` has just read: ``first``."""
    if first is UNREAD or (terms.hold and isinstance(key, TaggedKey)):
        return await look_at(store, key, terms)
    if isinstance(first, dict) and isinstance(key, TaggedKey):
        return await _resolve(store, key, first, terms)
    found = store.read(key, first)
    if not isinstance(key, TaggedKey):
        return await _with_dependencies(store, Look(found))
    if found is None or found is UNREADABLE:
        return await look_at(store, key, terms)
    # fetch_tagged has compared all tokens
    known = record.dependencies(found.depends)[1]
    return Look(found, found.tags, known=known)


async def _resolve(
    store: Store, key: TaggedKey, found: dict[str, Any], terms: Terms
) -> Look:
    """Create a new token for each missing tag; entries with its old token are
    misses from then on."""
    tokens: bytes | None
    if terms.may_write:
        tags, is_young = await _ensure_tags(store, key.tags, found, terms)
        tokens = record.tokens([tag.raw for tag in tags])
    else:
        is_young = terms.hold > 0
        tokens = record.tokens([found.get(tag) for tag in key.tags])
    if key.tags and not tokens:
        tokens = None
    look = Look(store.read(key, found.get(key)), tokens, is_young)
    return await _with_dependencies(store, look, terms, found, key.expected.keys)


async def _with_dependencies(
    store: Store,
    look: Look,
    terms: Terms = ONLY_READ,
    read: Mapping[str, Any] = {},
    asked: Iterable[str] = (),
) -> Look:
    """Compare the tokens of the tags that a record depends on.

    :param read: the values that were read for the keys in ``asked``.
    """
    found = look.record
    if not isinstance(found, Record) or not found.depends:
        return look
    wanted = record.dependencies(found.depends)[1]
    if set(asked).issuperset(wanted):
        known = _tokens_in(read)
    else:
        known = await read_tokens(store, wanted)
    known = {name: known[name] for name in wanted if name in known}
    valid = known == wanted
    if not valid and terms.may_write:
        # The next result may depend on these tags too: their tokens from before it.
        missing = [name for name in wanted if name not in known and "\t" not in name]
        known |= (await tokens_of(store, missing, terms))[0] if missing else {}
    return look._replace(known=known, valid=valid)


async def read_tokens(store: Store, names: Iterable[str]) -> dict[str, bytes]:
    """Return the tokens of tags by their names, which start with the alias of
    another cache and a tab if the tag is not in this one. Left out are tags that
    are missing, or being invalidated."""
    found: dict[str, Any] = {}
    by_alias: dict[str, list[str]] = {}
    for name in names:
        alias, _, key = name.rpartition("\t")
        by_alias.setdefault(alias, []).append(key)
    for alias, keys in by_alias.items():
        there = store.beside(alias) if alias else store
        values = await there.execute("read_many", keys)
        head = f"{alias}\t" if alias else ""
        found |= {f"{head}{key}": value for key, value in values.items()}
    return _tokens_in(found)


async def tokens_of(
    store: Store, names: Collection[str], terms: Terms = FOR_EVER
) -> tuple[dict[str, bytes], bool]:
    """Return the tokens of tags, and whether one is young; a missing tag gets one
    now. Left out are tags that are being invalidated."""
    marks = [young_key(name) for name in names if terms.hold]
    found = await store.execute("read_many", [*names, *marks])
    tags, is_young = await _ensure_tags(store, names, found, terms)
    every = zip(names, tags, strict=True)
    tokens = {name: tag.token for name, tag in every if tag.kind == record.TAG}
    return tokens, is_young


async def _ensure_tags(
    store: Store, keys: Iterable[str], found: dict[str, Any], terms: Terms
) -> tuple[list[Record], bool]:
    """Return the records of tags, as :func:`_ensure_tag`, and whether one of their
    tokens is young."""
    hold, tags, is_young = record.cap(terms.hold), [], False
    terms = terms._replace(hold=hold)
    if not store.backend().atomic:  # to write a token again might bring it back
        terms = terms._replace(kept=math.inf)
    for tag in keys:
        before = store.read(tag, found.get(tag))
        present = await _ensure_tag(store, tag, before, terms)
        tags.append(present)
        is_same = (
            isinstance(before, Record)
            and before.token == present.token
            and before.cost >= hold
        )
        is_young |= not is_same or young_key(tag) in found
    return tags, hold > 0 and is_young


async def _ensure_tag(
    store: Store, tag: str, present: Record | None, terms: Terms
) -> Record:
    """Return the record of a tag: ``present``, or else one that was written now,
    with the same token if it has one.

    Clocks of hosts differ, so a mark tells that a token is young, until the server
    removes it; the cost of the record, that there was one for so many seconds.
    """
    for attempt in range(PATIENCE):
        if present is None:
            # Some clients return None for values that they cannot read.
            unusable = attempt == PATIENCE // 2
        else:
            unusable = present is UNREADABLE or present.kind not in _TAGS
            if not unusable and present.kind == record.BLOCK:
                return present
        if unusable:
            await store.delete(tag)
            present = None
        now, old, token, held = store.clock.time(), None, b"", 0.0
        kept = terms.kept + DAY
        if present is not None:
            old = present.raw
            if present.kind == record.TAG:
                if present.cost == record.LIMITED:
                    return present
                if present.cost >= terms.hold and present.lasts(now, terms.kept):
                    return present
                token = present.token if store.backend().atomic else b""
                kept = max(kept, min(present.remaining(now), present.timeout))
                held = present.cost
        token, hold = token or store.clock.token(), max(held, terms.hold)
        kept = record.cap(kept)
        new = record.pack(record.TAG, token, start=now, timeout=kept, cost=hold)
        if hold > held:
            await store.set(young_key(tag), new, hold)
        if await store.take(tag, old, new, kept):
            present = record.parse(new)
        else:
            present = await store.get(tag)
    raise store.no_answer(tag)


def _tokens_in(read: Mapping[str, Any]) -> dict[str, bytes]:
    tokens = {name: record.bare_tokens([value]) for name, value in read.items()}
    return {name: token for name, token in tokens.items() if token}
