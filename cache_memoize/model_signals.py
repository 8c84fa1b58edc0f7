"""Invalidation by model signals: the models that memoized functions depend on.

A change concerns some calls only as the rows were before it. So actions are collected
before a change (:mod:`.dependency`), kept on the instance of the signal, and run after
it, together with those that the new state demands.

The obvious scheme, one receiver for every save in the project, would slow all models:
Django looks for receivers before it writes, and where it finds none it deletes many
rows at once, and adds to a relation without a signal. So each sender is connected by
itself, and as soon as its class exists (``class_prepared``), not at the first write.

Receivers run in the order in which they were connected: ours when the function is
registered, or when the class is made if that is later. A receiver connected earlier,
such as a ``@receiver`` above the registration, still sees the old value, and if it
raises, the signal does not reach ours.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from traceback import walk_stack
from typing import Any

from django.apps import apps
from django.db import transaction
from django.db.models import Model, signals
from django.db.models.fields.related import lazy_related_operation
from django.db.models.utils import make_model_tuple

from .dependency import (
    Action,
    Args,
    Change,
    Class,
    Dependency,
    concrete_model,
    deletes_silently,
    silent_fields,
    with_parents,
    with_subclasses,
)
from .hints import did_you_mean, suggestion
from .process import logger

__all__ = [
    "add_dependency",
    "check_model",
    "dependencies_on",
    "find_model",
    "late_functions",
    "meant_model",
    "run_all",
    "unknown_models",
    "warn_if_late",
]

#: One receiver per signal and sender.
UID = "cache_memoize"

#: Registrations by the name of a model that is not loaded yet.
_unresolved: dict[Dependency, str] = {}
#: Registrations on an abstract model: they apply to each new subclass.
_abstract: list[Dependency] = []
_registered: list[Dependency] = []
#: The dependencies that a signal of a sender concerns, each with the relation if any.
_connected: dict[tuple[signals.ModelSignal, Class], list[tuple[Dependency, Any]]] = {}


#: The functions that were registered after the apps were ready, by their path.
_late: dict[str, None] = {}


class KeptActions(dict[Any, Any]):
    """The actions collected before a change. They are kept on the state of the instance
    that the signal is about, so they end with it, and are not pickled."""

    def __reduce__(self) -> Any:
        return dict, ()


def add_dependency(
    model: Class | str,
    name: str,
    invalidate_call: Callable[[Args], object],
    invalidate_all: Action | None = None,
    calls: Callable[[Any], object] | None = None,
    before: bool = True,
) -> None:
    """Invalidate calls of the function ``name`` on ``post_save`` (fixtures too),
    ``post_delete`` and ``m2m_changed`` of ``model``: a class, abstract or proxy too, or
    ``"app_label.ModelName"``, loaded or not.

    ``calls(instance)`` returns the arguments of one call as a tuple, a list of such
    tuples, or None; without it, ``invalidate_all()`` is called. It is called before a
    deletion, and before and after a save or a change of a relation; ``before=False``
    leaves out the row before a save, and the query that reads it. Its errors reach the
    code that saves, after all other dependencies had their turn.

    Raises TypeError for what is no model or not callable, and if ``invalidate_all`` is
    needed and None (no tags); ValueError for a malformed name; LookupError for an
    unknown one if all models are loaded: otherwise :func:`unknown_models` lists it.
    """
    new = Dependency(model, name, invalidate_call, invalidate_all, calls, before)
    if calls is None and invalidate_all is None:
        raise TypeError(
            f"{new} without a callable invalidates every call, which needs tags: write "
            "@cache_memoize(..., tags=()), or a callable that returns the arguments of "
            "the calls to invalidate"
        )
    new.check_callable()
    signals.class_prepared.connect(_connect_new_class, weak=False, dispatch_uid=UID)
    if isinstance(model, str):
        if apps.models_ready:
            check_model(find_model(model), str(new))
        key = make_model_tuple(model)
        _unresolved[new] = model
        apps.lazy_model_operation(partial(_resolve_model, new), key)
    else:
        _resolve_model(new, check_model(model, str(new)))


def unknown_models() -> list[tuple[str, str]]:
    """Return (function, model) for registrations whose model is not loaded."""
    return [(one.name, model) for one, model in _unresolved.items()]


def late_functions() -> list[str]:
    """Return the functions that a process registers only if it imports more modules
    than Django does when it starts."""
    return list(_late)


def warn_if_late(
    function: Callable[..., Any], path: str, control: str = ".invalidate_on()"
) -> None:
    """Warn, once per function, of a registration after the apps are ready, unless the
    function is of a shell, a script, or another function."""
    code = getattr(function, "__code__", None)
    typed = code is not None and code.co_filename.startswith("<")
    if not apps.ready or typed or path in _late or "<locals>" in path:
        return
    if function.__module__ == "__main__":
        return
    _late[path] = None
    modules = (frame.f_globals.get("__name__") for frame, _ in walk_stack(None))
    if "django.core.checks.registry" in modules:
        return  # the check W010 is about to say the same
    warnings.warn(
        f"{path}{control} is called after the apps are ready, by a module that "
        "Django does not import when it starts: processes that do not import it, such "
        "as shells, workers and commands, never invalidate. Import that module in the "
        "ready() of an AppConfig, or in models.py",
        RuntimeWarning,
        stacklevel=3,
    )


# --- names ---------------------------------------------------------------------------


def find_model(name: str) -> Class:
    try:
        make_model_tuple(name)  # it has the better message for a malformed name
        return apps.get_model(name)
    except (LookupError, ValueError) as error:
        raise type(error)(f"{error}{meant_model(name)}") from None


def meant_model(name: str) -> str:
    """Return " (did you mean ...?)" for the name of a model that does not exist."""
    models = (one._meta for one in with_subclasses(Model) if not one._meta.swapped)
    labels = [one.label for one in models]
    same = [each for each in labels if each.endswith(f".{name.split('.')[-1]}")]
    return did_you_mean(same) or suggestion([name], labels)


def dependencies_on(models: Iterable[Class]) -> list[Dependency]:
    """Return the registrations that a change of all rows of these models concerns."""
    return [
        one
        for one in _registered
        if any(issubclass(model, with_parents(one.base)) for model in models)
    ]


# --- senders -------------------------------------------------------------------------


def check_model(model: Any, where: str) -> Class:
    if isinstance(model, type) and issubclass(model, Model) and model is not Model:
        if model._meta.swapped:
            raise TypeError(
                f"{where}: {model._meta.label} has no rows, {model._meta.swapped} is in"
                " its place; write get_user_model(), or the setting with that name"
            )
        return model
    raise TypeError(f'{where}: {model!r} is no model; write the class or "app.Model"')


def _resolve_model(new: Dependency, model: Class) -> None:
    if model._meta.swapped:  # for the check E003
        return
    _unresolved.pop(new, None)
    new = replace(new, model=model)
    if model._meta.abstract:
        _abstract.append(new)
        _register_subclasses(new, with_subclasses(model))
    else:
        _register_concrete(new)


def _register_subclasses(one: Dependency, models: Iterable[Class]) -> None:
    """Register an abstract model's dependency for its topmost concrete subclasses."""
    heirs = with_subclasses(one.model)
    for model in heirs.intersection(models):
        if heirs.isdisjoint(model.__mro__[1:]):
            _register_concrete(replace(one, model=model))


def _register_concrete(one: Dependency) -> None:
    _registered.append(one)  # first, so that no new class is missed meanwhile
    for model in with_subclasses(Model):
        _connect_class(one, model)


def _connect_new_class(sender: Class, **kwargs: Any) -> None:
    if sender._meta.apps is not apps:
        return  # a class of a migration, which makes many
    for one in list(_abstract):
        _register_subclasses(one, [sender])
    for one in list(_registered):
        _connect_class(one, sender)


def _connect_class(one: Dependency, model: Class) -> None:
    if issubclass(model, with_parents(one.base)):
        _connect_saves(one, model)
        _watch_targets(one, model)
    if issubclass(model, one.base):  # deleting a parent signals its children too
        _connect_deletions(one, model)
    for target, field, saves in list(one.watched):
        _connect_watched(one, model, target, field, saves)
    owner: Any = model._meta.auto_created or model
    for field in owner._meta.local_many_to_many:
        other, through = field.remote_field.model, field.remote_field.through
        if owner is not model:  # the table of a relation that is being made
            through = None if through else model
        if through:  # a model that was swapped out has none
            attach = partial(_connect_relation, one, field)
            _once_loaded(attach, owner, other, through)


def _once_loaded(act: Callable[..., None], owner: Class, *others: Any) -> None:
    """Call ``act`` with the classes, as soon as those that are names are loaded."""
    if any(isinstance(other, str) for other in others):
        lazy_related_operation(act, owner, *others)
    else:
        act(owner, *others)


def _watch_targets(
    one: Dependency, model: Class, rule: Callable[[Any], object] | None = None
) -> None:
    """Watch the targets of the model's foreign keys whose deletion changes, or by
    ``rule`` deletes, its rows without a signal."""
    for field in filter(rule, silent_fields(model)):

        def attach(model: Class, target: Class, field: Any = field) -> None:
            _watch(one, target, field)

        _once_loaded(attach, model, field.remote_field.model)


def _connect_relation(one: Dependency, field: Any, *models: Class) -> None:
    base, (*ends, through) = one.base, models
    near, far = (
        issubclass(end, base) or issubclass(base, concrete_model(end)) for end in ends
    )
    if near or far:
        _connect_signal(signals.m2m_changed, through, one, field)
        if not through._meta.auto_created:  # a row of it may be saved
            _watch(one, through, field, saves=True)
    # A row that is deleted takes its links along.
    for end, concerns_other in zip(ends, (far, near), strict=True):
        if concerns_other:
            _watch(one, end, field)


def _watch(one: Dependency, target: Class, field: Any, saves: bool = False) -> None:
    """Connect signals of ``target``, and of the models whose deletion deletes its rows
    without a signal."""
    if (target, field, saves) not in one.watched:
        one.watched.append((target, field, saves))
        for model in with_subclasses(target):
            _connect_watched(one, model, target, field, saves)
        _watch_targets(one, target, deletes_silently)


def _connect_watched(
    one: Dependency, model: Class, target: Class, field: Any, saves: bool
) -> None:
    if concrete_model(model) is concrete_model(target):  # itself, or a proxy
        _connect_deletions(one, model, field)
        if saves:
            _connect_saves(one, model, field)


def _connect_saves(one: Dependency, model: Class, field: Any = 0) -> None:
    if one.calls and one.before:
        _connect_signal(signals.pre_save, model, one, field)
    _connect_signal(signals.post_save, model, one, field)


def _connect_deletions(one: Dependency, model: Class, field: Any = 0) -> None:
    _connect_signal(signals.pre_delete, model, one, field)
    _connect_signal(signals.post_delete, model, one, field)


def _connect_signal(
    signal: signals.ModelSignal, sender: Class, one: Dependency, field: Any
) -> None:
    dependencies = _connected.setdefault((signal, sender), [])
    if (one, field) not in dependencies:
        dependencies.append((one, field))
    signal.connect(_receive_signal, sender=sender, weak=False, dispatch_uid=UID)


# --- signals -------------------------------------------------------------------------


def _invalidate_loaded(one: Dependency, objects: Any) -> None:
    """Invalidate what these instances demand, now that their fixture is loaded; if the
    callable still raises, every call."""
    try:
        actions = list(one.collect_actions(objects).values())
    except Exception:
        if one.invalidate_all is None:
            raise
        actions = [one.invalidate_all]
    run_all(actions)


def _receive_signal(
    sender: Class, signal: Any, instance: Any, using: str, **event: Any
) -> None:
    when, _, what = event.get("action", "").partition("_")
    saves = signal in (signals.pre_save, signals.post_save)
    before = when == "pre" or signal in (signals.pre_delete, signals.pre_save)
    kept: Any = vars(instance._state).setdefault("cache_memoize", KeptActions())
    change = Change(instance, using, event, saves, before, {})
    if saves:  # of a relation too, which loading a fixture sets after the save
        kept.pop("raw", None)
        kept |= {"raw": True} if event.get("raw") else {}

    def handle(one: Dependency, field: Any) -> None:
        """Before a change, keep the actions; after it, run them and those that the new
        state demands."""
        objects, actions = kept.pop((one, field, what, saves), None) or (None, {})
        if field and signal is signals.post_delete:
            objects = one.read_again(objects or (), using)
        elif before or objects is None:
            objects = change.objects_of(one, field)
            actions = actions if saves else {}
        try:
            actions = actions | one.collect_actions(objects)
        except Exception:
            if not kept.get("raw"):
                raise

            def invalidate_later() -> None:
                one.run_named(partial(_invalidate_loaded, one, objects))

            # A fixture may refer to rows that it loads later.
            transaction.on_commit(invalidate_later, using, robust=True)
        if saves and before:
            # Added to those of a save that this one is part of, or that has failed.
            kept[one, field, what, saves] = None, actions
        elif before:  # a deleted row cannot be read later
            later = objects if field else []
            kept[one, field, what, saves] = later, actions
        else:
            run_all(actions.values())

    # As Django does, take a new instance whose key has a default for a new row.
    new = instance._state.adding and instance._meta.pk.has_default()
    if signal is signals.pre_save and new and not event["raw"]:
        return
    if event.get("pk_set") != set():
        end = "model" if event.get("reverse") else "related_model"
        run_all(
            partial(one.run_named, partial(handle, one, field))
            for one, field in list(_connected.get((signal, sender), ()))
            # two relations may use one table
            if not when or event["model"] is getattr(field, end)
        )


def run_all(actions: Iterable[Action]) -> None:
    """Run all; then raise the first error. The others are logged."""
    errors = []
    for action in actions:
        try:
            action()
        except Exception as error:
            errors.append(error)
    for other in errors[1:]:
        logger.error("One more error while calls were invalidated", exc_info=other)
    if errors:
        raise errors[0]
