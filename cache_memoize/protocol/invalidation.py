"""Invalidation of a call or a tag, at once or at the commit.

Outside of transactions, a mark that the key is empty replaces the entry, or the lease
of a computation under way. Inside of one, a block replaces it, until the commit: other
callers compute from the old rows, and must not store. A block has the tokens of all
connections whose transactions have invalidated the key, and a commit takes away its
own. After a rollback the block expires by itself. In a cache in the database of the
transaction itself, the block is the last statement before the commit: else its row
would be locked until then, and other callers and transactions would wait for it.

The obvious scheme, to delete the key when the rows are written, is too early: another
caller may read the old rows, and store an old value for a whole timeout. To delete it
only after the commit leaves the old entry in place if the process dies in between. And
a deleted key takes an ``add`` that a client sent long ago, and has sent again since:
the lease of a computation from before would be back. The mark does not take it. Where
no command can be late (local memory, files, a database), the key is deleted.

Clients that hide failures ("nothing was deleted", by a server that is down) are not
believed: the write is read back.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..cache import record
from ..cache.connections import UNREAD, UNREADABLE, aliases
from ..cache.errors import CacheDidNotAnswer
from ..cache.record import CLEARED, CLEARED_FOR, Record, pack
from ..cache.store import AsyncStore, Store, run, store_of
from ..cache.tokens import PATIENCE
from ..conf import is_debug
from ..keys.tags import call_tags, may_be_returned, tag_key, tags_of, undeclared
from ..signals import Event
from ..stats.counters import announce, logger, note_invalidation
from ..stats.history import cause
from . import transactions
from .policy import BLOCK_FOR

if TYPE_CHECKING:
    from .call import Call

__all__ = [
    "ainvalidate_tags",
    "invalidate_call",
    "invalidate_key",
    "invalidate_tags",
    "renew_tags",
]

NO_TOKENS: frozenset[bytes] = frozenset()
#: The token of all blocks by ``hold=``; others are of connections to a database.
_HOLD = bytes(8)


class _Act(NamedTuple):
    """One invalidation."""

    #: The function, or the control, for messages.
    name: str
    #: The cause, for explanations.
    why: str
    key: str = ""
    #: Those that other results depend on, which were made with the entry.
    tags: Sequence[str] = ()
    #: Seconds after it takes effect for which nothing is stored.
    hold: float = 0.0


async def invalidate_key(
    store: Store, name: str, key: str, hold: float = 0.0, tags: Sequence[str] = ()
) -> None:
    """Invalidate the entry under ``key``, and the results of computations under way.

    Raises the error of the cache if that failed.

    :param name: the name of the function, or of the control, for messages.
    :param hold: seconds after it takes effect for which nothing is stored.
    :param tags: those that other results depend on, which were made with the entry.
    """
    blocked: list[float] = []
    here, act = store.in_sync(), _Act(name, cause(), key, tags, hold)
    at_commit = functools.partial(_invalidate_after_commit, here, act, blocked)

    def block(tokens: frozenset[bytes], each: str) -> None:
        if each == key:
            run(_block(here, act, tokens, blocked))
        else:
            run(_limit_tags(here, (each,)))

    # First, so that it is done at the commit even if the block fails.
    tokens = await transactions.ask_connections(
        store,
        transactions.run_at_commit,
        store.alias,
        (key, *tags),
        at_commit,
        block,
        store.database(),
    )
    if tokens:
        await _block(store, act, tokens, blocked)
        await _limit_tags(store, tags)
    elif tokens is None:
        await store.get(key)  # an error is raised here, and not at the commit
    else:
        await _invalidate_now(store, act)


async def invalidate_call(call: Call, *, variants: bool = False) -> None:
    """Invalidate the entry of a call, and the results that were made with it.

    :param variants: in all variants of ``vary_on=``.
    """
    name, hold, key = call.function.name, call.policy.hold, call.key
    if variants and call.plan.varies:
        key, _ = call_tags(
            call.function.prefix, call.plan.call_of(call.args, call.kwargs)
        )
    await invalidate_key(call.store, name, key, hold, call.own_tags())


async def renew_tags(
    store: Store,
    name: str,
    tags: Sequence[str],
    fails: Callable[[Exception], object] | None = None,
    *,
    beside: str | None = None,
    why: str = "",
) -> None:
    """Invalidate the entries that depend on tags, at once or at the commit.

    :param fails: gets the error of the cache after the commit, which is raised there
        otherwise: it would skip the project's own hooks.
    :param beside: a key that holds a record.
    :param why: the cause, for explanations; empty: the caller.
    """
    here, act = store.in_sync(), _Act(name, why or cause(), tags=tags)
    tokens = await transactions.ask_connections(
        store,
        transactions.run_at_commit,
        store.alias,
        tags,
        functools.partial(_renew_after_commit, here, act, fails),
        lambda tokens, tag: run(_limit_tags(here, (tag,))),
        store.database(),
    )
    if tokens:
        await _limit_tags(store, tags)
    elif tokens is not None:
        await _renew_now(store, act, beside)


async def _renew_now(store: Store, act: _Act, beside: str | None = None) -> None:
    """Give each tag that some entry depends on a new token."""
    await _mark_tags(store, act, beside)
    await store.tell(act.tags)


async def _mark_tags(store: Store, act: _Act, beside: str | None = None) -> None:
    """Replace the tokens of tags by marks.

    The answer of a client that hides errors may be empty. It is believed if the record
    under ``beside``, the last key, is in it; else a tag is missing if it takes a mark.
    """
    swallows = store.backend().swallows
    last = [beside] if beside and swallows and store.answers_in_order() else []
    found = await store.records([*act.tags, *last] if act.tags else [])
    is_proven = not swallows or (last and found.pop(last[0], None) is not None)
    for tag in () if is_proven else act.tags:
        mark = pack(CLEARED, store.clock.token())
        if tag not in found and not await store.add(tag, mark, CLEARED_FOR):
            await _mark(store, act.name, tag)
    await _mark_found(store, act, found)


async def _mark_found(store: Store, act: _Act, records: dict[str, Record]) -> None:
    for tag, found in records.items():
        await _mark(store, act.name, tag, found=found)
    if records:  # of the others no entry depended
        note_invalidation(store.alias, records, store.clock.time(), act.why)


async def _limit_tags(store: Store, tags: Sequence[str]) -> None:
    """Have the tags expire, in case this process dies right after the commit.

    Until then, entries that depend on them stay valid for others, unlike the entry that
    a block replaces: they may depend on a table that is written all the time.
    """
    for tag, found in (await store.records(tags)).items():
        is_tag = found is not UNREADABLE and found.kind == record.TAG
        if is_tag and store.backend().atomic:
            new = pack(record.TAG, found.token, cost=record.LIMITED)
            await store.swap(tag, found.raw, new, BLOCK_FOR)
    await store.tell(tags)


def _renew_after_commit(
    store: Store,
    act: _Act,
    fails: Callable[[Exception], object] | None,
    token: bytes,
) -> None:
    try:
        run(_renew_now(store, act))
    except Exception as error:
        if fails is None:
            raise
        fails(error)


async def _block(
    store: Store, act: _Act, tokens: frozenset[bytes], blocked: list[float]
) -> None:
    """Block a key for these invalidations; note the time, if that succeeds."""
    now = store.clock.monotonic()
    await _mark(store, act.name, act.key, adds=tokens, seconds=BLOCK_FOR)
    await store.tell([act.key, *act.tags])
    blocked.append(now)


def _invalidate_after_commit(
    store: Store, act: _Act, blocked: list[float], token: bytes
) -> None:
    """Invalidate after a commit, and take away its block, but no other.

    :param blocked: when the block began, in monotonic seconds; empty if there is none.
    """
    try:
        run(_invalidate_now(store, act, frozenset([token])))
    except Exception as error:
        # An error here would skip the project's own hooks. While the block lasts, there
        # is no old entry, and none can be stored.
        if not blocked or store.clock.monotonic() - blocked[0] >= BLOCK_FOR / 2:
            raise
        name = act.name
        logger.warning("%s: %r after the commit; the block will expire", name, error)


async def _invalidate_now(
    store: Store, act: _Act, drops: frozenset[bytes] = NO_TOKENS
) -> None:
    """Invalidate an entry, and what depends on the tags, which were made with it."""
    key, found = act.key, UNREAD
    adds = frozenset([_HOLD]) if act.hold else NO_TOKENS
    seen: dict[str, Record] = {}
    is_sure = not store.backend().swallows and store.answers_in_order()
    if act.tags and not act.hold and is_sure:
        seen = await store.records((key, *act.tags))
        found = seen.pop(key, None)
    if found is not UNREAD and _is_empty(found, swallows=False):
        # The key was read before its tags, or with them. There is no entry, and what
        # was made with one has had its tags before: they need no second look.
        await _mark_found(store, act, seen)
    else:
        terms: Any = {"adds": adds, "drops": drops, "seconds": math.ceil(act.hold)}
        await _mark(store, act.name, key, found=found, **terms)
        await _mark_tags(store, act, key)
    note_invalidation(store.alias, [key], store.clock.time(), act.why)
    await store.tell([key, *act.tags])


async def _mark(
    store: Store,
    name: str,
    key: str,
    *,
    adds: frozenset[bytes] = NO_TOKENS,
    drops: frozenset[bytes] = NO_TOKENS,
    seconds: float = 0.0,
    found: Any = UNREAD,
) -> None:
    """Replace an entry or a lease by a mark: a block, or that the key is empty.

    Raises an error if the key may still hold an entry.

    :param adds: the tokens of invalidations that block the key for ``seconds``.
    :param drops: those of invalidations that are done. The blocks of others stay.
    :param found: the record under the key, if that was read before.
    """
    swallows = store.backend().swallows
    trouble = None
    try:
        for attempt in range(PATIENCE):
            if attempt or found is UNREAD:
                found = await store.get(key)
            blocks = record.blocks(found, store.clock.time())
            if blocks and not adds and drops.isdisjoint(blocks):
                return  # while another invalidation blocks the key, it has no entry
            blocks |= dict.fromkeys(adds, seconds)
            blocks = {each: blocks[each] for each in blocks if each not in drops}
            if not blocks and _is_empty(found, swallows=swallows):
                return
            token = store.clock.token()
            try:
                if await _replace(store, key, found, token, blocks, attempt):
                    return
            except Exception:
                # A full server takes no mark, and some servers replace nothing.
                if not blocks and (await store.delete(key) or not swallows):
                    return
                if not swallows:
                    raise
            # No error does not mean success: the client may have given its server up
            # for a while. If the mark can be read back, the old entry is gone.
            found = await store.get(key)
            if isinstance(found, Record) and found.token == token:
                return
    except CacheDidNotAnswer as hidden:  # a time-out that the client hides
        trouble = hidden
    raise CacheDidNotAnswer(
        f"{name}: the cache {store.alias!r} does not keep what is written to it, so "
        "the old value may come back; call invalidate() again when the server answers"
    ) from trouble


async def _replace(
    store: Store,
    key: str,
    found: Record | None,
    token: bytes,
    blocks: dict[bytes, float],
    attempt: int,
) -> bool:
    """Replace what was found by a block, or by a mark that the key is empty. Return
    whether that is certain."""
    backend, seconds = store.backend(), CLEARED_FOR
    if blocks:
        new = record.pack_blocks(token, blocks, store.clock.time())
        seconds = math.ceil(max(blocks.values()))
    else:
        new = pack(CLEARED, token)
        if not backend.atomic and await store.delete(key):
            return True  # no writer of before has a voucher now
        if isinstance(found, Record) and not backend.late:
            # No command can arrive late: the key need not be marked.
            return await store.remove(key, found.raw)
    if attempt < PATIENCE // 2:
        if isinstance(found, Record):
            return await store.swap(key, found.raw, new, seconds) and backend.atomic
        if found is None:
            return await store.add(key, new, seconds) and backend.atomic
    # Some clients return None for a value that they cannot read, and some servers
    # replace nothing.
    await store.set(key, new, seconds)
    return False


def _is_empty(found: Record | None, *, swallows: bool) -> bool:
    """Return whether a key has nothing to be invalidated, for certain."""
    if found is None:
        return not swallows
    return found is not UNREADABLE and found.kind == CLEARED


# --- tags ----------------------------------------------------------------------------


def _open_stores(kind: type[Store], cache_alias: str | None) -> Iterable[Store]:
    for alias in aliases() if cache_alias is None else [cache_alias]:
        store = store_of(alias, kind)
        if store.backend().stores:
            yield store


async def _invalidate_tags(
    kind: type[Store], tags: tuple[str, ...], cache_alias: str | None
) -> None:
    """Invalidate in every cache, even if some fail; then raise the first error."""
    first_error: Exception | None = None
    names = tags_of(_one_by_one(tags), "invalidate_tags()")
    says = is_debug() and not may_be_returned()
    for tag in undeclared(names) if says else ():
        logger.warning(
            "invalidate_tags(): no function that is imported here has the tag %r", tag
        )
    for store in _open_stores(kind, cache_alias):
        for tag in names:
            try:
                key = tag_key(tag)
                await invalidate_key(store, "invalidate_tags()", key)
                announce(Event("invalidated", "invalidate_tags()", store.alias, key))
            except Exception as error:
                error.add_note(
                    f"invalidate_tags() in the cache {store.alias!r}; the others were "
                    "tried too. If no tagged function uses this cache, pass "
                    "cache_alias= with one that they use"
                )
                first_error = first_error or error
    if first_error is not None:
        raise first_error


def _one_by_one(tags: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse no tag, and a list of tags in place of tags."""
    if tags and not isinstance(tags[0], (list, tuple, set, frozenset)):
        return tags
    raise TypeError(
        "invalidate_tags() takes at least one tag, and each as an argument of its own: "
        'write invalidate_tags("a", "b"), or invalidate_tags(*tags) for a list that is '
        "not empty"
    )


def invalidate_tags(*tags: str, cache_alias: str | None = None) -> None:
    """Invalidate every call that has one of these tags, of any function.

    One key is deleted per tag and cache, however many calls have the tag.

    :param cache_alias: the only cache to invalidate in; None: all of
        ``settings.CACHES``, because only the functions know which one they use.
    :raises TypeError: without a tag, and for one that is not a string, or empty.
    :raises Exception: the error of the cache, or :exc:`CacheDidNotAnswer`.
    """
    run(_invalidate_tags(Store, tags, cache_alias))


async def ainvalidate_tags(*tags: str, cache_alias: str | None = None) -> None:
    """:func:`invalidate_tags` for async code."""
    await _invalidate_tags(AsyncStore, tags, cache_alias)
