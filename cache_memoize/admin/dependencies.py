"""Models and tags: the functions that depend on them, and their invalidation."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import partial
from types import CodeType
from typing import Any

from django import forms
from django.apps import apps
from django.contrib import messages
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..cache.connections import aliases
from ..dependency import with_subclasses
from ..describe import (
    FunctionInfo,
    describe_default,
    describe_error,
    describe_users,
    list_functions,
    list_tags,
)
from ..model_controls import invalidate_model
from ..model_signals import dependencies_on, run_all
from ..protocol.invalidation import invalidate_tags
from ..protocol.tables import invalidate_tables, tables_of
from .actions import Action, Outcome
from .forms import explain_error, load_row, mark_fields


@dataclass(frozen=True)
class Target:
    """A tag, or the rows of a model, or one of them."""

    #: The name of the tag, or of the model.
    name: str
    #: The functions that are known to depend on it.
    functions: list[FunctionInfo]
    model: Any = None
    row: Any = None
    #: What the log says of a tag, or of the primary key of a row.
    masked: str = ""

    @property
    def needs_confirmation(self) -> bool:
        return self.row is None


class Dependents:
    """The functions of this process, by what they depend on."""

    def __init__(self) -> None:
        self.infos = list_functions()
        self._users = describe_users(self.infos)
        #: Tags that do not depend on the call.
        self.tags: dict[str, list[FunctionInfo]] = {}
        #: Functions whose tags do.
        self.by_call = [info for info in self.infos if callable(info.options.tags)]
        for info in self.infos:
            if info not in self.by_call:
                for tag in list_tags(info.options.tags) or []:
                    self.tags.setdefault(tag, []).append(info)

    def of_model(self, model: Any) -> list[FunctionInfo]:
        """Return the functions that invalidate_model() invalidates."""
        rows = with_subclasses(model)
        tables = set().union(*map(tables_of, rows))
        users = (self._users.get(f"table {each}", ()) for each in tables)
        paths = set().union(*users)
        controls = [
            getattr(each.invalidate_call, "__self__", None)
            for each in dependencies_on(rows)
        ]
        records = {getattr(each, "_memoized", None) for each in controls}
        return [i for i in self.infos if i.path in paths or i.record in records]

    def of_tag(self, tag: str) -> list[FunctionInfo]:
        """Return the functions with this tag, and those in whose tags= a text stands
        that it begins with."""
        computed = [info for info in self.by_call if tag.startswith(_texts_in(info))]
        return [*self.tags.get(tag, ()), *computed]

    def mask_tag(self, tag: str) -> str:
        """Return a tag as text: what the code has of it, and of the rest no more than
        :func:`describe_default` shows."""
        texts = [*self.tags, *(each for i in self.by_call for each in _texts_in(i))]
        start = max(filter(tag.startswith, texts), key=len, default="")
        rest = tag[len(start) :]
        value = int(rest) if rest.isascii() and rest.isdecimal() else rest
        return start + (describe_default(value) if rest else "")


def _texts_in(info: FunctionInfo) -> tuple[str, ...]:
    """Return the texts in the code of a callable tags=."""
    code = getattr(info.options.tags, "__code__", None)
    texts = code.co_consts if isinstance(code, CodeType) else ()
    return tuple(each for each in texts if isinstance(each, str) and each)


class TagForm(forms.Form):
    """A tag to invalidate."""

    tag = forms.CharField(
        label=gettext_lazy("Tag"),
        max_length=1000,
        help_text=gettext_lazy("As the function has it: product:42."),
    )

    def __init__(self, user: Any, dependents: Dependents, *args: Any) -> None:
        super().__init__(*args)
        self._dependents = dependents
        mark_fields(self)

    def clean(self) -> None:
        mark_fields(self)

    @property
    def target(self) -> Target:
        tag = self.cleaned_data["tag"]
        found = self._dependents.of_tag(tag)
        return Target(tag, found, masked=self._dependents.mask_tag(tag))


class ModelForm(forms.Form):
    """A model of which all rows, or one, are to be invalidated."""

    model = forms.ChoiceField(label=gettext_lazy("Model"))
    pk = forms.CharField(
        required=False,
        label=gettext_lazy("Primary key"),
        help_text=gettext_lazy("Of one row; empty for all rows."),
    )

    def __init__(self, user: Any, dependents: Dependents, *args: Any) -> None:
        super().__init__(*args)
        self._user, self._dependents = user, dependents
        labels = sorted(model._meta.label for model in apps.get_models())
        field: Any = self.fields["model"]
        field.choices = [("", "–"), *((each, each) for each in labels)]
        mark_fields(self)

    def clean(self) -> None:
        if not self.errors:
            self._read_row()
        mark_fields(self)

    def _read_row(self) -> None:
        model, pk = apps.get_model(self.cleaned_data["model"]), self.cleaned_data["pk"]
        functions, label = self._dependents.of_model(model), model._meta.label
        self.target = Target(label, functions, model)
        try:
            if pk:
                row = load_row(model, pk, self._user)
                masked = describe_default(row.pk)
                self.target = replace(self.target, row=row, masked=masked)
        except Exception as error:
            self.add_error("pk", explain_error(error))


FORMS: dict[str, Any] = {"tag": TagForm, "model": ModelForm}


# --- invalidation --------------------------------------------------------------------


def _invalidate_tag(target: Target) -> Outcome:
    failed = []
    for alias in aliases():
        try:
            invalidate_tags(target.name, cache_alias=alias)
        except Exception as error:
            failed.append(f"{alias} ({type(error).__name__})")
    if not failed:
        message = _("All calls with this tag are invalidated.")
        return Outcome(messages.SUCCESS, message, "Invalidated a tag")
    names = ", ".join(failed)
    message = _("All calls with this tag are invalidated, but not in: %(caches)s.")
    entry = f"Invalidated a tag, but not in {names}"
    return Outcome(messages.ERROR, message % {"caches": names}, entry)


def _invalidate_model(target: Target) -> Outcome:
    values = {"model": target.name}
    if target.row is not None:
        _invalidate_row(target.row)
        message = _("All that depends on this row of %(model)s is invalidated.")
        return Outcome(messages.SUCCESS, message % values, "Invalidated one row")
    try:
        with warnings.catch_warnings():
            # Functions of other processes may depend on it.
            warnings.simplefilter("ignore", RuntimeWarning)
            invalidate_model(target.model)
    except TypeError as error:  # a function has no tags
        text = describe_error(error).removeprefix("TypeError: ")
        return Outcome(
            messages.ERROR, text, "Invalidation of all rows raised TypeError"
        )
    message = _("All that depends on %(model)s is invalidated.")
    return Outcome(messages.SUCCESS, message % values, "Invalidated all rows")


_TAG = Action(
    gettext_lazy("Invalidate the tag"), _invalidate_tag, "Invalidation of a tag"
)
_MODEL = Action(
    gettext_lazy("Invalidate the rows"), _invalidate_model, "Invalidation of rows"
)


def action_for(target: Target) -> Action:
    """Return the action that invalidates what depends on the target."""
    return _MODEL if target.model else _TAG


def _invalidate_row(row: Any) -> None:
    """Invalidate what a save of this row would invalidate."""
    actions: list[Any] = [partial(invalidate_tables, tables_of(type(row)))]
    for each in dependencies_on(with_subclasses(type(row))):
        affected = each.affected_objects(row, row._state.db)
        actions += each.collect_actions(affected).values()
    run_all(actions)
