"""Audits: a share of the hits is computed again, and compared with what was served.

The fear of everybody who caches is a forgotten invalidation, and no test finds one that
its author did not think of. So the function runs again in the background, after a hit.
Another result alone proves nothing: a write may be committed, and its invalidation on
the way. It is a finding if, a moment later, the same entry still stands, and the
function still returns something else. The finding is counted, logged and healed: the
call is invalidated.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from asgiref.sync import async_to_sync
from django.db.models import Model, QuerySet

from .. import process
from ..cache.record import Record, dependencies
from ..cache.store import run
from ..conf import conf
from ..process import logger
from ..stats.history import acting
from . import threads, transactions
from .call import Call, decode, parsed
from .capture import Computation
from .invalidation import invalidate_call
from .refresh import with_context
from .tables import tables_with

__all__ = ["aaudit", "audit", "is_same"]

#: Seconds after which a commit must have invalidated what it has changed.
PAUSE = 1.0

#: Held by the audit of this process: one at a time, in case of slow functions.
_turn = threading.Lock()
_tasks: set[asyncio.Task[None]] = set()


def audit(call: Call, raw: bytes) -> None:
    """Have a hit audited, unless another one is. Raises nothing.

    :param raw: the entry that was served.
    """
    if _begin(call):
        _audit_apart(call, raw, call.function.func)


def _audit_apart(call: Call, raw: bytes, function: Callable[..., Any]) -> None:
    """Have a thread audit a hit, and end the turn."""

    async def compute() -> Any:
        return function(*call.args, **call.kwargs)

    def job() -> None:
        try:
            run(_audit(call, raw, compute))
        finally:
            _turn.release()

    if conf().REFRESH == "inline" or transactions.in_test_case():
        return job()
    try:
        if threads.submit(with_context(job)):
            return None
    except RuntimeError:  # the process is ending
        pass
    return _turn.release()


async def aaudit(call: Call, raw: bytes) -> None:
    """:func:`audit` for async functions: a task of the running loop does it."""
    if not _begin(call):
        return

    async def compute() -> Any:
        return await call.function.func(*call.args, **call.kwargs)

    task = asyncio.create_task(_audit(call, raw, compute))
    _tasks.add(task)  # the loop itself keeps no strong reference

    def ended(task: asyncio.Task[None]) -> None:
        _tasks.discard(task)
        if task.cancelled():  # its loop has ended, as each request's does under WSGI
            here = call._replace(store=call.plan.store)
            _audit_apart(here, raw, async_to_sync(call.function.func))
        else:
            _turn.release()

    task.add_done_callback(ended)
    if conf().REFRESH == "inline":
        await asyncio.wait([task])


def _begin(call: Call) -> bool:
    """Return whether a hit may be audited now. Not where the values of ``vary_on=`` do
    not travel to another thread."""
    return call.plan.context_travels and _turn.acquire(blocking=False)


async def _audit(call: Call, raw: bytes, compute: Callable[[], Awaitable[Any]]) -> None:
    entry, same = parsed(raw), call.policy.same or is_same
    try:
        for pause in (0.0, PAUSE):
            if pause:
                await call.store.sleep(pause)
            if not await _stands(call, entry):
                return
            computation = Computation(apart=True)
            try:
                result = await compute()
            finally:
                computation.end()
            if same(decode(entry), result):
                call.stats.audited += 1
                return
        if await _stands(call, entry):
            await _heal(call, entry)
    except Exception as error:  # of the function, of its values, or of the cache
        logger.debug("%s: an audit ended: %r", call.function.name, error)


async def _stands(call: Call, entry: Record) -> bool:
    """Return whether callers still get this entry."""
    look = await call.look()
    found, now = look.record, call.clock.time()
    if not isinstance(found, Record) or not found.is_fresh(now):
        return False
    same = found.token == entry.token and found.start == entry.start
    return same and found.tags == look.tags and look.valid


async def _heal(call: Call, entry: Record) -> None:
    tags = {*dependencies(entry.depends)[1], *call.plan.tables}
    tables = [f"the table {name}" for name in tables_with(tags)]
    more = f"{len(tags) - len(tables)} other tags or calls"
    call.stats.found_wrong(
        call.key, call.clock.time() - entry.start, ", ".join([*tables, more])
    )
    with acting("an audit"):
        await invalidate_call(call)


def is_same(one: Any, other: Any) -> bool:
    """Return whether two results are the same: rows by their fields; querysets, lists,
    tuples, dicts, and objects without an ``__eq__`` of their own by their contents;
    others by ``==``."""
    if isinstance(one, QuerySet):
        one, other = [*one], [*other]
    if type(one) is not type(other):
        return bool(one == other)
    if isinstance(one, Model):
        names = [field.attname for field in one._meta.concrete_fields]
        one, other = ({n: vars(m).get(n) for n in names} for m in (one, other))
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(is_same, one, other))
    if isinstance(one, Mapping):
        same = one.keys() == other.keys()
        return same and all(is_same(one[key], other[key]) for key in one)
    own = any("__eq__" in vars(each) for each in type(one).__mro__[:-1])
    if not own and one is not other:
        one, other = one.__reduce_ex__(4)[:3], other.__reduce_ex__(4)[:3]
        return all(map(is_same, one, other))
    return bool(one == other or (one != one and other != other))  # NaN


@process.after_fork
def _after_fork() -> None:
    """Begin without an audit: the thread of the parent's is not here."""
    global _turn
    _turn = threading.Lock()
    _tasks.clear()
