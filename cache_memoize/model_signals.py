"""Which models a memoized function depends on: their signals forget its calls.

Django looks for receivers before it writes: where there are none it deletes many rows
at once, and adds to a relation without a signal. So a sender is connected as soon as
its class exists (``class_prepared``), not at the first write; and each by itself, or
the whole project would lose these short cuts.

Receivers run in the order in which they were connected: ours when the function is
registered, or when the class is made if that is later. What was connected earlier,
such as a ``@receiver`` above the registration, still sees the old value, and when it
raises the signal does not come here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import or_
from types import NoneType
from typing import Any
from uuid import UUID

from asgiref.sync import sync_to_async
from django.apps import apps
from django.db.models import Model, Q, signals
from django.db.models.fields.related import lazy_related_operation
from django.db.models.utils import make_model_tuple

__all__ = ["ainvalidate_model", "depend", "invalidate_model", "unknown_models"]

logger = logging.getLogger("cache_memoize")
Class = type[Model]
Step = Callable[[], object]
UID = "cache_memoize"  # one receiver per signal and sender
PLAIN = {bool, int, str, UUID, NoneType}  # what tells by its text that it is the same


@dataclass(frozen=True, eq=False)
class Dependency:
    """One registration, on one model; see :func:`depend`."""

    model: Any  # Class; a string until that is known
    name: str
    forget_call: Callable[[tuple[Any, ...]], object]
    forget_all: Step | None
    calls: Callable[[Any], object] | None

    def __str__(self) -> str:
        name = getattr(self.model, "__name__", repr(self.model))
        return f"{self.name}.invalidate_on({name})"

    @property
    def base(self) -> Class:
        return concrete(self.model)

    def steps(self, objects: Any) -> dict[Any, Step]:
        """What to do because these instances (a list or QuerySet) change."""
        if self.calls is None:
            there = any(True for _ in objects[:1])
            return {self: self.forget_all} if there and self.forget_all else {}
        steps: dict[Any, Step] = {}
        for args in (args for one in objects for args in self.ask(self.calls, one)):
            same = repr(args) if PLAIN.issuperset(map(type, args)) else object()
            steps[same] = partial(self.forget_call, args)
        return steps

    def ask(self, calls: Callable[[Any], Any], instance: Any) -> list[tuple[Any, ...]]:
        answer = calls(instance)
        many = answer if isinstance(answer, list) else [answer]
        wrong = [type(one).__name__ for one in many if not isinstance(one, tuple)]
        if answer is None or not wrong:
            return [] if answer is None else many
        raise TypeError(
            f"{self}: the callable returned {'a list with ' * (many is answer)}"
            f"{wrong[0]}; write the arguments of one call as a tuple, such as "
            "(post.pk,), several calls as a list of tuples, or None for nothing"
        )

    def named(self, step: Step) -> None:
        try:
            step()
        except Exception as error:
            error.add_note(f"Raised by {self}.")
            raise

    def view(self, instance: Any) -> Any:
        """An instance of a proxy, parent or child as one of the model: its methods, its
        primary key."""
        pk = self.model._meta.pk.attname
        if isinstance(instance, self.model) and instance.pk == getattr(instance, pk):
            return instance
        view = self.model.__new__(self.model)
        vars(view).update(vars(instance))
        return view

    def objects(self, instance: Any, using: str) -> Any:
        """What the instance is to this: itself, or rows with a parent in common."""
        if isinstance(instance, self.base):
            return [self.view(instance)]
        keys = [i._meta.pk for i in lineage(self.base) if isinstance(instance, i)]
        same = [Q(**{key.name: getattr(instance, key.attname)}) for key in keys if key]
        found = self.model._base_manager.using(using)
        return found.filter(reduce(or_, same)) if same else []

    def others(self, field: Any, instance: Any, using: str, event: Any) -> list[Any]:
        """What the other end of a changed relation is to this."""
        model, keys = event["model"], event["pk_set"]
        if issubclass(self.base, concrete(model)):
            model = self.model
        elif not issubclass(model, self.base):
            return []
        through = field.remote_field.through
        near, far = field.m2m_field_name(), field.m2m_reverse_field_name()
        if event["reverse"]:
            near, far = far, near
        if keys is None:  # all that are there
            links = through._base_manager.using(using).filter(**{near: instance})
            keys = set(links.values_list(far, flat=True))
        to = through._meta.get_field(far).target_field.name  # not always the pk
        found = model._base_manager.using(using).filter(**{f"{to}__in": keys})
        return [self.view(one) for one in found]


_unknown: dict[Dependency, str] = {}
_abstract: list[Dependency] = []
_known: list[Dependency] = []
#: Who listens, and to which relation.
_watched: dict[tuple[signals.ModelSignal, Class], list[tuple[Dependency, Any]]] = {}


class Kept(dict[Any, Any]):
    """What was seen before a change. It hangs on the state of the instance that tells
    of it, so it ends with that, and is not pickled."""

    def __reduce__(self) -> Any:
        return dict, ()


def depend(
    model: Class | str,
    name: str,
    forget_call: Callable[[tuple[Any, ...]], object],
    forget_all: Step | None = None,
    calls: Callable[[Any], object] | None = None,
) -> None:
    """Forget calls of the function ``name`` on ``post_save`` (fixtures too),
    ``post_delete`` and ``m2m_changed`` of ``model``: a class, abstract or proxy too, or
    ``"app_label.ModelName"``, loaded or not.

    ``calls(instance)`` returns the arguments of one call as a tuple, a list of such
    tuples, or None; ``forget_call`` gets each. Without it ``forget_all()`` is called. A
    deletion asks ``calls`` while the row is there; the end of a relation asks before
    and after. What they raise goes to who saved, after all others had their turn.

    TypeError: no model, not callable, or neither ``calls`` nor ``forget_all`` (no
    tags). ValueError: a malformed name. LookupError: an unknown one, if all models are
    loaded; otherwise :func:`unknown_models` has it.
    """
    new = Dependency(model, name, forget_call, forget_all, calls)
    if calls is None and forget_all is None:
        raise TypeError(
            f"{new} without a callable forgets every call, which needs tags: write "
            "@cache_memoize(..., tags=()), or a callable that returns the arguments of "
            "the calls to forget"
        )
    if calls is not None and not callable(calls):
        raise TypeError(f"{new}: {calls!r} is not callable; write a function")
    signals.class_prepared.connect(_prepared, weak=False, dispatch_uid=UID)
    if isinstance(model, str):
        key = make_model_tuple(model)
        if apps.models_ready:
            apps.get_model(model)
        _unknown[new] = model
        apps.lazy_model_operation(partial(_learn, new), key)
    else:
        _learn(new, a_model(model, str(new)))


def unknown_models() -> list[tuple[str, str]]:
    """(function, model) of registrations whose model has not been loaded."""
    return [(one.name, model) for one, model in _unknown.items()]


def invalidate_model(model: Class | str) -> None:
    """Forget every call of every function that was registered for ``model`` or one that
    shares rows with it. For what sends no signals: ``QuerySet.update()``, the bulk
    methods, raw SQL, migrations.

    TypeError before anything is forgotten, if one of them has no tags; TypeError,
    LookupError, ValueError for what is no model. All are tried before one raises.
    """
    if not isinstance(model, str):
        past = a_model(model, "invalidate_model")._meta.apps is not apps
        model = model._meta.label if past else model  # a migration's own class
    if isinstance(model, str):
        make_model_tuple(model)  # its words for a malformed name are better
        model = apps.get_model(model)
    rows = below(model)
    found = [d for d in _known if any(issubclass(i, lineage(d.base)) for i in rows)]
    without = ", ".join(dict.fromkeys(d.name for d in found if not d.forget_all))
    if without:
        raise TypeError(
            f"invalidate_model({model.__name__}) forgets every call, which needs tags: "
            f"write @cache_memoize(..., tags=()) for {without}"
        )
    _all(partial(d.named, d.forget_all) for d in found if d.forget_all)


async def ainvalidate_model(model: Class | str) -> None:
    """:func:`invalidate_model` for async code."""
    await sync_to_async(invalidate_model)(model)


# --- senders -------------------------------------------------------------------------


def a_model(model: Any, where: str) -> Class:
    if isinstance(model, type) and issubclass(model, Model) and model is not Model:
        return model
    raise TypeError(f'{where}: {model!r} is no model; write the class or "app.Model"')


def concrete(model: Class) -> Class:
    return model._meta.concrete_model or model  # None: it is abstract


def lineage(base: Class) -> tuple[Class, ...]:
    """The model and its parents: who inherits from any of them may have a part of the
    same row."""
    return base, *base._meta.get_parent_list()


def below(model: Class) -> set[Class]:
    """The model and all that inherit from it: not the abstract, nor those that
    migrations make, nor one that is just being made."""
    found = set().union(*(below(one) for one in model.__subclasses__()))
    meta: Any = vars(model).get("_meta")
    there = meta is not None and not meta.abstract and meta.apps is apps
    return {model, *found} if there else found


def _learn(new: Dependency, model: Class) -> None:
    _unknown.pop(new, None)
    new = replace(new, model=model)
    if model._meta.abstract:
        _abstract.append(new)
        _adopt(new, below(model))
    else:
        _aim(new)


def _adopt(one: Dependency, models: Iterable[Class]) -> None:
    """An abstract model stands for the topmost models that inherit from it."""
    heirs = below(one.model)
    for model in heirs.intersection(models):
        if heirs.isdisjoint(model.__mro__[1:]):
            _aim(replace(one, model=model))


def _aim(one: Dependency) -> None:
    _known.append(one)  # first, so that no class can be made in between
    for model in below(Model):
        _attach(one, model)


def _prepared(sender: Class, **kwargs: Any) -> None:
    if sender._meta.apps is not apps:
        return  # of a migration, which makes many
    for one in list(_abstract):
        _adopt(one, [sender])
    for one in list(_known):
        _attach(one, sender)


def _attach(one: Dependency, model: Class) -> None:
    if issubclass(model, lineage(one.base)):
        _watch(signals.post_save, model, one)
    if issubclass(model, one.base):  # a deleted parent tells of its children
        _watch(signals.pre_delete, model, one)
        _watch(signals.post_delete, model, one)
    owner: Any = model._meta.auto_created or model
    for field in owner._meta.local_many_to_many:
        other, through = field.remote_field.model, field.remote_field.through
        if owner is not model:  # the table of a relation that is being made
            through = None if through else model
        if through:  # a model that was swapped out has none
            attach = partial(_attach_relation, one, field)
            if isinstance(other, str) or isinstance(through, str):
                lazy_related_operation(attach, owner, other, through)
            else:
                attach(owner, other, through)


def _attach_relation(one: Dependency, field: Any, *models: Class) -> None:
    base, (*ends, through) = one.base, models
    if any(issubclass(end, base) or issubclass(base, concrete(end)) for end in ends):
        _watch(signals.m2m_changed, through, one, field)


def _watch(
    signal: signals.ModelSignal, sender: Class, one: Dependency, field: Any = 0
) -> None:
    watching = _watched.setdefault((signal, sender), [])
    if (one, field) not in watching:
        watching.append((one, field))
    signal.connect(_received, sender=sender, weak=False, dispatch_uid=UID)


# --- signals -------------------------------------------------------------------------


def _received(
    sender: Class, signal: Any, instance: Any, using: str, **event: Any
) -> None:
    when, _, what = event.get("action", "").partition("_")
    before = when == "pre" or signal is signals.pre_delete
    kept: Any = vars(instance._state).setdefault("cache_memoize", Kept())

    def turn(one: Dependency, field: Any) -> None:
        """Before a change keep what to do; after it do that, and what is seen then."""
        objects, steps = kept.pop((one, field, what), None) or (None, {})
        if before or objects is None:
            objects, steps = one.objects(instance, using), {}
            if field:
                objects = [*objects, *one.others(field, instance, using, event)]
        steps = steps | one.steps(objects)
        if before:  # of a deleted row nothing can be seen later
            seen = [] if signal is signals.pre_delete else objects
            kept[one, field, what] = seen, steps
        else:
            _all(steps.values())

    if event.get("pk_set") != set():
        _all(
            partial(one.named, partial(turn, one, field))
            for one, field in list(_watched.get((signal, sender), ()))
            # two relations may use one table
            if not field
            or event["model"]
            is (field.model if event["reverse"] else field.related_model)
        )


def _all(steps: Iterable[Step]) -> None:
    """Do all; then raise the first error. The others go to the log."""
    errors = []
    for step in steps:
        try:
            step()
        except Exception as error:
            errors.append(error)
    for other in errors[1:]:
        logger.error("One more error while calls were forgotten", exc_info=other)
    if errors:
        raise errors[0]
