"""One registration of ``invalidate_on``: which calls a change of a row concerns.

A change of one row may affect instances of several models: a parent, a child, the other
end of a relation, rows that refer to a deleted one.

An instance may hold values in another form than the database (``"5"`` for 5, a member
of ``TextChoices``), which would be the arguments of another call. So callables get a
copy of it with the values that a read would return (:func:`as_stored`). It may also
hold values that are not saved: so before a change, the row is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial, reduce
from itertools import chain
from operator import or_
from types import NoneType
from typing import Any
from uuid import UUID

from django.db.models import Model, Q

from .cascades import concrete_model, reached_rows, with_parents
from .keys.columns import as_stored

__all__ = ["Action", "Args", "Change", "Class", "Dependency"]

Class = type[Model]
Action = Callable[[], object]
Args = tuple[Any, ...]
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
    #: The models, other than ours, of which signals are needed: each with the relation
    #: or foreign key that leads there, and whether saves are needed too.
    watched: list[tuple[Class, Any, bool]] = field(default_factory=list, init=False)

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
        found = self.model._base_manager.using(using).in_bulk(
            [one.pk for one in objects]
        )
        return list(found.values())

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
            rows = list(reached_rows(field, rows, fields - links, using))
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
