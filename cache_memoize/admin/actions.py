"""The actions of the pages, with the message and the log entry of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from django.contrib import messages
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..describe import FunctionInfo, describe_value, format_duration
from ..stats.history import acting
from .forms import TypedCall


class Outcome(NamedTuple):
    """The result of an action."""

    level: int
    #: For the user.
    message: str
    #: For the admin's log; empty for what changes nothing.
    entry: str


def peek_call(info: FunctionInfo, call: TypedCall) -> Outcome:
    errors = info.stats.errors
    found = call.use_control("peek")
    if found is None and (info.breaker.tripped or info.stats.errors > errors):
        return Outcome(messages.ERROR, _("The cache did not answer."), "")
    reason = call.use_control("explain").reason
    missed = _("It last missed: %(kind)s, %(text)s.") % reason._asdict()
    if found is None:
        text = _("There is no entry of this call.")
        return Outcome(messages.INFO, f"{text} {missed}", "")
    text = (
        _("There is a stale entry, %(age)s old: %(value)s.")
        if found.stale
        else _("There is an entry, %(age)s old: %(value)s.")
    )
    values = {"age": format_duration(found.age), "value": describe_value(found.value)}
    return Outcome(messages.INFO, f"{text % values} {missed}", "")


def invalidate_call(info: FunctionInfo, call: TypedCall) -> Outcome:
    call.use_control("invalidate")
    message = _("The call is invalidated; the next one computes.")
    return Outcome(messages.SUCCESS, message, "Invalidated one call")


def refresh_call(info: FunctionInfo, call: TypedCall) -> Outcome:
    started, began = info.clock.time(), info.clock.monotonic()
    call.use_control("refresh")
    took = {"took": format_duration(info.clock.monotonic() - began)}
    found = call.use_control("peek")
    entry = "Refreshed one call"
    if found is not None and info.clock.time() - found.age >= started - 0.01:
        message = _("The call was computed in %(took)s, and its result is stored.")
        return Outcome(messages.SUCCESS, message % took, entry)
    message = _("The call was computed in %(took)s, and its result is not stored.")
    return Outcome(messages.WARNING, message % took, f"{entry}, not stored")


def invalidate_function(info: FunctionInfo, call: TypedCall) -> Outcome:
    info.memoized.invalidate_all()
    message = _("All calls of the function are invalidated.")
    return Outcome(messages.SUCCESS, message, "Invalidated all calls")


class Action(NamedTuple):
    title: Any
    run: Callable[..., Outcome]
    #: The noun for the log, if the action raises; empty for what changes nothing.
    noun: str


ACTIONS = {
    "look": Action(gettext_lazy("Look at it"), peek_call, ""),
    "refresh": Action(gettext_lazy("Refresh it"), refresh_call, "Refresh of one call"),
    "invalidate": Action(
        gettext_lazy("Invalidate it"), invalidate_call, "Invalidation of one call"
    ),
    "invalidate-all": Action(
        gettext_lazy("Invalidate all calls"),
        invalidate_function,
        "Invalidation of all calls",
    ),
}


def run_action(action: Action, user: Any, *given: Any) -> Outcome:
    """Run an action in the name of a user. An exception becomes a message with its
    type, without its text, which may hold arguments."""
    try:
        with acting(f"{user.get_username()}, in the admin"):
            return action.run(*given)
    except Exception as error:
        name = type(error).__name__
        message = _("%(action)s: this raised %(error)s.")
        message %= {"action": action.title, "error": name}
        entry = action.noun and f"{action.noun} raised {name}"
        return Outcome(messages.ERROR, message, entry)
