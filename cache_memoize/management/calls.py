"""``manage.py memoize key``, ``peek``, ``refresh`` and ``invalidate``."""

from __future__ import annotations

import json
import pprint
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from django.core.management.base import CommandError, OutputWrapper

from ..cache.connections import aliases, opened, place_of
from ..memoized import Memoized
from ..planning import Function, Plan, plan_of
from ..protocol import threads
from ..protocol.invalidation import invalidate_tags
from ..protocol.refresh import with_context
from .naming import (
    arguments,
    check_alias,
    find,
    find_bound,
)
from .outcome import Options, Outcome, duration
from .trouble import (
    cache_errors,
    noticing,
    probe,
    settings_errors,
    tell_own_memory,
)

__all__ = ["invalidate", "key", "peek", "refresh"]


class _Named(NamedTuple):
    """One call, as it was written on the command line."""

    name: str
    function: Memoized[Any, Any, Any]
    memoized: Function
    plan: Plan
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    key: str


def _call(options: Options) -> _Named:
    name, (args, kwargs) = options["name"], arguments(options["arguments"])
    function = find_bound(name, options["instance"])
    memoized: Function = function._memoized
    with settings_errors():
        plan = plan_of(memoized)
    check_alias(plan.alias)
    try:
        key = function.get_cache_key(*args, **kwargs)
    except Exception as error:
        raise CommandError(f"{name}: {type(error).__name__}: {error}") from error
    return _Named(name, function, memoized, plan, args, kwargs, key)


def key(options: Options, stderr: OutputWrapper) -> Outcome:
    call = _call(options)
    with cache_errors(call.plan.alias):
        full = str(place_of(call.plan.alias, call.key)[1])
    result = {"name": call.name, "alias": call.plan.alias}
    return Outcome(result | {"key": call.key, "full_key": full}, [call.key])


def peek(options: Options, stderr: OutputWrapper) -> Outcome:
    call = _call(options)
    alias = call.plan.alias
    with cache_errors(alias), noticing(call.memoized.path) as troubles:
        found = call.function.peek(*call.args, **call.kwargs)
    tell_own_memory(options, stderr, alias)
    if found is None:
        why = troubles[0] if troubles else _idle(call.plan)
        if why or opened(alias)[1].swallows:
            probe(alias)
        why = why and f": {why}"
        return Outcome(None, [], f"nothing is stored for this call of {call.name}{why}")
    result = {
        "name": call.name,
        "value": _as_json(found.value),
        "repr": repr(found.value),
        "age": found.age,
        "stale": found.stale,
    }
    lines = [
        pprint.pformat(found.value, sort_dicts=False),
        f"age {found.age:,.1f} s, {'stale' if found.stale else 'fresh'}",
    ]
    return Outcome(result, lines)


def _idle(plan: Plan) -> str:
    """Why nothing is read and stored, whatever is there; empty: that is not so."""
    if not plan.policy.enabled:
        return "CACHE_MEMOIZE['ENABLED'] is False"
    if plan.breaker.tripped:
        return "the cache did not work just now, and is left alone for some seconds"
    return ""


def _as_json(value: Any) -> Any:
    """``value`` if JSON can say it; else None."""
    try:
        return (
            value if json.loads(json.dumps(value, allow_nan=False)) == value else None
        )
    except (TypeError, ValueError, RecursionError):
        return None


def refresh(options: Options, stderr: OutputWrapper) -> Outcome:
    call = _call(options)
    began = time.monotonic()
    with noticing(call.memoized.path) as troubles:
        try:
            _refresh(call)
        except Exception as error:
            if troubles:
                probe(call.plan.alias)
            raise CommandError(
                f"{call.name} raised {type(error).__name__}: {error}; "
                "--traceback shows where"
            ) from error
        seconds = time.monotonic() - began
        stored = call.function.peek(*call.args, **call.kwargs) is not None
    tell_own_memory(options, stderr, call.plan.alias)
    result = {"name": call.name, "seconds": seconds, "stored": stored}
    took = f"{call.name} took {duration(seconds)}"
    if stored and not troubles:
        return Outcome(result, [f"{took}; the result is stored"])
    why = troubles[0] if troubles else _idle(call.plan)
    probe(call.plan.alias)
    why = why or "see its timeout= and cache_if="
    return Outcome(result | {"stored": False}, [], f"{took}, but is not stored: {why}")


def _refresh(call: _Named) -> None:
    def work() -> None:
        call.function.refresh(*call.args, **call.kwargs)

    if not call.memoized.is_async:
        work()
        return

    def aside() -> None:
        try:
            work()
        finally:
            threads.clean_up()

    # Ctrl-C would leave a coroutine that waits for this thread waiting for ever.
    with ThreadPoolExecutor(1) as executor:
        executor.submit(with_context(aside)).result()


# --- forgetting ----------------------------------------------------------------------


def invalidate(options: Options, stderr: OutputWrapper) -> Outcome:
    name, tags, alias = options["name"], options["tags"], options["alias"]
    if bool(name) == bool(tags):
        raise CommandError(
            "name one function, or give --tag; to forget every call of a function, "
            "write its name and --all"
        )
    if alias and not tags:
        raise CommandError("--alias goes with --tag; a function knows its own cache")
    if tags:
        done = _invalidate_tags(tags, alias)
        tell_own_memory(options, stderr, *([alias] if alias else sorted(aliases())))
        return done
    if not options["all"]:
        call = _call(options)
        with cache_errors(call.plan.alias):
            call.function.invalidate(*call.args, **call.kwargs)
        tell_own_memory(options, stderr, call.plan.alias)
        return Outcome(
            {"name": name, "forgot": "call"}, [f"one call of {name} is forgotten"]
        )
    if options["arguments"] or options["instance"]:
        raise CommandError("--all forgets every call; leave the arguments out")
    function = find(name)
    with settings_errors():
        plan = plan_of(function._memoized)
    if plan.tag is None:
        raise CommandError(
            f"{name} has no tags, so nothing says which entries are its own; write "
            "tags=() in its cache_memoize()"
        )
    check_alias(plan.alias)
    with cache_errors(plan.alias):
        function.invalidate_all()
    tell_own_memory(options, stderr, plan.alias)
    return Outcome(
        {"name": name, "forgot": "all"}, [f"every call of {name} is forgotten"]
    )


def _invalidate_tags(tags: list[str], alias: str | None) -> Outcome:
    if alias:
        check_alias(alias)
    with cache_errors(alias or "(any)"):
        try:
            invalidate_tags(*tags, cache_alias=alias)
        except TypeError as error:
            raise CommandError(str(error)) from error
    where = f"the cache {alias!r}" if alias else "all caches"
    return Outcome(
        {"tags": tags, "alias": alias, "forgot": "tags"},
        [f"every call with {', '.join(map(repr, tags))} is forgotten, in {where}"],
    )
