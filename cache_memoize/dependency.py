"""One registration of ``invalidate_on``: which calls a change of a row concerns.

A change of one row may affect instances of several models: a parent, a child, the other
end of a relation, rows that refer to a deleted one.

An instance may hold values in another form than the database (``"5"`` for 5, a member
of ``TextChoices``), which would be the arguments of another call. So callables get a
copy of it with the values that a read would return (:func:`as_stored`). It may also
hold values that are not saved: so before a change, the row is read.

Some rows change without a signal because another row is deleted. ``SET_NULL`` and its
relatives are an UPDATE. With ``DB_CASCADE`` and its relatives (Django 6.1), the
database itself changes or deletes the rows, over any number of foreign keys. So the
targets of such foreign keys are watched; the rows that refer to a target are read
before it is deleted, because afterwards they are gone or refer to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial, reduce
from inspect import iscoroutinefunction, signature
from itertools import chain
from operator import or_
from types import NoneType
from typing import Any
from uuid import UUID

from django.apps import apps
from django.db import models
from django.db.models import Model, Q

from .keys.columns import as_stored

__all__ = [
    "Action",
    "Args",
    "Change",
    "Class",
    "Dependency",
    "concrete_model",
    "deletes_silently",
    "silent_fields",
    "with_parents",
    "with_subclasses",
]

Class = type[Model]
Action = Callable[[], object]
Args = tuple[Any, ...]
#: Types whose values are equal if their representations are.
PLAIN_TYPES = {bool, int, str, UUID, NoneType}
#: These signal each row, refuse the deletion, or leave the rows as they are.
NOT_SILENT = models.CASCADE, models.PROTECT, models.RESTRICT, models.DO_NOTHING, None
DB_CASCADE = getattr(models, "DB_CASCADE", None)
#: Rows that one query asks for, at most.
BATCH = 500


# --- a registration ------------------------------------------------------------------


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
    #: The models, other than ours, of which signals are needed: each with the relation
    #: or foreign key that leads there, and whether saves are needed too.
    watched: list[tuple[Class, Any, bool]] = field(default_factory=list, init=False)

    def __str__(self) -> str:
        name = getattr(self.model, "__name__", repr(self.model))
        return f"{self.name}.invalidate_on({name})"

    @property
    def base(self) -> Class:
        return concrete_model(self.model)

    def check_callable(self) -> None:
        """Refuse what cannot return the arguments of calls for one instance."""
        calls: Any = self.calls
        if calls is None:
            return
        fits = not (isinstance(calls, type) or iscoroutinefunction(calls))
        try:
            signature(calls).bind(None)
        except TypeError:
            fits = False
        except ValueError:  # some builtins have no signature
            pass
        if not fits:
            raise TypeError(
                f"{self}: {calls!r} is no function of one instance; write one that "
                "returns the arguments of a call, as lambda post: (post.pk,)"
            )

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
        stored = read_stored(self.base, pk, using, rows)
        return [self.as_model(row) for row in stored]

    def affected_objects(self, instance: Any, using: str) -> Any:
        """Return the instances of our model affected by a change of ``instance``."""
        if isinstance(instance, self.base):
            return [self.as_model(instance)]
        keys = [i._meta.pk for i in with_parents(self.base) if isinstance(instance, i)]
        # A parent: the rows of our model that share its row.
        same = [Q(**{key.name: getattr(instance, key.attname)}) for key in keys if key]
        found = self.model._base_manager.using(using)
        return found.filter(reduce(or_, same)) if same else []

    def read_again(self, objects: Any, using: str) -> list[Any]:
        """Return those of the instances that still exist, as they are now."""
        rows = self.model._base_manager.using(using)
        return list(rows.in_bulk([one.pk for one in objects]).values())

    def objects_at_end(self, field: Any, near: bool, keys: Any, using: str) -> Any:
        """Return the instances of our model at one end of a many-to-many relation, at
        the model that has the field if ``near``, that have these keys in a link."""
        model = field.model if near else field.related_model
        if issubclass(self.base, concrete_model(model)):
            model = self.model
        elif not issubclass(model, self.base):
            return []
        to = link_field(field, near).target_field.name  # not always the pk
        found = model._base_manager.using(using).filter(**{f"{to}__in": keys})
        found = found[:1] if self.calls is None else found  # one is enough
        return [self.as_model(one) for one in found]

    def linked_objects(
        self, field: Any, instance: Any, using: str, ends: Any = (True, False)
    ) -> Any:
        """Return the instances of our model at these ends of a relation that a row of
        its table links, or that are linked with a row at the other end."""
        through, found = field.remote_field.through, []
        for near in ends:
            this, other = link_field(field, near), link_field(field, not near)
            if isinstance(instance, through):
                keys = {getattr(instance, this.attname)}
            elif isinstance(instance, other.related_model):
                links = through._base_manager.using(using)
                links = links.filter(**{other.name: instance})
                keys = set(links.values_list(this.attname, flat=True))
            else:
                continue
            found += self.objects_at_end(field, near, keys, using)
        return found


# --- a signal ------------------------------------------------------------------------


@dataclass
class Change:
    """A signal, and what was read for it."""

    instance: Any
    using: str
    event: dict[str, Any]
    saves: bool
    #: Whether the change is still to come.
    before: bool
    #: Rows as they were before the change, by model.
    rows: dict[Class, list[Any]]

    def objects_of(self, one: Dependency, field: Any) -> list[Any]:
        """Return the instances of the model of ``one`` that the change concerns, by
        this relation or foreign key if there is one."""
        if not field:
            return self.own_objects(one)
        if "action" in self.event:
            return [*self.own_objects(one), *self.objects_of_relation(one, field)]
        return list(self.linked_objects(one, field))

    def own_objects(self, one: Dependency) -> list[Any]:
        """Return those that share a row with the instance of the signal."""
        instance, using = self.instance, self.using
        stored = affected = ()
        if self.reads_row(one):
            stored = one.stored_objects(instance, using, self.rows)
        if not (self.before and self.saves) and not (stored and "action" in self.event):
            affected = one.affected_objects(instance, using)
        return [*stored, *affected]

    def reads_row(self, one: Dependency) -> bool:
        """Return whether the instance may have values that are not saved, and the
        callable is to be asked with those of the row."""
        unsaved = self.saves or "action" in self.event
        unsaved = unsaved or self.instance is self.event.get("origin")
        return self.before and unsaved and one.before and one.calls is not None

    def objects_of_relation(self, one: Dependency, field: Any) -> Any:
        near, keys = self.event["reverse"], self.event["pk_set"]
        if keys is None:  # the relation is being cleared
            return one.linked_objects(field, self.instance, self.using, [near])
        return one.objects_at_end(field, near, keys, self.using)

    def linked_objects(self, one: Dependency, field: Any) -> Iterator[Any]:
        """Yield those that are linked with the row, or by it, and those that refer to
        it by a foreign key."""
        rows, using = [self.instance], self.using
        fields = {other for _, other, _ in one.watched}
        links = {other for other in fields if other.many_to_many}
        if field not in links:
            enough = one.base if one.calls is None else None
            rows = list(reached_rows(field, rows, fields - links, using, enough))
            for row in rows:
                yield from one.affected_objects(row, using)
        else:
            links, through = {field}, field.remote_field.through
            if self.reads_row(one) and isinstance(self.instance, through):
                rows += read_stored(through, self.instance.pk, using, self.rows)
        for row in rows:
            for link in links:
                yield from one.linked_objects(link, row, using)


def read_stored(
    model: Class, pk: Any, using: str, rows: dict[Class, list[Any]]
) -> list[Any]:
    """Return the row as it is in the database, in a list; an empty one for a new row.
    ``rows`` keeps what was read for one signal."""
    if pk is None or hasattr(pk, "resolve_expression"):
        return []
    if model not in rows:
        rows[model] = list(model._base_manager.using(using).filter(pk=pk))
    return rows[model]


def link_field(field: Any, near: bool) -> Any:
    """Return the foreign key of a relation's table to one of its ends."""
    name = field.m2m_field_name() if near else field.m2m_reverse_field_name()
    return field.remote_field.through._meta.get_field(name)


# --- models --------------------------------------------------------------------------


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


# --- cascades ------------------------------------------------------------------------


def silent_fields(model: Class) -> list[Any]:
    """Return the foreign keys in the model's own table, for which a deletion of the
    target changes rows without a signal."""
    fields: Any = model._meta.local_concrete_fields
    rules = [(f, getattr(f.remote_field, "on_delete", None)) for f in fields]
    return [field for field, on_delete in rules if on_delete not in NOT_SILENT]


def deletes_silently(field: Any) -> bool:
    """Return whether the database deletes the rows together with their target."""
    return DB_CASCADE is not None and field.remote_field.on_delete is DB_CASCADE


def reached_rows(
    field: Any,
    targets: list[Any],
    fields: Iterable[Any],
    using: str,
    enough: Class | None = None,
) -> Iterator[Any]:
    """Yield the rows that refer to one of ``targets`` by ``field``; where the database
    deletes them, also those that refer to them by one of ``fields``, and so on. Of the
    model ``enough``, yield one row at most per query."""
    todo: list[tuple[Any, list[Any]]] = [(field, targets)]
    seen: set[Any] = set()
    while todo:
        field, targets = todo.pop()
        to = field.target_field.attname
        keys = {(field, getattr(one, to)) for one in targets} - seen
        seen |= keys
        values = [value for _, value in keys if value is not None]
        model = field.model
        for start in range(0, len(values), BATCH):
            only = {f"{field.name}__in": values[start : start + BATCH]}
            found = model._base_manager.using(using).filter(**only)
            rows = list(found[:1] if enough and issubclass(model, enough) else found)
            yield from rows
            if rows and deletes_silently(field):
                todo += [(f, rows) for f in fields if refers_to(f, model)]


def refers_to(field: Any, model: Class) -> bool:
    return concrete_model(field.related_model) is concrete_model(model)
