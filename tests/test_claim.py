"""The decision of a caller after a look at its key: a pure function, as a table."""

from __future__ import annotations

import pytest

from cache_memoize.cache import record
from cache_memoize.cache.connections import UNREADABLE
from cache_memoize.cache.record import (
    BLOCK,
    CLEARED,
    ENTRY,
    FAILED,
    LEASE,
    RAISED,
    RAN,
    RETRY,
    TAG,
    pack,
    parse,
)
from cache_memoize.cache.tokens import PATIENCE, Look
from cache_memoize.protocol.decision import Do, decide
from tests.test_docs import literals, table

NOW = 1e9
MINE, OTHER = b"8 bytes!", b"another!"
TAGS = b"a tag's!\x01"


def seen(kind, *, token=MINE, payload=b"", age=0.0, tags=b"", now_tags=b""):
    """Return a look at an entry of 60 seconds, or at a mark."""
    raw = pack(kind, token, payload, start=NOW - age, timeout=60.0, tags=tags)
    return Look(parse(raw), now_tags)


#: What is seen, and for each kind of caller what it does: one that has just come, and
#: one that has waited for MINE, or for another lease.
CASES = {
    "no value": (Look(None), Do.TAKE, Do.TAKE, Do.TAKE),
    "a value that is no record": (
        Look(UNREADABLE),
        Do.CLEAR,
        Do.CLEAR,
        Do.CLEAR,
    ),
    "a fresh entry": (seen(ENTRY), Do.SERVE, Do.SERVE, Do.SERVE),
    "a stored exception": (seen(RAISED), Do.SERVE, Do.SERVE, Do.SERVE),
    "the mark of a guard": (seen(RAN), Do.SERVE, Do.SERVE, Do.SERVE),
    "an entry past its timeout": (seen(ENTRY, age=70), Do.TAKE, Do.TAKE, Do.TAKE),
    "an entry of a clock that is far ahead": (
        seen(ENTRY, age=-2 * record.SKEW),
        Do.TAKE,
        Do.TAKE,
        Do.TAKE,
    ),
    "an entry whose tag was invalidated": (
        seen(ENTRY, tags=TAGS, now_tags=b"a token!\x01"),
        Do.TAKE,
        Do.TAKE,
        Do.TAKE,
    ),
    "an entry whose tag is being invalidated": (
        seen(ENTRY, tags=TAGS, now_tags=None),
        Do.TAKE,
        Do.TAKE,
        Do.TAKE,
    ),
    "a lease": (seen(LEASE), Do.WAIT, Do.WAIT, Do.WAIT),
    "a lease after a failure": (seen(RETRY), Do.WAIT, Do.WAIT, Do.COMPUTE),
    "a lease after an exception": (
        seen(RETRY, payload=b"pickled"),
        Do.WAIT,
        Do.WAIT,
        Do.RAISE,
    ),
    "a failed mark": (seen(FAILED), Do.RETRY, Do.COMPUTE, Do.COMPUTE),
    "a failed mark with an exception": (
        seen(FAILED, payload=b"pickled"),
        Do.RETRY,
        Do.RAISE,
        Do.RAISE,
    ),
    "a mark that the key is empty": (seen(CLEARED), Do.TAKE, Do.TAKE, Do.TAKE),
    "a block": (seen(BLOCK), Do.COMPUTE, Do.COMPUTE, Do.COMPUTE),
    "the record of a tag": (seen(TAG), Do.TAKE, Do.TAKE, Do.TAKE),
}


@pytest.mark.parametrize("what", CASES)
def test_the_next_act_of_a_caller(what):
    look, *wanted = CASES[what]
    found = [decide(look, NOW, 0.0, awaited, 0) for awaited in (None, MINE, OTHER)]
    assert found == wanted


def test_an_entry_past_its_timeout_is_served_while_it_may_be_stale():
    assert decide(seen(ENTRY, age=70), NOW, 20.0, None, 0) is Do.SERVE
    assert decide(seen(ENTRY, age=81), NOW, 20.0, None, 0) is Do.TAKE


@pytest.mark.parametrize("lost", range(2 * PATIENCE))
def test_a_key_that_is_taken_and_empty_is_cleared_once(lost):
    wanted = Do.CLEAR if lost == PATIENCE // 2 else Do.TAKE
    assert decide(Look(None), NOW, 0.0, None, lost) is wanted


def test_a_block_is_valid_with_any_tags():
    assert decide(seen(BLOCK, now_tags=TAGS), NOW, 0.0, None, 0) is Do.COMPUTE


def test_the_table_of_the_documentation():
    rows = {row[0]: [literals(cell)[0] for cell in row[1:]] for row in DOCUMENTED}
    assert [*rows] == [*CASES]
    for what, (first, after) in rows.items():
        look, *_ = CASES[what]
        assert decide(look, NOW, 0.0, None, 0).name == first, what
        awaited = OTHER if what.startswith("a lease after") else MINE
        assert decide(look, NOW, 0.0, awaited, 0).name == after, what
    listed = {literals(row[0])[0]: row[1] for row in table("protocol", "Decisions")}
    assert listed == {do.name: do.value for do in Do}


DOCUMENTED = table("protocol", "Decisions by value")
