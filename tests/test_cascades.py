"""Rows that a deletion of other rows changes without a signal of their own."""

from __future__ import annotations

import pytest
from django.core.cache import caches
from django.core.checks import Tags
from django.core.management import call_command
from django.db import connections, models, transaction
from django.db.models.signals import pre_delete
from django.test.utils import CaptureQueriesContext

from cache_memoize import cache_memoize, model_signals
from tests import models as ours
from tests.conftest import ALL_DATABASES
from tests.models import (
    Article,
    Book,
    Loan,
    Memo,
    Novel,
    Post,
    Reader,
    Shelf,
    SpecialShelf,
    Tag,
)
from tests.test_dependencies import (  # noqa: F401  # the fixtures
    Invalidated,
    by_labels,
    by_pk,
    by_title,
    later,
    no_later_models,
    registrations_end_with_the_test,
    setattr_and_save,
)

pytestmark = [
    pytest.mark.django_db(databases=ALL_DATABASES),
    pytest.mark.filterwarnings("ignore:.* is called after the apps are ready"),
]

needs_db_cascade = pytest.mark.skipif(
    not hasattr(models, "DB_CASCADE"), reason="Django 6.1 has database cascades"
)


# --- SET_NULL and its relatives ------------------------------------------------------


def by_shelf(book):
    return (book.shelf_id,)


def by_both(book):
    return (f"{book.title} {book.shelf and book.shelf.name}",)


@pytest.mark.parametrize(
    "delete",
    [
        lambda shelf: shelf.delete(),
        lambda shelf: Shelf.objects.filter(pk=shelf.pk).delete(),
        lambda shelf: SpecialShelf.objects.get(pk=shelf.pk).delete(),
    ],
)
def test_set_null_is_a_change_before_and_after(delete):
    shelf = Shelf.objects.create(name="a")
    Book.objects.create(title="none")
    Book.objects.create(title="x", shelf=shelf)
    invalidated = Invalidated(Book, by_both)
    delete(shelf)
    assert invalidated.seen() == ["x None", "x a"]


def test_set_and_a_key_that_is_no_primary_key():
    first, second = (Shelf.objects.create(name=name) for name in "ab")
    Book.objects.create(title="x", place=second)
    Book.objects.create(title="y", named=second)
    invalidated = Invalidated(Book, lambda book: (f"{book.title}{book.place_id}",))
    old = second.pk
    second.delete()
    assert invalidated.seen() == [f"x{first.pk}", f"x{old}", "yNone"]


def test_a_row_of_the_model_itself_may_be_the_target():
    first = Book.objects.create(title="x")
    second = Book.objects.create(title="y", sequel_of=first)
    Book.objects.create(title="z", sequel_of=second)
    invalidated = Invalidated(Book, by_title)
    first.delete()
    assert invalidated.seen() == ["x", "y"]


@pytest.mark.parametrize("registered", [Book, Novel])
def test_a_key_in_the_table_of_a_parent_or_child(registered):
    shelf = Shelf.objects.create(name="a")
    Novel.objects.create(title="x", shelf=shelf)
    invalidated = Invalidated(registered, lambda one: (type(one).__name__,))
    shelf.delete()
    assert invalidated.seen() == [registered.__name__]


def queries_of(action):
    with CaptureQueriesContext(connections["default"]) as queries:
        action()
    return [query["sql"] for query in queries]


def limited(queries):
    return sum("LIMIT 1" in sql for sql in queries)


def test_without_a_callable_every_call_is_invalidated_if_a_row_is_reached():
    other = Shelf.objects.create(name="other")
    Book.objects.create(title="z", shelf=other)
    without = queries_of(other.delete)
    shelf, empty = (Shelf.objects.create(name=name) for name in "ab")
    Book.objects.create(title="x", shelf=shelf)
    invalidated = Invalidated(Book)
    empty.delete()
    assert invalidated == []
    Book.objects.create(title="y", shelf=shelf)
    queries = queries_of(shelf.delete)
    assert set(invalidated) == {"all"}
    assert limited(queries) - limited(without) == 3, "one is enough"


def test_one_query_per_relation():
    shelf = Shelf.objects.create(name="a")
    for title in "abc":
        Book.objects.create(title=title, shelf=shelf)
    without = queries_of(shelf.delete)
    shelf = Shelf.objects.create(name="a")
    for title in "abc":
        Book.objects.create(title=title, shelf=shelf)
    Invalidated(Book, by_pk)
    # three relations, of which one finds rows, that are read again
    assert len(queries_of(shelf.delete)) == len(without) + 3 + 1


def test_many_rows_are_asked_for_in_batches(monkeypatch):
    monkeypatch.setattr("cache_memoize.dependency.BATCH", 2)
    shelves = [Shelf.objects.create(name=name) for name in "abcde"]
    for shelf in shelves:
        Book.objects.create(title=shelf.name, shelf=shelf)
    invalidated = Invalidated(Book, by_title)
    Shelf.objects.all().delete()
    assert invalidated.seen() == list("abcde")


def test_a_deletion_that_is_rolled_back_invalidates_nothing_after_it():
    shelf = Shelf.objects.create(name="a")
    Book.objects.create(title="x", shelf=shelf)
    invalidated = Invalidated(Book, by_shelf)

    def refuse(**kwargs):
        raise RuntimeError("no")

    pre_delete.connect(refuse, sender=Shelf)
    with pytest.raises(RuntimeError), transaction.atomic():
        shelf.delete()
    pre_delete.disconnect(refuse, sender=Shelf)
    assert invalidated == []


def test_a_target_that_comes_later(no_later_models):  # noqa: F811
    Early = later(
        "LateEarlyBook",
        models.Model,
        shelf=models.ForeignKey("tests.LateShelf", models.SET_NULL, null=True),
    )
    Invalidated(Early, by_pk)
    LateShelf = later("LateShelf", models.Model)
    assert pre_delete.has_listeners(LateShelf)
    Proxy = later("LateProxyShelf", LateShelf, Meta=type("Meta", (), {"proxy": True}))
    assert pre_delete.has_listeners(Proxy)


def test_rules_that_signal_or_refuse_are_left_alone(no_later_models):  # noqa: F811
    Late = later(
        "LateRules",
        models.Model,
        a=models.ForeignKey(Post, models.CASCADE, related_name="+"),
        b=models.ForeignKey(Post, models.PROTECT, related_name="+"),
        c=models.ForeignKey(Post, models.RESTRICT, related_name="+"),
        d=models.ForeignKey(Post, models.DO_NOTHING, related_name="+"),
    )
    Invalidated(Late, by_pk)
    assert not pre_delete.has_listeners(Post)
    assert pre_delete.has_listeners(Late)


# --- links ---------------------------------------------------------------------------


def test_a_deleted_end_takes_its_links_along():
    tag, other = (Tag.objects.create(name=name) for name in "xy")
    memo = Memo.objects.create()
    memo.labels.add(tag, other)
    invalidated = Invalidated(Memo, by_labels)
    tag.delete()
    assert invalidated.seen() == [f"{memo.pk}:x", f"{memo.pk}:y"]
    Tag.objects.all().delete()
    assert invalidated.seen() == [f"{memo.pk}:y"]


def test_either_end_is_watched_and_no_other_model():
    tag = Tag.objects.create(name="x")
    article = Article.objects.create(title="a")
    article.labels.add(tag)
    invalidated = Invalidated(Tag, by_pk)
    article.delete()
    assert invalidated.seen() == [tag.pk]
    assert not pre_delete.has_listeners(Post)


def test_the_other_end_of_a_relation_to_itself():
    a, b, c = (Article.objects.create(title=title) for title in "abc")
    a.similar.add(b)
    c.sources.add(b)
    invalidated = Invalidated(Article, by_title)
    b.delete()
    assert invalidated.seen() == ["a", "b", "c"]


@pytest.fixture
def loan():
    Article.objects.create(title="b")
    return Loan.objects.create(
        reader=Reader.objects.create(),
        article=Article.objects.create(title="a"),
    )


def move(loan):
    setattr_and_save(loan, article_id="b")


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        (lambda loan: loan.save(), ["a"]),
        (move, ["a", "b"]),
        (lambda loan: loan.delete(), ["a"]),
        (lambda loan: Loan.objects.all().delete(), ["a"]),
        (lambda loan: loan.reader.delete(), ["a"]),
        (lambda loan: Loan(reader=loan.reader, article_id="b").save(), ["b"]),
        (lambda loan: (setattr(loan, "article_id", "b"), loan.delete()), ["a", "b"]),
    ],
)
def test_a_row_of_the_table_of_links(loan, change, seen):
    invalidated = Invalidated(Article, by_title)
    readers = Invalidated(Reader, by_pk)
    reader = loan.reader_id
    change(loan)
    assert invalidated.seen() == seen
    assert readers.seen() == [reader]


def test_links_without_a_callable_and_without_before(loan):
    every, later_only = Invalidated(Article), []
    model_signals.add_dependency(
        Article, "f", lambda args: later_only.append(args[0]), None, by_title, False
    )
    move(loan)
    assert every == ["all"] and later_only == ["b"]


# --- values that are not saved -------------------------------------------------------


def test_a_renamed_row_that_is_deleted(django_assert_num_queries):
    invalidated = Invalidated(Post, by_title)
    post = Post.objects.create(title="a")
    post.title = "b"
    invalidated.clear()
    with django_assert_num_queries(2):
        post.delete()
    assert invalidated.seen() == ["a", "b"]


def test_rows_that_a_deletion_has_just_read_are_not_read_again(
    django_assert_num_queries,
):
    for title in "abc":
        Post.objects.create(title=title)
    invalidated = Invalidated(Post, by_title)
    with django_assert_num_queries(2):
        Post.objects.all().delete()
    assert invalidated.seen() == list("abc")


def test_a_renamed_child_that_is_deleted_and_its_parent():
    novel = Novel.objects.create(title="a")
    own, parents = Invalidated(Novel, by_title), Invalidated(Book, by_title)
    novel.title = "b"
    novel.delete()
    assert own.seen() == parents.seen() == ["a", "b"]


def test_a_renamed_row_whose_relation_changes():
    article, tag = Article.objects.create(title="a"), Tag.objects.create(name="x")
    invalidated = Invalidated(Article, by_title)
    article.title = "b"
    for change in (
        lambda: article.labels.add(tag),
        lambda: article.labels.set([]),
        lambda: tag.article_set.add(article),
        lambda: article.labels.clear(),
    ):
        change()
        assert invalidated.seen() == ["a"]
    article.save()
    assert invalidated.seen() == ["a", "b"]


# --- database cascades ---------------------------------------------------------------


@pytest.fixture(params=ALL_DATABASES)
def using(request):
    return request.param


@pytest.fixture
def world(using):
    """Two regions, of which the second is within the first, with all in it."""
    from tests.models import Attic, Cat, Flat, House, Person, Region, Town, Visit

    def make(model, **values):
        return model.objects.using(using).create(**values)

    if using == "postgresql":
        with connections[using].cursor() as cursor:
            cursor.execute("ALTER SEQUENCE tests_region_id_seq RESTART WITH 1")
    made = {"default": make(Region, name="default")}
    assert made["default"].pk == 1
    made["first"] = make(Region, name="first")
    made["second"] = make(Region, name="second", within=made["first"])
    made["town"] = make(Town, name="town", region=made["second"])
    made["house"] = make(House, town=made["town"])
    made["flat"] = make(Flat, house=made["house"])
    made["attic"] = make(Attic, house=made["house"])
    made["cat"] = make(Cat, house=made["house"], region=made["second"])
    made["person"] = make(Person, name="person")
    made["visit"] = make(Visit, person=made["person"], house=made["house"])
    return made


def pk_of(name):
    def pk(made):
        return [made[name].pk]

    return pk


@needs_db_cascade
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("deleted", ["first", "second", "town", "house"])
@pytest.mark.parametrize(
    "registered", ["Region", "Town", "House", "Flat", "Attic", "Cat", "Person", "Visit"]
)
def test_the_database_deletes_rows_over_any_number_of_keys(
    world, using, registered, deleted, whole
):
    model, target = getattr(ours, registered), world[deleted]

    def all_rows():
        found = model.objects.using(using).order_by("pk")
        return {one.pk: describe(one) for one in found}

    def describe(one):
        values = {f.attname: getattr(one, f.attname) for f in one._meta.concrete_fields}
        guests = len(one.houses.using(using).all()) if registered == "Person" else 0
        return values | {"guests": guests}

    before = all_rows()
    invalidated = Invalidated(model, by_pk)
    if whole:
        type(target).objects.using(using).filter(pk=target.pk).delete()
    else:
        target.delete(using=using)
    after = all_rows()
    changed = {pk for pk in before if before[pk] != after.get(pk)}
    assert changed <= set(invalidated.seen())
    assert changed or (registered in ("Region", "Town", "House"))


@needs_db_cascade
def test_what_is_not_reached_is_not_invalidated(world, using):
    from tests.models import Cat, Flat, House, Town

    town = Town.objects.using(using).create(name="b", region=world["first"])
    Flat.objects.using(using).create(house=House.objects.using(using).create(town=town))
    cats = Invalidated(Cat, lambda cat: (f"{cat.house_id} {cat.region_id}",))
    flats, all_flats = Invalidated(Flat, by_pk), Invalidated(Flat)
    town.delete()
    assert len(flats.seen()) == 1 and all_flats == ["all"] and cats.seen() == []
    old = f"{world['house'].pk} {world['second'].pk}"
    world["second"].delete()
    assert cats.seen() == sorted([old, "None 1"])


@needs_db_cascade
def test_models_for_database_cascades_pass_the_checks_of_django():
    tags = [Tags.models, Tags.database]
    call_command("check", tags=tags, databases=ALL_DATABASES)


def test_a_cascade_by_the_database_is_followed_over_keys_and_links(monkeypatch):
    """On any Django: SET_NULL reaches the rows that DB_CASCADE would."""
    monkeypatch.setattr("cache_memoize.dependency.DB_CASCADE", models.SET_NULL)
    shelf = Shelf.objects.create(name="a")
    first = Book.objects.create(title="x", shelf=shelf)
    second = Book.objects.create(title="y", sequel_of=first)
    third = Book.objects.create(title="z", sequel_of=second)
    Book.objects.filter(pk=first.pk).update(sequel_of=third)  # a circle
    Book.objects.create(title="another")
    invalidated = Invalidated(Book, by_title)
    shelf.delete()
    assert invalidated.seen() == ["x", "y", "z"]


# --- each kind of write --------------------------------------------------------------


@cache_memoize(60, prefix="tests.cascades.shown")
def shown(pk):
    book = Book.objects.filter(pk=pk).first()
    return book and (book.title, book.shelf and book.shelf.name)


@cache_memoize(60, prefix="tests.cascades.titled")
def titled(title):
    return set(Book.objects.filter(title=title).values_list("pk", flat=True))


def save_deferred(book, shelf):
    setattr_and_save(Book.objects.only("shelf").get(pk=book.pk), title="b")


def save_after_a_refresh(book, shelf):
    book.title = "c"
    book.refresh_from_db()
    setattr_and_save(book, title="b")


def save_under_another_key(book, shelf):
    setattr_and_save(book, pk=book.pk + 1, title="b")


def save_some_fields(book, shelf):
    book.title = "c"
    book.save(update_fields=["shelf"])


def delete_a_renamed_child(book, shelf):
    book.title = "b"
    book.delete()


def delete_a_child_only(book, shelf):
    book.title = "b"
    book.delete(keep_parents=True)


@pytest.mark.parametrize("model", [Book, Novel])
@pytest.mark.parametrize(
    "write",
    [
        lambda book, shelf: setattr_and_save(book, title="b"),
        lambda book, shelf: setattr_and_save(book, shelf=None),
        lambda book, shelf: setattr_and_save(Book.objects.get(), title="b"),
        lambda book, shelf: Book.objects.update_or_create({"title": "b"}, pk=book.pk),
        lambda book, shelf: shelf.delete(),
        lambda book, shelf: Shelf.objects.all().delete(),
        lambda book, shelf: shelf.book_set.add(book, bulk=False),
        lambda book, shelf: shelf.book_set.clear(bulk=False),
        lambda book, shelf: Book.objects.all().delete(),
        save_deferred,
        save_after_a_refresh,
        save_under_another_key,
        save_some_fields,
        delete_a_renamed_child,
        delete_a_child_only,
    ],
)
def test_a_memoized_function_follows_each_kind_of_write(model, write):
    if write is delete_a_child_only and model is Book:
        pytest.skip("it is no child")
    caches["default"].clear()
    shown.invalidate_on(Book, by_pk)
    titled.invalidate_on(Book, by_title)
    shelf = Shelf.objects.create(name="s")
    book = model.objects.create(title="a", shelf=shelf)
    calls = [(shown, book.pk), (shown, book.pk + 1), *((titled, t) for t in "abc")]
    for function, argument in calls:
        function(argument)
    write(book, shelf)
    for function, argument in calls:
        assert function(argument) == function.__wrapped__(argument)
