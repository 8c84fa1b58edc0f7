"""What stands under a key: records that survive, and all else that is none."""

from __future__ import annotations

import copy
import datetime
import math
import pickle
import struct
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache_memoize.cache import record
from cache_memoize.cache.record import (
    BLOCK,
    ENTRIES,
    ENTRY,
    FAILED,
    LEASE,
    LEASES,
    RAISED,
    RAN,
    RETRY,
    SKEW,
    TAG,
    Record,
    Stamp,
    pack,
    parse,
)

CARRIERS = [ENTRY, RAISED, RAN, LEASE, RETRY, FAILED, BLOCK]
KINDS = [*CARRIERS, TAG]
TOKEN = b"8 bytes!"
examples = settings(max_examples=80, deadline=None, derandomize=True, database=None)


# --- the bytes -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", CARRIERS)
@pytest.mark.parametrize("payload", [b"", b"payload"])
def test_what_was_packed_comes_back(kind, payload):
    raw = pack(kind, TOKEN, payload, start=1.5e9, timeout=60.0, cost=0.5)
    assert type(raw) is bytes and len(raw) == len(payload) + record.TRAILER_SIZE == (
        len(payload) + 26
    )
    assert parse(raw) == Record(
        raw, TOKEN, 1.5e9, 60.0, 0.5, kind, False, b"", record.NO_STAMP, len(payload)
    )


@examples
@given(
    st.sampled_from(CARRIERS),
    st.binary(min_size=8, max_size=8),
    st.binary(max_size=50),
    st.floats(0, 1e10),
    st.floats(0, width=32),
    st.floats(0, 1e6, width=32),
    st.sampled_from([b"", b"8 bytes!\x01", b"8 bytes!8 others\x02"]),
    st.none()
    | st.builds(
        Stamp,
        st.floats(0, 1e10),
        st.just(10.0),
        st.integers(0, 255),
        *[st.integers(0, 65535)] * 2,
    ),
)
def test_whatever_it_is(kind, token, payload, start, timeout, cost, tags, claim):
    fields = {"start": start, "timeout": timeout, "cost": cost, "tags": tags}
    raw = pack(kind, token, payload, **fields, stamp=claim)
    size = len(payload)
    claim = claim or record.NO_STAMP
    assert parse(raw) == Record(
        raw, token, start, timeout, cost, kind, False, tags, claim, size
    )


@pytest.mark.parametrize("more", [b".", b"payload", b"\0" * 26])
def test_the_record_of_a_tag_is_its_trailer_and_no_more(more):
    assert parse(pack(TAG, TOKEN, start=1.0)).kind == TAG
    assert parse(pack(TAG, TOKEN, more)) is None
    for forged in (pack(TAG, TOKEN, more), pack(TAG, TOKEN)[1:], pack(TAG, TOKEN)[-2:]):
        assert record.tokens([forged]) == b""


@pytest.mark.parametrize("flag", [record.TAGGED, record.STAMPED])
@pytest.mark.parametrize("inside", [b"", b"\x01", b"12 bytes....", b"8 bytes!\xff"])
def test_a_record_that_is_cut_off_is_none(flag, inside):
    assert parse(pack(ENTRY | flag, TOKEN, inside)) is None


@pytest.mark.parametrize("payload", [b"", b"payload"])
@pytest.mark.parametrize("tags", [b"", record.tokens([]), b"8 bytes!\x01"])
@pytest.mark.parametrize("claim", [None, Stamp(1e9, 10.0, 2, 3, 2)])
def test_whatever_stands_before_the_trailer_or_does_not(payload, tags, claim):
    found = parse(pack(ENTRY, TOKEN, payload, tags=tags, stamp=claim))
    assert (found.raw[: found.end], found.tags) == (payload, tags)
    assert found.stamp == claim or found.stamp is record.NO_STAMP


def test_what_is_not_said_is_nothing():
    found = parse(pack(LEASE, TOKEN))
    assert (found.start, found.timeout, found.cost, found.tags) == (0.0, 0.0, 0.0, b"")
    assert found.stamp == (0.0, 0.0, 0, 0, 0)
    assert not any(found.is_claimed(now) for now in (0.0, 0.5, 1.0, 1e9))


def test_a_failed_mark_is_kept_for_a_second_by_every_clock():
    assert record.FAILED_FOR == 2  # Memcached's counts whole seconds


def test_the_kinds_are_all_different_and_each_is_one_thing():
    assert len(set(KINDS)) == len(KINDS)
    assert {ENTRY, RAISED, RAN} == ENTRIES
    assert {LEASE, RETRY} == LEASES
    assert not any(kind & record.VOUCHED for kind in KINDS)


@pytest.mark.parametrize(
    "raw",
    [
        None,
        "text",
        5,
        True,
        [],
        b"",
        b"\0" * 25,
        b"\0" * 26,
        b"\xff" * 26,
        bytearray(pack(ENTRY, TOKEN)),
        pytest.param(memoryview(pack(ENTRY, TOKEN)), id="memoryview"),
        pack(ENTRY, TOKEN)[1:],
        pack(0xC300, TOKEN),
        pack(0xC30A, TOKEN),
        pack(0xC200 | 1, TOKEN),
        pack(1, TOKEN),
        pickle.dumps(["somebody", "else's"] * 5),
    ],
    ids=repr,
)
def test_what_this_library_did_not_write_is_no_record(raw):
    assert parse(raw) is None


def test_a_subclass_of_bytes_is_not_ours():
    class Bytes(bytes):
        pass

    assert parse(Bytes(pack(ENTRY, TOKEN))) is None


@examples
@given(st.binary(max_size=60))
def test_garbage_never_raises(raw):
    found = parse(raw)
    assert found is None or found.kind in KINDS


def test_a_record_that_lost_its_end_is_none():
    raw = pack(ENTRY, TOKEN, b"payload" * 10, start=1e9, timeout=60.0)
    assert [parse(raw[:end]) for end in range(len(raw))] == [None] * len(raw)


def test_a_value_is_read_without_cutting_it_out():
    raw = pack(ENTRY, TOKEN, record.dumps({"a": [1]}), timeout=60.0)
    assert record.loads(raw) == {"a": [1]}


def test_the_freshness_alone_is_at_the_end():
    raw = pack(ENTRY, TOKEN, b"payload", start=1e9, timeout=60.0, cost=0.5)
    found = record.freshness(raw[-record.FRESHNESS_SIZE :])
    assert found == (1e9, 60.0, 0.5, ENTRY)


@pytest.mark.parametrize("payload", [b"", b"payload"])
def test_a_stamp_changes_nothing_for_readers(payload):
    raw = pack(ENTRY, TOKEN, payload, start=1e9, timeout=60.0, cost=0.5)
    stamp = Stamp(1e9, 10.0, 2, 65535, 65535)
    stamped = record.restamp(parse(raw), stamp)
    assert parse(stamped) == parse(raw)._replace(raw=stamped, stamp=stamp)
    other = record.restamp(parse(raw), stamp, b"8 others")
    assert parse(other) == parse(stamped)._replace(raw=other, token=b"8 others")


def test_a_stamp_keeps_the_entry_and_the_tokens_of_its_tags():
    tags, claim = b"8 bytes!\x01", Stamp(1e9, 10.0, 2, 7, 6)
    raw = pack(ENTRY, TOKEN, b"payload", start=1e9, timeout=60.0, tags=tags)
    claimed = parse(record.restamp(parse(raw), claim))
    assert (claimed.tags, claimed.stamp, claimed.token) == (tags, claim, TOKEN)
    assert claimed.raw[: claimed.end] == b"payload"
    assert claimed.is_claimed(1e9 + 9.9) and not claimed.is_claimed(1e9 + 10)
    assert claimed.is_claimed(1e9 - 9.9) and not claimed.is_claimed(1e9 - 10)


def test_tokens_of_tags_count_only_together():
    one, two = pack(TAG, b"token--1"), pack(TAG, b"token--2", start=1e9)
    assert record.tokens([one, two]) == b"token--1token--2\x02"
    for bad in (None, 5, b"", pack(BLOCK, b"token--1"), pack(ENTRY, b"token--1")):
        assert record.tokens([one, bad]) == b""


def test_grace_is_served_after_the_timeout_and_ends():
    entry = parse(pack(ENTRY, TOKEN, start=1e9, timeout=60.0))
    assert entry.is_fresh(1e9 + 59) and not entry.is_fresh(1e9 + 60)
    assert entry.is_fresh(1e9 + 69, 10.0) and not entry.is_fresh(1e9 + 70, 10.0)


@pytest.mark.parametrize("kind", CARRIERS)
def test_a_vouched_record_is_the_same_but_for_that(kind):
    raw = pack(kind, TOKEN, b"payload", start=1e9, timeout=60.0, cost=0.5)
    vouched = record.vouched(raw)
    assert vouched != raw and record.vouched(vouched) == vouched
    assert parse(vouched) == parse(raw)._replace(raw=vouched, vouched=True)
    # The hit path knows the plain kinds only, and must not take it for one of them.
    assert record.freshness(vouched[-record.FRESHNESS_SIZE :])[3] not in KINDS


# --- fresh or not --------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(ENTRIES))
@pytest.mark.parametrize(
    "age, fresh",
    [(0, True), (59.9, True), (60, False), (61, False), (-10, True)]
    + [(-SKEW + 1, True), (-SKEW, False), (-SKEW * 2, False)],
)
def test_an_entry_is_fresh_until_its_timeout(kind, age, fresh):
    """A clock may be behind by an hour; what is further ahead was set right since."""
    assert SKEW == 60 * 60
    found = parse(pack(kind, TOKEN, start=1e9, timeout=60.0))
    assert found.is_fresh(1e9 + age) is fresh


@pytest.mark.parametrize("kind", [LEASE, RETRY, FAILED])
def test_what_holds_no_value_is_never_fresh(kind):
    assert not parse(pack(kind, TOKEN, start=1e9, timeout=60.0)).is_fresh(1e9)


def test_for_ever_is_for_ever():
    found = parse(pack(ENTRY, TOKEN, start=1e9, timeout=math.inf))
    assert found.is_fresh(1e12) and found.remaining(1e12) == math.inf


def test_how_long_it_remains():
    found = parse(pack(ENTRY, TOKEN, start=1e9, timeout=60.0))
    assert [found.remaining(1e9 + age) for age in (0, 20, 70)] == [60, 40, -10]


@pytest.mark.parametrize("timeout", [0.0, 1.0, 1e30, math.inf, 3.5e38, 1e300])
def test_any_timeout_fits_after_it_was_capped(timeout):
    capped = record.cap(timeout)
    assert capped == pytest.approx(timeout if timeout < 3e38 else math.inf)
    assert parse(pack(ENTRY, TOKEN, timeout=capped)).timeout == pytest.approx(capped)


def test_it_would_not_fit_otherwise():
    with pytest.raises((OverflowError, struct.error)):
        pack(ENTRY, TOKEN, timeout=1e300)


# --- values --------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, 0, "a", [1], {"a": (1,)}, datetime.date.max])
def test_a_value_comes_back(value):
    assert record.loads(record.dumps(value)) == value


def test_a_value_is_pickled_with_the_best_protocol():
    assert record.dumps([1]) == pickle.dumps([1], pickle.HIGHEST_PROTOCOL)


# --- exceptions ----------------------------------------------------------------------


class Simple(Exception):
    pass


class WithCode(Exception):
    """Its arguments are not those of its class."""

    def __init__(self, code, *, detail="none"):
        super().__init__(f"code {code}")
        self.code = code
        self.detail = detail


class NoArguments(Exception):
    """Calling the class with ``args`` fails."""

    def __init__(self):
        super().__init__("text")


class Doubling(Exception):
    """Calling the class with ``args`` succeeds, with something else."""

    def __init__(self, text):
        super().__init__(text * 2)


class Unpickled(Exception):
    """Its class says how to pickle it, and is wrong."""

    def __reduce__(self):
        raise RuntimeError("no")


class Made(Exception):
    """Its ``__new__`` keeps the arguments for ``__init__``, which wants two."""

    def __new__(cls, *args):
        return super().__new__(cls)

    def __init__(self, text, code):
        super().__init__(text)
        self.code = code


class Strict(Exception):
    """Its ``__new__`` wants the arguments, its ``__init__`` others."""

    def __new__(cls, text, **others):
        return super().__new__(cls, text)

    def __init__(self, text, *, code):
        super().__init__(text)
        self.code = code


class Slotted(Exception):
    __slots__ = ()


def with_attributes(error, **attributes):
    vars(error).update(attributes)
    return error


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a", 1),
        KeyError("a"),
        Simple(),
        with_attributes(Simple("a"), hint="b"),
        WithCode(5, detail="x"),
        NoArguments(),
        with_attributes(NoArguments(), hint="b"),
        Doubling("ab"),
        Unpickled("a"),
        Made("a", 5),
        Strict("a", code=5),
        Slotted("a"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"),
        StopIteration(5),
    ],
    ids=repr,
)
def test_an_exception_comes_back_as_it_was(error):
    """With its type, arguments and attributes, whatever its ``__init__`` wants."""
    before = type(error), error.args, copy.copy(vars(error)), str(error)
    again = record.loads(record.dumps_exception(error))
    assert again is not error
    assert (type(again), again.args, vars(again), str(again)) == before


def test_an_exception_is_read_from_a_record_too():
    raw = pack(RAISED, TOKEN, record.dumps_exception(NoArguments()), timeout=60.0)
    assert type(record.loads(raw)) is NoArguments


def test_a_traceback_and_a_cause_stay_behind():
    try:
        try:
            raise KeyError("inner")
        except KeyError as inner:
            raise ValueError("outer") from inner
    except ValueError as error:
        again = record.loads(record.dumps_exception(error))
    assert again.__traceback__ is again.__cause__ is again.__context__ is None


def test_an_exception_that_holds_what_cannot_be_pickled_is_refused():
    with pytest.raises(TypeError, match="pickling it raises TypeError"):
        record.dumps_exception(with_attributes(Simple(), lock=threading.Lock()))


@pytest.mark.parametrize(
    "error",
    [FileNotFoundError(2, "gone", "a.txt"), PermissionError(13, "no", "a", None, "b")],
    ids=repr,
)
def test_the_file_of_an_os_error_comes_back(error):
    again = record.loads(record.dumps_exception(error))
    assert (again.errno, again.strerror) == (error.errno, error.strerror)
    assert (again.filename, again.filename2) == (error.filename, error.filename2)


class Located(OSError):
    """An OSError whose own ``__init__`` wants other arguments."""

    def __init__(self, code, path):
        super().__init__(code, "gone", path)
        self.code = code


def test_an_exception_that_would_come_back_changed_is_refused():
    """Then it is not stored, and every caller gets its own."""
    with pytest.raises(TypeError, match="Located cannot be stored: it comes back chan"):
        record.dumps_exception(Located(2, "a.txt"))


@pytest.mark.parametrize("before", [b"", b"12345", b"a\n12345678" + b"\xff" * 6])
def test_dependencies_that_are_cut_off_are_no_record(before):
    whole = bytearray(record.pack(record.ENTRY, b"8 bytes!", before))
    whole[-2] |= record.DEPENDS
    assert parse(bytes(whole)) is None


def test_dependencies_come_back():
    names = record.pack_names(["a", "other\tb"])
    depends = record.pack_dependencies(names, b"token_a!token_b!")
    found = parse(record.pack(record.ENTRY, b"8 bytes!", b"payload", depends=depends))
    assert found.depends == depends and found.raw[: found.end] == b"payload"
    assert record.dependencies(depends) == (
        names,
        {"a": b"token_a!", "other\tb": b"token_b!"},
    )
