"""Where a value that is to be refreshed is computed, while readers get the old one.

``CACHE_MEMOIZE["REFRESH"]``: in a thread (for an async function in a task of the
running loop), by the caller that found it, or by ``django.tasks``.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import json
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from contextvars import copy_context
from typing import Any

from asgiref.sync import async_to_sync, sync_to_async
from django.db import connections
from django.utils import timezone, translation

from .. import conf, process
from ..cache.store import AsyncStore, Store, run
from ..stats.counters import logger
from . import settle, threads, transactions
from .call import Claim, Memo, computing

__all__ = ["Refreshable", "arevalidate", "enqueue", "revalidate"]

#: So many refreshes of async functions run at once, in all loops of this process.
TASKS = 100

_tasks: set[asyncio.Task[Claim]] = set()


class Refreshable(Memo):
    """What a refresh needs to know of a memoized function."""

    key_of: Callable[[Any, Any], str]
    #: What the key depends on besides the arguments; and whether a thread knows it.
    varies: bool
    travels: bool
    store: Store
    astore: AsyncStore


process.at_thread_end(connections.close_all)

#: Enters the language and the time zone of when it was made.
_Place = Callable[[], AbstractContextManager[None]]


def _place() -> _Place:
    language, zone = translation.get_language(), timezone.get_current_timezone()

    @contextmanager
    def again() -> Iterator[None]:
        with timezone.override(zone), translation.override(language):
            yield

    return again


# --- sync ----------------------------------------------------------------------------


def _mode(memo: Refreshable) -> str:
    return str(conf.get("REFRESH")) if memo.travels else "inline"


def revalidate(memo: Refreshable, claim: Claim, args: Any, kwargs: Any) -> Claim:
    """See to a new value for ``claim``; gives what this caller is to be served."""
    mode = _mode(memo)
    if mode == "task" and enqueue(memo, claim, args, kwargs):
        return claim
    if mode == "inline" or transactions.in_test_case():
        return _refresh(memo, claim, args, kwargs)
    job = functools.partial(_refresh, memo, claim, args, kwargs)
    try:
        if not threads.submit(with_context(job)):
            run(settle.postpone(memo, memo.store, claim, tried=False))
    except RuntimeError:  # no thread can be started: the process is ending
        return job()
    return claim


def with_context(job: Callable[[], object]) -> Callable[[], None]:
    """``job`` with the caller's context variables, language and time zone."""
    context, again = copy_context(), _place()

    def work() -> None:
        with again():
            job()

    return functools.partial(context.run, work)


def _refresh(memo: Refreshable, claim: Claim, args: Any, kwargs: Any) -> Claim:
    """Compute and store. Whatever the function raises leaves the old value."""
    claim, again = _begun(memo, claim), _place()
    if _have_changed(memo, claim, args, kwargs):
        run(settle.postpone(memo, memo.store, claim, tried=False))
        return claim
    nested = computing.set(True)
    try:
        result = memo.function(*args, **kwargs)
        _unchanged(memo, claim, args, kwargs, again)
    except BaseException as error:
        run(_failed(memo, claim, error, args, kwargs)(memo.store))
        if not isinstance(error, Exception):
            raise
        return claim
    finally:
        computing.reset(nested)
    run(settle.settle(memo, memo.store, claim, result, args, kwargs))
    return _served(memo, claim, result, args, kwargs)


# --- async ---------------------------------------------------------------------------


async def arevalidate(memo: Refreshable, claim: Claim, args: Any, kwargs: Any) -> Claim:
    mode = _mode(memo)
    # A queue may write to a database, and run the task at once.
    if mode == "task" and await sync_to_async(enqueue)(memo, claim, args, kwargs):
        return claim
    store = memo.astore
    if mode == "inline" or await transactions.ask(store, transactions.in_test_case):
        return await _arefresh(memo, claim, args, kwargs, [])
    if len(_tasks) >= TASKS:
        await settle.postpone(memo, memo.astore, claim, tried=False)
        return claim
    done: list[_Ending] = []
    task = asyncio.create_task(_arefresh(memo, claim, args, kwargs, done))
    _tasks.add(task)  # the loop itself keeps no strong reference

    def go_on() -> None:
        if done:
            run(done[0](memo.store))
        else:
            async_to_sync(_arefresh)(memo, claim, args, kwargs, [])

    in_thread = with_context(go_on)

    def ended(task: asyncio.Task[Claim]) -> None:
        # Not by the request that started it, but with the loop, which under WSGI
        # lives as long as one request: then a thread goes on.
        _tasks.discard(task)
        if task.cancelled():
            with suppress(RuntimeError):  # the process is ending
                threads.submit(in_thread)
        elif error := task.exception():
            logger.error("%s: a refresh failed", memo.name, exc_info=error)

    task.add_done_callback(ended)
    return claim


async def _arefresh(
    memo: Refreshable, claim: Claim, args: Any, kwargs: Any, done: list[_Ending]
) -> Claim:
    """Leaves in ``done`` what remains to be done once the function has ended: this
    task may be cancelled in the middle of that."""
    claim, again = _begun(memo, claim), _place()
    if _have_changed(memo, claim, args, kwargs):
        await settle.postpone(memo, memo.astore, claim, tried=False)
        return claim
    nested = computing.set(True)
    try:
        result = await memo.function(*args, **kwargs)
        _unchanged(memo, claim, args, kwargs, again)
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        done.append(_failed(memo, claim, error, args, kwargs))
        await done[0](memo.astore)
        if not isinstance(error, Exception):
            raise
        return claim
    finally:
        computing.reset(nested)
    done.append(lambda to: settle.settle(memo, to, claim, result, args, kwargs))
    await done[0](memo.astore)
    return _served(memo, claim, result, args, kwargs)


# --- both ----------------------------------------------------------------------------


def _begun(memo: Memo, claim: Claim) -> Claim:
    """Age and cost count from now, not from when the refresh was asked for."""
    return claim._replace(started=memo.clock.time(), began=memo.clock.monotonic())


class _ArgumentsChanged(Exception):
    pass


def _have_changed(memo: Refreshable, claim: Claim, args: Any, kwargs: Any) -> bool:
    """The caller went on with its objects: the result must not get the old key."""
    return memo.key_of(args, kwargs) != claim.key


def _unchanged(
    memo: Refreshable, claim: Claim, args: Any, kwargs: Any, again: _Place
) -> None:
    with again():  # the function may have activated another language
        changed = _have_changed(memo, claim, args, kwargs)
    if changed:
        raise _ArgumentsChanged("the arguments were changed during the refresh")


#: What remains to be done: a flow over whichever store.
_Ending = Callable[[Store], Coroutine[Any, Any, None]]


def _failed(
    memo: Memo, claim: Claim, error: BaseException, args: Any, kwargs: Any
) -> _Ending:
    if isinstance(error, memo.policy.cache_exceptions):
        return lambda to: settle.fail(memo, to, claim, error, args, kwargs)
    logger.warning(
        "%s: a refresh failed; the old value is served until it is too old",
        memo.name,
        exc_info=error,
    )
    return lambda to: settle.postpone(memo, to, claim, tried=True)


def _served(
    memo: Refreshable, claim: Claim, result: Any, args: Any, kwargs: Any
) -> Claim:
    if memo.miss is not None:
        memo.stats.hook(memo.miss, args, kwargs)
    return claim._replace(found=None, value=result)


# --- django.tasks --------------------------------------------------------------------


def enqueue(memo: Refreshable, claim: Claim, args: Any, kwargs: Any) -> bool:
    """Have a worker refresh this call; False, with a warning, when it cannot be told
    which one: then a thread does it."""
    function = memo.function
    path = f"{function.__module__}:{function.__qualname__}"
    try:
        if memo.varies:
            raise TypeError("a worker does not know what vary_on= gives here")
        again = json.loads(json.dumps([args, kwargs], allow_nan=False))
        # The same key, or the worker would refresh another call: a tuple comes back
        # as a list, and a number as a key of a dict as a string.
        if memo.key_of(tuple(again[0]), again[1]) != claim.key:
            raise TypeError("the arguments do not come through JSON unchanged")
        worker = importlib.import_module("cache_memoize.tasks")
        if getattr(worker.find(path), "_core", None) is not memo:
            raise TypeError(f"{path} is not this function, or not only this one")
        worker.refresh.enqueue(path, *again)
    except Exception as error:
        memo.stats.warn_once(
            "the refresh cannot be a task, so a thread of this process does it", error
        )
        return False
    return True
