"""The tokens of tags in a cache: made when one is missing, and kept for long enough.

The clocks of hosts differ, so both times of a token are measured by the server. A tag
is kept for longer than the entries that were stored with it: a miss renews it where it
might end too early. And as long as a token is young, for ``hold=``, there is a mark
under a second key. That there is none does not prove that there was one: so the cost in
the record of the tag is the number of seconds for which there was.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from ..keys.tags import TaggedKey, young_key
from . import record
from .connections import UNREADABLE
from .record import Record

__all__ = ["DAY", "FOR_EVER", "PATIENCE", "Look", "Terms", "resolve"]

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


class Terms(NamedTuple):
    """The terms of a look at tags."""

    #: Seconds for which the tokens are needed at least.
    kept: float = math.inf
    #: Seconds for which a token is young.
    hold: float = 0.0
    #: Whether missing tags get new tokens.
    may_write: bool = True


FOR_EVER = Terms()

#: Kinds of records under the key of a tag.
_TAGS = frozenset({record.TAG, record.BLOCK, record.CLEARED})

DAY = 24 * 60 * 60.0


async def resolve(
    store: Any, key: TaggedKey, found: dict[str, Any], terms: Terms
) -> Look:
    """Create a new token for each missing tag; entries with its old token are
    misses from then on."""
    mine, hold = store.read(key, found.get(key)), terms.hold
    if not terms.may_write:
        tokens = record.tokens([found.get(tag) for tag in key.tags])
        return Look(mine, tokens or None, hold > 0)
    if not store.backend().atomic:  # to write a token again might bring it back
        terms = terms._replace(kept=math.inf)
    tags, is_young = [], False
    for tag in key.tags:
        before = store.read(tag, found.get(tag))
        present = await _ensure_tag(store, tag, before, terms)
        tags.append(present.raw)
        is_same = (
            isinstance(before, Record)
            and before.token == present.token
            and before.cost >= hold
        )
        is_young |= not is_same or young_key(tag) in found
    return Look(mine, record.tokens(tags) or None, hold > 0 and is_young)


async def _ensure_tag(
    store: Any, tag: str, present: Record | None, terms: Terms
) -> Record:
    """Return the record of a tag: ``present``, or else one that was written now, with
    the same token if it has one."""
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
