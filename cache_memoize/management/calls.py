"""The parts of ``manage.py memoize`` for single calls, and ``clear``."""

from __future__ import annotations

import json
import pprint
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple

from django.core.checks import Tags, run_checks
from django.core.management.base import CommandError, OutputWrapper

from .. import process
from ..arguments import parse_words
from ..cache.connections import aliases, opened, place_of
from ..describe import (
    FunctionInfo,
    describe_error,
    format_duration,
    list_functions,
)
from ..keys.tags import may_be_returned, undeclared
from ..protocol.invalidation import invalidate_tags
from ..protocol.refresh import with_context
from . import Options, Outcome, waiting_for
from .naming import check_alias, find_bound, find_function, select_functions
from .trouble import cache_errors, notice_errors, probe_cache, warn_of_own_memory


class _Call(NamedTuple):
    """One call, as it is written on the command line."""

    name: str
    info: FunctionInfo
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    key: str

    def use_control(self, control: str) -> Any:
        """Use a control of the function, such as "peek", for this call."""
        return getattr(self.info.memoized, control)(*self.args, **self.kwargs)


def _read_call(options: Options) -> _Call:
    name = options["name"]
    try:
        args, kwargs = parse_words(options["arguments"])
    except ValueError as error:
        raise CommandError(str(error)) from error
    info = find_bound(name, options["instance"])
    check_alias(info.alias)
    try:
        key = info.memoized.get_cache_key(*args, **kwargs)
    except Exception as error:
        raise CommandError(f"{name}: {describe_error(error)}") from error
    return _Call(name, info, args, kwargs, key)


def show_key(options: Options, stderr: OutputWrapper) -> Outcome:
    call = _read_call(options)
    alias = call.info.alias
    with cache_errors(alias):
        full = str(place_of(alias, call.key)[1])
    result = {"name": call.name, "alias": alias, "key": call.key, "full_key": full}
    return Outcome(result, [call.key])


def explain_call(options: Options, stderr: OutputWrapper) -> Outcome:
    call = _read_call(options)
    warn_of_own_memory(options, stderr, call.info.alias)
    found = call.use_control("explain")
    result = {**vars(found), "reason": found.reason._asdict()}
    return Outcome(result, str(found).splitlines())


def peek_call(options: Options, stderr: OutputWrapper) -> Outcome:
    call = _read_call(options)
    alias = call.info.alias
    with cache_errors(alias), notice_errors(call.info) as troubles:
        found = call.use_control("peek")
    warn_of_own_memory(options, stderr, alias)
    if found is None:
        reason = troubles[0] if troubles else _explain_idle(call.info)
        if reason or opened(alias)[1].swallows:
            probe_cache(alias)
        reason = reason and f": {reason}"
        error = f"nothing is stored for this call of {call.name}{reason}"
        return Outcome(None, [], error)
    result = {
        "name": call.name,
        "value": _find_json(found.value),
        "repr": repr(found.value),
        "age": found.age,
        "stale": found.stale,
    }
    lines = [
        pprint.pformat(found.value, sort_dicts=False),
        f"age {found.age:,.1f} s, {'stale' if found.stale else 'fresh'}",
    ]
    return Outcome(result, lines)


def _explain_idle(info: FunctionInfo) -> str:
    """Return why nothing is read or stored at present; empty if that is not so."""
    if not info.enabled:
        return "CACHE_MEMOIZE['ENABLED'] is False"
    if info.breaker.tripped:
        return "the cache has failed, and is not used for some seconds"
    return ""


def _find_json(value: Any) -> Any:
    """Return `value` if JSON can represent it, else None."""
    try:
        same = json.loads(json.dumps(value, allow_nan=False)) == value
    except (TypeError, ValueError, RecursionError):
        return None
    return value if same else None


def refresh_call(options: Options, stderr: OutputWrapper) -> Outcome:
    call = _read_call(options)
    alias = call.info.alias
    began = time.monotonic()
    with notice_errors(call.info) as troubles:
        try:
            _run_refresh(call, stderr)
        except Exception as error:
            if troubles:
                probe_cache(alias)
            raise CommandError(
                f"{call.name} raised {describe_error(error)}; --traceback shows where"
            ) from error
        seconds = time.monotonic() - began
        stored = call.use_control("peek") is not None and not troubles
    warn_of_own_memory(options, stderr, alias)
    result = {"name": call.name, "seconds": seconds, "stored": stored}
    took = f"{call.name} took {format_duration(seconds)}"
    if stored:
        return Outcome(result, [f"{took}; the result is stored"])
    reason = troubles[0] if troubles else _explain_idle(call.info)
    probe_cache(alias)
    reason = reason or "see its timeout= and cache_if="
    return Outcome(result, [], f"{took}; the result is not stored: {reason}")


def _run_refresh(call: _Call, stderr: OutputWrapper) -> None:
    if not call.info.is_async:
        call.use_control("refresh")
        return

    def refresh_in_thread() -> None:
        try:
            call.use_control("refresh")
        finally:
            process.end_thread()

    # Ctrl-C in this thread would leave its coroutine waiting for ever.
    with ThreadPoolExecutor(1) as executor:
        try:
            executor.submit(with_context(refresh_in_thread)).result()
        except KeyboardInterrupt:
            stderr.write(waiting_for(1))
            raise


def invalidate_calls(options: Options, stderr: OutputWrapper) -> Outcome:
    """Invalidate one call, all calls of a function (--all), or tags (--tag)."""
    name, tags, alias = options["name"], options["tags"], options["alias"]
    if bool(name) == bool(tags):
        raise CommandError(
            "name one function, or give --tag; to invalidate every call of a function, "
            "write its name and --all"
        )
    if alias and not tags:
        raise CommandError("--alias goes with --tag; a function has a cache of its own")
    if tags:
        outcome = _invalidate_tags(tags, alias)
        used = [alias] if alias else sorted(aliases())
    elif options["all"]:
        if options["arguments"] or options["instance"]:
            raise CommandError("--all means every call; leave the arguments out")
        info = find_function(name)
        outcome, used = _invalidate_function(name, info), [info.alias]
    else:
        call = _read_call(options)
        used = [call.info.alias]
        with cache_errors(call.info.alias):
            call.use_control("invalidate")
        result = {"name": name, "invalidated": "call"}
        outcome = Outcome(result, [f"one call of {name} is invalidated"])
    warn_of_own_memory(options, stderr, *used)
    return outcome


def clear_functions(options: Options, stderr: OutputWrapper) -> Outcome:
    """Invalidate every call of these functions, or of all; then report those for which
    that is not possible."""
    if bool(options["names"]) == options["all"]:
        raise CommandError(
            "name functions, or all below a path that ends with a dot, as shop.; or "
            "write --all for every memoized function"
        )
    infos = select_functions(options["names"], options["modules"])
    outcomes, errors = [], []
    for info in infos:
        try:
            outcomes.append(_invalidate_function(info.path, info))
        except CommandError as error:
            errors.append(str(error))
    warn_of_own_memory(options, stderr, *sorted({info.alias for info in infos}))
    rows = [each.result for each in outcomes]
    lines = [line for each in outcomes for line in each.lines]
    return Outcome(rows, lines, "\n".join(dict.fromkeys(errors)))


def _invalidate_function(name: str, info: FunctionInfo) -> Outcome:
    if not info.has_tags:
        raise CommandError(
            f"{name} has no tags, so its entries cannot be invalidated together; write "
            "tags=() in its cache_memoize(), or another version= to leave them behind, "
            "or invalidate single calls"
        )
    check_alias(info.alias)
    with cache_errors(info.alias):
        info.memoized.invalidate_all()
    result = {"name": name, "invalidated": "all"}
    return Outcome(result, [f"every call of {name} is invalidated"])


def _invalidate_tags(tags: list[str], alias: str | None) -> Outcome:
    if alias:
        check_alias(alias)
    with cache_errors(alias or "(any)"):
        try:
            invalidate_tags(*tags, cache_alias=alias)
        except TypeError as error:
            raise CommandError(str(error)) from error
    where = f"the cache {alias!r}" if alias else "all caches"
    named = " or ".join(map(repr, tags))
    result = {"tags": tags, "alias": alias, "invalidated": "tags"}
    lines = [f"every call with the tag {named} is invalidated, in {where}"]
    with suppress(Exception):  # the tags are invalidated all the same
        run_checks(tags=[Tags.urls])  # it imports the functions that the site serves
        list_functions()  # it reads their options
    if not may_be_returned():
        lines += [f"no function has the tag {tag!r}" for tag in undeclared(tags)]
    return Outcome(result, lines)
