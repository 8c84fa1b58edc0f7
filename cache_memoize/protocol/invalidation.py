"""Invalidation of a call or a tag, at once or at the commit.

Outside of transactions, the key is deleted, and with it the lease of a computation
under way. Inside of one, a block replaces it, and it is deleted at the commit: until
then other callers compute from the old rows, and must not store. After a rollback the
block expires by itself.

The obvious scheme, to delete the key when the rows are written, is too early: another
caller may read the old rows, and store an old value for a whole timeout. To delete it
only after the commit leaves the old entry in place if the process dies in between.

Clients that hide failures ("nothing was deleted", by a server that is down) are not
believed: the write is read back.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable

from ..cache.breaker import breaker_of
from ..cache.connections import UNREADABLE, aliases
from ..cache.errors import CacheDidNotAnswer
from ..cache.record import (
    BLOCK,
    FAILED,
    FAILED_FOR,
    Record,
    pack,
)
from ..cache.store import PATIENCE, AsyncStore, Store, run
from ..clock import Clock
from ..conf import is_debug
from ..keys.tags import may_be_returned, tag_key, tags_of, undeclared
from ..signals import Event
from ..stats.counters import announce, logger
from . import transactions
from .policy import BLOCK_FOR

__all__ = ["ainvalidate_tags", "invalidate_key", "invalidate_tags"]


async def invalidate_key(store: Store, name: str, key: str, hold: float = 0.0) -> None:
    """Invalidate the entry under ``key``, and the results of computations under way.

    Raises the error of the cache if that failed.

    :param name: the name of the function, or of the control, for messages.
    :param hold: seconds after it takes effect for which nothing is stored.
    """
    at_commit = functools.partial(
        _invalidate_after_commit, store, name, key, hold, store.clock.time()
    )
    # First, so that it is done at the commit even if the block fails.
    if await transactions.ask_connections(
        store, transactions.run_at_commit, store.alias, key, at_commit
    ):
        await _block_key(store, name, key, BLOCK_FOR)
    else:
        await _invalidate_now(store, name, key, hold)


def _invalidate_after_commit(
    store: Store, name: str, key: str, hold: float, blocked: float, last: bool
) -> None:
    """Invalidate after a commit; block again unless this was the last transaction that
    waited for the key. ``blocked`` is when the first block began, since the epoch."""
    here = Store(store.alias, store.breaker, store.clock)
    try:
        if last:
            run(_invalidate_now(here, name, key, hold))
        else:
            run(_block_key(here, name, key, BLOCK_FOR))
    except Exception as error:
        # An error here would skip the project's own hooks. While the block lasts, there
        # is no old entry, and none can be stored.
        if not 0 <= store.clock.time() - blocked < BLOCK_FOR / 2:
            raise
        logger.warning("%s: %r after the commit; the block will expire", name, error)


async def _invalidate_now(store: Store, name: str, key: str, hold: float) -> None:
    if hold:
        await _block_key(store, name, key, math.ceil(hold))
    else:
        await _delete_key(store, name, key)


async def _block_key(store: Store, name: str, key: str, seconds: int) -> None:
    """Replace the entry by a block: for ``seconds``, nothing is read or stored."""
    for _ in range(PATIENCE):
        await store.set(key, pack(BLOCK, store.clock.token()), seconds)
        if not store.backend().swallows:
            return
        # No error does not mean success: the client may have given its server up for a
        # while. The block of another caller is as good; ours may have been deleted.
        found = await store.get(key)
        if isinstance(found, Record) and found.kind == BLOCK:
            return
    raise _write_lost(store, name)


async def _delete_key(store: Store, name: str, key: str) -> None:
    """Delete the key; raise if it may still hold an entry."""
    for _ in range(PATIENCE):
        if await store.delete(key) or not store.backend().swallows:
            return
        # "Nothing was deleted" may come from a client that gave its server up for a
        # while. If a mark can be added, the key was empty; if it can be read back, the
        # old entry is gone. Otherwise the old entry may still be stored, on a server
        # that takes no writes.
        token = store.clock.token()
        mark = pack(FAILED, token)
        if not await store.add(key, mark, FAILED_FOR):
            await store.set(key, mark, FAILED_FOR)
            found = await store.get(key)
            if found is None or found is UNREADABLE or found.token != token:
                continue
        await store.delete(key)
        return
    raise _write_lost(store, name)


def _write_lost(store: Store, name: str) -> CacheDidNotAnswer:
    return CacheDidNotAnswer(
        f"{name}: the cache {store.alias!r} does not keep what is written to it, so "
        "the old value may come back; call invalidate() again when the server answers"
    )


# --- tags ----------------------------------------------------------------------------


def _open_stores(kind: type[Store], cache_alias: str | None) -> Iterable[Store]:
    for alias in aliases() if cache_alias is None else [cache_alias]:
        store = kind(alias, breaker_of(alias), Clock())
        if store.backend().stores:
            yield store


async def _invalidate_tags(
    kind: type[Store], tags: Iterable[str], cache_alias: str | None
) -> None:
    """Invalidate in every cache, even if some fail; then raise the first error."""
    first_error: Exception | None = None
    names = tags_of(tuple(tags), "invalidate_tags()")
    if not names:
        raise TypeError(
            "invalidate_tags() takes at least one tag; to invalidate every call of a "
            "function, write f.invalidate_all()"
        )
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
