"""The bounded pool: every job is done once, and nothing is left."""

from __future__ import annotations

import os
import threading

import pytest

from cache_memoize import process
from cache_memoize.protocol import threads


def test_a_job_that_fails_does_not_stop_the_next(caplog):
    done = []

    def fail():
        raise ValueError("this one")

    assert threads.submit(fail) and threads.submit(lambda: done.append(1))
    assert threads.join()
    assert done == [1]
    assert "a refresh in the background failed" in caplog.text


def test_cleaning_up_that_fails_is_logged_and_does_not_keep_the_thread(
    monkeypatch, caplog
):
    def fail():
        raise ValueError("unclean")

    monkeypatch.setattr(process, "_at_thread_end", [fail])
    assert threads.submit(lambda: None)
    assert threads.join()
    assert "a thread could not clean up" in caplog.text


def test_a_full_queue_takes_nothing_more(monkeypatch):
    monkeypatch.setattr(threads, "QUEUE", 0)
    assert threads.is_full() and not threads.submit(lambda: None)
    assert threads.join()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_child_of_a_process_with_busy_threads_has_a_pool_of_its_own():
    go_on, running = threading.Event(), threading.Event()

    def work():
        running.set()
        go_on.wait(30)

    assert threads.submit(work)
    assert running.wait(30)
    child = os.fork()
    if child == 0:
        done = threading.Event()
        threads.submit(done.set)
        os._exit(0 if done.wait(10) else 1)
    assert os.waitpid(child, 0)[1] == 0
    go_on.set()
    assert threads.join()


def test_what_a_fork_leaves_behind_is_forgotten(monkeypatch):
    for name, value in {"_lock": None, "_working": 3, "_threads": {1}}.items():
        monkeypatch.setattr(threads, name, value)
    monkeypatch.setattr(threads, "_jobs", threads.deque([print]))
    threads._after_fork()
    assert not threads._jobs and not threads._threads and threads._working == 0
    assert threads._lock.acquire(blocking=False)
