"""A cache in the database of the project's own transaction: it locks no row of it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.conf import settings
from django.core.cache import caches
from django.core.management import call_command
from django.db import DatabaseError, transaction
from django.test import override_settings

from cache_memoize.protocol import transactions
from tests.conftest import ALL_DATABASES, World, close_connections
from tests.databases import EVERYWHERE
from tests.models import Post
from tests.needs import need
from tests.test_transactions import change, leaves_a_block_if_it_dies, titled

pytestmark = pytest.mark.django_db(transaction=True, databases=EVERYWHERE)

PLACES = {"sqlite": "default"} | {
    name: name for name in EVERYWHERE if name != "default"
}


@pytest.fixture(params=PLACES)
def place(request: Any) -> Iterator[tuple[World, str]]:
    """A world whose cache is a table, and the database that this table is in."""
    alias, database = request.param, PLACES[request.param]
    if database not in ALL_DATABASES:
        need(database)
    made = settings.CACHES["sqlite"] | {"LOCATION": f"cache_{alias}"}
    with override_settings(CACHES={"default": settings.CACHES["default"], alias: made}):
        call_command("createcachetable", database=database, verbosity=0)
        caches[alias].clear()
        yield World(alias, "sync"), database
        transactions.live.clear()  # a traceback may keep actions of the test alive
        caches[alias].clear()
        close_connections()


def ends_soon(function: Callable[[], object]) -> None:
    """Another caller runs this, and does not wait."""

    def work() -> None:
        try:
            function()
        finally:
            close_connections()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(20)
    assert not thread.is_alive(), "it waits for the transaction"


def begin(database: str, post: int) -> None:
    """Write a row, but where a database has one writer at a time."""
    if database != "default":
        change(database, post, "new")


@pytest.mark.parametrize("what", ["invalidate", "tag", "refresh", "prime", "foreign"])
def test_other_callers_do_not_wait_for_the_end_of_the_transaction(place, what):
    world, database = place
    if database == "default":
        pytest.skip("in SQLite, a reader holds up all writers")
    post = Post.objects.using(database).create(title="old").pk
    f, runs = titled(world, database, tags=lambda pk: [f"t{pk}"])
    assert f(post) == "old"
    acts = {
        "invalidate": lambda: f.invalidate(post),
        "tag": lambda: world.invalidate_tags(f"t{post}"),
        "refresh": lambda: f.refresh(post),
        "prime": lambda: f.prime("mine", post),
        "foreign": lambda: f(post),
    }
    if what == "foreign":
        world.cache.set(f.get_cache_key(post), "foreign")

    def others() -> None:
        f.refresh(post)
        world.invalidate_tags(f"t{post}")
        f.invalidate(post)
        f(post)

    with transaction.atomic(using=database):
        change(database, post, "new")
        acts[what]()
        ends_soon(others)
    if what in ("invalidate", "tag"):
        assert f(post) == "new" == f(post)


def test_two_transactions_that_invalidate_in_another_order(place):
    world, database = place
    one, two = (Post.objects.using(database).create(title="old").pk for _ in "12")
    f, runs = titled(world, database)
    assert [f(one), f(two)] == ["old", "old"]
    both, trouble = threading.Barrier(2), []

    def work(first: int, second: int) -> None:
        try:
            with transaction.atomic(using=database):
                begin(database, first)
                f.invalidate(first)
                both.wait(20)
                f.invalidate(second)
        except Exception as error:
            trouble.append(error)
        finally:
            close_connections()

    threads = [
        threading.Thread(target=work, args=order) for order in ((one, two), (two, one))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert trouble == []
    new = "old" if database == "default" else "new"
    assert [f(one), f(two)] == [new, new]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_process_that_dies_after_its_commit_leaves_a_block(place):
    """The block is part of what is committed."""
    world, database = place
    post = Post.objects.using(database).create(title="old").pk
    leaves_a_block_if_it_dies(world, database, post)


def test_a_block_that_fails_at_the_commit_is_told(place, caplog):
    """The rows are committed; the hook raises, as there is no block."""
    world, database = place
    post = Post.objects.using(database).create(title="old").pk
    f, runs = titled(world, database)
    assert f(post) == "old"
    cache, table = world.cache, world.cache._table
    told = pytest.raises(DatabaseError, match="not_there")
    with told, transaction.atomic(using=database):
        change(database, post, "new")
        f.invalidate(post)
        cache._table = "not_there"
    cache._table = table
    assert "before the commit" in caplog.text
    assert Post.objects.using(database).get(pk=post).title == "new"
    f.invalidate(post)
    assert f(post) == "new"


def test_a_transaction_that_the_server_has_ended_is_not_committed(place):
    """As MySQL does with one of two that wait for each other."""
    world, database = place
    post = Post.objects.using(database).create(title="old").pk

    def block(tokens: frozenset[bytes], key: str) -> None:
        transaction.set_rollback(True, using=database)
        raise DatabaseError("deadlock")

    told = pytest.raises(DatabaseError, match="deadlock")
    with told, transaction.atomic(using=database):
        change(database, post, "new")
        transactions.run_at_commit(world.alias, ("key",), print, block, database)
    assert Post.objects.using(database).get(pk=post).title == "old"
