"""Forgetting: a call, a tag, and when it takes effect.

Outside of transactions at once. Inside of one the key is blocked at once, so that
nobody stores what is computed from the old rows, and it is deleted at the commit.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable

from ..cache.breaker import breaker_of
from ..cache.connections import UNREADABLE, aliases
from ..cache.record import (
    BLOCK,
    FAILED,
    FAILED_FOR,
    Record,
    pack,
)
from ..cache.store import (
    PATIENCE,
    AsyncStore,
    CacheDidNotAnswer,
    Store,
    run,
)
from ..clock import Clock
from ..keys.tags import tag_key, tags_of
from ..signals import Event
from ..stats.counters import announce, logger
from . import transactions
from .policy import BLOCK_FOR

__all__ = ["ainvalidate_tags", "invalidate_key", "invalidate_tags"]


async def invalidate_key(store: Store, name: str, key: str, hold: float = 0.0) -> None:
    """Forget what stands under ``key``, and what any computation would store there.

    For ``hold`` seconds after it takes effect nothing is stored.

    Raises what kept it from being forgotten.
    """
    at_commit = functools.partial(
        _at_commit, store, name, key, hold, store.clock.time()
    )
    # First, so that it is done at the commit whatever happens here.
    if await transactions.ask_connections(
        store, transactions.run_at_commit, store.alias, key, at_commit
    ):
        await _block(store, name, key, BLOCK_FOR)
    else:
        await _invalidate(store, name, key, hold)


def _at_commit(
    store: Store, name: str, key: str, hold: float, blocked: float, last: bool
) -> None:
    """The transaction is committed. ``last``: and no other one waits for this key."""
    here = Store(store.alias, store.breaker, store.clock)
    try:
        if last:
            run(_invalidate(here, name, key, hold))
        else:
            run(_block(here, name, key, BLOCK_FOR))
    except Exception as error:
        # An error here would skip the project's own hooks. While the block stands,
        # nothing old is there, and none can come.
        if not 0 <= store.clock.time() - blocked < BLOCK_FOR / 2:
            raise
        logger.warning("%s: %r after the commit; the block will run out", name, error)


async def _invalidate(store: Store, name: str, key: str, hold: float) -> None:
    if hold:
        await _block(store, name, key, math.ceil(hold))
    else:
        await _delete(store, name, key)


async def _block(store: Store, name: str, key: str, seconds: int) -> None:
    """Nothing counts under this key, and nobody stores there, for so long."""
    for _ in range(PATIENCE):
        await store.set(key, pack(BLOCK, store.clock.token()), seconds)
        if not store.backend().swallows:
            return
        # That nothing was said may be a client that gave its server up for a while.
        # Somebody else's block will do as well; and somebody may have deleted ours.
        there = await store.get(key)
        if isinstance(there, Record) and there.kind == BLOCK:
            return
    raise _lost(store, name)


async def _delete(store: Store, name: str, key: str) -> None:
    """Delete, and raise whatever kept it from being deleted."""
    for _ in range(PATIENCE):
        if await store.delete(key) or not store.backend().swallows:
            return
        # "Nothing was deleted" may be a client that gave its server up for a while. A
        # mark that could be added shows that nothing was there; one that can be read
        # back, that whatever was there is gone. Anything else may be what was there
        # before, on a server that takes no writes.
        token = store.clock.token()
        mark = pack(FAILED, token)
        if not await store.add(key, mark, FAILED_FOR):
            await store.set(key, mark, FAILED_FOR)
            there = await store.get(key)
            if there is None or there is UNREADABLE or there.token != token:
                continue
        await store.delete(key)
        return
    raise _lost(store, name)


def _lost(store: Store, name: str) -> CacheDidNotAnswer:
    return CacheDidNotAnswer(
        f"{name}: the cache {store.alias!r} does not keep what is written to it, so "
        "the old value may come back; call invalidate() again when the server answers"
    )


# --- tags ----------------------------------------------------------------------------


def _stores(kind: type[Store], cache_alias: str | None) -> Iterable[Store]:
    for alias in aliases() if cache_alias is None else [cache_alias]:
        store = kind(alias, breaker_of(alias), Clock())
        if store.backend().stores:
            yield store


async def _invalidate_tags(
    kind: type[Store], tags: Iterable[str], cache_alias: str | None
) -> None:
    """In every cache, whatever happens in another; then raise the first trouble."""
    trouble: Exception | None = None
    names = tags_of(tuple(tags), "invalidate_tags()")
    for store in _stores(kind, cache_alias):
        for tag in names:
            try:
                key = tag_key(tag)
                await invalidate_key(store, "invalidate_tags()", key)
                announce(Event("invalidated", "invalidate_tags()", store.alias, key))
            except Exception as error:
                error.add_note(
                    f"invalidate_tags() in the cache {store.alias!r}; the others were "
                    "seen to. If no tagged function uses it, name those that they do: "
                    "cache_alias="
                )
                trouble = trouble or error
    if trouble is not None:
        raise trouble


def invalidate_tags(*tags: str, cache_alias: str | None = None) -> None:
    """Forget every call that has one of these tags, of whatever function.

    One key is deleted per tag and cache, however many calls have it.

    :param cache_alias: the one cache to do this in; None: all that are in
        ``settings.CACHES``, because only the functions know where they are stored.
    :raises TypeError: for a tag that is not a string with something in it.
    :raises Exception: what the cache raised, or :exc:`CacheDidNotAnswer`.
    """
    run(_invalidate_tags(Store, tags, cache_alias))


async def ainvalidate_tags(*tags: str, cache_alias: str | None = None) -> None:
    """:func:`invalidate_tags` for async code."""
    await _invalidate_tags(AsyncStore, tags, cache_alias)
