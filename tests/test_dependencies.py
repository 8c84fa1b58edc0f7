"""Signals of a model invalidate calls of the functions that depend on it."""

from __future__ import annotations

import asyncio
import copy
import functools
import gc
import os
import pickle
import subprocess
import sys
import warnings
import weakref
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
from django.apps import apps
from django.contrib.auth.models import User
from django.core import serializers
from django.core.management import call_command
from django.db import IntegrityError, models, transaction
from django.db.migrations.state import ModelState, ProjectState
from django.db.models.deletion import Collector
from django.db.models.signals import (
    m2m_changed,
    post_delete,
    post_save,
    pre_delete,
    pre_save,
)
from django.utils import timezone
from django.utils.connection import ConnectionDoesNotExist
from django.utils.safestring import mark_safe
from django.utils.translation import gettext_lazy

from cache_memoize import cache_memoize, model_signals
from cache_memoize.keys.columns import as_stored
from cache_memoize.model_controls import (
    ainvalidate_model,
    invalidate_model,
    invalidate_tags_on,
)
from cache_memoize.model_signals import add_dependency, unknown_models
from tests.conftest import MODEL_SIGNALS
from tests.models import (
    Article,
    Bar,
    Bistro,
    Draft,
    Labelled,
    Loan,
    Memo,
    Place,
    Post,
    Priced,
    Reader,
    Restaurant,
    Shop,
    SpecialPost,
    Tag,
)

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def registrations_end_with_the_test(no_registrations): ...


class Invalidated(list):
    """The invalidated calls; ``seen()`` clears them. ``"all"`` is every call."""

    def __init__(self, model, calls=None, name="blog.f", tags=True):
        everything = (lambda: self.append("all")) if tags else None
        add_dependency(model, name, self.append, everything, calls)

    def seen(self):
        found = [i if i == "all" else i[0] for i in self]
        self.clear()
        return sorted(set(found))


def by_pk(one):
    return (one.pk,)


def by_labels(one):
    return [(f"{one.pk}:{label.name}",) for label in one.labels.all()]


def later(name, *bases, **attributes):
    """A model class made after all registrations."""
    attributes |= {"__module__": "tests.models"}
    return type(name, bases, attributes)


@pytest.fixture
def no_later_models():
    before = dict(apps.all_models["tests"])
    yield
    apps.all_models["tests"].clear()
    apps.all_models["tests"].update(before)
    apps.clear_cache()
    gc.collect()


# --- save and delete -----------------------------------------------------------------


def test_a_created_a_saved_and_a_deleted_row_invalidate():
    invalidated = Invalidated(Post, by_pk)
    post = Post.objects.create(title="a")
    pk = post.pk
    assert invalidated.seen() == [pk]
    post.save(update_fields=["title"])
    assert invalidated.seen() == [pk]
    post.delete()
    assert post.pk is None
    assert invalidated.seen() == [pk]


def test_without_a_callable_every_call_is_invalidated():
    invalidated = Invalidated(Post)
    post = Post.objects.create(title="a")
    assert invalidated == ["all"]
    post.delete()
    assert invalidated == ["all", "all"]


@pytest.mark.parametrize(
    ("answer", "calls"),
    [
        ((1,), [(1,)]),
        ((), [()]),
        ((1, None), [(1, None)]),
        ([(1,), (2,)], [(1,), (2,)]),
        ([], []),
        (None, []),
    ],
)
def test_one_call_several_or_none(answer, calls):
    invalidated = Invalidated(Post, lambda post: answer)
    Post.objects.create(title="a")
    assert sorted(invalidated) == calls


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (1, "int"),
        ("ab", "str"),
        ({"pk": 1}, "dict"),
        ({(1,)}, "set"),
        (False, "bool"),
        (Post.objects.none(), "QuerySet"),
        ([(1,), 2], "a list with int"),
        ([None], "a list with NoneType"),
    ],
)
def test_another_answer_names_the_function_the_fault_and_the_cure(answer, what):
    invalidated = Invalidated(Post, lambda post: answer)
    with pytest.raises(TypeError) as caught:
        Post.objects.create(title="a")
    text = str(caught.value)
    assert f"blog.f.invalidate_on(Post): the callable returned {what}; write" in text
    assert "(post.pk,)" in text
    assert not invalidated


def test_a_fixture_invalidates_like_a_save():
    invalidated = Invalidated(Post, by_pk)
    text = '[{"model": "tests.post", "pk": 7, "fields": {"title": "raw"}}]'
    for one in serializers.deserialize("json", text):
        one.save()
    assert invalidated.seen() == [7]


FORWARD = """[
    {"model": "tests.loan", "pk": 1, "fields": {"reader": 2, "article": "news"}},
    {"model": "tests.reader", "pk": 2, "fields": {}},
    {"model": "tests.article", "pk": 3, "fields": {"title": "news"}}
]"""


def by_reader(loan):
    return (f"{loan.reader.pk} {loan.article.pk}",)


def load(tmp_path, text=FORWARD):
    path = tmp_path / "fixture.json"
    path.write_text(text)
    call_command("loaddata", path, verbosity=0)


def test_a_fixture_may_refer_to_rows_that_it_loads_later(
    tmp_path, django_capture_on_commit_callbacks
):
    invalidated = Invalidated(Loan, by_reader, tags=False)
    for moved in (False, True):  # loaded again, with the rows as they were before
        with django_capture_on_commit_callbacks(execute=True):
            load(tmp_path)
        assert invalidated.seen() == ["2 3"], moved


@pytest.mark.parametrize("tags", [True, False])
def test_a_callable_that_still_raises_after_a_fixture_does_not_stop_it(
    tmp_path, django_capture_on_commit_callbacks, tags, caplog
):
    invalidated = Invalidated(Loan, lambda loan: 1 / 0, tags=tags)
    with django_capture_on_commit_callbacks(execute=True):
        load(tmp_path)
    assert Loan.objects.exists()
    assert invalidated.seen() == (["all"] if tags else [])
    assert ("division by zero" in caplog.text) != tags
    with pytest.raises(ZeroDivisionError):  # a save is no fixture
        Loan.objects.get().save()


def test_relations_of_a_fixture_that_are_set_before_its_rows(
    tmp_path, django_capture_on_commit_callbacks
):
    def by_first_tag(article):
        return (Tag.objects.get(pk=1).pk,)

    invalidated = Invalidated(Article, by_first_tag, tags=False)
    with django_capture_on_commit_callbacks(execute=True):
        load(
            tmp_path,
            """[
            {"model": "tests.article", "pk": 7, "fields": {"labels": [1]}},
            {"model": "tests.tag", "pk": 1, "fields": {"name": "b"}}
            ]""",
        )
    assert invalidated.seen() == [1]


def test_a_queryset_that_deletes_signals_each_row():
    invalidated = Invalidated(Post, by_pk)
    keys = [Post.objects.create(title=title).pk for title in "ab"]
    invalidated.clear()
    Post.objects.all().delete()
    assert invalidated.seen() == keys


def test_a_deletion_calls_the_callable_while_relations_exist():
    article = Article.objects.create(title="a")
    article.labels.add(Tag.objects.create(name="x"))
    pk = article.pk
    invalidated = Invalidated(
        Article, lambda one: (f"{one.pk}:{one.labels.get().name}",)
    )
    article.delete()  # after it, get() would raise
    assert invalidated.seen() == [f"{pk}:x"]


def test_a_deletion_invalidates_after_it_not_before():
    post = Post.objects.create(title="a")
    existed = []
    add_dependency(
        Post, "f", lambda args: existed.append(Post.objects.exists()), None, by_pk
    )
    post.delete()
    assert existed == [False]


def test_a_deletion_without_pre_delete_calls_the_callable_afterwards():
    invalidated = Invalidated(Post, by_pk)
    post_delete.send(sender=Post, instance=Post(pk=3), using="default")
    assert invalidated.seen() == [3]


def test_a_deletion_that_failed_leaves_nothing_for_the_next():
    invalidated = Invalidated(Post, lambda post: (post.title,))
    post = Post.objects.create(title="a")
    invalidated.clear()

    def refuse(**kwargs):
        raise RuntimeError("no")

    pre_delete.connect(refuse, sender=Post)
    with pytest.raises(RuntimeError), transaction.atomic():
        post.delete()
    pre_delete.disconnect(refuse, sender=Post)
    assert invalidated.seen() == []
    post.title = "b"
    post.delete()
    assert invalidated.seen() == ["a", "b"]


def test_actions_kept_for_a_deletion_neither_leak_nor_are_pickled():
    invalidated = Invalidated(Post, lambda post: (post,))
    post = Post.objects.create(title="a")
    invalidated.clear()
    pre_delete.send(sender=Post, instance=post, using="default")
    assert pickle.loads(pickle.dumps(post)).title == "a"
    assert copy.deepcopy(post) == post
    gone = weakref.ref(post)
    del post
    gc.collect()
    assert gone() is None


def test_the_database_of_the_change_is_queried():
    Invalidated(Restaurant, by_pk)
    with pytest.raises(ConnectionDoesNotExist, match="another"):
        post_save.send(sender=Place, instance=Place(pk=1), using="another")


# --- values as they are stored, and as they were -------------------------------------


class Colour(models.TextChoices):
    RED = "red"


class Size(models.IntegerChoices):
    BIG = 5


class ListOf(models.Field):
    """A field whose to_python() does not understand its own values."""

    def to_python(self, value):
        return [int(part) for part in value.split(",")]


class OwnMoment(datetime):
    pass


class OwnDate(date):
    pass


class OwnTime(time):
    pass


class OwnDelta(timedelta):
    pass


class OwnUUID(UUID):
    pass


MOMENT = datetime(2020, 1, 2, 3, 4, tzinfo=UTC)
MONEY = models.DecimalField(max_digits=5, decimal_places=2)
VALUES = [
    (models.CharField(), Colour.RED, "red"),
    (models.CharField(), mark_safe("red"), "red"),
    (models.TextField(), 5, "5"),
    (models.CharField(), gettext_lazy("red"), "red"),
    (models.IntegerField(), Size.BIG, 5),
    (models.BigIntegerField(), "5", 5),
    (models.IntegerField(), True, 1),
    (models.BooleanField(), "1", True),
    (models.FloatField(), 5, 5.0),
    (models.DateField(), "2020-01-02", date(2020, 1, 2)),
    (models.DateField(), datetime(2020, 1, 2, 12, tzinfo=UTC), date(2020, 1, 2)),
    (models.TimeField(), "03:04", time(3, 4)),
    (models.DurationField(), "60", timedelta(minutes=1)),
    (
        models.DateTimeField(),
        "2020-01-02T03:04Z",
        MOMENT,
    ),
    (
        models.DateTimeField(),
        datetime(2020, 1, 2, 3, 4, tzinfo=ZoneInfo("Asia/Tokyo")),
        datetime(2020, 1, 1, 18, 4, tzinfo=UTC),
    ),
    (MONEY, "5", Decimal("5.00")),
    (
        MONEY,
        Decimal("5"),
        Decimal("5.00"),
    ),
    (MONEY, 1.005, Decimal("1.00")),
    (MONEY, "1.2E1", Decimal("12.00")),
    (models.UUIDField(), "0" * 32, UUID(int=0)),
    (models.UUIDField(), OwnUUID(int=1), UUID(int=1)),
    (models.DateField(), OwnDate(2020, 1, 2), date(2020, 1, 2)),
    (models.TimeField(), OwnTime(3, 4, fold=1), time(3, 4, fold=1)),
    (models.DurationField(), OwnDelta(1, 2, 3), timedelta(1, 2, 3)),
    (models.DateTimeField(), OwnMoment(2020, 1, 2, 3, 4, tzinfo=UTC), MOMENT),
    (models.GenericIPAddressField(), "::FFFF:0A0A:0A0A", "::ffff:10.10.10.10"),
    (models.ForeignKey(Tag, models.CASCADE), "5", 5),
    (models.ForeignKey(Article, models.CASCADE, to_field="title"), 5, "5"),
    (models.OneToOneField(Shop, models.CASCADE), mark_safe("s"), "s"),
    (models.IntegerField(), models.F("id") + 1, None),
    (models.CharField(), models.Value("red"), None),
    (models.IntegerField(), "five", None),
    (models.JSONField(), {"a": 1}, None),
    (ListOf(), [1], None),
    (models.CharField(), None, None),
]


@pytest.mark.parametrize(("field", "given", "stored"), VALUES)
def test_a_value_is_taken_as_the_field_would_store_it(
    field, given, stored, no_later_models, settings
):
    settings.USE_TZ = True
    Late = later("LateValue", models.Model, value=field)
    one = Late(pk="7", **{field.attname: given})
    seen = as_stored(one)
    assert type(seen) is Late and seen.pk == 7 and one.pk == "7"
    got = getattr(seen, field.attname)
    if stored is None:
        assert got is given
    else:
        assert (type(got), repr(got)) == (type(stored), repr(stored))
        assert getattr(one, field.attname) is given
    assert vars(as_stored(seen)) == vars(seen)


def test_dates_without_zones_stay_without(no_later_models, settings):
    settings.USE_TZ = False
    Late = later("LateMoment", models.Model, value=models.DateTimeField())
    seen = as_stored(Late(value="2020-01-02 03:04"))
    assert seen.value == datetime(2020, 1, 2, 3, 4)


def test_a_naive_date_is_in_the_default_zone(no_later_models, settings):
    settings.USE_TZ, settings.TIME_ZONE = True, "Asia/Tokyo"
    Late = later("LateMoment", models.Model, value=models.DateTimeField())
    with timezone.override("America/New_York"):
        seen = as_stored(Late(value="2020-01-02 03:04"))
    assert repr(seen.value) == repr(datetime(2020, 1, 1, 18, 4, tzinfo=UTC))


needs_generated_fields = pytest.mark.skipif(
    not hasattr(models, "GeneratedField"), reason="Django 5 has generated fields"
)


@needs_generated_fields
def test_the_callable_gets_what_the_database_has_made_of_an_expression():
    priced = Priced.objects.create(name="Tea", cents=1)
    invalidated = Invalidated(Priced, lambda row: (f"{row.slug} {row.cents}",))
    priced.name, priced.cents = "Green Tea", models.F("cents") + 1
    priced.save()
    assert set(invalidated.seen()) == {"tea 1", "green tea 2"}
    priced.name = priced.cents = 5
    priced.save(update_fields=["cents"])
    assert set(invalidated.seen()) == {"green tea 2", "green tea 5"}


@needs_generated_fields
@pytest.mark.parametrize("given", [models.F("cents") + 1, models.Value(7)])
def test_an_expression_is_read_when_it_is_asked_for(given, django_assert_num_queries):
    priced = Priced.objects.create(name="Tea", cents=1)
    priced.cents, priced.slug = given, "of before"
    with django_assert_num_queries(0):
        seen = as_stored(priced)
        assert seen.name == "Tea"
    assert (seen.cents, seen.slug) == (1, "tea")
    assert (priced.cents, priced.slug) == (given, "of before")


@pytest.mark.parametrize("name", ["auth.User", User])
def test_a_model_that_was_swapped_out_is_refused(name, settings):
    """It has no table, so no signal either."""
    settings.AUTH_USER_MODEL = "tests.Reader"
    for register in (
        lambda: add_dependency(name, "f", print, None, by_pk),
        lambda: invalidate_model(name),
    ):
        with pytest.raises(TypeError, match="tests.Reader is in its place; write"):
            register()


def test_one_that_is_named_before_models_are_loaded_is_found_by_the_check(
    settings, monkeypatch
):
    settings.AUTH_USER_MODEL = "tests.Reader"
    with monkeypatch.context() as loading:
        loading.setattr(apps, "models_ready", False)
        add_dependency("auth.User", "f", print, None, by_pk)
    assert unknown_models() == [("f", "auth.User")]


def test_an_instance_that_is_as_stored_is_passed_itself():
    got = []
    Invalidated(Post, lambda post: got.append(post))
    post = Post.objects.create(title="a")
    assert got == [post] and got[0] is post


def test_a_text_for_a_key_invalidates_the_readers_of_the_number():
    reader, article = Reader.objects.create(), Article.objects.create(title="a")
    invalidated = Invalidated(Loan, lambda loan: (loan.reader_id, loan.reader.pk))
    Loan.objects.create(reader_id=str(reader.pk), article=article)
    assert invalidated == [(reader.pk, reader.pk)]
    invalidated.clear()
    Loan(
        pk=str(Loan.objects.get().pk), reader_id=str(reader.pk), article_id="a"
    ).delete()
    assert invalidated == [(reader.pk, reader.pk)]


def by_title(post):
    return (post.title,)


def test_a_value_that_moves_invalidates_both_calls(django_assert_num_queries):
    invalidated = Invalidated(Post, by_title)
    twice = Invalidated(SpecialPost, lambda post: (type(post).__name__ + post.title,))
    with django_assert_num_queries(1):
        post = Post.objects.create(title="a")
    assert invalidated.seen() == ["a"] and twice.seen() == ["SpecialPosta"]
    post.title = "b"
    with django_assert_num_queries(2):  # however many functions are registered
        post.save()
    assert invalidated.seen() == ["a", "b"]
    assert twice.seen() == ["SpecialPosta", "SpecialPostb"]
    post.save()
    assert invalidated.seen() == ["b"]


def test_before_can_be_left_out(django_assert_num_queries):
    seen = []
    add_dependency(Post, "f", lambda args: seen.append(args[0]), None, by_title, False)
    post = Post.objects.create(title="a")
    post.title = "b"
    with django_assert_num_queries(1):
        post.save()
    assert seen == ["a", "b"]
    assert not pre_save.has_listeners(Post)


def test_every_call_is_invalidated_without_a_query_more(django_assert_num_queries):
    Invalidated(Post)
    post = Post.objects.create(title="a")
    with django_assert_num_queries(1):
        post.save()


@pytest.mark.parametrize(
    "save",
    [
        lambda pk: Post(pk=pk, title="b").save(),
        lambda pk: Post(pk=str(pk), title="b").save(force_update=True),
        lambda pk: Post.objects.update_or_create({"title": "b"}, pk=pk),
        lambda pk: setattr_and_save(Post.objects.only("id").get(), title="b"),
        lambda pk: setattr_and_save(Post.objects.defer("title").get(), title="b"),
        lambda pk: setattr_and_save(SpecialPost.objects.get(), title="b"),
        lambda pk: next(
            serializers.deserialize(
                "json",
                f'[{{"model": "tests.post", "pk": {pk}, "fields": {{"title": "b"}}}}]',
            )
        ).save(),
    ],
)
def test_however_it_is_saved(save):
    post = Post.objects.create(title="a")
    invalidated = Invalidated(Post, by_title)
    save(post.pk)
    assert invalidated.seen() == ["a", "b"]


def setattr_and_save(one, **values):
    for name, value in values.items():
        setattr(one, name, value)
    one.save()


def test_a_field_that_is_not_saved_invalidates_what_the_row_has():
    one = Restaurant.objects.create(name="a")
    invalidated = Invalidated(Restaurant, lambda one: (one.name,))
    one.name = "b"
    one.save(update_fields=["stars"])
    assert invalidated.seen() == ["a", "b"]


def test_a_new_row_is_not_read(django_assert_num_queries, no_later_models):
    Invalidated(Post, by_title)
    with django_assert_num_queries(1):
        Post(title="a").save()
    Late = later(
        "LateKey", models.Model, id=models.UUIDField(primary_key=True, default=uuid4)
    )
    got = []
    add_dependency(Late, "f", print, None, got.append)
    new = Late()
    with django_assert_num_queries(0):
        pre_save.send(Late, instance=new, raw=False, using="default")
        given = Late(pk=models.Value("x"))
        given._state.adding = False
        pre_save.send(Late, instance=given, raw=False, using="default")
    assert got == []


def test_a_row_is_read_from_the_database_that_it_is_saved_to():
    Invalidated(Post, by_title)
    with pytest.raises(ConnectionDoesNotExist, match="another"):
        pre_save.send(Post, instance=Post(pk=1), raw=False, using="another")


@pytest.mark.parametrize("registered", [Place, Restaurant, Bistro])
@pytest.mark.parametrize("saved", [Place, Restaurant, Bistro])
def test_parents_and_children_are_asked_as_they_were(registered, saved):
    Bistro.objects.create(name="a")
    invalidated = Invalidated(registered, lambda one: (one.name,))
    setattr_and_save(saved.objects.get(), name="b")
    assert invalidated.seen() == ["a", "b"]


def test_a_child_that_is_added_to_a_row_of_its_parent():
    place = Place.objects.create(name="a")
    invalidated = Invalidated(Place, lambda one: (one.name,))
    Bar(place_ptr=place, name="b").save()
    assert invalidated.seen() == ["a", "b"]
    shop = Shop.objects.create(name="c", code="s")
    invalidated.clear()
    setattr_and_save(shop, name="d")
    assert invalidated.seen() == ["c", "d"]


def test_a_save_inside_a_save_loses_no_value():
    post = Post.objects.create(title="a")

    def again(instance, **kwargs):
        if instance.title == "b":
            setattr_and_save(instance, title="c")

    post_save.connect(again, sender=Post)  # before ours
    invalidated = Invalidated(Post, by_title)
    setattr_and_save(post, title="b")
    assert invalidated.seen() == ["a", "b", "c"]


def test_a_save_that_failed_leaves_what_it_would_have_invalidated():
    Article.objects.create(title="taken")
    article = Article.objects.create(title="a")
    invalidated = Invalidated(Article, by_title)
    article.title = "taken"
    with pytest.raises(IntegrityError), transaction.atomic():
        article.save()
    assert invalidated.seen() == []
    setattr_and_save(article, title="b")
    assert invalidated.seen() == ["a", "b"]


def test_a_save_and_a_deletion_keep_apart():
    post = Post.objects.create(title="a")
    invalidated = Invalidated(Post, by_title)
    pre_save.send(Post, instance=post, raw=False, using="default")
    post.delete()
    assert invalidated.seen() == ["a"]


# --- proxies -------------------------------------------------------------------------


@pytest.mark.parametrize("registered", [Post, SpecialPost, "tests.SpecialPost"])
@pytest.mark.parametrize("saved", [Post, SpecialPost])
def test_a_proxy_and_its_model_are_the_same_rows(registered, saved):
    invalidated = Invalidated(registered, by_pk)
    post = saved.objects.create(title="a")
    pk = post.pk
    assert invalidated.seen() == [pk]
    post.delete()
    assert invalidated.seen() == [pk]


def test_the_callable_of_a_proxy_gets_the_proxy():
    invalidated = Invalidated(Draft, lambda draft: (draft.shout(),))
    article = Article.objects.create(title="a")
    assert invalidated.seen() == ["A"]
    assert type(article) is Article


def test_a_relation_of_the_model_is_one_of_the_proxy():
    tag = Tag.objects.create(name="x")
    article = Article.objects.create(title="a")
    invalidated = Invalidated(Draft, lambda draft: (draft.shout(),))
    article.labels.add(tag)
    assert invalidated.seen() == ["A"]
    tag.article_set.clear()
    assert invalidated.seen() == ["A"]
    Draft.objects.get().labels.set([tag])
    assert invalidated.seen() == ["A"]


# --- inheritance ---------------------------------------------------------------------


@pytest.mark.parametrize("model", [Restaurant, Bistro, Shop, Bar])
def test_a_child_is_a_row_of_its_parent(model):
    invalidated = Invalidated(Place, lambda place: (place.pk, place.name))
    one = model(name="a")
    if model is Shop:
        one.code = "s"
    one.save()
    pk = Place.objects.get().pk
    assert set(invalidated) == {(pk, "a")}
    invalidated.clear()
    one.delete()
    assert set(invalidated) == {(pk, "a")}


def test_a_child_with_a_key_of_its_own_is_seen_with_the_key_of_its_parent():
    got = []
    add_dependency(Place, "f", print, None, lambda place: got.append(place))
    Post.objects.create(title="a")
    Place.objects.create(name="takes the first key")
    shop = Shop.objects.create(name="a", code="s")
    assert type(got[-1]) is Place and got[-1].pk == shop.place_id


@pytest.mark.parametrize(("child", "saved"), [(Bistro, Restaurant), (Bistro, Place)])
def test_a_parent_that_is_saved_finds_its_child(child, saved):
    invalidated = Invalidated(child, lambda one: (type(one).__name__, one.pk, one.name))
    one = child.objects.create(name="a")
    saved.objects.create(name="no child")
    invalidated.clear()
    parent = saved.objects.get(name="a")
    parent.name = "b"
    parent.save()
    assert invalidated == [("Bistro", one.pk, "a"), ("Bistro", one.pk, "b")]


def test_a_parent_finds_a_child_with_a_key_of_its_own():
    Place.objects.create(name="takes the first key")
    shop = Shop.objects.create(name="a", code="s")
    invalidated = Invalidated(Shop, by_pk)
    shop.place.save()
    assert invalidated.seen() == ["s"]


def test_a_parent_without_a_child_invalidates_nothing():
    invalidated = Invalidated(Restaurant)
    place = Place.objects.create(name="a")
    assert invalidated == []
    Restaurant(place_ptr=place, name="b").save()
    assert invalidated == ["all"]
    place.save()
    assert invalidated == ["all", "all"]


def test_a_parent_that_is_deleted_takes_its_child_along():
    invalidated = Invalidated(Restaurant, by_pk)
    restaurant = Restaurant.objects.create(name="a")
    invalidated.clear()
    Place.objects.all().delete()
    assert invalidated.seen() == [restaurant.pk]


def test_a_sister_that_shares_the_parent_invalidates():
    restaurant = Restaurant.objects.create(name="a")
    bar = Bar(place_ptr_id=restaurant.pk, name="b")
    bar.save()
    invalidated = Invalidated(Restaurant, lambda one: (one.name,))
    bar.name = "c"
    bar.save()
    assert invalidated.seen() == ["b", "c"]
    Bar.objects.create(name="another place")
    assert invalidated.seen() == []


def test_an_abstract_model_covers_all_its_children():
    invalidated = Invalidated(Labelled, by_labels)
    tag = Tag.objects.create(name="x")
    article, memo = Article.objects.create(title="a"), Memo.objects.create()
    article.labels.add(tag)
    assert invalidated.seen() == [f"{article.pk}:x"]
    tag.memo_set.add(memo)
    assert invalidated.seen() == [f"{memo.pk}:x"]
    Draft.objects.get().save()
    assert invalidated.seen() == [f"{article.pk}:x"]
    shop = Shop.objects.create(name="a", code="s")
    shop.labels.set([tag])
    assert invalidated.seen() == ["s:x"]
    shop.place.save()
    assert invalidated.seen() == ["s:x"]
    Place.objects.create(name="no shop").save()
    assert invalidated.seen() == []


# --- classes that appear later -------------------------------------------------------


def test_a_later_proxy_is_connected(no_later_models):
    invalidated = Invalidated(Post, by_pk)
    Late = later("LateProxy", Post, Meta=type("Meta", (), {"proxy": True}))
    post = Late.objects.create(title="a")
    assert invalidated.seen() == [post.pk]


def test_a_later_child_is_connected(no_later_models):
    Invalidated(Place, by_pk)
    Late = later("LateChild", Place)
    for signal in (post_save, pre_delete, post_delete):
        assert signal.has_listeners(Late)


def test_a_later_child_of_an_abstract_model_is_connected(no_later_models):
    invalidated = Invalidated(Labelled)
    Late = later("LateLabelled", Labelled)
    Grand = later("LateGrandchild", Late)
    for one in (Late, Grand):
        assert post_save.has_listeners(one)
        assert m2m_changed.has_listeners(Late.labels.through)
    assert len([d for d in model_signals._registered if d.model in (Late, Grand)]) == 1
    post_save.send(sender=Grand, instance=Grand(pk=1), using="default")
    assert invalidated == ["all"]


def test_a_later_relation_to_an_old_model_is_connected(no_later_models):
    Invalidated(Post)
    Late = later("LateFan", models.Model, posts=models.ManyToManyField("tests.Post"))
    assert m2m_changed.has_listeners(Late.posts.through)


def test_a_relation_to_a_model_that_comes_later_is_connected(no_later_models):
    Invalidated("tests.Post", by_pk)
    Early = later(
        "LateEarly", models.Model, to=models.ManyToManyField("tests.LateOther")
    )
    assert not m2m_changed.has_listeners(Early.to.through)
    later("LateOther", Post)
    assert m2m_changed.has_listeners(Early.to.through)


def test_a_relation_that_is_added_to_an_old_model_is_connected(no_later_models):
    Late = later("LateOwner", models.Model)
    Invalidated(Late)
    Late.add_to_class("tags", models.ManyToManyField(Tag, related_name="+"))
    assert m2m_changed.has_listeners(Late.tags.through)


def test_a_swapped_out_model_has_no_relation(no_later_models, settings):
    settings.LATE_MODEL = "tests.Post"
    Invalidated(Tag, by_pk)
    Meta = type("Meta", (), {"swappable": "LATE_MODEL"})
    later("LateSwapped", models.Model, tags=models.ManyToManyField(Tag), Meta=Meta)


@pytest.fixture
def past_memo():
    """A model as a migration sees it."""
    state = ProjectState()
    state.add_model(ModelState.from_model(Tag))
    key = [("id", models.AutoField(primary_key=True))]
    state.add_model(ModelState("tests", "Memo", key, bases=(Labelled,)))
    return state.apps.get_model("tests.memo")


@pytest.mark.parametrize("when", ["before", "after"])
def test_past_models_of_migrations_are_left_alone(when, request):
    if when == "before":
        past = request.getfixturevalue("past_memo")
    Invalidated(Labelled)
    Invalidated(Tag)
    if when == "after":
        past = request.getfixturevalue("past_memo")
    assert issubclass(past, Labelled) and past is not Memo
    assert not post_save.has_listeners(past)
    assert not m2m_changed.has_listeners(past.labels.through)


def test_a_migration_invalidates_explicitly(past_memo):
    invalidated, other = Invalidated(Memo), Invalidated(Tag)
    invalidate_model(past_memo)
    assert invalidated == ["all"] and other == []


# --- relations -----------------------------------------------------------------------


@pytest.fixture
def tags():
    return [Tag.objects.create(name=name) for name in "xyz"]


@pytest.fixture
def articles():
    return [Article.objects.create(title=title) for title in "abc"]


def test_forward_add_remove_set_and_clear(tags, articles):
    x, y, z = tags
    one = articles[0]
    invalidated = Invalidated(Article, by_pk)
    one.labels.add(x)
    assert invalidated.seen() == [one.pk]
    one.labels.set([y])
    assert invalidated.seen() == [one.pk]
    one.labels.remove(y)
    assert invalidated.seen() == [one.pk]
    one.labels.add(y, z)
    invalidated.clear()
    one.labels.clear()
    assert invalidated.seen() == [one.pk]
    one.labels.create(name="new")
    assert invalidated.seen() == [one.pk]


def test_reverse_add_remove_set_and_clear(tags, articles):
    x = tags[0]
    a, b, c = articles
    invalidated = Invalidated(Article, lambda article: (article.title,))
    x.article_set.add(a, b)
    assert invalidated.seen() == ["a", "b"]
    x.article_set.remove(b)
    assert invalidated.seen() == ["b"]
    x.article_set.set([c])
    assert invalidated.seen() == ["a", "c"]
    x.article_set.add(b)
    invalidated.clear()
    x.article_set.clear()
    assert invalidated.seen() == ["b", "c"]


def test_the_other_end_of_a_relation_invalidates_too(tags, articles):
    x, y, z = tags
    one = articles[0]
    invalidated = Invalidated(Tag, lambda tag: (tag.name,))
    one.labels.add(x, y)
    assert invalidated.seen() == ["x", "y"]
    one.labels.remove(y)
    assert invalidated.seen() == ["y"]
    y.article_set.add(one)
    assert invalidated.seen() == ["y"]
    one.labels.clear()
    assert invalidated.seen() == ["x", "y"]
    z.article_set.clear()
    assert invalidated.seen() == ["z"]


def test_adding_an_existing_relation_is_no_change(tags, articles):
    articles[0].labels.add(tags[0])
    invalidated = Invalidated(Article)
    articles[0].labels.add(tags[0])
    assert invalidated == []


def by_title_and_label(article):
    names = [tag.name for tag in article.labels.all()]
    return [(article.title + name,) for name in names or "-"]


def test_before_and_after_a_relation_changes_the_callable_is_called(tags, articles):
    a, b, _ = articles
    invalidated = Invalidated(Article, by_title_and_label)
    a.labels.add(tags[0])
    assert invalidated.seen() == ["a-", "ax"]
    a.labels.add(*tags)
    tags[1].article_set.add(a, b)
    assert invalidated.seen() == ["ax", "ay", "az", "b-", "by"]
    a.labels.remove(tags[0])
    assert invalidated.seen() == ["ax", "ay", "az"]
    tags[1].article_set.clear()
    assert invalidated.seen() == ["ay", "az", "b-", "by"]
    a.labels.clear()
    assert invalidated.seen() == ["a-", "az"]


def test_the_same_call_is_invalidated_once(articles):
    invalidated = Invalidated(Article, lambda article: [(1,), (True,), ("1",)])
    articles[0].similar.add(articles[1])
    assert sorted(map(repr, invalidated)) == ["('1',)", "(1,)", "(True,)"]


def test_calls_that_only_look_the_same_are_all_invalidated():
    posts = [Post(pk=1), Post(pk=2)]
    assert repr(posts[0]) == repr(posts[1])
    invalidated = Invalidated(Post, lambda post: [(one,) for one in posts])
    Post.objects.create(title="a")
    assert invalidated == [(posts[0],), (posts[1],)]


def test_a_removal_invalidates_after_it_not_before(tags, articles):
    existed = []
    add_dependency(
        Article,
        "f",
        lambda args: existed.append(Article.labels.through.objects.count()),
        None,
        by_pk,
    )
    articles[0].labels.add(*tags)
    articles[0].labels.clear()
    assert set(existed) == {3, 0} and existed[0] == 3


def test_without_a_callable_a_relation_invalidates_every_call_once(tags, articles):
    invalidated = Invalidated(Article)
    for change in (
        lambda: articles[0].labels.add(tags[0]),
        lambda: articles[0].labels.clear(),
        lambda: tags[0].article_set.add(*articles),
        lambda: tags[0].article_set.clear(),
    ):
        change()
        assert invalidated == ["all"]
        invalidated.clear()
    tags[0].article_set.clear()
    assert invalidated == []  # it had no article


def test_a_symmetrical_relation_has_two_ends(articles):
    a, b, c = articles
    invalidated = Invalidated(Article, lambda article: (article.title,))
    a.similar.add(b, c)
    assert invalidated.seen() == ["a", "b", "c"]
    b.similar.remove(a)
    assert invalidated.seen() == ["a", "b"]
    c.similar.clear()
    assert invalidated.seen() == ["a", "c"]


def test_a_relation_to_itself_that_is_not_symmetrical(articles):
    a, b, c = articles
    invalidated = Invalidated(Article, lambda article: (article.title,))
    a.sources.add(b)
    assert invalidated.seen() == ["a", "b"]
    b.cited.add(c)
    assert invalidated.seen() == ["b", "c"]
    c.sources.clear()
    assert invalidated.seen() == ["b", "c"]
    b.cited.clear()
    assert invalidated.seen() == ["a", "b"]


def test_a_relation_of_a_parent_is_one_of_the_child(tags):
    x = tags[0]
    bistro = Bistro.objects.create(name="a")
    place = Place.objects.create(name="no bistro")
    invalidated = Invalidated(Bistro, lambda one: (type(one).__name__,))
    for change in (
        lambda: bistro.tags.add(x),
        lambda: Place.objects.get(name="a").tags.clear(),
        lambda: x.place_set.add(bistro, place),
        lambda: x.place_set.remove(bistro),
        lambda: bistro.tags.set([x]),
        lambda: x.place_set.clear(),
    ):
        change()
        assert invalidated.seen() == ["Bistro"]
    place.tags.add(x)
    x.place_set.clear()
    assert invalidated.seen() == []


def test_a_relation_of_a_child_is_one_of_the_parent(tags):
    invalidated = Invalidated(Place, by_pk)
    Place.objects.create(name="takes the first key")
    shop = Shop.objects.create(name="a", code="s")
    invalidated.clear()
    shop.labels.add(tags[0])
    assert invalidated.seen() == [shop.place_id]
    tags[0].shop_set.clear()
    assert invalidated.seen() == [shop.place_id]


def test_a_table_of_links_that_points_to_another_column(articles):
    reader = Reader.objects.create()
    mine = Invalidated(Article, lambda article: (article.title,))
    readers = Invalidated(Reader, by_pk)
    reader.articles.add(articles[0], articles[1])
    assert mine.seen() == ["a", "b"] and readers.seen() == [reader.pk]
    reader.articles.remove(articles[1])
    assert mine.seen() == ["b"] and readers.seen() == [reader.pk]
    reader.articles.clear()
    assert mine.seen() == ["a"] and readers.seen() == [reader.pk]
    articles[2].readers.add(reader)
    articles[2].readers.clear()
    assert mine.seen() == ["c"] and readers.seen() == [reader.pk]


def test_two_relations_by_one_table(no_later_models, articles):
    both = models.ManyToManyField(Reader, through=Loan, related_name="+")
    Article.add_to_class("borrowers", both)
    try:
        apps.clear_cache()
        reader = Reader.objects.create()
        mine = Invalidated(Article, lambda article: (article.title,))
        articles[0].borrowers.add(reader)
        assert mine.seen() == ["a"]
        reader.articles.clear()
        assert mine.seen() == ["a"]
    finally:
        Article._meta.local_many_to_many.remove(both)
        del Article.borrowers
        apps.clear_cache()


# --- what others notice --------------------------------------------------------------


def can_fast_delete(model):
    return Collector(using="default").can_fast_delete(model.objects.all())


def test_other_models_keep_their_short_cuts(django_assert_num_queries, tags):
    Invalidated(Post, by_pk)
    Invalidated(Restaurant, by_pk)
    assert not can_fast_delete(Post)
    assert can_fast_delete(Loan)
    for signal in MODEL_SIGNALS[1:]:
        assert not signal.has_listeners(Memo)
    assert not post_delete.has_listeners(Bar) and not pre_delete.has_listeners(Place)
    memo = Memo.objects.create()
    with django_assert_num_queries(1):
        memo.labels.add(tags[0])  # with a receiver it reads first, in a transaction


def test_everything_is_connected_once_however_often_it_is_registered():
    Invalidated(Article, by_pk)
    before = [len(signal.receivers) for signal in MODEL_SIGNALS]
    Invalidated(Article, by_pk)
    Invalidated(Draft, by_pk)
    assert [len(signal.receivers) for signal in MODEL_SIGNALS] == before


def test_two_callables_of_one_function_are_both_called():
    invalidated = Invalidated(Post, by_pk)
    add_dependency(Post, "blog.f", invalidated.append, None, lambda post: (post.title,))
    post = Post.objects.create(title="a")
    assert set(invalidated) == {(post.pk,), ("a",)}


def test_a_receiver_that_was_connected_later_sees_fresh_data():
    order = []
    add_dependency(Post, "f", lambda args: order.append("invalidated"), None, by_pk)

    def other(**kwargs):
        order.append("other")

    post_save.connect(other, sender=Post)
    Post.objects.create(title="a")
    assert order == ["invalidated", "other"]


# --- errors --------------------------------------------------------------------------


def test_an_error_of_the_callable_is_raised_by_save_and_names_the_function():
    Invalidated(Post, lambda post: post.nothing)
    with pytest.raises(AttributeError, match="nothing") as caught:
        Post.objects.create(title="a")
    assert caught.value.__notes__ == ["Raised by blog.f.invalidate_on(Post)."]


def test_all_dependencies_run_and_the_first_error_is_raised(caplog):
    def fail(text):
        def invalidate(*args):
            raise ConnectionError(text)

        return invalidate

    invalidated = [Invalidated(Post, by_pk)]
    add_dependency(Post, "first", fail("first"), None, lambda post: [(1,), (2,)])
    invalidated.append(Invalidated(Post, by_pk))
    add_dependency(Post, "second", fail("second"), fail("second"))
    invalidated.append(Invalidated(Post))
    with pytest.raises(ConnectionError, match="first") as caught:
        Post.objects.create(title="a")
    assert caught.value.__notes__ == ["Raised by first.invalidate_on(Post)."]
    assert [str(i.exc_info[1]) for i in caplog.records] == ["first", "second"]
    assert all(invalidated)


def test_one_error_that_is_raised_by_all_is_raised():
    error = ConnectionError("down")

    def fail(*args):
        raise error

    add_dependency(Post, "first", fail, fail)
    add_dependency(Post, "second", fail, fail)
    with pytest.raises(ConnectionError, match="down"):
        Post.objects.create(title="a")
    with pytest.raises(ConnectionError, match="down"):
        invalidate_model(Post)


def test_an_error_before_a_deletion_keeps_the_row():
    invalidated = Invalidated(Post, by_pk)
    post = Post.objects.create(title="a")
    Invalidated(Post, lambda post: post.nothing)
    with pytest.raises(AttributeError), transaction.atomic():
        post.delete()
    assert Post.objects.exists()
    assert invalidated.seen() == [post.pk]


# --- registration --------------------------------------------------------------------


def test_without_tags_and_callable_the_cure_is_named():
    with pytest.raises(TypeError) as caught:
        add_dependency(Post, "blog.f", print)
    text = str(caught.value)
    assert text.startswith("blog.f.invalidate_on(Post) without a callable")
    assert "tags=()" in text
    assert not model_signals._registered


@pytest.mark.parametrize("model", [int, Post(), models.Model, None, 3])
def test_arguments_that_are_no_model_are_refused(model):
    with pytest.raises(TypeError, match="is no model; write"):
        add_dependency(model, "f", print, None, by_pk)
    with pytest.raises(TypeError, match="is no model; write"):
        invalidate_model(model)


async def awaited(post):
    return (post.pk,)


@pytest.mark.parametrize(
    "calls",
    [
        "pk",
        lambda: (1,),
        lambda post, more: (1,),
        lambda *, post: (1,),
        int,
        Post,
        awaited,
    ],
)
def test_a_callable_that_cannot_be_called_with_an_instance_is_refused(calls):
    """When it is registered, not at the first save."""
    match = r"f.invalidate_on\(Post\): .* is no function of one instance; write one"
    with pytest.raises(TypeError, match=match):
        add_dependency(Post, "f", print, None, calls)


@pytest.mark.parametrize(
    "calls",
    [by_pk, lambda post, more=1: (1,), lambda *args: (1,), [].append, getattr],
)
def test_a_callable_that_takes_an_instance_is_registered(calls):
    add_dependency(Post, "f", print, None, calls)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("tests.Restaurnt", "tests.Restaurant"),
        ("tets.Restaurant", "tests.Restaurant"),
        ("Restaurant", "tests.Restaurant"),
        ("tests.models.Restaurant", "tests.Restaurant"),
    ],
)
def test_the_name_of_a_model_that_is_meant_is_said(name, meant):
    for register in (
        lambda: add_dependency(name, "f", print, None, by_pk),
        lambda: invalidate_model(name),
    ):
        with pytest.raises((LookupError, ValueError)) as caught:
            register()
        assert f"(did you mean {meant}?)" in str(caught.value)


@pytest.mark.parametrize("given", [Post, "tests.Post"])
def test_a_model_for_which_nothing_is_registered_is_said(given):
    add_dependency(Shop, "f", print, print)
    cure = (
        r"Post\) has invalidated nothing: .* no function f with f.invalidate_on\(Post"
    )
    with pytest.warns(RuntimeWarning, match=cure) as seen:
        invalidate_model(given)
    assert seen[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        invalidate_model(Shop)


@pytest.mark.parametrize("name", ["tests.Nothing", "nothing.Post"])
def test_an_unknown_name_is_a_lookup_error_once_models_are_loaded(name):
    with pytest.raises(LookupError, match=r"[Nn]othing"):
        add_dependency(name, "f", print, None, by_pk)
    with pytest.raises(LookupError, match=r"[Nn]othing"):
        invalidate_model(name)
    assert unknown_models() == []


@pytest.mark.parametrize("name", ["Post", "a.b.c", ""])
def test_a_malformed_name_is_a_value_error(name):
    with pytest.raises(ValueError, match="app_label.ModelName"):
        add_dependency(name, "f", print, None, by_pk)
    with pytest.raises(ValueError, match="app_label.ModelName"):
        invalidate_model(name)


def test_a_model_name_waits_for_its_model_while_models_are_loading(
    monkeypatch, no_later_models
):
    with monkeypatch.context() as loading:
        loading.setattr(apps, "models_ready", False)
        Invalidated("tests.LateNamed", by_pk)
        Invalidated("tests.LateNamed", by_pk, name="blog.g")
    waiting = [("blog.f", "tests.LateNamed"), ("blog.g", "tests.LateNamed")]
    assert unknown_models() == waiting
    Late = later("LateNamed", Post)
    assert unknown_models() == []
    assert post_save.has_listeners(Late)


MODELS = """
from django.db import models
from cache_memoize.model_signals import add_dependency

invalidated = []

class Cart(models.Model):
    add_dependency("shop.Item", "f", invalidated.append, None, lambda i: (i.name,))
    items = models.ManyToManyField("Item")

class Item(models.Model):
    name = models.CharField(max_length=9)

add_dependency(Cart, "f", invalidated.append, None, lambda cart: ("cart",))
"""
MAIN = """
from cache_memoize.model_signals import add_dependency, unknown_models

early = []
add_dependency("shop.Item", "f", early.append, None, lambda item: (item.name,))
add_dependency("shop.Typo", "wrong", print, None, print)

import django
from django.conf import settings
from django.db import connection

memory = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
settings.configure(DATABASES={"default": memory}, INSTALLED_APPS=["shop"])
django.setup()

from shop.models import Cart, Item, invalidated

with connection.schema_editor() as editor:
    editor.create_model(Item)
    editor.create_model(Cart)
with connection.cursor() as cursor:
    cursor.execute("INSERT INTO shop_item VALUES (1, 'tea')")
    cursor.execute("INSERT INTO shop_cart VALUES (1)")
Cart.objects.get().items.add(1)
assert sorted(invalidated) == [("cart",), ("tea",)] and early == [("tea",)], invalidated
Item.objects.all().delete()
assert early == [("tea",)] * 2 and unknown_models() == [("wrong", "shop.Typo")]
print("done")
"""


def test_registered_before_settings_and_models_are_loaded(tmp_path):
    """Each first action of the script is one for which Django looks for receivers."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop/__init__.py").touch()
    (tmp_path / "shop/models.py").write_text(MODELS)
    (tmp_path / "main.py").write_text(MAIN)
    root = Path(__file__).resolve().parent.parent
    environment = {k: v for k, v in os.environ.items() if k != "DJANGO_SETTINGS_MODULE"}
    done = subprocess.run(
        [sys.executable, tmp_path / "main.py"],
        env=environment | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "done\n", done.stderr


# --- by hand -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given", [Post, SpecialPost, "tests.Post", "tests.specialpost"]
)
@pytest.mark.parametrize("registered", [Post, SpecialPost, "tests.Post"])
def test_invalidate_model_covers_the_model_and_its_proxies(given, registered):
    invalidated, other = Invalidated(registered, by_pk), Invalidated(Tag)
    invalidate_model(given)
    assert invalidated == ["all"] and other == []


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (Place, "place restaurant bistro bar shop labelled"),
        (Bistro, "place restaurant bistro bar shop labelled"),
        (Shop, "place restaurant bistro bar shop labelled"),
        (Article, "article labelled"),
        (Labelled, "article labelled place restaurant bistro bar shop"),
    ],
)
def test_models_that_share_rows_are_invalidated_together(given, names):
    everything = (Place, Restaurant, Bistro, Bar, Shop, Article, Labelled, Tag)
    invalidated = {m.__name__.lower(): Invalidated(m) for m in everything}
    invalidate_model(given)
    assert {name for name, seen in invalidated.items() if seen} == set(names.split())


def test_a_function_without_tags_is_named_before_anything_is_invalidated():
    invalidated = Invalidated(Post)
    Invalidated(Post, by_pk, name="blog.plain", tags=False)
    Invalidated(Post, by_pk, name="blog.plain", tags=False)
    with pytest.raises(TypeError, match=r"tags=\(\)\) for blog.plain$"):
        invalidate_model(Post)
    assert invalidated == []


def test_invalidate_model_tries_all_and_raises_the_first_error():
    def fail():
        raise ConnectionError("down")

    invalidated = [Invalidated(Post)]
    add_dependency(Post, "first", print, fail)
    invalidated.append(Invalidated(Post))
    with pytest.raises(ConnectionError, match="down") as caught:
        invalidate_model(Post)
    assert caught.value.__notes__ == ["Raised by first.invalidate_on(Post)."]
    assert invalidated == [["all"], ["all"]]


def test_invalidate_model_in_async_code():
    invalidated = Invalidated(Post)
    asyncio.run(ainvalidate_model("tests.Post"))
    assert invalidated == ["all"]


# --- the real thing ------------------------------------------------------------------


@cache_memoize(60, prefix="tests.dependencies.title_of")
def title_of(pk):
    return Post.objects.get(pk=pk).title


def test_a_memoized_function_follows_its_model():
    add_dependency(
        Post, "title_of", lambda args: title_of.invalidate(*args), None, by_pk
    )
    post = Post.objects.create(title="a")
    assert title_of(post.pk) == "a"
    post.title = "b"
    post.save()
    assert title_of(post.pk) == "b"


def test_before_is_an_option_of_invalidate_on():
    function = cache_memoize(60, prefix="tests.dependencies.before")(
        lambda title: title
    )
    function.invalidate_on(Post, by_title, before=False)
    assert not pre_save.has_listeners(Post)
    function.invalidate_on(Post, by_title)
    post = Post.objects.create(title="a")
    function("a")
    setattr_and_save(post, title="b")
    assert function.peek("a") is None


# --- tags of models ------------------------------------------------------------------


@pytest.mark.backends(["locmem"])
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("model", [Post, "tests.Post"])
def test_a_change_of_a_row_invalidates_tags(world, model):
    @world.memoize(60, queries=True, tags=lambda pk: f"post:{pk}")
    def title(pk):
        return Post.objects.get(pk=pk).title

    invalidate_tags_on(model, lambda post: f"post:{post.pk}", cache_alias="locmem")
    one, two = (Post.objects.create(title="old") for _ in "12")
    assert title(one.pk) == title(two.pk) == "old"
    Post.objects.filter(pk=two.pk).update(title="unseen")
    one.title = "new"
    one.save()
    assert [title(one.pk), title(two.pk)] == ["new", "old"]


def tag_by_prefix(prefix, post):
    return f"{prefix}:{post.pk}"


@pytest.mark.backends(["locmem"])
@pytest.mark.django_db(transaction=True)
@pytest.mark.filterwarnings("ignore:.* is called after the apps are ready")
def test_a_partial_that_returns_tags(world):
    f = world.memoize(60, queries=True, tags=lambda pk: f"p:{pk}")(
        lambda pk: Post.objects.get(pk=pk).title
    )
    tags = functools.partial(tag_by_prefix, "p")
    invalidate_tags_on(Post, tags, cache_alias="locmem")
    post = Post.objects.create(title="old")
    assert f(post.pk) == "old"
    post.title = "new"
    post.save()
    assert f(post.pk) == "new"


@pytest.mark.backends(["locmem"])
@pytest.mark.django_db(transaction=True)
def test_a_fixed_tag_of_a_model(world):
    f = world.memoize(60, queries=True, tags="posts")(lambda: Post.objects.count())
    invalidate_tags_on(Post, "posts", cache_alias="locmem")
    assert f() == 0
    Post.objects.create(title="new")
    assert f() == 1


def test_tags_on_what_is_no_model_or_no_tag():
    with pytest.raises(TypeError, match="is no model"):
        invalidate_tags_on(int, "t")
    with pytest.raises(TypeError, match="tag"):
        invalidate_tags_on(Post, 5)
