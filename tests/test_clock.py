"""The real world, as the library takes it in."""

from __future__ import annotations

import random
import time

from asgiref.sync import async_to_sync

from cache_memoize.clock import Clock


def test_the_times_are_those_of_the_system():
    clock = Clock()
    assert time.time() <= clock.time() <= time.time()
    assert time.monotonic() <= clock.monotonic() <= time.monotonic()


def test_module_attributes_are_looked_up_at_each_call(monkeypatch):
    """That is where time-travel libraries put theirs."""
    clock, slept = Clock(), []
    monkeypatch.setattr(time, "time", lambda: 1.0)
    monkeypatch.setattr(time, "monotonic", lambda: 2.0)
    monkeypatch.setattr(time, "sleep", slept.append)
    assert (clock.time(), clock.monotonic()) == (1.0, 2.0)
    clock.sleep(3.0)
    assert slept == [3.0]


def test_sleeping_is_possible_in_both_worlds():
    assert Clock().sleep(0) is None
    assert async_to_sync(Clock().asleep)(0) is None


def test_randomness_is_between_nothing_and_one():
    assert all(0 <= Clock().random() < 1 for _ in range(100))


def test_tokens_do_not_come_from_a_seeded_generator():
    """Forked processes must not draw the same."""
    tokens = []
    for _ in range(2):
        random.seed(1)
        tokens.append(Clock().token())
    assert tokens[0] != tokens[1]
    assert [len(token) for token in tokens] == [8, 8]
