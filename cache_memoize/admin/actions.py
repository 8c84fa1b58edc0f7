"""The actions of the admin's buttons, with the message and the log entry of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from django import forms
from django.contrib import messages
from django.core.exceptions import ImproperlyConfigured
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..arguments import parse_call
from ..describe import (
    FunctionInfo,
    describe_error,
    describe_value,
    format_duration,
    is_ours,
)
from ..keys.encoding import UnkeyableArgument


class CallForm(forms.Form):
    """The arguments of one call of a function."""

    arguments = forms.CharField(required=False)

    def __init__(self, info: FunctionInfo, user: Any, *args: Any) -> None:
        super().__init__(*args)
        self.info, self.user = info, user

    def clean_arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        try:
            args, kwargs = parse_call(self.cleaned_data["arguments"], self.user)
            self.info.memoized.get_cache_key(*args, **kwargs)
        except Exception as error:
            kinds = (UnkeyableArgument, ImproperlyConfigured, ValueError)
            if isinstance(error, kinds) and is_ours(error):
                raise forms.ValidationError(str(error)) from None
            # The signature does not fit, or a function in the options raised.
            raise forms.ValidationError(
                _("these arguments have no key (%(error)s); see the signature")
                % {"error": describe_error(error)}
            ) from None
        return args, kwargs


class Outcome(NamedTuple):
    """The result of an action."""

    level: int
    #: For the user.
    message: str
    #: For the admin's log.
    entry: str


def peek_call(info: FunctionInfo, args: Any, kwargs: Any) -> Outcome:
    errors = info.stats.errors
    found = info.memoized.peek(*args, **kwargs)
    entry = "Looked at one call"
    if found is None and (info.breaker.tripped or info.stats.errors > errors):
        return Outcome(messages.ERROR, _("The cache did not answer."), entry)
    if found is None:
        return Outcome(messages.INFO, _("There is no entry of this call."), entry)
    text = (
        _("There is a stale entry, %(age)s old: %(value)s.")
        if found.stale
        else _("There is an entry, %(age)s old: %(value)s.")
    )
    values = {"age": format_duration(found.age), "value": describe_value(found.value)}
    return Outcome(messages.INFO, text % values, entry)


def invalidate_call(info: FunctionInfo, args: Any, kwargs: Any) -> Outcome:
    info.memoized.invalidate(*args, **kwargs)
    message = _("The call is invalidated; the next one computes.")
    return Outcome(messages.SUCCESS, message, "Invalidated one call")


def refresh_call(info: FunctionInfo, args: Any, kwargs: Any) -> Outcome:
    started, began = info.clock.time(), info.clock.monotonic()
    info.memoized.refresh(*args, **kwargs)
    took = {"took": format_duration(info.clock.monotonic() - began)}
    found = info.memoized.peek(*args, **kwargs)
    entry = "Refreshed one call"
    if found is not None and info.clock.time() - found.age >= started - 0.01:
        message = _("The call was computed in %(took)s, and its result is stored.")
        return Outcome(messages.SUCCESS, message % took, entry)
    message = _("The call was computed in %(took)s, and its result is not stored.")
    return Outcome(messages.WARNING, message % took, f"{entry}, not stored")


def invalidate_function(info: FunctionInfo, args: Any, kwargs: Any) -> Outcome:
    info.memoized.invalidate_all()
    message = _("All calls of the function are invalidated.")
    return Outcome(messages.SUCCESS, message, "Invalidated all calls")


class Action(NamedTuple):
    title: Any
    run: Callable[[FunctionInfo, Any, Any], Outcome]
    #: The noun for the log, if the action raises.
    noun: str


ACTIONS = {
    "look": Action(gettext_lazy("Look at it"), peek_call, "Look at one call"),
    "invalidate": Action(
        gettext_lazy("Invalidate it"), invalidate_call, "Invalidation of one call"
    ),
    "refresh": Action(gettext_lazy("Refresh it"), refresh_call, "Refresh of one call"),
    "invalidate-all": Action(
        gettext_lazy("Invalidate all calls"),
        invalidate_function,
        "Invalidation of all calls",
    ),
}


def run_action(action: Action, info: FunctionInfo, args: Any, kwargs: Any) -> Outcome:
    """Run an action. An exception becomes a message with its type, without its text,
    which may hold arguments."""
    try:
        return action.run(info, args, kwargs)
    except Exception as error:
        name = type(error).__name__
        message = _("%(action)s: this raised %(error)s.")
        message %= {"action": action.title, "error": name}
        return Outcome(messages.ERROR, message, f"{action.noun} raised {name}")
