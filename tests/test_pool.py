"""The bounded pool: every job is done once, and nothing is left."""

from __future__ import annotations

import os
import threading

import pytest

from cache_memoize import pool


def test_a_job_that_fails_does_not_stop_the_next(caplog):
    done = []

    def fail():
        raise ValueError("this one")

    assert pool.submit(fail) and pool.submit(lambda: done.append(1))
    assert pool.join()
    assert done == [1]
    assert "a refresh in the background failed" in caplog.text


def test_cleaning_up_that_fails_is_logged_and_does_not_keep_the_thread(
    monkeypatch, caplog
):
    def fail():
        raise ValueError("unclean")

    monkeypatch.setattr(pool, "at_end", [fail])
    assert pool.submit(lambda: None)
    assert pool.join()
    assert "could not clean up" in caplog.text


def test_a_full_queue_takes_nothing_more(monkeypatch):
    monkeypatch.setattr(pool, "QUEUE", 0)
    assert pool.is_full() and not pool.submit(lambda: None)
    assert pool.join()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_child_of_a_process_with_busy_threads_has_a_pool_of_its_own():
    go_on, running = threading.Event(), threading.Event()

    def work():
        running.set()
        go_on.wait(30)

    assert pool.submit(work)
    assert running.wait(30)
    child = os.fork()
    if child == 0:
        done = threading.Event()
        pool.submit(done.set)
        os._exit(0 if done.wait(10) else 1)
    assert os.waitpid(child, 0)[1] == 0
    go_on.set()
    assert pool.join()


def test_what_a_fork_leaves_behind_is_forgotten(monkeypatch):
    for name, value in {"_lock": None, "_working": 3, "_threads": {1}}.items():
        monkeypatch.setattr(pool, name, value)
    monkeypatch.setattr(pool, "_jobs", pool.deque([print]))
    pool._after_fork()
    assert not pool._jobs and not pool._threads and pool._working == 0
    assert pool._lock.acquire(blocking=False)
