"""Refreshes of stale or soon stale entries, while readers get the old value.

``CACHE_MEMOIZE["REFRESH"]`` says where the function runs: in a thread (for an async
function in a task of the running loop), in the caller that found the entry, or in a
worker of ``django.tasks``.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import json
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import copy_context
from typing import Any

from asgiref.sync import async_to_sync, sync_to_async
from django.db import connections
from django.utils import timezone, translation

from .. import process
from ..cache.store import Store, run
from ..conf import conf
from ..stats.counters import logger
from . import threads, transactions
from .call import Call, Claim
from .capture import Computation
from .settle import confirm, fail, postpone_refresh, settle, tell_failure

__all__ = ["arevalidate", "enqueue", "revalidate", "with_context"]

#: At most this many refreshes of async functions run at once, in all loops together.
TASKS = 100

_tasks: set[asyncio.Task[Claim]] = set()


process.at_thread_end(connections.close_all)


def _mode(call: Call) -> str:
    return conf().REFRESH if call.plan.context_travels else "inline"


# --- sync ----------------------------------------------------------------------------


def revalidate(call: Call, claim: Claim) -> Claim:
    """Have a found entry refreshed; return the claim that this caller is to serve."""
    mode = _mode(call)
    if mode == "task" and enqueue(call, claim):
        return claim
    if mode == "inline" or transactions.in_test_case():
        return _refresh(call, claim)
    job = functools.partial(_refresh, call, claim, apart=True)
    try:
        if not threads.submit(with_context(job)):
            run(postpone_refresh(call, claim, tried=False))
    except RuntimeError:  # no thread can be started: the process is ending
        return job()
    return claim


def _refresh(call: Call, claim: Claim, *, apart: bool = False) -> Claim:
    """Compute and store. If the function raises, the old value stays.

    :param apart: the caller that found the entry does not wait for the new value.
    """
    claim = run(confirm(call, _begin(call, claim), afresh=True))
    if claim.lease is None:
        return claim
    computation = Computation(claim.origins, apart=apart)
    try:
        result = call.function.func(*call.args, **call.kwargs)
    except BaseException as error:
        run(_ending_of(call, claim, error)(call.store))
        if not isinstance(error, Exception):
            raise
        return claim
    finally:
        computation.end()
    run(settle(call, claim, result))
    return claim._replace(found=None, value=result)


# --- async ---------------------------------------------------------------------------


async def arevalidate(call: Call, claim: Claim) -> Claim:
    """:func:`revalidate` for async functions."""
    mode = _mode(call)
    # A queue may write to a database, and run the task at once.
    if mode == "task" and await sync_to_async(enqueue)(call, claim):
        return claim
    if mode == "inline" or await transactions.ask_connections(
        call.store, transactions.in_test_case
    ):
        return await _arefresh(call, claim, [], apart=False)
    if len(_tasks) >= TASKS:
        await postpone_refresh(call, claim, tried=False)
        return claim
    endings: list[_Ending] = []
    task = asyncio.create_task(_arefresh(call, claim, endings))
    _tasks.add(task)  # the loop itself keeps no strong reference

    def go_on() -> None:
        if endings:
            run(endings[0](call.plan.store))
        else:
            async_to_sync(_arefresh)(call, claim, [])

    in_thread = with_context(go_on)

    def ended(task: asyncio.Task[Claim]) -> None:
        # The end of the loop cancels the task (under WSGI, a loop lives as long as one
        # request): then a thread finishes the refresh.
        _tasks.discard(task)
        if task.cancelled():
            with suppress(RuntimeError):  # the process is ending
                threads.submit(in_thread)
        elif error := task.exception():
            name = call.function.name
            logger.error("%s: a refresh failed", name, exc_info=error)

    task.add_done_callback(ended)
    return claim


async def _arefresh(
    call: Call, claim: Claim, endings: list[_Ending], *, apart: bool = True
) -> Claim:
    """Compute and store, as ``_refresh()``.

    What is to be done after the function goes into ``endings`` too: if this task is
    cancelled meanwhile, a thread does it.
    """
    claim = await confirm(call, _begin(call, claim), afresh=True)
    if claim.lease is None:
        return claim
    computation = Computation(claim.origins, apart=apart)
    try:
        result = await call.function.func(*call.args, **call.kwargs)
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        endings.append(_ending_of(call, claim, error))
        await endings[0](call.store)
        if not isinstance(error, Exception):
            raise
        return claim
    finally:
        computation.end()
    endings.append(lambda store: settle(call._replace(store=store), claim, result))
    await endings[0](call.store)
    return claim._replace(found=None, value=result)


# --- both ----------------------------------------------------------------------------


def _begin(call: Call, claim: Claim) -> Claim:
    """Return the claim with age and cost counted from now, not from its making."""
    return claim._replace(started=call.clock.time(), began=call.clock.monotonic())


def with_context(job: Callable[[], object]) -> Callable[[], None]:
    """Return ``job`` with the caller's context variables, language and time zone."""
    context = copy_context()
    language, zone = translation.get_language(), timezone.get_current_timezone()

    def work() -> None:
        with timezone.override(zone), translation.override(language):
            job()

    return functools.partial(context.run, work)


#: The rest of a refresh after the function, over an async or a sync store.
_Ending = Callable[[Store], Coroutine[Any, Any, None]]


def _ending_of(call: Call, claim: Claim, error: BaseException) -> _Ending:
    if isinstance(error, call.policy.cache_exceptions):
        return lambda store: fail(call._replace(store=store), claim, error)
    tell_failure(call, error)
    return lambda store: postpone_refresh(call._replace(store=store), claim, tried=True)


# --- django.tasks --------------------------------------------------------------------


def enqueue(call: Call, claim: Claim) -> bool:
    """Have a worker refresh this call. Return False, with a warning, if the call cannot
    be described to a worker: then a thread refreshes it."""
    function = call.function
    path = f"{function.func.__module__}:{function.func.__qualname__}"
    try:
        if call.plan.varies:
            raise TypeError("a worker does not know the values of vary_on=")
        args, kwargs = json.loads(json.dumps([call.args, call.kwargs], allow_nan=False))
        # With another key the worker would refresh another call: JSON turns a tuple
        # into a list, and a number as a key of a dict into a string.
        if call.plan.key_of(tuple(args), kwargs) != call.key:
            raise TypeError("JSON changes the arguments")
        worker = importlib.import_module("cache_memoize.tasks")
        if getattr(worker.find(path), "_memoized", None) is not function:
            raise TypeError(f"{path} is not this function, or not only this one")
        worker.refresh.enqueue(path, args, kwargs)
    except Exception as error:
        call.stats.warn_once(
            "the refresh cannot be a task, so a thread of this process does it", error
        )
        return False
    return True
