"""Invalidation by model signals: the models that memoized functions depend on.

A change of one row may affect instances of several models (a parent, a child, the other
end of a relation), some only as they were before it. So a :class:`Dependency` collects
actions before a change, keeps them on the instance of the signal, and runs them after
it, together with those that the new state demands. Before a save, the row is read: the
instance itself already has the new values.

An instance may hold values in another form than the database (``"5"`` for 5, a member
of ``TextChoices``), which would be the arguments of another call. So callables get a
copy of it with the values that a read would return (:func:`as_stored`).

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

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial, reduce
from itertools import chain
from operator import or_
from types import NoneType
from typing import Any
from uuid import UUID

from asgiref.sync import sync_to_async
from django.apps import apps
from django.db import transaction
from django.db.models import Model, Q, signals
from django.db.models.fields.related import lazy_related_operation
from django.db.models.utils import make_model_tuple

from .keys.columns import as_stored

__all__ = ["add_dependency", "ainvalidate_model", "invalidate_model", "unknown_models"]

logger = logging.getLogger("cache_memoize")
Class = type[Model]
Action = Callable[[], object]
Args = tuple[Any, ...]
#: One receiver per signal and sender.
UID = "cache_memoize"
#: Types whose values are equal if their representations are.
PLAIN_TYPES = {bool, int, str, UUID, NoneType}


@dataclass(frozen=True, eq=False)
class Dependency:
    """A registration, on one model; see :func:`add_dependency`."""

    model: Any  # a class; a string until the class is loaded
    name: str
    invalidate_call: Callable[[Args], object]
    invalidate_all: Action | None
    calls: Callable[[Any], object] | None
    #: Whether the callable is asked with the row as it was before a save, too.
    before: bool

    def __str__(self) -> str:
        name = getattr(self.model, "__name__", repr(self.model))
        return f"{self.name}.invalidate_on({name})"

    @property
    def base(self) -> Class:
        return concrete_model(self.model)

    def collect_actions(self, objects: Any) -> dict[Any, Action]:
        """Return the invalidations that a change of these instances (a list or
        QuerySet) demands, each once."""
        if self.calls is None:
            exists = any(True for _ in objects[:1])
            return {self: self.invalidate_all} if exists and self.invalidate_all else {}
        actions: dict[Any, Action] = {}
        found = (self.arguments_of(self.calls, one) for one in objects)
        for args in chain.from_iterable(found):
            same = repr(args) if PLAIN_TYPES.issuperset(map(type, args)) else object()
            actions[same] = partial(self.invalidate_call, args)
        return actions

    def arguments_of(self, calls: Callable[[Any], Any], instance: Any) -> list[Args]:
        answer = calls(as_stored(instance))
        many = answer if isinstance(answer, list) else [answer]
        wrong = [type(one).__name__ for one in many if not isinstance(one, tuple)]
        if answer is None or not wrong:
            return [] if answer is None else many
        raise TypeError(
            f"{self}: the callable returned {'a list with ' * (many is answer)}"
            f"{wrong[0]}; write the arguments of one call as a tuple, such as "
            "(post.pk,), several calls as a list of tuples, or None for nothing"
        )

    def invalidate_loaded(self, objects: Any) -> None:
        """Invalidate what these instances demand, now that their fixture is loaded; if
        the callable still raises, every call."""
        try:
            actions = list(self.collect_actions(objects).values())
        except Exception:
            if self.invalidate_all is None:
                raise
            actions = [self.invalidate_all]
        _run_all(actions)

    def run_named(self, action: Action) -> None:
        """Run the action; add a note with the name of this registration to an error."""
        try:
            action()
        except Exception as error:
            error.add_note(f"Raised by {self}.")
            raise

    def as_model(self, instance: Any) -> Any:
        """Return an instance of a proxy, parent or child as one of our model, with its
        methods and primary key."""
        pk = self.model._meta.pk.attname
        if isinstance(instance, self.model) and instance.pk == getattr(instance, pk):
            return instance
        view = self.model.__new__(self.model)
        vars(view).update(vars(instance))
        return view

    def stored_objects(self, instance: Any, using: str, rows: dict[Any, Any]) -> Any:
        """Return the instances of our model that a save of ``instance`` will change, as
        they are in the database. ``rows`` keeps what was read for one signal."""
        if not isinstance(instance, self.base):
            return self.affected_objects(instance, using)
        pk = self.as_model(instance).pk
        if pk is None or hasattr(pk, "resolve_expression"):  # it will be a new row
            return []
        if self.base not in rows:
            found = self.base._base_manager.using(using).filter(pk=pk)
            rows[self.base] = list(found)
        return [self.as_model(row) for row in rows[self.base]]

    def affected_objects(self, instance: Any, using: str) -> Any:
        """Return the instances of our model affected by a change of ``instance``."""
        if isinstance(instance, self.base):
            return [self.as_model(instance)]
        keys = [i._meta.pk for i in with_parents(self.base) if isinstance(instance, i)]
        # A parent: the rows of our model that share its row.
        same = [Q(**{key.name: getattr(instance, key.attname)}) for key in keys if key]
        found = self.model._base_manager.using(using)
        return found.filter(reduce(or_, same)) if same else []

    def related_objects(self, field: Any, instance: Any, using: str, event: Any) -> Any:
        """Return the instances of our model at the other end of a changed relation."""
        model, keys = event["model"], event["pk_set"]
        if issubclass(self.base, concrete_model(model)):
            model = self.model
        elif not issubclass(model, self.base):
            return []
        through = field.remote_field.through
        near, far = field.m2m_field_name(), field.m2m_reverse_field_name()
        if event["reverse"]:
            near, far = far, near
        if keys is None:  # the relation is being cleared
            links = through._base_manager.using(using).filter(**{near: instance})
            keys = set(links.values_list(far, flat=True))
        to = through._meta.get_field(far).target_field.name  # not always the pk
        found = model._base_manager.using(using).filter(**{f"{to}__in": keys})
        return [self.as_model(one) for one in found]


#: Registrations by the name of a model that is not loaded yet.
_unresolved: dict[Dependency, str] = {}
#: Registrations on an abstract model: they apply to each new subclass.
_abstract: list[Dependency] = []
_registered: list[Dependency] = []
#: The dependencies that a signal of a sender concerns, each with the relation if any.
_connected: dict[tuple[signals.ModelSignal, Class], list[tuple[Dependency, Any]]] = {}


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
    if calls is not None and not callable(calls):
        raise TypeError(f"{new}: {calls!r} is not callable; write a function")
    signals.class_prepared.connect(_connect_new_class, weak=False, dispatch_uid=UID)
    if isinstance(model, str):
        key = make_model_tuple(model)
        if apps.models_ready:
            apps.get_model(model)
        _unresolved[new] = model
        apps.lazy_model_operation(partial(_resolve_model, new), key)
    else:
        _resolve_model(new, check_model(model, str(new)))


def unknown_models() -> list[tuple[str, str]]:
    """Return (function, model) for registrations whose model is not loaded."""
    return [(one.name, model) for one, model in _unresolved.items()]


def invalidate_model(model: Class | str) -> None:
    """Invalidate every call of every function that was registered for ``model``, or for
    a model that shares rows with it.

    Use it after changes that send no signals: ``QuerySet.update()``, the bulk methods,
    raw SQL, migrations. All functions are tried before the first error is raised.

    Raises TypeError for what is no model, and before anything is invalidated if one of
    the functions has no tags; LookupError or ValueError for a wrong model name.
    """
    if not isinstance(model, str):
        past = check_model(model, "invalidate_model")._meta.apps is not apps
        model = model._meta.label if past else model  # a migration's own class
    if isinstance(model, str):
        make_model_tuple(model)  # it has the better message for a malformed name
        model = apps.get_model(model)
    rows = with_subclasses(model)
    found = [
        d for d in _registered if any(issubclass(i, with_parents(d.base)) for i in rows)
    ]
    without = ", ".join(dict.fromkeys(d.name for d in found if not d.invalidate_all))
    if without:
        raise TypeError(
            f"invalidate_model({model.__name__}) invalidates every call, which needs "
            f"tags: write @cache_memoize(..., tags=()) for {without}"
        )
    _run_all(partial(d.run_named, d.invalidate_all) for d in found if d.invalidate_all)


async def ainvalidate_model(model: Class | str) -> None:
    """:func:`invalidate_model` for async code."""
    await sync_to_async(invalidate_model)(model)


# --- senders -------------------------------------------------------------------------


def check_model(model: Any, where: str) -> Class:
    if isinstance(model, type) and issubclass(model, Model) and model is not Model:
        return model
    raise TypeError(f'{where}: {model!r} is no model; write the class or "app.Model"')


def concrete_model(model: Class) -> Class:
    return model._meta.concrete_model or model  # None: it is abstract


def with_parents(base: Class) -> tuple[Class, ...]:
    """Return the model and its parents: a subclass of any of them may have a part of
    the same row."""
    return base, *base._meta.get_parent_list()


def with_subclasses(model: Class) -> set[Class]:
    """Return the model and its subclasses, without abstract ones, those of migrations,
    and one whose class statement is still running."""
    found = set().union(*(with_subclasses(one) for one in model.__subclasses__()))
    meta: Any = vars(model).get("_meta")
    is_real = meta is not None and not meta.abstract and meta.apps is apps
    return {model, *found} if is_real else found


def _resolve_model(new: Dependency, model: Class) -> None:
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
        if one.calls and one.before:
            _connect_signal(signals.pre_save, model, one)
        _connect_signal(signals.post_save, model, one)
    if issubclass(model, one.base):  # deleting a parent signals its children too
        _connect_signal(signals.pre_delete, model, one)
        _connect_signal(signals.post_delete, model, one)
    owner: Any = model._meta.auto_created or model
    for field in owner._meta.local_many_to_many:
        other, through = field.remote_field.model, field.remote_field.through
        if owner is not model:  # the table of a relation that is being made
            through = None if through else model
        if through:  # a model that was swapped out has none
            attach = partial(_connect_relation, one, field)
            if isinstance(other, str) or isinstance(through, str):
                lazy_related_operation(attach, owner, other, through)
            else:
                attach(owner, other, through)


def _connect_relation(one: Dependency, field: Any, *models: Class) -> None:
    base, (*ends, through) = one.base, models
    if any(
        issubclass(end, base) or issubclass(base, concrete_model(end)) for end in ends
    ):
        _connect_signal(signals.m2m_changed, through, one, field)


def _connect_signal(
    signal: signals.ModelSignal, sender: Class, one: Dependency, field: Any = 0
) -> None:
    dependencies = _connected.setdefault((signal, sender), [])
    if (one, field) not in dependencies:
        dependencies.append((one, field))
    signal.connect(_receive_signal, sender=sender, weak=False, dispatch_uid=UID)


# --- signals -------------------------------------------------------------------------


def _receive_signal(
    sender: Class, signal: Any, instance: Any, using: str, **event: Any
) -> None:
    when, _, what = event.get("action", "").partition("_")
    saves = signal in (signals.pre_save, signals.post_save)
    before = when == "pre" or signal in (signals.pre_delete, signals.pre_save)
    kept: Any = vars(instance._state).setdefault("cache_memoize", KeptActions())
    rows: dict[Any, Any] = {}
    if saves:  # of a relation too, which loading a fixture sets after the save
        kept.pop("raw", None)
        kept |= {"raw": True} if event.get("raw") else {}

    def handle(one: Dependency, field: Any) -> None:
        """Before a change, keep the actions; after it, run them and those that the new
        state demands."""
        objects, actions = kept.pop((one, field, what, saves), None) or (None, {})
        if signal is signals.pre_save:
            objects = one.stored_objects(instance, using, rows)
        elif before or objects is None:
            objects = one.affected_objects(instance, using)
            actions = actions if saves else {}
            if field:
                others = one.related_objects(field, instance, using, event)
                objects = [*objects, *others]
        try:
            actions = actions | one.collect_actions(objects)
        except Exception:
            if not kept.get("raw"):
                raise

            def invalidate_later() -> None:
                one.run_named(partial(one.invalidate_loaded, objects))

            # A fixture may refer to rows that it loads later.
            transaction.on_commit(invalidate_later, using, robust=True)
        if saves and before:
            # Added to those of a save that this one is part of, or that has failed.
            kept[one, field, what, saves] = None, actions
        elif before:  # a deleted row cannot be read later
            later = [] if signal is signals.pre_delete else objects
            kept[one, field, what, saves] = later, actions
        else:
            _run_all(actions.values())

    # As Django does, take a new instance whose key has a default for a new row.
    new = instance._state.adding and instance._meta.pk.has_default()
    if signal is signals.pre_save and new and not event["raw"]:
        return
    if event.get("pk_set") != set():
        _run_all(
            partial(one.run_named, partial(handle, one, field))
            for one, field in list(_connected.get((signal, sender), ()))
            # two relations may use one table
            if not field
            or event["model"]
            is (field.model if event["reverse"] else field.related_model)
        )


def _run_all(actions: Iterable[Action]) -> None:
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
