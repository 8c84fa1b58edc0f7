"""The states of a key: the diagram and the table of the documentation, and each of
their steps on a cache."""

from __future__ import annotations

import asyncio
import runpy
from typing import Any

import pytest

from cache_memoize.cache import record
from cache_memoize.cache.record import BLOCK, CLEARED, FAILED, LEASE, RAISED, RAN, RETRY
from cache_memoize.cache.store import run
from cache_memoize.protocol import invalidation
from cache_memoize.protocol.claim import claim, overtake
from cache_memoize.protocol.entries import prime
from cache_memoize.protocol.settle import fail, settle
from tests.conftest import World, plan_of
from tests.test_clocks import call_of
from tests.test_docs import DOCS, table

FIGURES = DOCS / "figures"
FIGURE = runpy.run_path(str(FIGURES / "states.py"))
STATES, NEXT = [*FIGURE["STATES"]], FIGURE["NEXT"]
KINDS = {CLEARED: "empty", LEASE: "lease", RETRY: "retry", FAILED: "failed"}
KINDS |= {record.ENTRY: "entry", RAISED: "entry", RAN: "entry", BLOCK: "block"}
MINE, OTHER = b"our own.", b"another."
BROKEN = ValueError("broken")


class Key:
    """The key of a call, and the right to store under it, if a caller has that."""

    def __init__(self, backend: str) -> None:
        world = World(backend, "sync")
        self.f, self.cache = world.memoize(60, wait=0)(lambda: 1), world.cache
        self.call, self.name = call_of(self.f), self.f.get_cache_key()
        self.claim: Any = None

    def mark(self, **blocks: Any) -> None:
        store = plan_of(self.f).store
        run(invalidation._mark(store, "f", self.name, seconds=10, **blocks))

    def claims(self) -> None:
        mine = run(claim(self.call))
        if mine.lease is not None:
            self.claim = mine

    def overtakes(self) -> None:
        self.claim = run(overtake(self.call))

    def reach(self, state: str) -> None:
        if state in ("lease", "failed", "retry"):
            self.claims()
        if state in ("failed", "retry"):
            run(fail(self.call, self.claim, BROKEN))
        if state == "retry":
            self.claims()
        if state in ("entry", "refresh"):
            run(prime(self.call, 0))
        if state == "refresh":
            self.overtakes()
        if state == "block":
            self.mark(adds=frozenset([OTHER]))

    def happen(self, event: str) -> None:
        {
            "a call begins": self.claims,
            "the function returns": lambda: run(settle(self.call, self.claim, 1)),
            "the function raises": lambda: run(fail(self.call, self.claim, BROKEN)),
            "its caller is cancelled": lambda: run(
                fail(self.call, self.claim, asyncio.CancelledError())
            ),
            "``refresh()`` begins": self.overtakes,
            "``prime()``": lambda: run(prime(self.call, 2)),
            "``invalidate()``": self.f.invalidate,
            "the same, in a transaction": lambda: self.mark(adds=frozenset([MINE])),
            "its commit": lambda: self.mark(drops=frozenset([MINE, OTHER])),
            "the server removes it": lambda: self.cache.delete(self.name),
        }[event]()

    def state(self) -> str:
        found = record.parse(self.cache.get(self.name))
        if found is None:
            return "empty"
        return "refresh" if found.stamp.begun else KINDS[found.kind]


@pytest.mark.leaves_lease
@pytest.mark.backends(["locmem", "valkey", "pymemcache"])
@pytest.mark.parametrize("event", NEXT)
def test_each_step_of_the_diagram(backend, event):
    for state, after in zip(STATES, NEXT[event].split(), strict=True):
        key = Key(backend)
        key.reach(state)
        assert key.state() == state
        if after == "–":  # no caller has a right to store that it could use
            assert state in ("empty", "failed", "entry", "block")
            continue
        key.happen(event)
        assert key.state() == after, (state, event)


def test_the_diagram_has_every_kind_of_record_but_that_of_tags():
    assert {*KINDS} == record._KINDS - {record.TAG}
    assert {*KINDS.values(), "refresh"} == {*STATES}


def test_the_table_and_the_diagram_are_of_these_steps():
    rows = {event: cells for event, *cells in table("protocol", "States of a key")}
    assert rows == {event: cells.split() for event, cells in NEXT.items()}
    for name in ("states", "protocol"):
        draw = runpy.run_path(str(FIGURES / f"{name}.py"))["draw"]
        assert (FIGURES / f"{name}.svg").read_text() == draw()
