"""A memoized function is a function: for whatever looks at functions, or sets something
on them."""

from __future__ import annotations

import asyncio
import functools
import importlib
import inspect
import types
from collections.abc import Callable
from unittest import mock

import celery
import pytest
from django.contrib import admin
from django.core.cache import caches
from django.core.exceptions import ValidationError
from django.db import models
from django.db.migrations.writer import MigrationWriter
from django.template import Context, Engine
from pydantic import BaseModel

from cache_memoize import cache_memoize


@pytest.fixture(autouse=True)
def clean():
    caches["default"].clear()
    yield
    caches["default"].clear()


@cache_memoize(60)
def related(post_id: int = 0) -> list[int]:
    return [post_id]


@cache_memoize(60)
async def arelated(post_id: int) -> list[int]:
    return [post_id]


@cache_memoize(60, cache_exceptions=ValidationError)
def is_positive(value):
    if value <= 0:
        raise ValidationError("not positive")


class Shop:
    """A service, the same everywhere."""

    @cache_memoize(60, ignore=("self",))
    def price(self, item: int) -> int:
        return item * 2

    @cache_memoize(60, ignore=("self",))
    async def aprice(self, item: int) -> int:
        return item * 2


def test_it_is_one():
    for function in (related, arelated, Shop.price):
        assert type(function) is types.FunctionType
        assert inspect.isfunction(function) and inspect.isroutine(function)
    assert isinstance(Shop.price, Callable)


# --- migrations ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "field",
    [
        models.JSONField(default=related),
        models.IntegerField(validators=[is_positive]),
        models.FileField(upload_to=related),
        models.IntegerField(default=related, choices=[(1, "one")]),
    ],
)
def test_migrations_write_its_name(field):
    text, imports = MigrationWriter.serialize(field)
    assert "tests.test_function." in text and "functools" not in text
    scope = {}
    exec("\n".join(imports), scope)
    again = eval(text, scope)
    assert again.deconstruct()[3] == field.deconstruct()[3]


# --- queues and schedulers -----------------------------------------------------------


def test_celery_takes_it_in_every_way():
    app = celery.Celery("tests", broker="memory://", set_as_current=False)
    app.conf.task_always_eager = True

    @app.task
    @cache_memoize(60)
    def double(n):
        runs.append(n)
        return n * 2

    @app.task(bind=True)
    @cache_memoize(60, ignore=("self",))
    def bound(self, n):
        return self.name, n

    @celery.shared_task
    @cache_memoize(60)
    def shared(n):
        return n * 3

    runs = []
    assert double.delay(2).get() == double.delay(2).get() == 4 and runs == [2]
    assert double(2) == 4 and runs == [2]
    assert double.name.endswith("double")
    name, number = bound.delay(5).get()
    assert name.endswith("bound") and number == 5
    assert shared(2) == 6
    # And the controls are where the function is.
    double.run.invalidate(2)
    assert double(2) == 4 and runs == [2, 2]


def test_django_tasks_take_it():
    try:
        tasks = importlib.import_module("django.tasks")
    except ImportError:
        tasks = importlib.import_module("django_tasks")
    task = tasks.task(related)
    assert task.module_path == "tests.test_function.related"
    assert task.call(3) == [3]


def test_apschedulers_references_lead_to_it():
    from apscheduler import util

    assert util.ref_to_obj(util.obj_to_ref(related)) is related


# --- classes that look at their bodies -----------------------------------------------


class Titles(models.QuerySet):
    @cache_memoize(60, ignore=("self",))
    def longest(self, least: int = 0) -> int:
        return least + 1


@pytest.mark.parametrize(
    "manager", [Titles.as_manager(), models.Manager.from_queryset(Titles)()]
)
def test_managers_have_the_methods_of_their_querysets(manager):
    assert type(manager).longest.__name__ == "longest"
    assert str(inspect.signature(type(manager).longest)) == (
        "(self, least: 'int' = 0) -> 'int'"
    )
    manager.model = mock.Mock()
    assert manager.longest(1) == 2 == manager.get_queryset().longest(1)


def test_the_body_of_a_pydantic_model():
    class Order(BaseModel):
        number: int

        @cache_memoize(60, ignore=("self",))
        def total(self, more: int) -> int:
            return self.number + more

        @cache_memoize(60, ignore=("cls",))
        @classmethod
        def kinds(cls) -> list[str]:
            return ["order"]

    order = Order(number=1)
    assert order.total(2) == 3 and order.total.peek(2).value == 3
    assert Order.kinds() == ["order"]
    assert set(Order.model_fields) == {"number"}


# --- mocks ---------------------------------------------------------------------------


def test_autospec_knows_its_parameters_and_controls():
    with mock.patch(f"{__name__}.related", autospec=True) as double:
        related(1)
        related.invalidate(1)
        double.assert_called_once_with(1)
        with pytest.raises(TypeError, match="too many positional"):
            related(1, 2)
        with pytest.raises(AttributeError):
            double.invalidte(1)
    with mock.patch(f"{__name__}.arelated", autospec=True) as double:
        double.return_value = [5]
        assert asyncio.run(arelated(1)) == [5]


def test_autospec_knows_methods():
    with mock.patch.object(Shop, "price", autospec=True, return_value=7) as double:
        shop = Shop()
        assert shop.price(1) == 7
        double.assert_called_once_with(shop, 1)
        with pytest.raises(TypeError):
            shop.price(1, 2)
    assert Shop().price(1) == 2
    double = mock.create_autospec(Shop)
    double.return_value.price(1)
    with pytest.raises(TypeError):
        double.return_value.price(1, 2)


def test_a_patched_coroutine_function_is_awaited():
    with mock.patch.object(Shop, "aprice", return_value=7) as double:
        assert isinstance(double, mock.AsyncMock)
        assert asyncio.run(Shop().aprice(1)) == 7
    with mock.patch(f"{__name__}.arelated") as double:
        assert isinstance(double, mock.AsyncMock)


# --- what is set on it ---------------------------------------------------------------


def test_the_admins_decorators_may_stand_above_and_below():
    class Page(admin.ModelAdmin):
        @admin.display(boolean=True, ordering="price", description="Cheap?")
        @cache_memoize(60, ignore=("self",))
        def above(self, row):
            return True

        @cache_memoize(60, ignore=("self",))
        @admin.display(boolean=True, ordering="price", description="Cheap?")
        def below(self, row):
            return True

        @cache_memoize(60, ignore=("self",))
        def later(self, row):
            return True

        later.boolean, later.admin_order_field = True, "price"
        later.short_description = "Cheap?"

    page = Page(mock.Mock(), mock.Mock())
    for name in ("above", "below", "later"):
        for found in (getattr(page, name), getattr(Page, name)):
            assert found.boolean is True and found.admin_order_field == "price"
            assert found.short_description == "Cheap?"
    Page.later.short_description = "Dear?"
    assert page.later.short_description == "Dear?"


def test_a_template_does_not_call_what_alters_data():
    calls = []

    class Row:
        @cache_memoize(60, ignore=("self",))
        def delete(self):
            calls.append(1)

        delete.alters_data = True

        @cache_memoize(60, ignore=("self",))
        def title(self):
            return "tea"

    template = Engine().from_string("{{ row.title }}{{ row.delete }}")
    assert template.render(Context({"row": Row()})) == "tea" and not calls


def test_what_is_set_on_it_is_on_what_wraps_it_too():
    class Row:
        @cache_memoize(60)
        def title(self):
            """The title."""

        title.one = 1

    assert vars(Row)["title"].one == Row.title.one == Row().title.one == 1
    assert Row().title.__doc__ == "The title."
    with pytest.raises(AttributeError):
        _ = Row().title.two


# --- as an argument ------------------------------------------------------------------


def test_it_can_be_an_argument_of_another():
    @cache_memoize(60, prefix="argument")
    def call(function, *args):
        runs.append(function)
        return function(*args)

    runs = []
    assert call(related, 1) == call(related, 1) == [1]
    assert call(related, 2) == [2]
    assert len(runs) == 2
    assert call.get_cache_key(related) != call.get_cache_key(arelated)


# --- together with other decorators --------------------------------------------------


def test_it_may_stand_above_lru_cache_and_below_a_partial_of_itself():
    runs = []

    @cache_memoize(60, prefix="above")
    @functools.lru_cache
    def double(x, y=2):
        runs.append(x)
        return [x, y]

    assert double(1) == double(x=1, y=2) == [1, 2] and runs == [1]
    assert double.get_cache_key(1) == double.get_cache_key(y=2, x=1)
    mine = functools.partial(cache_memoize, cache_alias="locmem")

    @mine(timeout=60)
    def own(x):
        return x

    assert own(1) == 1 and caches["locmem"].get(own.get_cache_key(1))
    own.invalidate(1)
