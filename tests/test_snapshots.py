"""Snapshots that a connection reads without the settings saying so: its result may be
older than the last invalidation, and is not stored."""

from __future__ import annotations

import pytest
from django.db import DatabaseError, connections, transaction

from cache_memoize.protocol import transactions
from tests.conftest import World, in_thread
from tests.databases import EACH, EVERYWHERE, prepared
from tests.models import Post

pytestmark = pytest.mark.django_db(transaction=True, databases=EVERYWHERE)
LEVELS = ["repeatable read", "serializable"]


@pytest.fixture(params=EACH)
def database(request):
    return prepared(request)


@pytest.fixture
def post(database):
    return Post.objects.using(database).create(title="old").pk


def titled(backend, database):
    return World(backend, "sync").memoize(60)(
        lambda pk: Post.objects.using(database).get(pk=pk).title
    )


def publish(f, database, pk):
    """Change the row in another connection, and invalidate."""

    def change():
        Post.objects.using(database).filter(pk=pk).update(title="new")
        f.invalidate(pk)

    in_thread(change)


def execute(database, *statements):
    with connections[database].cursor() as cursor:
        for each in statements:
            cursor.execute(each)


# --- the default isolation level of a server, a role, a database, a session -----------

VARIABLE = "default_transaction_isolation"
#: By way: statements for this session.
SESSION = {
    "characteristics": "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL {}",
    "variable": f"SET {VARIABLE} TO '{{}}'",
    "function": f"SELECT set_config('{VARIABLE}', '{{}}', false)",
    "lower case": f"set {VARIABLE} = '{{}}'",
}
#: By way: the part of a statement for all later sessions.
LATER = {
    "database": "ALTER DATABASE {NAME} ",
    "role": "ALTER ROLE {USER} ",
    "role in the database": "ALTER ROLE {USER} IN DATABASE {NAME} ",
}


@pytest.fixture
def defaults(database):
    """Set the default level in one of the ways, and undo that."""
    connection, undo = connections[database], []

    def apply(way, level):
        if way in SESSION:
            return execute(database, SESSION[way].format(level))
        if way == "driver":
            connection.close()
            connection.ensure_connection()
            psycopg = pytest.importorskip("psycopg")
            name = level.replace(" ", "_").upper()
            connection.connection.isolation_level = psycopg.IsolationLevel[name]
            return None
        if way == "options":
            escaped = level.replace(" ", r"\ ")
            written = {"options": f"-c {VARIABLE}={escaped}"}
            connection.settings_dict["OPTIONS"] = written
            undo.append(lambda: connection.settings_dict.update(OPTIONS={}))
        else:
            start = LATER[way].format(**connection.settings_dict)
            execute(database, f"{start} SET {VARIABLE} TO '{level}'")
            undo.append(lambda: execute(database, f"{start} RESET {VARIABLE}"))
        connection.close()

    yield apply
    for each in undo:
        each()
    connection.close()


@pytest.mark.backends(["locmem"])
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("way", [*SESSION, *LATER, "options", "driver"])
@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_the_level_is_that_of_the_server(backend, database, post, defaults, way, level):
    f = titled(backend, database)
    with transaction.atomic(using=database):
        assert f(post) == "old"
    assert f.peek(post).value == "old", "with the default of the server it is stored"
    defaults(way, level)
    with transaction.atomic(using=database):
        assert Post.objects.using(database).count() == 1  # the snapshot is taken
        publish(f, database, post)
        assert f(post) == "old"
        assert f.peek(post) is None
    assert f(post) == "new" == f.peek(post).value


@pytest.mark.backends(["locmem"])
@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_a_level_in_the_settings_is_above_the_default(
    backend, database, post, defaults
):
    connection, f = connections[database], titled(backend, database)
    defaults("database", "repeatable read")
    try:
        for level, is_stored in [(2, True), (3, False)]:  # 2: READ COMMITTED
            connection.settings_dict["OPTIONS"] = {"isolation_level": level}
            connection.close()
            f.invalidate(post)
            with transaction.atomic(using=database):
                f(post)
                assert (f.peek(post) is not None) is is_stored
    finally:
        connection.settings_dict["OPTIONS"] = {}


@pytest.mark.backends(["locmem"])
@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_the_server_is_asked_once_per_connection(
    backend, database, post, django_assert_num_queries
):
    connection, f = connections[database], titled(backend, database)
    watch = transactions._watch_of(connection)
    for _ in range(2):
        connection.close()
        f.invalidate(post)
        connection.ensure_connection()
        assert watch.snapshots is None
        with transaction.atomic(using=database):
            with django_assert_num_queries(1, using=database):
                f(post)  # its own query
            assert watch.snapshots is False
            assert f.peek(post).value == "old"
    watch.snapshots = True  # it is not asked again, until a statement may set it
    with transaction.atomic(using=database):
        f.invalidate(post)
        f(post)
    assert f.peek(post) is None
    with transaction.atomic(using=database):
        execute(database, "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
    with transaction.atomic(using=database):
        f(post)
        assert f.peek(post).value == "old" and watch.snapshots is False


@pytest.mark.backends(["locmem"])
@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_a_transaction_that_has_failed_is_asked_nothing(backend, database, post):
    connection = connections[database]
    connection.close()
    aborted = pytest.raises(DatabaseError, match="aborted")
    with aborted, transaction.atomic(using=database):
        with pytest.raises(DatabaseError, match="no_such_column"):
            execute(database, "SELECT no_such_column")
        assert not transactions.can_share_results(0)
        assert transactions._watch_of(connection).snapshots is None
        execute(database, "SELECT 1")


MARIADB = {
    "repeatable read": ["SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ"],
    "of one transaction": ["SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"],
    "variable": ["SET tx_isolation = 'REPEATABLE-READ'"],
}


@pytest.mark.thorough
@pytest.mark.backends(["locmem"])
@pytest.mark.parametrize("database", sorted({*EVERYWHERE} & {"mariadb"}), indirect=True)
def test_the_level_of_mariadb_is_its_own(backend, database, post):
    """The settings of these tests leave the level to the server."""
    connection, f = connections[database], titled(backend, database)
    committed = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"
    for way in [[], *MARIADB.values()]:
        connection.close()
        execute(database, *way)
        with transaction.atomic(using=database):
            Post.objects.using(database).count()
            publish(f, database, post)
            f(post)
            assert f.peek(post) is None, way
    connection.close()
    execute(database, committed)
    with transaction.atomic(using=database):
        f(post)
        assert f.peek(post).value == "new"


# --- rows that are still being read ---------------------------------------------------


@pytest.fixture
def loop(database):
    """Yield rows of several sizes, in the ways in which they can be read one by one."""
    if connections[database].vendor == "sqlite":
        execute(database, "PRAGMA journal_mode=WAL")
    rows = [Post(title=f"row {number}") for number in range(5)]
    Post.objects.using(database).bulk_create(rows)
    every = Post.objects.using(database).order_by("pk")
    table = Post._meta.db_table

    def by_cursor():
        with connections[database].cursor() as cursor:
            cursor.execute(f"SELECT id FROM {table}")
            yield from iter(cursor.fetchone, None)

    yield {
        "iterator": lambda: every.iterator(chunk_size=1),
        "values": lambda: every.values_list("pk").iterator(chunk_size=2),
        "raw": lambda: every.raw(f"SELECT id, title FROM {table}").iterator(),
        "cursor": by_cursor,
    }
    if connections[database].vendor == "sqlite":
        connections[database].close()
        execute(database, "PRAGMA journal_mode=DELETE")


@pytest.mark.backends(["locmem", "valkey"])
@pytest.mark.parametrize("way", ["iterator", "values", "raw", "cursor"])
def test_in_a_loop_over_rows_nothing_old_is_stored(backend, database, post, loop, way):
    f = titled(backend, database)
    for number, _ in enumerate(loop[way]()):
        if number == 1:
            publish(f, database, post)
            mine = f(post)
            found = f.peek(post)
            assert found is None or found.value == "new"
            if connections[database].vendor != "sqlite":
                assert mine == "new", "no snapshot is read"
                assert found is not None
    assert f(post) == "new" == f.peek(post).value


@pytest.mark.backends(["locmem"])
def test_rows_that_were_read_to_the_end_keep_nothing_from_being_stored(
    backend, database, post, loop
):
    f = titled(backend, database)
    for _ in Post.objects.using(database).all():
        f.invalidate(post)
        assert f(post) == "old" == f.peek(post).value
    for rows in loop.values():
        list(rows())
        f.invalidate(post)
        assert f(post) == "old" == f.peek(post).value
    assert next(loop["iterator"]())
    f.invalidate(post)
    assert f(post) == "old" == f.peek(post).value


@pytest.mark.backends(["locmem"])
@pytest.mark.parametrize("database", ["default"], indirect=True)
def test_a_result_without_a_query_is_stored_in_a_loop_over_rows(
    backend, database, loop
):
    f = World(backend, "sync").memoize(60)(lambda x: x)
    for number, _ in enumerate(loop["iterator"]()):
        assert f(number) == number == f.peek(number).value
