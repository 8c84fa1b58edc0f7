"""Tables: what a result has read, or names, is what invalidates it, whoever writes."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import sys
import time

import pytest
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.db import IntegrityError, connection, connections, models, transaction
from django.db.models import Count, F, OuterRef, Prefetch, Subquery, Sum
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from cache_memoize import cache_memoize, invalidate_model, process
from cache_memoize.cache.breaker import breaker_of
from cache_memoize.cache.vouchers import Backend
from cache_memoize.keys.tags import table_tag
from cache_memoize.protocol import invalidation, tables, transactions
from cache_memoize.protocol.statements import names_in
from tests.conftest import World, in_thread
from tests.databases import EACH, EVERYWHERE, prepared
from tests.models import Article, Book, Labelled, Place, Post, Restaurant, Shelf, Tag
from tests.test_stampede import environment

pytestmark = pytest.mark.django_db(transaction=True, databases=EVERYWHERE)


@pytest.fixture(params=EACH)
def database(request):
    return prepared(request)


#: One backend of each kind is enough: tags are tested on all of them.
PLACES = pytest.mark.backends(["locmem", "valkey"])


class Rollback(Exception):
    pass


# --- reads ---------------------------------------------------------------------------


def aggregate(using):
    found = Book.objects.using(using).aggregate(n=Count("pk"), s=Sum("pk"))
    return found["n"], list(Shelf.objects.using(using).values_list("name"))


def join(using):
    books = Book.objects.using(using).select_related("shelf").order_by("pk")
    return [(book.title, book.shelf and book.shelf.name) for book in books]


def prefetch(using):
    books = Prefetch("book_set", queryset=Book.objects.using(using).order_by("pk"))
    shelves = Shelf.objects.using(using).order_by("pk").prefetch_related(books)
    return [(s.name, [book.title for book in s.book_set.all()]) for s in shelves]


def subquery(using):
    name = Shelf.objects.filter(pk=OuterRef("shelf_id")).values("name")[:1]
    books = Book.objects.using(using).annotate(on=Subquery(name)).order_by("pk")
    return list(books.values_list("title", "on"))


def raw(using):
    with connections[using].cursor() as cursor:
        cursor.execute(
            "SELECT b.title, s.name FROM tests_book b "
            "LEFT JOIN tests_shelf s ON s.id = b.shelf_id ORDER BY b.id"
        )
        return [tuple(row) for row in cursor.fetchall()]


def iterator(using):
    books = Book.objects.using(using).order_by("pk").select_related("shelf")
    return [(b.title, b.shelf and b.shelf.name) for b in books.iterator(chunk_size=1)]


SHAPES = [aggregate, join, prefetch, subquery, raw, iterator]


# --- writes --------------------------------------------------------------------------


def first(model, using):
    return model.objects.using(using).order_by("pk").first()


def execute(using, sql, *params):
    with connections[using].cursor() as cursor:
        cursor.execute(sql, params)


def save(using):
    book = first(Book, using)
    book.title = "saved"
    book.save()


def create(using):
    Book.objects.using(using).create(title="created")


def update(using):
    Book.objects.using(using).update(title="updated")


def update_by_expression(using):
    Shelf.objects.using(using).update(
        name=models.functions.Concat(F("name"), F("name"))
    )


def bulk_create(using):
    Book.objects.using(using).bulk_create([Book(title="a"), Book(title="b")])


def bulk_update(using):
    books = list(Book.objects.using(using).all())
    for book in books:
        book.title += "!"
    Book.objects.using(using).bulk_update(books, ["title"])


def delete(using):
    first(Book, using).delete()


def delete_of_a_query(using):
    Book.objects.using(using).filter(title="one").delete()


def set_null(using):
    first(Shelf, using).delete()


def get_or_create(using):
    Shelf.objects.using(using).get_or_create(name=next(_names))


def update_or_create(using):
    Book.objects.using(using).update_or_create(title="one", defaults={"title": "1"})


def of_a_related_object(using):
    first(Shelf, using).book_set.create(title="related")


def raw_update(using):
    execute(using, "UPDATE tests_book SET title = %s", "raw")


_names = map("shelf {}".format, itertools.count())


def raw_insert_of_a_select(using):
    sql = "INSERT INTO tests_shelf (name) SELECT %s FROM tests_book LIMIT 1"
    execute(using, sql, next(_names))


def executemany(using):
    with connections[using].cursor() as cursor:
        sql = "INSERT INTO tests_shelf (name) VALUES (%s)"
        cursor.executemany(sql, [(next(_names),), (next(_names),)])


WRITES = [
    *(save, create, update, update_by_expression, bulk_create, bulk_update, delete),
    *(delete_of_a_query, set_null, get_or_create, update_or_create),
    *(of_a_related_object, raw_update, raw_insert_of_a_select, executemany),
]


def autocommit(write, using):
    write(using)


def committed(write, using):
    with transaction.atomic(using=using):
        write(using)


def in_savepoint(write, using):
    with transaction.atomic(using=using), transaction.atomic(using=using):
        write(using)


def rolled_back(write, using):
    with pytest.raises(Rollback), transaction.atomic(using=using):
        write(using)
        raise Rollback


def rolled_back_to_savepoint(write, using):
    with transaction.atomic(using=using):
        with pytest.raises(Rollback), transaction.atomic(using=using):
            write(using)
            raise Rollback
        execute(using, "SELECT 1")


def of_another_thread(write, using):
    in_thread(lambda: write(using))


WAYS = [
    *(autocommit, committed, in_savepoint),
    *(rolled_back, rolled_back_to_savepoint, of_another_thread),
]


@pytest.fixture
def rows(database):
    shelf = Shelf.objects.using(database).create(name="first")
    Shelf.objects.using(database).create(name="second")
    Book.objects.using(database).create(title="one", shelf=shelf)
    Book.objects.using(database).create(title="two")
    return database


def pairs():
    """Yield each shape with each way; without ``--full``, each with two."""
    for (i, shape), (j, way) in itertools.product(enumerate(SHAPES), enumerate(WAYS)):
        marks = () if (i - j) % len(WAYS) < 2 else pytest.mark.thorough
        yield pytest.param(shape, way, marks=marks)


@pytest.mark.backends(["locmem"])
@pytest.mark.parametrize("shape, way", list(pairs()))
def test_no_write_leaves_an_old_result(backend, rows, shape, way):
    """15 kinds of writes, 6 shapes of functions, 6 ways to commit, 3 databases."""
    no_write_leaves_an_old_result(World(backend, "sync"), rows, shape, way)


@pytest.mark.backends(["locmem", "valkey"], lean=["valkey"])
@pytest.mark.parametrize("shape, way", list(zip(SHAPES, WAYS, strict=True)))
def test_nor_does_one_elsewhere(world, rows, shape, way):
    no_write_leaves_an_old_result(world, rows, shape, way)


def no_write_leaves_an_old_result(world, rows, shape, way):
    for depends in ("reads", [Book, "tests.Shelf"]):
        f = world.memoize(60, queries=True, depends_on=depends)(lambda: shape(rows))
        for write in WRITES:
            Book.objects.using(rows).filter(pk=0).delete()
            if not Book.objects.using(rows).filter(title="one").exists():
                Book.objects.using(rows).create(title="one")
            f(), f()
            assert f.peek() is not None, "it is stored"
            way(write, rows)
            assert f() == shape(rows), (depends, write)
            assert f() == shape(rows)


@PLACES
@pytest.mark.parametrize("way", [committed, in_savepoint])
def test_until_the_commit_others_get_the_old_value_and_the_writer_the_new(
    world, rows, way
):
    f = world.memoize(60, queries=True, depends_on="reads")(lambda: join(rows))
    before = f()

    def write_and_look(using):
        update(using)
        assert f() == join(using) != before
        if using != "default":  # SQLite shuts others out
            assert in_thread(f) == before

    way(write_and_look, rows)
    assert f() == join(rows) != before


@PLACES
@pytest.mark.parametrize("depends", ["reads", Post])
def test_writes_to_other_tables_invalidate_nothing(world, rows, depends):
    runs = []

    @world.memoize(60, queries=True, depends_on=depends)
    def f():
        runs.append(1)
        return list(Post.objects.using(rows).values_list("title"))

    f()
    for write in WRITES:
        write(rows)
    f()
    assert len(runs) == 1


@PLACES
def test_a_result_depends_on_the_tables_of_the_calls_in_it(world, rows):
    inner = world.memoize(60, queries=True, depends_on="reads")(lambda: join(rows))
    outer = world.memoize(60, queries=True)(lambda: inner())
    assert outer() == outer() == join(rows)
    update(rows)
    assert outer() == outer() == join(rows)


@PLACES
def test_a_write_during_the_computation_is_seen(world, rows):
    calls = []

    @world.memoize(60, queries=True, depends_on="reads")
    def f():
        found = join(rows)
        if not calls:
            calls.append(1)
            in_thread(lambda: update(rows))
        return found

    f()
    assert f() == f() == join(rows)


@pytest.mark.backends(["valkey", "file"])
def test_a_process_that_never_imports_the_function_invalidates(world, rows):
    if rows != "postgresql":
        pytest.skip("the database of this process is in its memory")
    f = world.memoize(60, queries=True, depends_on="reads")(lambda: join(rows))
    f()
    name = connections[rows].settings_dict["NAME"]
    script = (
        "import django; from django.conf import settings; "
        f"settings.CACHE_MEMOIZE = {{'TABLE_CACHES': [{world.alias!r}]}}; "
        f"settings.DATABASES[{rows!r}]['NAME'] = {name!r}; django.setup(); "
        "from tests.models import Book; "
        f"Book.objects.using({rows!r}).update(title='elsewhere')"
    )
    subprocess.run([sys.executable, "-c", script], check=True, env=environment())
    assert f() == join(rows)
    assert "elsewhere" in str(f())


@pytest.mark.backends(["locmem"])
def test_the_tables_of_a_model(world):
    assert tables.tables_of(Restaurant) == {
        *("tests_restaurant", "tests_place", "tests_place_tags")
    }
    assert "tests_article_similar" in tables.tables_of(Article)
    assert "tests_place_tags" in tables.tables_of(Tag)


@PLACES
@pytest.mark.parametrize(
    "change",
    [
        lambda place, tag: place.tags.add(tag),
        lambda place, tag: tag.place_set.add(place),
        lambda place, tag: place.tags.set([tag]),
        lambda place, tag: place.tags.create(name="new"),
    ],
)
@pytest.mark.parametrize("depends", ["reads", Place, "tests.Tag"])
def test_many_to_many_changes_are_writes(world, depends, change):
    place = Place.objects.create(name="here")
    tag = Tag.objects.create(name="good")

    def read():
        return list(place.tags.order_by("pk").values_list("name", flat=True))

    f = world.memoize(60, queries=True, depends_on=depends)(read)
    assert f() == []
    change(place, tag)
    assert f() == read() != []
    place.tags.clear()
    assert f() == []


@PLACES
def test_invalidate_model_is_for_writes_that_are_not_seen(world):
    runs = []

    @world.memoize(60, depends_on=Post)
    def f():
        runs.append(1)

    f(), f()
    invalidate_model(Post)
    f(), f()
    assert len(runs) == 2


@PLACES
@pytest.mark.parametrize("sql", ["VACUUM", "ANALYZE", "CREATE TABLE more (id INTEGER)"])
def test_migrations_and_other_statements_are_writes(world, sql):
    """In doubt to all tables; never less than it names."""
    f = world.memoize(60, queries=True, depends_on="reads")(
        lambda: Post.objects.count()
    )
    f()
    with connection.cursor() as cursor:
        cursor.execute(sql)
        if sql.startswith("CREATE"):
            cursor.execute("DROP TABLE more")
    assert f.peek() is None or sql.startswith("CREATE")


@PLACES
def test_ignored_tables_invalidate_nothing_and_nothing_depends_on_them(world):
    runs = []

    @world.memoize(60, queries=True, depends_on="reads")
    def f():
        runs.append(1)
        return Post.objects.count()

    with override_settings(CACHE_MEMOIZE={"IGNORED_TABLES": ["tests_post"]}):
        f()
        Post.objects.create(title="new")
        assert f() == 0 and len(runs) == 1


@PLACES
def test_a_queryset_is_read_when_it_is_stored(world):
    """The result, and that of a call around it, depend on its tables."""

    @world.memoize(60, queries=True, depends_on="reads")
    def posts():
        return Post.objects.order_by("pk")

    @world.memoize(60, queries=True)
    def titles():
        return [post.title for post in posts()]

    Post.objects.create(title="first")
    assert titles() == titles() == ["first"]
    Post.objects.create(title="second")
    assert titles() == titles() == ["first", "second"]


def test_the_tables_of_a_primed_value_are_not_known():
    f = cache_memoize(60, depends_on="reads", prefix="primed")(lambda: 1)
    with pytest.raises(TypeError, match="name the models there"):
        f.prime(2)


@PLACES
@pytest.mark.parametrize("sql", ["SELECT a_function_of_ours(1)", "SELECT pg_sleep(0)"])
def test_a_query_that_cannot_be_read_is_not_stored(world, sql, caplog):
    """Nor is its result lost; the log says so once."""
    runs = []

    @world.memoize(60, queries=True, depends_on="reads")
    def f():
        runs.append(1)
        with contextlib.suppress(Exception), connection.cursor() as cursor:
            cursor.execute(sql)
        return len(runs)

    unreadable = "ours" in sql
    assert [f(), f()] == ([1, 2] if unreadable else [1, 1])
    assert caplog.text.count("the result is not stored") == unreadable


@PLACES
def test_a_statement_that_is_no_text_is_not_read(world):
    class Composed:
        """As an SQL object of a driver."""

    @world.memoize(60, queries=True, depends_on="reads")
    def f():
        with contextlib.suppress(Exception), connection.cursor() as cursor:
            cursor.execute(Composed())
        return 1

    assert f() == 1 and f.peek() is None


@PLACES
def test_a_write_that_failed_may_have_written(world):
    runs = []
    Shelf.objects.create(name="taken")

    @world.memoize(60, queries=True, depends_on=Shelf)
    def f():
        runs.append(1)

    f()
    with contextlib.suppress(IntegrityError):
        execute("default", "INSERT INTO tests_shelf (name) VALUES ('taken')")
    f()
    assert len(runs) == 2


@pytest.mark.backends(["valkey"])
def test_a_cache_that_functions_of_others_use_is_told(world, caplog):
    """If it fails, the log says so; a cache that functions of ours use raises."""
    told = {"TABLE_CACHES": [world.alias]}
    f = world.memoize(60, queries=True, depends_on=Post)(lambda: Post.objects.count())
    assert f() == 0
    with override_settings(CACHE_MEMOIZE=told), pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "_declared", set())
        Post.objects.create(title="told")
        assert f.peek() is None
        tables._declared.clear()

        async def fail(*args):
            raise ConnectionError("away")

        patch.setattr(tables, "renew_tags", fail)
        Post.objects.create(title="not told")
        assert "was not told of a write" in caplog.text
        breaker_of(world.alias).failure(time.monotonic(), hanging=True)
        caplog.clear()
        Post.objects.create(title="left alone")
        assert not caplog.text
        breaker_of(world.alias).__init__()
        patch.setattr(tables, "_declared", {world.alias})
        with pytest.raises(ConnectionError):
            Post.objects.create(title="raises")


@pytest.mark.backends(["sqlite"])
def test_a_cache_in_the_database_that_is_written_to(world):
    """The tag is part of the transaction."""
    f = world.memoize(60, queries=True, depends_on=Post)(lambda: Post.objects.count())
    assert f() == f() == 0
    with transaction.atomic():
        Post.objects.create(title="new")
        assert f() == 1
    assert f() == f() == 1
    with pytest.raises(Rollback), transaction.atomic():
        Post.objects.create(title="never")
        raise Rollback
    assert f() == 1


@pytest.mark.backends(["sqlite"])
def test_a_row_that_is_returned_is_kept_by_a_cache_in_its_database(world):
    """SQLite rolls a statement back whose rows have not been read, if there is a COMMIT
    before."""
    f = world.memoize(60, queries=True, depends_on=Post)(lambda: Post.objects.count())
    for number in range(3):
        assert f() == f() == number
        Post.objects.create(title="new")
        assert f() == Post.objects.count() == number + 1
    Post.objects.bulk_create([Post(title="a"), Post(title="b")])
    assert f() == Post.objects.count() == 5


@pytest.mark.backends(["valkey"])
@pytest.mark.parametrize("read", ["fetchone", "fetchmany", "fetchall", "close"])
def test_a_statement_that_returns_rows_invalidates_after_its_commit(
    world, monkeypatch, read
):
    """Else a reader between the two would store the rows of before."""
    f = world.memoize(60, queries=True, depends_on=Post)(lambda: Post.objects.count())
    assert f() == f() == 0
    seen, renew = [], tables.renew_tags

    def look(*args):
        seen.append(in_thread(Post.objects.count))
        return renew(*args)

    monkeypatch.setattr(tables, "renew_tags", look)
    cursor = connection.cursor()
    cursor.execute("INSERT INTO tests_post (title) VALUES ('a'), ('b') RETURNING id")
    cursor.execute("INSERT INTO tests_shelf (name) VALUES ('a') RETURNING id")
    assert not seen
    getattr(cursor, read)()
    cursor.close()
    assert {*seen} == {2} and f() == 2


@pytest.mark.backends(["pymemcache", "pylibmc", "unknown"])
def test_an_empty_answer_of_a_client_that_hides_errors_is_not_believed(
    world, monkeypatch
):
    f = world.memoize(60, queries=True, depends_on=Post)(lambda: Post.objects.count())
    before = f()
    with monkeypatch.context() as patch:
        patch.setattr(Backend, "get_many", lambda self, cache, keys: {})
        Post.objects.create(title="new")
    assert f() == before + 1


@pytest.mark.backends(["valkey"])
def test_a_cache_of_others_that_fails_at_the_commit_stops_no_hook(world, caplog):
    done = []

    async def fail(*args):
        raise ConnectionError("away")

    told = {"TABLE_CACHES": [world.alias]}
    with override_settings(CACHE_MEMOIZE=told), pytest.MonkeyPatch.context() as patch:
        with transaction.atomic():
            Post.objects.create(title="told later")
            transaction.on_commit(lambda: done.append(1))
            patch.setattr(invalidation, "_renew_now", fail)
        assert done == [1] and "was not told of a write" in caplog.text
        patch.setattr(tables, "_declared", {world.alias})
        with pytest.raises(ConnectionError), transaction.atomic():
            patch.undo()
            patch.setattr(tables, "_declared", {world.alias})
            Post.objects.create(title="raises")
            patch.setattr(invalidation, "_renew_now", fail)


@pytest.mark.backends(["valkey"])
def test_a_cache_of_others_that_is_left_alone_is_not_asked(world, caplog, monkeypatch):
    monkeypatch.setattr(process, "_logged", {})
    breaker_of(world.alias).failure(time.monotonic(), hanging=True)
    with override_settings(CACHE_MEMOIZE={"TABLE_CACHES": [world.alias]}):
        Post.objects.create(title="new")
        Post.objects.create(title="at most one line a minute")
    assert caplog.text.count("was not told of a write: 'it is left alone") == 1
    breaker_of(world.alias).__init__()


@pytest.mark.parametrize("garbage", [b"garbage", 5])
@PLACES
def test_garbage_under_the_tag_of_a_table_is_healed(world, garbage):
    f = world.memoize(60, queries=True, depends_on=Post)(lambda: Post.objects.count())
    assert f() == 0
    world.cache.set(table_tag("tests_post"), garbage)
    with transaction.atomic():
        Post.objects.create(title="new")
    assert f() == f() == 1 and f.peek().value == 1


@PLACES
def test_methods_that_send_a_statement_of_their_own_may_write_anywhere(world, rows):
    """Execute wrappers do not see them."""
    f = world.memoize(60, queries=True, depends_on=[Place, Post])(
        lambda: Post.objects.using(rows).count()
    )
    assert f() == 0
    vendor = connections[rows].vendor
    if vendor == "sqlite":  # it commits before a script
        with connections[rows].cursor() as cursor:
            cursor.executescript("INSERT INTO tests_post (title) VALUES ('new')")
    elif vendor == "postgresql":
        with transaction.atomic(using=rows), connections[rows].cursor() as cursor:
            with cursor.copy("COPY tests_post (title) FROM STDIN") as copy:
                copy.write_row(["new"])
            assert f() == 1
    else:
        with connections[rows].cursor() as cursor:
            insert = "INSERT INTO tests_post (title) VALUES ('new')"
            cursor.execute(f"CREATE PROCEDURE p() {insert}")
            cursor.callproc("p")
            cursor.execute("DROP PROCEDURE p")
    assert f() == f() == 1


def test_without_the_app_nothing_sees_the_statements(monkeypatch):
    monkeypatch.setattr(transactions, "observer", None)
    with connection.cursor() as cursor:
        cursor.executescript("INSERT INTO tests_post (title) VALUES ('new')")
        with pytest.raises(AttributeError):
            _ = cursor.copy_expert
    assert Post.objects.count() == 1


@PLACES
def test_a_connection_that_is_opened_within_a_wrapper_of_the_project(world):
    """As by a middleware that counts queries. Its end removes the last wrapper."""
    f = world.memoize(60, queries=True, depends_on=Post)(lambda: Post.objects.count())
    assert f() == 0
    before = list(connection.execute_wrappers)
    connection.close()
    connection.execute_wrappers[:] = []

    def pass_on(execute, *args):
        return execute(*args)

    try:
        with connection.execute_wrapper(pass_on):
            assert Post.objects.count() == 0
        assert pass_on not in connection.execute_wrappers
        Post.objects.create(title="new")
        assert f() == 1
    finally:
        connection.execute_wrappers[:] = before


@PLACES
def test_a_cursor_that_opens_its_connection_is_noticed(world, rows):
    f = world.memoize(60, queries=True, depends_on=Post)(
        lambda: Post.objects.using(rows).count()
    )
    assert f() == 0
    if connections[rows].vendor == "mysql":
        pytest.skip("a procedure needs a cursor before it is called")

    def write() -> None:  # by a connection of its own
        insert = "INSERT INTO tests_post (title) VALUES ('new')"
        with connections[rows].cursor() as cursor:
            if connections[rows].vendor == "sqlite":
                cursor.executescript(insert)
            else:
                with cursor.copy("COPY tests_post (title) FROM STDIN") as copy:
                    copy.write_row(["new"])

    in_thread(write)
    assert f() == 1


def test_the_methods_of_a_driver_are_those_that_it_has():
    with connection.cursor() as cursor:
        assert not hasattr(cursor, "copy_expert") and hasattr(cursor, "executescript")


# --- refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "depends, text",
    [
        ("tests.Psot", "has 'tests.Psot', which is no model"),
        ("tests.Psot", "did you mean tests.Post"),
        ("tests_post", "did you mean tests.Post"),
        ("nothing", "which is no model"),
        ("", "has '', which is no model"),
        (5, "has a int, which is no model"),
        (int, "which is no model"),
        (models.Model, "which is no model"),
        (Post.objects, "a ManagerFromQuerySet?|a Manager, which is no model"),
        (Post.objects.all(), "has a QuerySet, which is no model"),
        (Post(), "has a Post, which is no model; write the class"),
        (Labelled, "the abstract model Labelled"),
        ([Post, int], "which is no model"),
        (["reads", Post], "has 'reads' beside models; write only models"),
        ("admin.LogEntry", "take 'django_admin_log' out of"),
    ],
)
@pytest.mark.parametrize("ready", [True, False])
def test_what_is_no_model_is_refused(depends, text, ready, monkeypatch):
    """Also where it is known at the first call only. No query is sent for that."""
    monkeypatch.setattr(apps, "ready", ready)
    with (
        CaptureQueriesContext(connection) as sent,
        pytest.raises(ImproperlyConfigured, match=text),
    ):
        f = cache_memoize(60, depends_on=depends, prefix="refused")(lambda: 1)
        monkeypatch.undo()
        f()
    assert not sent


@pytest.mark.parametrize("depends", [None, (), []])
def test_no_model_is_taken(depends):
    cache_memoize(60, depends_on=depends, prefix="none")(lambda: 1)()


def test_a_model_that_was_swapped_out_is_refused(settings):
    """Its table is never written."""
    settings.AUTH_USER_MODEL = "tests.Reader"
    with pytest.raises(ImproperlyConfigured, match="auth.User, .* tests.Reader is in"):
        cache_memoize(60, depends_on="auth.User", prefix="refused")(lambda: 1)()


def test_without_the_app_it_is_refused(settings):
    settings.INSTALLED_APPS = [
        a for a in settings.INSTALLED_APPS if a != "cache_memoize"
    ]
    with pytest.raises(ImproperlyConfigured, match='put "cache_memoize" into'):
        cache_memoize(60, depends_on=Post, prefix="refused")(lambda: 1)()


def test_where_writes_are_not_watched_it_is_refused():
    f = cache_memoize(60, depends_on=Post, prefix="refused")(lambda: 1)
    with (
        override_settings(CACHE_MEMOIZE={"WATCH_TABLES": False}),
        pytest.raises(ImproperlyConfigured, match="WATCH_TABLES"),
    ):
        f()


def test_a_cache_that_other_processes_do_not_tell_is_logged(caplog, monkeypatch):
    monkeypatch.setattr(tables, "_untold", set())
    for _ in range(2):
        cache_memoize(60, depends_on=Post, prefix="told", cache_alias="locmem")(len)([])
    assert [r.message for r in caplog.records if "TABLE_CACHES" in r.message] == [
        "len depends on tables, but processes that do not import it do not tell the "
        "cache 'locmem' of their writes: add it to CACHE_MEMOIZE['TABLE_CACHES']"
    ]


# --- the text of statements ----------------------------------------------------------


@pytest.mark.parametrize(
    "sql, found",
    [
        ("SELECT 1", ""),
        ("SELECT a, b FROM t", "t"),
        ('SELECT "t"."a" FROM "t"', "t"),
        ("SELECT * FROM `t` AS x, `u` y WHERE 1", "t u"),
        ("SELECT * FROM public.t, other.u", "t u"),
        ('SELECT * FROM "public"."T"', "t"),
        ("SELECT * FROM [t]", "t"),
        ("select * from t left outer join u using (id)", "t u"),
        ("SELECT * FROM (SELECT a FROM t) x JOIN LATERAL (SELECT 1 FROM u) y", "t u"),
        ("WITH x AS (SELECT * FROM t) SELECT * FROM x", "t"),
        ("INSERT INTO t (a, b) VALUES (1, 2)", "t"),
        ("INSERT INTO t SELECT * FROM u", "t u"),
        ("UPDATE t SET a = 1 FROM u", "t u"),
        ("UPDATE ONLY t SET a = 1", "t"),
        ("DELETE FROM ONLY t USING u", "t"),
        ("TRUNCATE t", "t"),
        ("TRUNCATE TABLE t CASCADE", "t"),
        ("DROP TABLE IF EXISTS t", "t"),
        ("ALTER TABLE t ADD COLUMN a int", "t"),
        ("CREATE TABLE t (id int)", "t"),
        ("SELECT EXTRACT(YEAR FROM a) FROM t", "t"),
        ("SELECT TRIM(BOTH FROM a) FROM t", "t"),
        ("SELECT SUBSTRING(LOWER(a) FROM b) FROM t", "t"),
        ("SELECT a IS DISTINCT FROM b FROM t", "t"),
        ("SELECT a FROM t ORDER BY a, b", "t"),
        ("SELECT a FROM t GROUP BY a, b", "t"),
        ("DELETE FROM t WHERE a = 1 RETURNING a, b", "t"),
        ("SELECT 'FROM u' FROM t -- FROM v", "t"),
        ("SELECT /* FROM u */ a FROM t", "t"),
        ("SELECT 'it''s' FROM t", "t"),
        (f"SELECT a FROM t WHERE a = '{'a' * 5000}'", "t"),
    ],
)
def test_the_tables_in_a_statement(sql, found):
    assert names_in(sql).tables == set(found.split())
    assert set(found.split()) <= names_in(sql).all
