"""In doubt a statement is a write: what execute wrappers see of it, and what they do
not, on SQLite, PostgreSQL and MariaDB."""

from __future__ import annotations

import pytest
from django.db import connections, transaction
from hypothesis import given
from hypothesis import strategies as st

from cache_memoize.protocol import statements, transactions
from cache_memoize.protocol.statements import effect_of
from tests.conftest import World
from tests.databases import EACH, EVERYWHERE, prepared
from tests.models import Post

READS = [
    "SELECT 1",
    "SELECT 1;",
    "  select 1",
    "(SELECT 1) UNION (SELECT 2)",
    "/* app=blog */ SELECT 1",
    "-- a remark\nSELECT 1",
    "SELECT 1 -- update; delete",
    "SELECT 1 --",
    "SELECT a FROM t /* route='/posts/delete' */",
    "SELECT a FROM t WHERE b = 'insert into t; it''s quoted'",
    'SELECT "update", `delete` FROM "into"',
    "SELECT REPLACE(a, 'x', 'y') FROM t",
    "SELECT a FROM t WHERE a LIKE %s ESCAPE '\\'",
    "SELECT a, lower(a) FROM t WHERE b IN (1, 2) AND (c OR NOT (d))",
    "SELECT a FROM t JOIN (SELECT 1) x ON (t.a = x.a) JOIN u USING (a), (SELECT 2) y",
    "SELECT sum(a) FILTER (WHERE b) OVER (PARTITION BY c ORDER BY d) FROM t",
    "SELECT a::numeric(10, 2), CAST(b AS varchar(9)) FROM t AS u (a, b)",
    "SELECT pg_catalog.pg_typeof(1)",
    "TABLE t",
    "SELECT EXTRACT(YEAR FROM CONVERT_TZ(a, 'UTC', 'CET')) FROM t",
    "SELECT updated_at, deleted FROM t",
    "SELECT pg_advisory_xact_lock(1)",
    "SELECT GET_LOCK('a', 10)",
    "SELECT set_config('app.tenant', 'a', true)",
    "SELECT * FROM generate_series(1, 10)",
    "SELECT x FROM json_each('[1]')",
    "WITH x AS (SELECT 1) SELECT * FROM x",
    "WITH x (a, b) AS MATERIALIZED (SELECT 1, 2) SELECT * FROM x",
    "VALUES (1), (2)",
    "SHOW TABLES",
    "SAVEPOINT s1",
    "RELEASE SAVEPOINT s1",
    "ROLLBACK TO SAVEPOINT s1",
    "SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
    "SET CONSTRAINTS ALL IMMEDIATE",
    "BEGIN",
    "BEGIN IMMEDIATE",
    "START TRANSACTION",
    "PRAGMA foreign_keys",
    "PRAGMA main.table_info(t)",
    "PRAGMA foreign_key_check(t)",
    "EXPLAIN SELECT 1",
    "EXPLAIN (ANALYZE, FORMAT JSON) SELECT a FROM t",
]
LOCKS = [
    "SELECT a FROM t FOR UPDATE",
    "SELECT a FROM t\nFOR\nNO KEY UPDATE OF t SKIP LOCKED",
    "SELECT a FROM t FOR SHARE",
    "SELECT a FROM t LOCK IN SHARE MODE",
    "WITH x AS (SELECT 1) SELECT a FROM t for update",
]
WRITES = [
    "INSERT INTO t VALUES (1)",
    "UPDATE t SET a = 1",
    "DELETE FROM t",
    "MERGE INTO t USING s ON t.a = s.a WHEN MATCHED THEN DO NOTHING",
    "REPLACE INTO t VALUES (1)",
    "TRUNCATE t",
    "CREATE TABLE t (a int)",
    "COPY t FROM STDIN",
    "LOCK TABLE t",
    "CALL procedure()",
    "DO $$ BEGIN DELETE FROM t; END $$",
    "EXECUTE prepared(1)",
    "COMMIT",
    "/* app=blog */ INSERT INTO t VALUES (1)",
    "-- a remark\nDELETE FROM t",
    "/* SELECT */ DELETE FROM t",
    "/* a */ /* b */ UPDATE t SET a = 1",
    "# a remark of MySQL\nSELECT 1",
    "/*! DELETE FROM t */",
    "SELECT 1 /*!50000 INTO @a */",
    "SELECT 1 /*M! INTO @a */",
    "SELECT 5--1; DELETE FROM t",
    "SELECT 1; DELETE FROM t",
    "SELECT 1; CALL procedure()",
    "DELETE FROM t; SELECT 1",
    "SELECT '\\' '; DELETE FROM t; SELECT ''",
    "SELECT $$'$$; DELETE FROM t WHERE a = '1'",
    "SELECT $a$'$a$; DELETE FROM t WHERE a = '1'",
    "WITH x AS ( --don't\n DELETE FROM t WHERE a = '1' RETURNING 1) SELECT * FROM x",
    "SELECT 1 # don't\n INTO OUTFILE '/tmp/a'",
    "SELECT 1 /* a /* b */ ' */ INTO u FROM t WHERE a = '1'",
    "SELECT * INTO u FROM t",
    "SELECT a INTO OUTFILE '/tmp/a' FROM t",
    "WITH x AS (DELETE FROM t RETURNING 1) SELECT * FROM x",
    "WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x",
    "WITH x AS (SELECT 1) UPDATE t SET a = 1",
    "EXPLAIN ANALYZE INSERT INTO t VALUES (1)",
    "EXPLAIN (ANALYZE, BUFFERS) UPDATE t SET a = 1",
    "EXPLAIN ANALYZE EXECUTE prepared(1)",
    "EXPLAIN ANALYZE CREATE TABLE u AS SELECT 1",
    "EXPLAIN ANALYZE\nCREATE TABLE u AS\nSELECT 1",
    "ANALYZE INSERT INTO t VALUES (1)",
    "SELECT my_function(1)",
    "SELECT app.my_function(1)",
    'SELECT "my_function"(1)',
    "SELECT * FROM my_function(1)",
    "SELECT count(*) FROM app.my_function(1)",
    "SELECT nextval('s')",
    "SELECT a, my_function(a) FROM t",
    "SELECT my_function(1) AS pragma_x, 'PRAGMA'",
    "SELECT extract(year FROM my_function(1))",
    "SELECT app.lower(a) FROM t",
    "SELECT * FROM t WHERE EXISTS (SELECT my_function(1))",
    "SELECT * FROM t, my_function(1)",
    "SELECT * FROM t JOIN my_function(1) ON true",
    "SELECT * FROM t JOIN my_function/**/(1) ON true",
    "SELECT * FROM t CROSS JOIN LATERAL my_function(t.a)",
    "SELECT * FROM t CROSS JOIN LATERAL app . my_function(t.a) AS x (a, b)",
    "SELECT * FROM t, my_function(a) AS (a int)",
    "SELECT * FROM ROWS FROM (generate_series(1, 2), my_function(1)) AS x",
    "SELECT 1 UNION SELECT my_function(1)",
    "WITH x AS (SELECT a FROM my_function(1) AS y (a)) SELECT * FROM x",
    "WITH x AS (UPDATE t SET a = 1 RETURNING a) SELECT * FROM x",
    "SELECT \"my_function\"(1) FROM t WHERE a LIKE 'b' ESCAPE '\\'",
    "TABLE t INTO OUTFILE '/tmp/a'",
    "VALUES (my_function())",
    "SET @a = my_function()",
    "BEGIN my_procedure(1); END;",
    "START SLAVE",
    "PRAGMA user_version = 5",
    "PRAGMA foreign_keys = OFF",
    "PRAGMA user_version(5)",
    "PRAGMA incremental_vacuum",
    "SELECTED",
    object(),
]


@pytest.mark.parametrize("sql", READS)
def test_statements_that_read(sql):
    assert effect_of(sql)[:2] == (False, False)


@pytest.mark.parametrize("sql", LOCKS)
def test_statements_that_lock_rows(sql):
    assert effect_of(sql)[:2] == (False, True)


@pytest.mark.parametrize("sql", WRITES)
def test_statements_that_write_or_may(sql):
    assert effect_of(sql).writes


texts = [sql for sql in WRITES if isinstance(sql, str)]
blank = st.sampled_from(["", " ", "\n\t", "/* SELECT */", "-- SELECT 1\n", "("])
cases = st.sampled_from([str, str.lower, str.upper])
reading = st.sampled_from(READS[:2] + READS[-2:])
writing = st.sampled_from(
    ["INSERT INTO t VALUES (1)", "DELETE FROM t", "CALL p()", "SELECT 1 INTO t"]
)


@given(blank, cases, writing, reading, st.booleans())
def test_a_write_is_found_behind_comments_and_other_statements(
    before, case, write, read, first
):
    assert effect_of(case(before + write)).writes
    both = f"{write};{read}" if first else f"{read.rstrip(';')} ; {write}"
    assert effect_of(case(both)).writes


@given(st.text(), st.sampled_from(["'{}'", '"{}"', "/*{}*/"]))
def test_quoted_text_hides_no_statement(text, quotes):
    """A text that ends its quotes, or none."""
    sql = f"SELECT {quotes.format(text)} AS a; DELETE FROM t"
    assert effect_of(sql).writes


@given(st.text(alphabet="abc xyz;INSERTDELETE\n", max_size=50))
def test_what_stands_in_quotes_is_no_statement(text):
    assert not effect_of(f"SELECT '{text}' AS a").writes


@pytest.mark.parametrize(
    "sql, isolates",
    [
        ("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", True),
        ("/* a */ set transaction isolation level serializable", True),
        ("BEGIN ISOLATION LEVEL SERIALIZABLE", True),
        ("SELECT 1; SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", True),
        ("SELECT set_config('transaction_isolation', 'repeatable read', true)", True),
        ("SET TRANSACTION ISOLATION LEVEL READ COMMITTED", False),
        ("SELECT 'repeatable'", False),
    ],
)
def test_statements_that_ask_for_a_snapshot(sql, isolates):
    assert effect_of(sql).isolates is isolates


@pytest.mark.parametrize(
    "sql, undoes",
    [
        ("ROLLBACK TO SAVEPOINT s1", True),
        ("/* a */ rollback work to s1", True),
        ("ROLLBACK", False),
        ("ROLLBACK; SELECT 'TO'", False),
        ("SELECT 1 AS rollback, 2 AS to", False),
    ],
)
def test_statements_that_roll_back_to_a_savepoint(sql, undoes):
    assert effect_of(sql).undoes is undoes


def test_long_statements_are_not_remembered():
    statements._known.cache_clear()
    assert not effect_of("SELECT 1" + " " * 5000).writes
    assert statements._known.cache_info().currsize == 0


# --- on servers ----------------------------------------------------------------------

TABLE = Post._meta.db_table

on_servers = pytest.mark.django_db(transaction=True, databases=EVERYWHERE)


@pytest.fixture(params=EACH)
def database(request):
    return prepared(request)


@pytest.fixture
def routines(database):
    """A function and a procedure that insert a row."""
    insert = f"INSERT INTO {TABLE} (title) VALUES ('new')"
    if connections[database].vendor == "postgresql":
        body = f"AS 'BEGIN {insert.replace(chr(39), chr(39) * 2)}; %s END'"
        made = [
            f"FUNCTION writes() RETURNS int {body % 'RETURN 1;'} LANGUAGE plpgsql",
            f"PROCEDURE wrote() {body % ''} LANGUAGE plpgsql",
        ]
    elif connections[database].vendor == "mysql":
        made = [
            f"FUNCTION writes() RETURNS int BEGIN {insert}; RETURN 1; END",
            f"PROCEDURE wrote() BEGIN {insert}; END",
        ]
    else:
        made = []
    with connections[database].cursor() as cursor:
        for each in made:
            cursor.execute(f"CREATE {each}")
    yield
    with connections[database].cursor() as cursor:
        for each in made:
            cursor.execute("DROP " + each.partition("()")[0])


INSERT = f"INSERT INTO {TABLE} (title) VALUES ('new')"
POSTGRESQL_MERGE = (
    f"MERGE INTO {TABLE} USING (SELECT 1 AS a) AS s ON false "
    "WHEN NOT MATCHED THEN INSERT (title) VALUES ('new')"
)
WAYS = {
    "insert": ("sqlite postgresql mysql", INSERT),
    "remark": ("sqlite postgresql mysql", f"/* SELECT */ -- SELECT\n{INSERT}"),
    "with": ("sqlite postgresql", f"WITH x AS (SELECT 1) {INSERT}"),
    "replace": ("sqlite mysql", INSERT.replace("INSERT", "REPLACE")),
    "returning": ("postgresql", f"WITH x AS ({INSERT} RETURNING 1) SELECT * FROM x"),
    "two": ("postgresql", f"SELECT 1; {INSERT}"),
    "explain": ("postgresql", f"EXPLAIN ANALYZE {INSERT}"),
    "analyze": ("mysql", f"ANALYZE {INSERT}"),
    "merge": ("postgresql", POSTGRESQL_MERGE),
    "do": ("postgresql", f"DO $$ BEGIN {INSERT}; END $$"),
    "select": ("postgresql mysql", "SELECT writes()"),
    "set": ("mysql", "SET @a = writes()"),
    "table": ("postgresql", "SELECT * FROM writes()"),
    "join": ("postgresql", "SELECT * FROM (SELECT 1) x JOIN writes() ON true"),
    "comma": ("postgresql", "SELECT * FROM (SELECT 1) x, writes()"),
    "lateral": (
        "postgresql",
        "SELECT * FROM (SELECT 1) x, LATERAL (SELECT writes()) y",
    ),
    "union": ("postgresql mysql", "SELECT 1 UNION SELECT writes()"),
    "call": ("postgresql mysql", "CALL wrote()"),
}


def callproc(cursor):
    postgresql = cursor.db.vendor == "postgresql"
    cursor.callproc("writes" if postgresql else "wrote")


def copy(cursor):
    with cursor.copy(f"COPY {TABLE} (title) FROM STDIN") as rows:
        rows.write_row(["new"])


def copy_after_execute(cursor):
    cursor.execute("SELECT 1")
    copy(cursor)


METHODS = {
    "callproc": ("postgresql mysql", callproc),
    "copy": ("postgresql", copy),
    "copy_after_execute": ("postgresql", copy_after_execute),
}


class Rollback(Exception):
    pass


@on_servers
@pytest.mark.backends(["locmem"])
@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("how", [*WAYS, *METHODS])
def test_whatever_has_written_nothing_uncommitted_is_stored(
    backend, database, routines, how, debug
):
    connection = connections[database]
    vendors, way = {**WAYS, **METHODS}[how]
    if connection.vendor not in vendors.split():
        pytest.skip("another database has this")
    world = World(backend, "sync")
    connection.force_debug_cursor = debug
    # A transaction that reads from a snapshot stores while it is younger than hold.
    f = world.memoize(60, hold=1000)(lambda: Post.objects.using(database).count())
    before = Post.objects.using(database).count()
    try:
        with pytest.raises(Rollback), transaction.atomic(using=database):
            f()
            assert f.peek() is not None
            world.cache.clear()
            with connection.cursor() as cursor:
                way(cursor) if callable(way) else cursor.execute(way)
            f()
            assert f.peek() is None
            raise Rollback
    finally:
        connection.force_debug_cursor = False
    assert f() == before == f.peek().value


@on_servers
def test_rows_that_are_locked_are_not_written(database):
    pk = Post.objects.using(database).create(title="old").pk
    with transaction.atomic(using=database):
        Post.objects.using(database).select_for_update().get(pk=pk)
        assert not transactions._has_written(connections[database])
        locks = connections[database].features.has_select_for_update
        assert transactions.may_hold_locks() is locks
    assert not transactions.may_hold_locks()


@on_servers
def test_outside_of_transactions_an_unseen_write_is_none_of_the_next_one(database):
    with connections[database].cursor() as cursor:
        cursor.execute("SELECT 1")
        assert cursor.callproc
    with transaction.atomic(using=database):
        assert not transactions._has_written(connections[database])


@on_servers
def test_cursors_are_those_of_django(database):
    with connections[database].cursor() as cursor:
        assert isinstance(cursor, transactions.CursorWrapper)
        cursor.execute("SELECT 1")
        assert cursor.fetchone() == (1,)
        assert not hasattr(cursor, "nonsense")
        assert hasattr(cursor, "copy_expert") is hasattr(cursor.cursor, "copy_expert")
    rows = Post.objects.using(database)
    rows.create(title="one")
    assert [row.title for row in rows.iterator(chunk_size=1)] == ["one"]


def test_cursors_of_other_classes_are_left_alone():
    made = object()
    watch = transactions.Watch()
    assert transactions._opening(watch, lambda: made)() is made and watch.uses == 1
