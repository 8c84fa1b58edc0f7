"""Transactions: nothing uncommitted leaks, an invalidation is valid from the commit on,
and a rollback leaves nothing. In every world, on SQLite and PostgreSQL."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.core.cache import caches
from django.db import DEFAULT_DB_ALIAS, connection, connections, transaction
from django.test import TestCase, TransactionTestCase

from cache_memoize import invalidate_tags
from cache_memoize.cache import record
from cache_memoize.cache.store import Store
from cache_memoize.protocol import snapshots, transactions
from cache_memoize.protocol.transactions import Watch
from tests.conftest import (
    DATABASES,
    World,
    close_connections,
    in_thread,
)
from tests.databases import EACH, EVERYWHERE, prepared
from tests.models import Post

#: The cache, and the database that is written to.
PLACES = ["locmem", "valkey", "pymemcache", "file"]


@pytest.fixture(params=EACH)
def database(request):
    return prepared(request)


pytestmark = pytest.mark.django_db(transaction=True, databases=EVERYWHERE)
#: Reads only what is committed, in every statement anew.
READ_COMMITTED = pytest.mark.parametrize("database", ["postgresql"], indirect=True)


def titled(world, database, **options):
    """A memoized function of a row that counts its runs."""
    runs = []

    def title(pk):
        runs.append(pk)
        return Post.objects.using(database).get(pk=pk).title

    return world.memoize(60, queries=True, **options)(title), runs


def change(database, pk, title):
    Post.objects.using(database).filter(pk=pk).update(title=title)


@pytest.fixture
def post(database):
    return Post.objects.using(database).create(title="old").pk


class Rollback(Exception):
    pass


@contextmanager
def without_autocommit(database):
    transaction.set_autocommit(False, using=database)
    try:
        yield
    finally:
        transaction.set_autocommit(True, using=database)


def is_empty(world, key):
    found = world.raw(key)
    return found is None or found.kind == record.CLEARED


# --- invalidation inside a transaction -----------------------------------------------


@pytest.mark.backends(PLACES)
@pytest.mark.parametrize("how", ["invalidate", "tag", "all", "refresh", "prime"])
def test_an_invalidation_applies_at_once_here_and_for_others_from_the_commit_on(
    world, database, post, how
):
    f, runs = titled(world, database, tags="posts")
    assert f(post) == "old"
    invalidate = {
        "invalidate": lambda: f.invalidate(post),
        "tag": lambda: world.invalidate_tags("posts"),
        "all": lambda: f.invalidate_all(),
        "refresh": lambda: f.refresh(post),
        "prime": lambda: f.prime("primed", post),
    }[how]
    with transaction.atomic(using=database):
        change(database, post, "new")
        invalidate()
        assert f(post) == "new" == f(post), "its own"
        # SQLite blocks readers while another connection writes, except in WAL mode
        # matter here: the others read the committed row.
        if database == "postgresql":
            assert in_thread(lambda: f(post)) == "old"
            assert in_thread(lambda: f(post)) == "old"
        assert f(post) == "new"
    if how not in ("refresh", "prime"):
        assert f.peek(post) is None
    assert f(post) == "new"
    before = len(runs)
    assert f(post) == "new" == in_thread(lambda: f(post))
    assert len(runs) == before, "and cached again"


@pytest.mark.backends(["locmem", "valkey"])
@READ_COMMITTED
def test_results_that_others_compute_before_the_commit_are_not_stored(
    world, database, post
):
    f, runs = titled(world, database)
    with transaction.atomic(using=database):
        change(database, post, "new")
        f.invalidate(post)
        assert in_thread(lambda: f(post)) == "old"
        assert world.raw(f.get_cache_key(post)).kind == record.BLOCK
    assert f(post) == "new"


@pytest.mark.backends(["locmem", "valkey"])
@READ_COMMITTED
def test_a_computation_begun_before_the_commit_and_ended_after_is_not_stored(
    backend, database, post
):
    world = World(backend, "sync")
    reading, go_on, results = threading.Event(), threading.Event(), []

    def title(pk):
        found = Post.objects.using(database).get(pk=pk).title
        if not reading.is_set():
            reading.set()
            assert go_on.wait(30)
        return found

    f = world.memoize(60)(title)
    with transaction.atomic(using=database):
        change(database, post, "new")
        other = threading.Thread(
            target=lambda: (results.append(f(post)), close_connections())
        )
        other.start()
        assert reading.wait(30)
        f.invalidate(post)
    go_on.set()
    other.join()
    assert results == ["old"]
    assert f(post) == "new" == f(post)


@pytest.mark.backends(PLACES)
def test_after_a_rollback_the_old_value_is_valid_again(world, database, post):
    f, runs = titled(world, database)
    assert f(post) == "old"
    with pytest.raises(Rollback), transaction.atomic(using=database):
        change(database, post, "new")
        f.invalidate(post)
        assert f(post) == "new"
        raise Rollback
    assert not transactions.live
    assert f(post) == "old" == f(post)
    assert world.raw(f.get_cache_key(post)).kind == record.BLOCK
    world.cache.delete(f.get_cache_key(post))  # it has run out
    before = len(runs)
    assert f(post) == "old" == f(post)
    assert len(runs) == before + 1


@pytest.mark.backends(PLACES)
def test_savepoints_that_are_rolled_back(world, database, post):
    f, runs = titled(world, database)
    assert f(post) == "old"
    with transaction.atomic(using=database):
        with pytest.raises(Rollback), transaction.atomic(using=database):
            change(database, post, "new")
            f.invalidate(post)
            assert f(post) == "new"
            raise Rollback
        assert f(post) == "old"
        assert not transactions.live
    assert f(post) == "old"
    world.cache.delete(f.get_cache_key(post))
    assert f(post) == "old" and f.peek(post).value == "old"


@pytest.mark.backends(PLACES)
def test_savepoints_that_are_kept(world, database, post):
    f, runs = titled(world, database)
    assert f(post) == "old"
    with transaction.atomic(using=database):
        with transaction.atomic(using=database):
            change(database, post, "new")
            f.invalidate(post)
        with pytest.raises(Rollback), transaction.atomic(using=database):
            f.invalidate(post)
            raise Rollback
        assert f(post) == "new"
        assert len(set().union(*transactions.live.values())) == 1
    assert f(post) == "new" and f.peek(post).value == "new"


@pytest.mark.backends(PLACES)
@pytest.mark.parametrize("ends", ["first", "last"])
def test_a_commit_takes_away_no_block_of_another_transaction(
    world, database, post, ends
):
    """Nor does an invalidation outside of transactions: the rows may still be old."""
    f, runs = titled(world, database)
    key = f.get_cache_key(post)

    def others():
        with transaction.atomic(using=database):
            f.invalidate(post)
            if ends == "last":
                invalidated.set()
                assert go_on.wait(30)

    assert f(post) == "old"
    invalidated, go_on = threading.Event(), threading.Event()
    with transaction.atomic(using=database):
        f.invalidate(post)
        if ends == "first":
            in_thread(others)
            in_thread(lambda: f.invalidate(post))
        else:
            other = threading.Thread(target=lambda: (others(), close_connections()))
            other.start()
            assert invalidated.wait(30)
        assert world.raw(key).kind == record.BLOCK
    if ends == "last":
        f.invalidate(post)
        assert world.raw(key).kind == record.BLOCK
        go_on.set()
        other.join()
    assert is_empty(world, key)
    assert f(post) == f.peek(post).value == "old"


@pytest.mark.backends(["locmem", "valkey"])
@READ_COMMITTED
def test_with_one_token_for_all_blocks_a_commit_would_let_others_store_what_is_old(
    world, database, post, monkeypatch
):
    """The control: a reader stores the row of before, while we may still commit."""
    f, runs = titled(world, database)

    def another():
        transactions._watch_of(connections[database]).token = b"same one"
        with transaction.atomic(using=database):
            f.invalidate(post)

    monkeypatch.setattr(
        transactions._watch_of(connections[database]), "token", b"same one"
    )
    with transaction.atomic(using=database):
        change(database, post, "new")
        f.invalidate(post)
        in_thread(another)
        assert in_thread(lambda: f(post)) == "old"
        assert in_thread(lambda: f.peek(post)).value == "old"


@pytest.mark.backends(["locmem"])
def test_the_block_of_a_process_that_died_expires_beside_others(world, database, post):
    f, runs = titled(world, database)
    key, now = f.get_cache_key(post), world.clock.time()
    dead = record.pack_blocks(b"written.", {b"a token.": 10.0}, now)
    world.cache.set(key, dead, 10)
    for seconds in (4, 4):
        world.clock.tick(seconds)
        with transaction.atomic(using=database):
            f.invalidate(post)
        assert list(record.blocks(world.raw(key), 0)) == [b"a token."]
    world.clock.tick(2.5)
    with transaction.atomic(using=database):
        f.invalidate(post)
    assert is_empty(world, key)
    assert f(post) == f.peek(post).value == "old"


@pytest.mark.backends(["locmem"])
@READ_COMMITTED
def test_a_list_of_hooks_with_an_id_of_before_is_another_transaction(
    world, database, post, monkeypatch
):
    f, runs = titled(world, database)
    watch = transactions._watch_of(connections[database])
    with transaction.atomic(using=database):
        change(database, post, "new")
        assert watch.wrote
    with transaction.atomic(using=database):
        watch._hooks = id(connections[database].run_on_commit)  # as if used again
        assert f(post) == f.peek(post).value == "new"


@pytest.mark.backends(["locmem"])
def test_a_block_without_autocommit_is_a_part_of_the_transaction(database, post):
    with without_autocommit(database):
        with transaction.atomic(using=database):
            change(database, post, "new")
        with transaction.atomic(using=database):
            assert transactions._has_written(connections[database])
        transaction.rollback(using=database)


@pytest.mark.backends(["locmem"])
def test_a_block_that_cannot_be_written_is_raised(world, database, post, monkeypatch):
    def fail(self, *args):
        raise ConnectionError("away")

    f, runs = titled(world, database)
    f(post)
    with transaction.atomic(using=database):
        monkeypatch.setattr(Store, "swap", fail)
        with pytest.raises(ConnectionError):
            f.invalidate(post)
        monkeypatch.undo()
    assert f.peek(post) is None, "it is invalidated at the commit all the same"


@pytest.mark.backends(["locmem"])
def test_many_invalidations_of_one_key_wait_once(world, database, post):
    f, runs = titled(world, database, tags=())
    with transaction.atomic(using=database):
        for _ in range(50):
            f.invalidate_all()
        assert len(transactions.live) == 1
        assert len(connections[database].run_on_commit) == 1
    assert not transactions.live


@pytest.mark.backends(["locmem", "valkey"])
def test_the_projects_own_hooks_see_fresh_data(world, database, post):
    """Even hooks that were registered before the invalidation."""
    f, runs = titled(world, database)
    assert f(post) == "old"
    seen = []
    with transaction.atomic(using=database):
        transaction.on_commit(lambda: seen.append(f(post)), using=database)
        change(database, post, "new")
        f.invalidate(post)
        transaction.on_commit(lambda: seen.append(f(post)), using=database)
        # The block has expired, and another caller stored the old value again.
        world.cache.delete(f.get_cache_key(post))
        if database == "postgresql":
            assert in_thread(lambda: f(post)) == "old"
    assert seen == ["new", "new"]
    assert f(post) == "new"


@pytest.mark.backends(["locmem", "valkey", "pymemcache"])
def test_a_cache_that_is_down_at_the_commit_does_no_harm_while_the_block_lasts(
    backend, database, post, monkeypatch, caplog
):
    world = World(backend, "sync")
    f, runs = titled(world, database)
    f(post)
    ran = []

    def fail(self, *args):
        raise ConnectionError("away")

    with transaction.atomic(using=database):
        change(database, post, "new")
        f.invalidate(post)
        transaction.on_commit(lambda: ran.append(1), using=database)
        monkeypatch.setattr(Store, "_command", fail)
    assert ran == [1], "the project's own hooks are not skipped"
    said = (
        f"{f._memoized.name}: ConnectionError('away') after the commit; the block will"
    )
    assert said in caplog.text
    assert world.raw(f.get_cache_key(post)).kind == record.BLOCK
    monkeypatch.undo()
    with pytest.raises(ConnectionError), transaction.atomic(using=database):
        f.invalidate(post)
        world.clock.tick(8)  # the block may have run out: now it is a lost invalidation
        monkeypatch.setattr(Store, "_command", fail)


def leaves_a_block_if_it_dies(world, database, post):
    """Have a process invalidate a call and die after its commit; return the key."""
    f, runs = titled(world, database)
    assert f(post) == "old"
    close_connections()
    child = os.fork()
    if child == 0:
        with transaction.atomic(using=database):
            transaction.on_commit(
                lambda: os.kill(os.getpid(), signal.SIGKILL), using=database
            )
            change(database, post, "new")
            f.invalidate(post)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert f(post) == "new" == f(post)
    assert world.raw(f.get_cache_key(post)).kind == record.BLOCK
    return f.get_cache_key(post)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
@pytest.mark.backends(["valkey", "file"])
@READ_COMMITTED
def test_a_process_that_dies_between_commit_and_hook_leaves_nothing_stale(
    backend, database, post
):
    world = World(backend, "sync")
    key = leaves_a_block_if_it_dies(world, database, post)
    world.cache.delete(key)


# --- computing inside a transaction --------------------------------------------------


@pytest.mark.backends(PLACES)
def test_a_result_computed_after_writing_in_a_transaction_is_never_stored(
    world, database, post
):
    f, runs = titled(world, database)
    with pytest.raises(Rollback), transaction.atomic(using=database):
        change(database, post, "phantom")
        assert f(post) == "phantom" == f(post)
        assert f.peek(post) is None
        raise Rollback
    assert f(post) == "old" == f(post)
    assert f.peek(post).value == "old"


@pytest.mark.backends(["locmem", "valkey"])
def test_a_function_that_itself_writes_is_not_stored_inside_a_transaction(
    world, database
):
    if world.kind == "async":
        pytest.skip("the writing happens in a sync function")

    def made():
        return Post.objects.using(database).create(title="made").pk

    f = world.memoize(60)(made)
    with pytest.raises(Rollback), transaction.atomic(using=database):
        f()
        raise Rollback
    assert f.peek() is None
    pk = f()
    assert f() == pk and Post.objects.using(database).filter(pk=pk).exists()


@pytest.mark.backends(["locmem", "valkey"])
@READ_COMMITTED
def test_a_transaction_that_only_reads_stores_and_hits(world, database, post):
    f, runs = titled(world, database)
    with transaction.atomic(using=database):
        assert Post.objects.using(database).count() == 1
        assert f(post) == "old" == f(post)
    assert f(post) == "old"
    assert len(runs) == 1


@pytest.mark.backends(["locmem", "valkey"])
@READ_COMMITTED
def test_writes_undone_before_another_transaction_begins_do_not_affect_it(
    world, database, post
):
    f, runs = titled(world, database)
    for ending in (None, Rollback):
        try:
            with transaction.atomic(using=database):
                change(database, post, "other")
                if ending:
                    raise ending
        except Rollback:
            pass
        f.invalidate(post)
        with transaction.atomic(using=database):
            f(post)
        assert f.peek(post) is not None


@pytest.mark.backends(["locmem"])
@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
@READ_COMMITTED
def test_a_snapshot_may_be_older_than_the_last_invalidation(
    backend, database, post, level
):
    """It may read old rows, so it stores only while it is younger than hold."""
    world = World(backend, "sync")
    f, runs = titled(world, database)
    held, _ = titled(world, database, hold=1000)
    with transaction.atomic(using=database):
        with connections[database].cursor() as cursor:
            cursor.execute(f"SET TRANSACTION ISOLATION LEVEL {level}")
        assert Post.objects.using(database).count() == 1  # the snapshot is taken

        def elsewhere():
            change(database, post, "new")
            f.invalidate(post)

        in_thread(elsewhere)
        assert f(post) == "old"
        assert f.peek(post) is None
        assert held(post) == "old" and held.peek(post).value == "old"
    assert f(post) == "new"


@pytest.mark.backends(["locmem"])
@pytest.mark.parametrize("database", ["default"], indirect=True)
def test_sqlite_reads_from_a_snapshot(backend, database, post, monkeypatch):
    world = World(backend, "sync")
    f, _ = titled(world, database)
    held, _ = titled(world, database, hold=5)
    with transaction.atomic(using=database):
        assert f(post) == "old" == held(post)
        assert f.peek(post) is None
        assert held.peek(post).value == "old"
        held.invalidate(post)
        now = transactions.time.monotonic()
        monkeypatch.setattr(transactions.time, "monotonic", lambda: now + 5)
        world.cache.delete(held.get_cache_key(post))
        held(post)
        assert held.peek(post) is None
    assert f(post) == "old" and f.peek(post).value == "old"


# --- several open transactions --------------------------------------------------------


@pytest.mark.backends(["locmem", "valkey"])
@READ_COMMITTED
def test_with_two_databases_the_last_commit_invalidates(world, database, post):
    f, runs = titled(world, database)
    assert f(post) == "old"
    with transaction.atomic(using=database):
        change(database, post, "new")
        with transaction.atomic(using="default"):
            f.invalidate(post)
            assert {len(w) for w in transactions.live.values()} == {2}
        # The other one is committed, this one is not.
        assert world.raw(f.get_cache_key(post)).kind == record.BLOCK
        assert in_thread(lambda: f(post)) == "old"
        assert f(post) == "new"
    assert not transactions.live
    assert f(post) == "new" and f.peek(post).value == "new"


@pytest.mark.backends(["locmem", "valkey"])
@READ_COMMITTED
def test_writing_to_one_database_prevents_storing_results_of_any_database(
    world, database, post
):
    f, runs = titled(world, database)
    with transaction.atomic(using="default"):
        Post.objects.using("default").create(title="written")
        f(post)
        assert f.peek(post) is None


@pytest.mark.backends(["locmem", "valkey"])
def test_durable_blocks_are_like_the_others(world, database, post):
    f, runs = titled(world, database)
    with transaction.atomic(using=database, durable=True):
        change(database, post, "new")
        f.invalidate(post)
        assert f(post) == "new"
    assert f(post) == "new" and f.peek(post).value == "new"


@pytest.mark.backends(["locmem", "valkey"])
def test_autocommit_off(world, database, post):
    """Nothing is stored, and the invalidation takes effect when it is on again."""
    f, runs = titled(world, database)
    assert f(post) == "old"
    transaction.set_autocommit(False, using=database)
    try:
        change(database, post, "new")
        f.invalidate(post)
        assert f(post) == "new"
        assert world.raw(f.get_cache_key(post)).kind == record.BLOCK
        transaction.commit(using=database)
    finally:
        transaction.set_autocommit(True, using=database)
    assert f(post) == "new" and f.peek(post).value == "new"
    transaction.set_autocommit(False, using=database)
    try:
        change(database, post, "phantom")
        f.invalidate(post)
        transaction.rollback(using=database)
    finally:
        transaction.set_autocommit(True, using=database)
    assert not transactions.live
    assert f(post) == "new"


@pytest.mark.backends(["locmem", "valkey"])
def test_an_async_caller_inside_the_transaction_of_its_sync_caller(
    backend, database, post
):
    world = World(backend, "async")
    f, runs = titled(world, database)
    assert f(post) == "old"

    async def work():
        await sync_to_async(change)(database, post, "new")
        await f.memoized.ainvalidate(post)
        return await f.memoized(post)

    with pytest.raises(Rollback), transaction.atomic(using=database):
        assert async_to_sync(work)() == "new"
        raise Rollback
    assert f(post) == "old"
    with transaction.atomic(using=database):
        assert async_to_sync(work)() == "new"
    assert f(post) == "new" and f.peek(post).value == "new"


# --- a cache in the database of the transaction --------------------------------------


def in_its_database(backend):
    """A world whose cache is a table, the database of that, and a row there."""
    database = DATABASES[backend]
    post = Post.objects.using(database).create(title="old").pk
    return World(backend, "sync"), database, post


@pytest.mark.backends(["postgresql", "sqlite"])
def test_a_cache_in_the_same_database(backend):
    world, database, post = in_its_database(backend)
    f, runs = titled(world, database, tags="t")
    assert f(post) == "old"
    with transaction.atomic(using=database):
        assert f(post) == "old" and len(runs) == 1, "hits are served"
        assert f(post + 1 - 1) == "old"
        change(database, post, "new")
        f.invalidate(post)
        world.invalidate_tags("t")
        assert f(post) == "new"
    assert f(post) == "new" and f.peek(post).value == "new"


@pytest.mark.backends(["postgresql", "sqlite"])
def test_inside_a_transaction_nothing_is_written_that_others_would_wait_for(backend):
    world, database, post = in_its_database(backend)
    for tags in (None, "t"):
        f, runs = titled(world, database, tags=tags)
        with transaction.atomic(using=database):
            assert f(post) == "old"
            assert f.peek(post) is None
        assert f(post) == "old" and f.peek(post).value == "old"


@pytest.mark.backends(["postgresql", "sqlite"])
def test_an_error_of_such_a_cache_leaves_the_transaction_alone(backend):
    world, database, post = in_its_database(backend)
    f, runs = titled(world, database)
    assert f(post) == "old"
    table = caches[backend]._table
    caches[backend]._table = "not_there"
    try:
        with transaction.atomic(using=database):
            change(database, post, "new")
            assert f(post) == "new"
            with pytest.raises(Exception, match="not_there"):
                f.invalidate(post)
            assert Post.objects.using(database).get(pk=post).title == "new"
            caches[backend]._table = table
    finally:
        caches[backend]._table = table
    assert f(post) == "new", "what was asked for was done at the commit"


@pytest.mark.backends(["postgresql", "sqlite"])
def test_in_a_broken_transaction_the_breaker_stays_closed(backend):
    world, database, _ = in_its_database(backend)
    runs = []
    f = world.memoize(60)(lambda: runs.append(1) or len(runs))
    assert f() == 1
    with transaction.atomic(using=database):
        transaction.set_rollback(True, using=database)
        for _ in range(5):
            f()
        assert f.cache_info().breaker == "closed"
    assert f() == 1


# --- tests of the project ------------------------------------------------------------


class InATestCase(TestCase):
    databases = EVERYWHERE

    def setUp(self):
        caches["locmem"].clear()
        self.post = Post.objects.create(title="old").pk
        self.f, self.runs = titled(World("locmem", "sync"), "default", tags="t")

    def test_it_acts_as_outside_of_transactions(self):
        f = self.f
        self.assertEqual([f(self.post), f(self.post)], ["old"] * 2)
        self.assertEqual(len(self.runs), 1)
        change("default", self.post, "new")
        f.invalidate(self.post)
        self.assertEqual([f(self.post), f(self.post)], ["new"] * 2)
        self.assertEqual(len(self.runs), 2)
        self.assertEqual(len(connection.run_on_commit), 0)

    def test_a_block_inside_is_a_transaction_that_is_committed_at_its_end(self):
        f = self.f
        f(self.post)
        with transaction.atomic():
            change("default", self.post, "new")
            invalidate_tags("t", cache_alias="locmem")
            self.assertEqual([f(self.post), f(self.post)], ["new"] * 2)
            self.assertEqual(len(self.runs), 3)
        self.assertEqual([f(self.post), f(self.post)], ["new"] * 2)
        self.assertEqual(len(self.runs), 4, "cached again, although no commit follows")

    def test_a_block_inside_that_is_rolled_back(self):
        f = self.f
        f(self.post)
        with self.assertRaises(Rollback), transaction.atomic():
            change("default", self.post, "new")
            f.invalidate(self.post)
            raise Rollback
        self.assertEqual(f(self.post), "old")
        self.assertFalse(transactions.live)

    def test_one_block_after_another(self):
        f = self.f
        for title in ("one", "two"):
            with transaction.atomic():
                change("default", self.post, title)
                f.invalidate(self.post)
            self.assertEqual([f(self.post), f(self.post)], [title] * 2)
        with transaction.atomic():
            self.assertEqual(f(self.post), "two")

    def test_capture_on_commit_callbacks(self):
        f = self.f
        f(self.post)
        with (
            self.captureOnCommitCallbacks(execute=True) as callbacks,
            transaction.atomic(),
        ):
            change("default", self.post, "new")
            f.invalidate(self.post)
        self.assertEqual(len(callbacks), 1)
        self.assertEqual([f(self.post), f(self.post)], ["new"] * 2)
        self.assertEqual(len(self.runs), 2)

    def test_writing_adds_no_callbacks(self):
        with self.captureOnCommitCallbacks() as callbacks, transaction.atomic():
            change("default", self.post, "new")
            self.f(self.post)
        self.assertEqual(callbacks, [])


class InATransactionTestCase(TransactionTestCase):
    databases = EVERYWHERE

    def test_it_acts_as_in_production(self):
        caches["locmem"].clear()
        post = Post.objects.create(title="old").pk
        f, runs = titled(World("locmem", "sync"), "default")
        f(post)
        with transaction.atomic():
            change("default", post, "new")
            f.invalidate(post)
        self.assertEqual([f(post), f(post)], ["new"] * 2)
        caches["locmem"].clear()


# --- what is seen of a connection ----------------------------------------------------


def test_every_connection_is_watched_from_its_first_statement_on(database):
    def look():
        connections[database].ensure_connection()
        wrappers = connections[database].execute_wrappers
        return sum(isinstance(wrapper, Watch) for wrapper in wrappers)

    assert in_thread(look) == 1
    assert transactions.has_connected


def test_a_transaction_that_was_open_before_us_may_have_written(database):
    with transaction.atomic(using=database):
        wrappers = connections[database].execute_wrappers
        before = list(wrappers)
        wrappers[:] = [w for w in wrappers if not isinstance(w, Watch)]
        try:
            assert not transactions.can_share_results(1000)
        finally:
            wrappers[:] = before


def test_private_parts_of_django_are_as_expected():
    """Fails if a Django version tracks its transactions in another way."""
    one = connections[DEFAULT_DB_ALIAS]
    assert one.atomic_blocks == [] == one.savepoint_ids == one.run_on_commit
    with transaction.atomic():
        hooks = one.run_on_commit
        with transaction.atomic():
            assert len(one.atomic_blocks) == 2 and len(one.savepoint_ids) == 1
            assert one.atomic_blocks[0]._from_testcase is False
            one.on_commit(print)
            assert one.run_on_commit[0] == ({one.savepoint_ids[0]}, print, False)
            one.run_on_commit.clear()
        assert one.run_on_commit is hooks
    assert one.run_on_commit is not hooks
    hooks = one.run_on_commit
    with pytest.raises(Rollback), transaction.atomic():
        raise Rollback
    assert one.run_on_commit is not hooks


def test_a_server_that_has_no_isolation_level_reads_committed_data():
    oracle = SimpleNamespace(vendor="oracle", settings_dict={"OPTIONS": {}})
    assert snapshots.reads_snapshot(oracle) is False


def test_a_pending_action_runs_once(database):
    done = []
    with transaction.atomic(using=database):
        tokens = transactions.run_at_commit(
            "locmem", ("key",), done.append, print, None
        )
        (waiting,) = transactions._pending_for("locmem", ["key"])
        waiting()
    assert done == list(tokens)


def test_a_child_of_a_fork_has_a_lock_of_its_own():
    before = transactions._lock
    transactions._after_fork()
    assert transactions._lock is not before


def written_beside_a_lease(world, database, post):
    """In a transaction that writes, call a function that another caller computes."""
    f, _ = titled(world, database)
    lease = record.pack(record.LEASE, b"another!")
    world.cache.add(f.get_cache_key(post), lease, 10)
    with transaction.atomic(using=database):
        change(database, post, "new")
        assert f(post) == "new"
    return f, lease


@pytest.mark.leaves_lease
@pytest.mark.backends(PLACES)
def test_a_transaction_that_has_written_does_not_wait(world, database, post):
    """The other computation may need a lock of this transaction, and its result would
    not be valid inside it."""
    f, lease = written_beside_a_lease(world, database, post)
    transaction.set_autocommit(
        False, using=database
    )  # its transactions cannot be watched
    try:
        assert f(post) == "new"
        transaction.rollback(using=database)
    finally:
        transaction.set_autocommit(True, using=database)
    assert world.clock.sleeps == []
    assert world.cache.get(f.get_cache_key(post)) == lease
    f(post)
    assert sum(world.clock.sleeps) == pytest.approx(10)


@pytest.mark.leaves_lease
@pytest.mark.backends(["postgresql", "sqlite"])
def test_nor_for_a_lease_in_a_cache_in_the_same_database(backend):
    world, database, post = in_its_database(backend)
    written_beside_a_lease(world, database, post)
    assert world.clock.sleeps == []


@pytest.mark.backends(["locmem"])
def test_the_projects_own_execute_wrappers_stay_where_they_are(world, database, post):
    def wrapper(execute, *args):
        return execute(*args)

    f, runs = titled(world, database)
    connection = connections[database]
    connection.execute_wrappers.insert(0, wrapper)
    try:
        with transaction.atomic(using=database):
            change(database, post, "new")
            assert f(post) == "new" and f.peek(post) is None
        assert connection.execute_wrappers[0] is wrapper
    finally:
        connection.execute_wrappers.remove(wrapper)
