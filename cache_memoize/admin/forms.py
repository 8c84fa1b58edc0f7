"""The form of one call, and what all forms of the pages share."""

from __future__ import annotations

import inspect
import sys
import zoneinfo
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from django import forms
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db.models import Model
from django.utils import timezone, translation
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import vary
from ..arguments import load_instance, parse_call
from ..describe import FunctionInfo, describe_default, describe_error, is_ours
from ..keys.encoding import UnkeyableArgument
from ..methods import BoundMethod
from ..stats.history import digest_of


@dataclass(frozen=True)
class TypedCall:
    """A call that a user has typed."""

    #: Bound to the instance, or the class, of a method.
    memoized: Any
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    #: The parts of ``vary_on=`` that were chosen; empty: those of the request.
    language: str = ""
    time_zone: str = ""

    def use_control(self, name: str) -> Any:
        """Use a control, such as "peek", for this call."""
        with ExitStack() as stack:
            if self.language:
                stack.enter_context(translation.override(self.language))
            if self.time_zone:
                stack.enter_context(timezone.override(self.time_zone))
            return getattr(self.memoized, name)(*self.args, **self.kwargs)

    @property
    def digest(self) -> str:
        return digest_of(self.use_control("get_cache_key"))

    @property
    def masked(self) -> str:
        """The arguments, and no value that may be confidential."""
        receiver = getattr(self.memoized, "__self__", None)
        args = self.args if receiver is None else (receiver, *self.args)
        named = [f"{name}={_mask(value)}" for name, value in self.kwargs.items()]
        chosen = [each for each in (self.language, self.time_zone) if each]
        return ", ".join([*map(_mask, args), *named, *chosen])


def _mask(value: Any) -> str:
    if isinstance(value, Model):
        return f"{value._meta.label}({describe_default(value.pk)})"
    return value.__qualname__ if isinstance(value, type) else describe_default(value)


class CallForm(forms.Form):
    """One call of a function: its instance or class, its arguments, and its variant.

    The fields are those that the function needs.
    """

    arguments = forms.CharField(
        required=False,
        label=gettext_lazy("Arguments"),
        help_text=gettext_lazy(
            'As in a call, without its parentheses: 42, lang="en". Python literals, '
            "and model instances as app.Model(pk=1)."
        ),
    )

    def __init__(self, info: FunctionInfo, user: Any, *args: Any) -> None:
        super().__init__(*args)
        self.info, self.user = info, user
        self._classes: dict[str, Any] = _find_classes(info)
        #: Whether it is a method of other objects than these classes have.
        self.is_of_other: bool = info.is_method and not self._classes
        parts = vary.parts(info.options.vary_on, info.name)
        #: The parts of ``vary_on=`` that cannot be chosen.
        self.other_parts: list[str] = [
            getattr(each, "__qualname__", type(each).__name__)
            for each in parts
            if each not in (vary.language, vary.time_zone)
        ]
        if len(self._classes) > 1:
            self.fields["class"] = _make_choice(_("Class"), self._classes)
        if self._classes and not takes_class(info):
            text = _("Of the instance that the method is called on.")
            self.fields["pk"] = forms.CharField(label=_("Primary key"), help_text=text)
        self.order_fields(["class", "pk", "arguments"])
        now = ("", _("as on this page"))
        if vary.language in parts:
            languages = _make_choice(_("Language"), settings.LANGUAGES, now)
            self.fields["language"] = languages
        if vary.time_zone in parts:
            names = sorted(zoneinfo.available_timezones())
            self.fields["time_zone"] = _make_choice(_("Time zone"), names, now)
        mark_fields(self)

    def clean(self) -> dict[str, Any]:
        found = self.cleaned_data
        if not self.errors:
            found["call"] = self._read_call(found)
        return found

    def _read_call(self, found: Any) -> TypedCall | None:
        part = "arguments"
        try:
            memoized = self.info.memoized
            if self._classes:
                part = "pk"
                memoized = BoundMethod(memoized, self._read_receiver(found))
                part = "arguments"
            args, kwargs = parse_call(found["arguments"], self.user)
            variant = [found.get(name, "") for name in ("language", "time_zone")]
            call = TypedCall(memoized, args, kwargs, *variant)
            call.use_control("get_cache_key")
        except Exception as error:
            self.add_error(part, explain_error(error))
            mark_fields(self)
            return None
        return call

    def _read_receiver(self, found: Any) -> Any:
        """Return the class, or the instance, that the method is called on."""
        owner = self._classes[found.get("class") or next(iter(self._classes))]
        if takes_class(self.info):
            return owner
        return load_row(owner, found["pk"], self.user)


def load_row(model: Any, text: str, user: Any) -> Any:
    """Return the row whose primary key is typed as a literal. Raises ValueError."""
    (pk,) = parse_call(text, user)[0]
    return load_instance(model._meta.label, pk, user)


def explain_error(error: Exception) -> str:
    kinds = (UnkeyableArgument, ImproperlyConfigured, ValueError)
    if isinstance(error, kinds) and is_ours(error):
        return str(error)
    # The signature does not fit, or a function in the options raised.
    text = _("these arguments have no key (%(error)s); see the signature")
    return text % {"error": describe_error(error)}


def _find_owner(info: FunctionInfo) -> Any:
    """Return the class of a method, or None."""
    if info.record.owner is not None:
        return info.record.owner
    owner: Any = sys.modules.get(info.module)
    for name in info.name.split(".")[:-1]:
        owner = getattr(owner, name, None)
    return owner if isinstance(owner, type) else None


def takes_class(info: FunctionInfo) -> bool:
    """Return whether a method is a classmethod."""
    found = inspect.getattr_static(_find_owner(info), info.memoized.__name__, None)
    return info.record.needs_class or isinstance(found, classmethod)


def _find_classes(info: FunctionInfo) -> dict[str, Any]:
    """Return, by name, the classes that have a method and that can be named here: those
    of a classmethod, and models; none for a function."""
    owner, found = _find_owner(info), {}
    todo = [owner] if owner and info.is_method else []
    while todo:
        each = todo.pop(0)
        todo += each.__subclasses__()
        if takes_class(info):
            found[f"{each.__module__}.{each.__qualname__}"] = each
        elif issubclass(each, Model) and not each._meta.abstract:
            found[each._meta.label] = each
    return found


def _make_choice(label: str, values: Any, *first: Any) -> forms.ChoiceField:
    pairs = [each if isinstance(each, tuple) else (each, each) for each in values]
    return forms.ChoiceField(label=label, choices=[*first, *pairs], required=not first)


def mark_fields(form: forms.Form) -> None:
    """Name to screen readers the help and the errors of each field."""
    is_first = True
    for bound in form:
        attrs, ids = bound.field.widget.attrs, []
        if bound.help_text:
            ids.append(f"{bound.id_for_label}_help")
        if form.is_bound and bound.name in form.errors:
            ids.append(f"{bound.id_for_label}_problem")
            attrs["aria-invalid"] = "true"
            attrs |= {"autofocus": True} if is_first else {}
            is_first = False
        if isinstance(bound.field, forms.CharField):
            attrs |= {"autocapitalize": "none", "autocomplete": "off"}
            attrs["spellcheck"] = "false"
        if ids:
            attrs["aria-describedby"] = " ".join(ids)
