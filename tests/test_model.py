"""The whole against a dictionary: whatever is done in whatever order, a call gives
what a cache that makes no mistakes would give.

Calls, invalidations, tags, refreshes, primes, time, transactions with rollback,
eviction and errors of the backend; on local memory and Valkey, sync and async.
"""

from __future__ import annotations

import contextlib
import logging

import pytest
from django.core.cache import caches
from django.db import transaction
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from cache_memoize.cache import breaker, record
from cache_memoize.protocol import threads, transactions
from tests.conftest import World, example_settings, plan_of
from tests.models import Post

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default"]),
    pytest.mark.filterwarnings(
        "ignore::hypothesis.errors.NonInteractiveExampleWarning"
    ),
]

TIMEOUT, STALE = 10, 20
KEYS = st.sampled_from([0, 1])


class Rollback(Exception):
    pass


class Machine(RuleBasedStateMachine):
    """The rows are the truth. The model keeps, per call, the oldest version that may
    still be given: a version is a number that every change makes larger."""

    alias = "locmem"

    def __init__(self):
        super().__init__()
        caches[self.alias].clear()
        for one in breaker._breakers.values():
            one.__init__()
        Post.objects.all().delete()
        self.version = 0
        self.rows = {}
        for key in (0, 1):
            self.rows[key] = Post.objects.create(title="0").pk
        self.committed = {0: 0, 1: 0}
        self.seen = {0: 0, 1: 0}  # as this transaction sees them
        self.oldest = {0: 0, 1: 0}  # what others may be given, at worst
        self.mine = None  # the same, inside of this transaction
        self.forgotten = set()  # by this transaction
        self.since = {0: None, 1: None}  # when the oldest entry was computed
        self.block = None

    @initialize(kind=st.sampled_from(["sync", "async"]))
    def begin(self, kind):
        self.world = World(self.alias, kind)
        self.fails = False
        owner = self

        def title(key):
            if owner.fails:
                raise ValueError("the function fails")
            return int(Post.objects.get(pk=owner.rows[key]).title)

        self.f = self.world.memoize(
            TIMEOUT, stale=STALE, tags=lambda key: f"key:{key}", queries=True
        )(title)

    def teardown(self):
        if self.block is not None:
            self.end(commit=False)
        threads.join()
        caches[self.alias].clear()

    # --- what a caller may be given --------------------------------------------------

    def check(self, key, value):
        floor = self.oldest[key] if self.mine is None else self.mine[key]
        assert floor <= value <= self.version, (key, value, floor, self.version)
        if self.mine is None:
            assert value <= self.committed[key], "a phantom"

    def look(self, call, key):
        try:
            value = call(key)
        except ValueError:
            assert self.fails
        else:
            self.check(key, value)
        threads.join()

    @rule(key=KEYS)
    def call(self, key):
        self.look(self.f, key)

    @rule(key=KEYS)
    def refresh(self, key):
        self.look(self.f.refresh, key)
        self.forget(key)

    @rule(key=KEYS)
    def peek(self, key):
        found = self.f.peek(key)
        if found is not None:
            self.check(key, found.value)

    @rule(key=KEYS)
    def twice(self, key):
        """What was computed and may be stored is a hit."""
        if self.block is not None:
            return
        self.world.clock.tick(15)  # no block and no failed pause any more
        for each in (
            self.f.get_cache_key(key),
            *plan_of(self.f).key_of((key,), {}).tags,
        ):
            there = self.world.raw(each)
            if there is not None and there.kind in (record.BLOCK, record.FAILED):
                self.world.cache.delete(each)
        self.f.refresh(key)
        hits = self.f.cache_info().hits
        first, second = self.f(key), self.f(key)
        assert first == second == self.committed[key]
        assert self.f.cache_info().hits == hits + 2
        self.forget(key)

    # --- what changes the truth ------------------------------------------------------

    @rule(key=KEYS, tell=st.sampled_from(["invalidate", "tag", "all", "prime", None]))
    def change(self, key, tell):
        self.version += 1
        Post.objects.filter(pk=self.rows[key]).update(title=str(self.version))
        self.seen[key] = self.version
        if self.block is None:
            self.committed[key] = self.version
        if tell == "invalidate":
            self.f.invalidate(key)
        elif tell == "tag":
            self.world.invalidate_tags(f"key:{key}")
        elif tell == "all":
            self.f.invalidate_all()
        elif tell == "prime":
            self.f.prime(self.version, key)
        if tell == "all":
            self.forget(0), self.forget(1)
        elif tell is not None:
            self.forget(key)

    def forget(self, key):
        """From now on, or from the commit on, nothing older counts."""
        if self.block is None:
            self.oldest[key] = self.committed[key]
        else:
            self.mine[key] = self.seen[key]
            self.forgotten.add(key)

    # --- transactions ----------------------------------------------------------------

    @precondition(lambda self: self.block is None)
    @rule()
    def atomic(self):
        self.block = transaction.atomic()
        self.block.__enter__()
        self.mine = dict(self.oldest)
        self.forgotten = set()

    @precondition(lambda self: self.block is not None)
    @rule(commit=st.booleans())
    def end(self, commit):
        block, self.block = self.block, None
        error = None if commit else Rollback()
        with contextlib.suppress(Rollback):
            block.__exit__(error and Rollback, error, None)
        if commit:
            self.committed = dict(self.seen)
            for key in self.forgotten:
                self.oldest[key] = self.committed[key]
        else:
            self.seen = dict(self.committed)
        self.mine = None
        self.forgotten = set()
        assert not transactions.live

    @precondition(lambda self: self.block is not None)
    @rule(key=KEYS, keep=st.booleans())
    def savepoint(self, key, keep):
        """A change and an invalidation in a block of their own."""
        before, floor, forgotten = self.seen[key], self.mine[key], set(self.forgotten)
        with contextlib.suppress(Rollback), transaction.atomic():
            self.change(key, "invalidate")
            self.look(self.f, key)
            if not keep:
                raise Rollback
        if not keep:
            self.seen[key], self.mine[key] = before, min(floor, before)
            self.forgotten = forgotten
        self.look(self.f, key)

    # --- time, eviction, errors ------------------------------------------------------

    @rule(seconds=st.sampled_from([1, 4, 11, 25, 40]))
    def time(self, seconds):
        self.world.clock.tick(seconds)
        if seconds > 10:  # blocks have run out
            cache = self.world.cache
            keys = {self.f.get_cache_key(key) for key in (0, 1)}
            keys |= {t for k in (0, 1) for t in plan_of(self.f).key_of((k,), {}).tags}
            for key in keys:
                there = self.world.raw(key)
                if there is not None and there.kind == record.BLOCK:
                    cache.delete(key)

    @rule(key=KEYS, which=st.sampled_from(["entry", "tag", "everything"]))
    def evict(self, key, which):
        cache = self.world.cache
        if which == "entry":
            cache.delete(self.f.get_cache_key(key))
        elif which == "tag":
            cache.delete(plan_of(self.f).key_of((key,), {}).tags[0])
        else:
            cache.clear()

    @rule(key=KEYS)
    def function_fails(self, key):
        """Stale at best; then the exception, and nothing is lost."""
        self.fails = True
        self.look(self.f, key)
        self.look(self.f.refresh, key)
        self.fails = False

    @rule(key=KEYS)
    def backend_fails(self, key):
        """Every command raises; then it works again, and the breaker is closed."""
        cls = type(self.world.cache)
        original = cls.make_and_validate_key

        def refuse(self, key, version=None):
            raise ConnectionError("away")

        cls.make_and_validate_key = refuse
        try:
            for call in (self.f, self.f.refresh):
                self.look(call, key)
            with pytest.raises(ConnectionError):
                self.f.invalidate(key)
        finally:
            cls.make_and_validate_key = original
        for one in breaker._breakers.values():
            one.__init__()

    @invariant()
    def no_lease_is_left(self):
        if getattr(self, "f", None) is None:
            return
        for key in (0, 1):
            there = self.world.raw(self.f.get_cache_key(key))
            assert there is None or there.kind not in record.LEASES


class OnValkey(Machine):
    alias = "valkey"


@pytest.fixture
def quiet():
    logger = logging.getLogger("cache_memoize")
    logger.disabled = True
    yield
    logger.disabled = False


@pytest.mark.grows
@pytest.mark.parametrize("machine", [Machine, OnValkey], ids=["locmem", "valkey"])
def test_it_gives_what_a_cache_without_mistakes_gives(machine, servers, quiet):
    if machine.alias == "valkey":
        servers("valkey")
    run_state_machine_as_test(machine, settings=example_settings(100))
    caches[machine.alias].clear()
