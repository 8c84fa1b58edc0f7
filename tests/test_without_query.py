"""A computation that ran no query is stored whatever its transaction did, and nothing
that may be uncommitted is."""

from __future__ import annotations

import functools

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.core.cache import caches
from django.db import connections, transaction
from django.test import SimpleTestCase

from cache_memoize import cache_memoize
from cache_memoize.cache import record
from cache_memoize.protocol import transactions
from tests.conftest import ALL_DATABASES, World, in_thread
from tests.databases import prepared
from tests.models import Post
from tests.needs import need

pytestmark = pytest.mark.django_db(transaction=True, databases=ALL_DATABASES)


@pytest.fixture(params=ALL_DATABASES)
def database(request):
    return prepared(request)


@pytest.fixture
def post(database):
    return Post.objects.using(database).create(title="old")


class Rollback(Exception):
    pass


def changed(post):
    """Change the row, and the instance, in a transaction that will be rolled back."""
    post.title = "uncommitted"
    post.save()


def in_rolled_back(database, post, *calls):
    with pytest.raises(Rollback), transaction.atomic(using=database):
        changed(post)
        for call in calls:
            call()
        raise Rollback


# --- stored --------------------------------------------------------------------------


@pytest.mark.backends(["locmem", "valkey", "pymemcache", "file"], lean=["locmem"])
@pytest.mark.parametrize("args", [(1,), ("a", 2.5), (), ([1, {"a": (None, b"")}],)])
def test_without_a_query_a_result_is_stored_in_a_transaction_that_wrote(
    world, database, post, args
):
    runs = []

    def feed(*args):
        runs.append(args)
        return len(args)

    f = world.memoize(60)(feed)
    in_rolled_back(database, post, lambda: f(*args), lambda: f(*args))
    assert f(*args) == len(args) == in_thread(lambda: f(*args))
    assert len(runs) == 1


@pytest.mark.backends(["locmem"])
@pytest.mark.parametrize("options", [{"tags": "news"}, {"stale": 10}, {"jitter": 0.5}])
def test_with_other_options_too(world, database, post, options):
    f = world.memoize(60, **options)(lambda x: x)
    in_rolled_back(database, post, lambda: f(1))
    assert f.peek(1).value == 1


@pytest.mark.backends(["locmem"])
def test_stored_exceptions_too(world, database, post):
    def missing(x):
        raise LookupError(x)

    f = world.memoize(60, cache_exceptions=LookupError)(missing)
    in_rolled_back(database, post, lambda: pytest.raises(LookupError, f, 1))
    assert f.peek(1).value.args == (1,)


@pytest.mark.backends(["locmem"])
def test_a_snapshot_is_not_read_by_a_computation_without_a_query(backend, database):
    world = World(backend, "sync")
    f = world.memoize(60)(lambda x: x)
    with transaction.atomic(using=database):
        with connections[database].cursor() as cursor:
            if database == "postgresql":
                cursor.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
        assert Post.objects.using(database).count() == 0
        assert not transactions.can_share_results(0)
        f(1)
        assert f.peek(1).value == 1


@pytest.mark.backends(["locmem"])
def test_hits_of_other_functions_are_no_queries(backend, database, post):
    """A hit is committed: it is stored for all."""
    world = World(backend, "sync")
    title = world.memoize(60)(lambda pk: Post.objects.using(database).get(pk=pk).title)
    assert title(post.pk) == "old"
    page = world.memoize(60)(lambda pk: f"<{title(pk)}>")
    in_rolled_back(database, post, lambda: page(post.pk))
    assert page.peek(post.pk).value == "<old>"


@pytest.mark.backends(["locmem"])
def test_queries_of_other_threads_read_what_is_committed(backend, database, post):
    if database != "postgresql":
        pytest.skip("other threads wait for the end of the transaction")
    world = World(backend, "sync")

    def title(pk):
        return in_thread(lambda: Post.objects.using(database).get(pk=pk).title)

    f = world.memoize(60)(title)
    in_rolled_back(database, post, lambda: f(post.pk))
    assert f.peek(post.pk).value == "old"


# --- not stored ----------------------------------------------------------------------


def by_row(post, database):
    return lambda pk: Post.objects.using(database).get(pk=pk).title


def by_cursor(post, database):
    def read(pk):
        with connections[database].cursor() as cursor:
            cursor.execute(f"SELECT title FROM tests_post WHERE id = {pk}")
            return cursor.fetchone()[0]

    return read


def by_driver(post, database):
    """Execute wrappers do not see it."""

    def read(pk):
        with connections[database].cursor() as cursor:
            cursor.cursor.execute(f"SELECT title FROM tests_post WHERE id = {pk}")
            return cursor.cursor.fetchone()[0]

    return read


def by_open_cursor(post, database):
    cursor = connections[database].cursor()

    def read(pk):
        cursor.execute(f"SELECT title FROM tests_post WHERE id = {pk}")
        return cursor.fetchone()[0]

    return read


def by_iterator(post, database):
    def read(pk):
        rows = Post.objects.using(database).filter(pk=pk).iterator(chunk_size=1)
        return [row.title for row in rows][0]

    return read


def by_nested_call(post, database):
    inner = cache_memoize(60, prefix=f"inner {post.pk}", cache_alias="locmem")(
        by_row(post, database)
    )
    return lambda pk: inner(pk)


def by_captured_row(post, database):
    return lambda pk: post.title


def by_captured_list_of_rows(post, database):
    rows = {"all": [post]}
    return lambda pk: rows["all"][0].title


def by_captured_function_of_a_row(post, database):
    def title():
        return post.title

    return lambda pk: title()


class WritesItsTitle:
    def __init__(self, post):
        self.post = post

    def update(self, found):
        found.append(self.post.title)


def by_method_of_captured_object(post, database):
    writer = WritesItsTitle(post)

    def read(pk):
        found = []
        writer.update(found)
        return found

    return read


def by_default(post, database):
    def read(pk, row=post):
        return row.title

    return read


def by_lru_cache(post, database):
    """The other functions of the process may have read the row."""
    return functools.lru_cache(by_row(post, database))


def by_captured_lru_cache(post, database):
    inner = by_lru_cache(post, database)
    return lambda pk: inner(pk)


def by_partial(post, database):
    return functools.partial(lambda row, pk: row.title, post)


class Reader:
    def __init__(self, post):
        self.post = post

    def __call__(self, pk):
        return self.post.title

    def read(self, pk):
        return self.post.title


def by_object(post, database):
    return Reader(post)


def by_bound_method(post, database):
    return Reader(post).read


current = None


def by_global_row(post, database):
    """That a row comes from elsewhere is seen only if the result contains it."""
    return lambda pk: {"row": current}


WAYS = [
    *(by_row, by_cursor, by_driver, by_open_cursor, by_iterator, by_nested_call),
    *(by_captured_row, by_captured_list_of_rows, by_captured_function_of_a_row),
    *(by_default, by_lru_cache, by_captured_lru_cache, by_partial, by_object),
    *(by_bound_method, by_global_row, by_method_of_captured_object),
]


@pytest.mark.backends(["locmem", "valkey"])
@pytest.mark.parametrize("way", WAYS)
def test_what_may_be_uncommitted_is_not_stored(backend, database, post, way):
    global current
    current = post
    world, pk = World(backend, "sync"), post.pk
    read = way(post, database)
    f = cache_memoize(60, prefix=f"{way.__name__} {pk}", cache_alias=backend)(read)
    in_rolled_back(database, post, *[lambda: f(pk), lambda: f(pk)] * 2)
    assert f.peek(pk) is None
    assert world.raw(f.get_cache_key(pk)) is None or (
        world.raw(f.get_cache_key(pk)).kind == record.FAILED
    )


@pytest.mark.backends(["locmem"])
def test_a_row_in_a_compressed_result_is_seen(backend, database, post):
    global current
    current = post
    f = World(backend, "sync").memoize(60, compress=1)(by_global_row(post, database))
    in_rolled_back(database, post, lambda: f(1))
    assert f.peek(1) is None


@pytest.mark.backends(["locmem", "valkey"])
def test_an_exception_that_may_be_uncommitted_is_not_passed_on(backend, database, post):
    """Callers that waited for the computation compute by themselves."""

    def title(pk):
        title = Post.objects.using(database).get(pk=pk).title
        raise LookupError(title)

    world = World(backend, "sync")
    f = world.memoize(60)(title)
    in_rolled_back(database, post, lambda: pytest.raises(LookupError, f, post.pk))
    raw = world.raw(f.get_cache_key(post.pk))
    assert raw.kind == record.FAILED and not raw.end


@pytest.mark.backends(["locmem"])
def test_an_exception_of_a_function_that_has_written_is_not_passed_on(
    backend, database, post
):
    def rename(pk):
        changed(post)
        raise LookupError(post.title)

    world = World(backend, "sync")
    f = world.memoize(60)(rename)
    with transaction.atomic(using=database):
        pytest.raises(LookupError, f, post.pk)
        raw = world.raw(f.get_cache_key(post.pk))
        assert raw is None or (raw.kind == record.FAILED and not raw.end)


@pytest.mark.backends(["locmem"])
def test_an_exception_that_holds_a_row_is_not_passed_on(backend, database, post):
    def title(pk):
        raise LookupError(current)

    global current
    current = post
    world = World(backend, "sync")
    f = world.memoize(60)(title)
    in_rolled_back(database, post, lambda: pytest.raises(LookupError, f, post.pk))
    assert not world.raw(f.get_cache_key(post.pk)).end


@pytest.mark.backends(["locmem"])
@pytest.mark.parametrize("options", [{"ignore": ("row",)}, {"extra": 1}])
@pytest.mark.parametrize("wrapped", [lambda row: row, lambda row: [row]])
def test_arguments_may_hold_what_is_uncommitted(
    world, database, post, options, wrapped
):
    def title(row):
        return (row[0] if isinstance(row, list) else row).title

    f = world.memoize(60, **options)(title)
    in_rolled_back(
        database, post, lambda: f(wrapped(post)), lambda: f(row=wrapped(post))
    )
    assert f.peek(wrapped(post)) is None


@pytest.mark.backends(["locmem"])
def test_args_rewrite_does_not_hide_a_row(world, database, post):
    f = world.memoize(60, args_rewrite=lambda row: row.pk)(lambda row: row.title)
    in_rolled_back(database, post, lambda: f(post))
    assert f.peek(post) is None


@pytest.mark.backends(["locmem"])
def test_classes_may_hold_rows(world, database, post):
    class Page:
        row = post

    Page.__qualname__ = "PageWithARow"
    globals()["PageWithARow"] = Page
    f = world.memoize(60)(lambda page: page.row.title)
    in_rolled_back(database, post, lambda: f(Page))
    assert f.peek(Page) is None


@pytest.mark.backends(["locmem"])
def test_methods_may_hold_rows(backend, database, post):
    class Page:
        def __init__(self, row):
            self.row = row

        def __str__(self):
            return str(self.row.pk)

        @cache_memoize(60, cache_alias=backend, prefix="page", ignore=("self",))
        def title(self, x):
            return self.row.title

    page = Page(post)
    in_rolled_back(database, post, lambda: page.title(1))
    assert page.title.peek(1) is None


@pytest.mark.backends(["locmem"])
def test_async_functions_that_query_are_seen(backend, database, post):
    """Their queries run in the thread of the caller's connections."""
    world = World(backend, "async")
    title = world.memoize(60, queries=True)(by_row(post, database))
    pure = world.memoize(60)(lambda pk: pk)
    in_rolled_back(database, post, lambda: title(post.pk), lambda: pure(1))
    assert title.peek(post.pk) is None and pure.peek(1).value == 1


@pytest.mark.backends(["locmem"])
def test_a_guard_runs_again(world, database, post):
    f = world.memoize(60, store_result=False)(lambda x: x)
    in_rolled_back(database, post, lambda: f(1))
    assert f.peek(1) is None


# --- other orders --------------------------------------------------------------------


@pytest.mark.backends(["locmem", "valkey"])
@pytest.mark.parametrize("how", ["before", "during", "after"])
def test_an_invalidation_wins(world, database, post, how):
    def feed(x):
        return x

    def invalidated(x):
        in_thread(lambda: f.invalidate(x))
        return x

    f = world.memoize(60)(invalidated if how == "during" else feed)
    with transaction.atomic(using=database):
        changed(post)
        if how == "before":
            f.invalidate(1)
        f(1)
        assert (f.peek(1) is not None) is (how == "after")
        if how == "after":
            f.invalidate(1)
    assert f.peek(1) is None


@pytest.mark.leaves_lease
@pytest.mark.backends(["locmem"])
def test_a_function_that_queried_takes_no_lease_again(backend, database, post):
    """Other callers would wait for a result that is not stored."""
    kinds, pk = [], post.pk

    def title(x):
        found = record.parse(caches[backend].get(f.get_cache_key(x)))
        kinds.append(found and found.kind)
        return Post.objects.using(database).get(pk=pk).title

    f = cache_memoize(60, cache_alias=backend, prefix="takes no lease again")(title)
    in_rolled_back(database, post, lambda: f(1), lambda: f(2), lambda: f(3))
    assert kinds == [record.LEASE, None, None]
    assert f(2) == "old" == f.peek(2).value


@pytest.mark.backends(["locmem"])
def test_hold_is_kept(world, database, post):
    f = world.memoize(60, hold=5, tags="held")(lambda x: x)
    in_rolled_back(database, post, lambda: f(1))
    assert f.peek(1) is None, "its tag is new"


@pytest.mark.backends(["locmem"])
def test_where_another_library_removed_our_function_nothing_is_stored(
    world, database, post
):
    f = world.memoize(60)(lambda x: x)
    connection = connections[database]
    ours = vars(connection).pop("make_cursor")
    try:
        in_rolled_back(database, post, lambda: f(1))
    finally:
        connection.make_cursor = ours
    assert f.peek(1) is None


@pytest.mark.backends(["postgresql", "sqlite"])
def test_a_cache_in_the_database_of_the_transaction_stores_nothing(backend):
    database = {"postgresql": "postgresql", "sqlite": "default"}[backend]
    f = cache_memoize(60, cache_alias=backend, prefix="in its database")(lambda x: x)
    post = Post.objects.using(database).create(title="old")
    in_rolled_back(database, post, lambda: f(1))
    assert f.peek(1) is None


@pytest.mark.backends(["postgresql"])
def test_a_cache_in_another_database_is_no_use_of_one(backend):
    f = cache_memoize(60, cache_alias=backend, prefix="in another database")(
        lambda x: x
    )
    post = Post.objects.create(title="old")
    in_rolled_back("default", post, lambda: f(1))
    assert f.peek(1).value == 1


# --- hooks ---------------------------------------------------------------------------


@pytest.mark.backends(["locmem", "valkey"])
@pytest.mark.parametrize("how", ["invalidate", "tag", "all", "refresh"])
def test_hooks_from_before_an_invalidation_store_what_is_committed(
    world, database, post, how
):
    runs, seen = [], []

    def title(pk):
        runs.append(pk)
        return Post.objects.using(database).get(pk=pk).title

    f = world.memoize(60, queries=True, tags="posts")(title)
    assert f(post.pk) == "old"
    invalidate = {
        "invalidate": lambda: f.invalidate(post.pk),
        "tag": lambda: world.invalidate_tags("posts"),
        "all": lambda: f.invalidate_all(),
        "refresh": lambda: f.refresh(post.pk),
    }[how]
    with transaction.atomic(using=database):
        transaction.on_commit(lambda: seen.append(f(post.pk)), using=database)
        transaction.on_commit(lambda: seen.append(f(post.pk)), using=database)
        changed(post)
        invalidate()
        runs.clear()
    assert seen == ["uncommitted"] * 2 and len(runs) == 1
    assert f(post.pk) == "uncommitted" == f.peek(post.pk).value
    assert len(runs) == 1 and not transactions.live


@pytest.mark.backends(["locmem"])
def test_hooks_of_one_of_two_transactions(backend, database, post):
    """The other one is still open."""
    need("postgresql")
    world, seen = World(backend, "sync"), []
    f = world.memoize(60)(lambda pk: Post.objects.using(database).get(pk=pk).title)
    other = next(each for each in ALL_DATABASES if each != database)
    with transaction.atomic(using=other):
        with transaction.atomic(using=database):
            transaction.on_commit(lambda: seen.append(f(post.pk)), using=database)
            changed(post)
            f.invalidate(post.pk)
        assert seen == ["uncommitted"] and f.peek(post.pk) is None
        assert world.raw(f.get_cache_key(post.pk)).kind == record.BLOCK
    assert f(post.pk) == "uncommitted" == f.peek(post.pk).value


class NoDatabase(SimpleTestCase):
    """Django replaces the methods of connections that a test may not use."""

    def test_calls(self):
        f = cache_memoize(60, prefix="no database", cache_alias="locmem")(lambda x: x)
        transactions.count_database_uses()
        self.assertEqual([f(1), f(1)], [1, 1])
        caches["locmem"].clear()


def test_a_connection_that_was_never_opened_is_left_alone(database):
    def look():
        one = connections[database]
        assert transactions.count_database_uses() == ()
        return "make_cursor" in vars(one), one.execute_wrappers

    assert in_thread(look) == (False, [])


def test_a_connection_that_a_computation_opens_is_a_use(database):
    def look():
        before = transactions.count_database_uses()
        Post.objects.using(database).count()
        used = transactions.count_database_uses()
        connections[database].close()
        return before == used, before == transactions.count_database_uses()

    assert in_thread(look) == (False, False)


def test_the_query_of_an_async_caller(database, post):
    """Async code asks in the thread that has the connections."""

    async def count():
        return await sync_to_async(transactions.count_database_uses)()

    with transaction.atomic(using=database):
        before = async_to_sync(count)()
        assert before == transactions.count_database_uses()
        changed(post)
        assert async_to_sync(count)() != before
