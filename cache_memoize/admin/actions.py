"""What the admin's buttons do to a function, and what is told and logged of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from django import forms
from django.contrib import messages
from django.core.exceptions import ImproperlyConfigured
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import arguments as literals
from .. import instances
from ..keys.encoding import UnkeyableArgument
from ..planning import Function, plan_of
from .wording import duration, what

__all__ = ["ACTIONS", "Action", "CallForm", "Outcome", "attempt"]


class CallForm(forms.Form):
    """The arguments of one call of a function."""

    arguments = forms.CharField(required=False)

    def __init__(self, function: Function, *args: Any) -> None:
        super().__init__(*args)
        self.function = function

    def clean_arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        try:
            args, kwargs = literals.call(self.cleaned_data["arguments"], instances.load)
            self.function.wrapper.get_cache_key(*args, **kwargs)
        except (UnkeyableArgument, ImproperlyConfigured, ValueError) as error:
            raise forms.ValidationError(str(error)) from None
        except Exception as error:
            # The signature does not fit, or a function in the options raised.
            said = str(error) if isinstance(error, TypeError) else ""
            raise forms.ValidationError(
                _("these arguments have no key (%(error)s); see the signature")
                % {"error": f"{type(error).__name__}: {said}".rstrip(": ")}
            ) from None
        return args, kwargs


class Outcome(NamedTuple):
    """Of an action: what the person is told, and what the log is."""

    level: int
    told: str
    logged: str


def look(function: Function, args: Any, kwargs: Any) -> Outcome:
    errors = function.stats.errors
    entry = function.wrapper.peek(*args, **kwargs)
    logged = "Looked at one call"
    if entry is None and (
        plan_of(function).breaker.tripped or function.stats.errors > errors
    ):
        return Outcome(messages.ERROR, _("The cache did not answer."), logged)
    if entry is None:
        return Outcome(messages.INFO, _("There is no entry of this call."), logged)
    text = (
        _("There is an entry, %(age)s old and past its timeout: %(what)s.")
        if entry.stale
        else _("There is an entry, %(age)s old: %(what)s.")
    )
    values = {"age": duration(entry.age), "what": what(entry.value)}
    return Outcome(messages.INFO, text % values, logged)


def invalidate(function: Function, args: Any, kwargs: Any) -> Outcome:
    function.wrapper.invalidate(*args, **kwargs)
    told = _("The call is forgotten; the next one computes.")
    return Outcome(messages.SUCCESS, told, "Invalidated one call")


def refresh(function: Function, args: Any, kwargs: Any) -> Outcome:
    started, began = function.clock.time(), function.clock.monotonic()
    function.wrapper.refresh(*args, **kwargs)
    took = duration(function.clock.monotonic() - began)
    entry = function.wrapper.peek(*args, **kwargs)
    logged = "Refreshed one call"
    if entry is not None and function.clock.time() - entry.age >= started - 0.01:
        told = _("The call was computed anew in %(took)s, and is stored.")
        return Outcome(messages.SUCCESS, told % {"took": took}, logged)
    told = _("The call was computed anew in %(took)s, and nothing of it is stored.")
    return Outcome(messages.WARNING, told % {"took": took}, f"{logged}, not stored")


def invalidate_all(function: Function, args: Any, kwargs: Any) -> Outcome:
    function.wrapper.invalidate_all()
    told = _("All calls of the function are forgotten.")
    return Outcome(messages.SUCCESS, told, "Invalidated all calls")


class Action(NamedTuple):
    title: Any
    do: Callable[[Function, Any, Any], Outcome]
    #: For the log, if it raises.
    failed: str


ACTIONS = {
    "look": Action(gettext_lazy("Look at it"), look, "Look at one call"),
    "invalidate": Action(
        gettext_lazy("Invalidate it"), invalidate, "Invalidation of one call"
    ),
    "refresh": Action(gettext_lazy("Refresh it"), refresh, "Refresh of one call"),
    "invalidate-all": Action(
        gettext_lazy("Invalidate all calls"),
        invalidate_all,
        "Invalidation of all calls",
    ),
}


def attempt(action: Action, function: Function, args: Any, kwargs: Any) -> Outcome:
    """Whatever it raises is told, by its type: a text may hold arguments."""
    try:
        return action.do(function, args, kwargs)
    except Exception as error:
        name = type(error).__name__
        told = _("%(action)s: this raised %(error)s.")
        told %= {"action": action.title, "error": name}
        return Outcome(messages.ERROR, told, f"{action.failed} raised {name}")
