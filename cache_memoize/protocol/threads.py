"""A bounded pool of threads with a bounded queue, for work in the background.

A thread ends when the queue is empty: so a fork copies no idle thread, and the process
ends without waiting for one.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from .. import process
from ..process import logger

__all__ = ["is_full", "join", "submit"]

#: The most threads of a process.
THREADS = 4
#: The most jobs that wait for a thread.
QUEUE = 100

_lock = threading.Lock()
_jobs: deque[Callable[[], None]] = deque()
_threads: set[threading.Thread] = set()
_working = 0


def is_full() -> bool:
    return len(_jobs) >= QUEUE


def submit(job: Callable[[], None]) -> bool:
    """Have ``job`` run by a thread; return False if the queue is full.

    Raises RuntimeError if no thread can be started, as at the end of the process.
    """
    global _working
    with _lock:
        if is_full():
            return False
        if _working < THREADS:
            thread = threading.Thread(target=_work, name="cache_memoize", daemon=True)
            thread.start()  # it waits for the lock
            _threads.add(thread)
            _working += 1
        _jobs.append(job)
        return True


def join(seconds: float = 30.0) -> bool:
    """Wait until all jobs are done; return whether they are. For tests."""
    for thread in list(_threads):
        thread.join(seconds)
    return not _threads and not _jobs


def _work() -> None:
    global _working
    try:
        while True:
            with _lock:
                if not _jobs:
                    _working -= 1  # under the lock: the next job starts a thread
                    return
                job = _jobs.popleft()
            try:
                job()
            except BaseException:
                logger.exception("a refresh in the background failed")
    finally:
        process.end_thread()
        _threads.discard(threading.current_thread())


@process.after_fork
def _after_fork() -> None:
    """Start empty in a child: it has none of the threads, and perhaps their lock."""
    global _lock, _working
    _lock, _working = threading.Lock(), 0
    _jobs.clear()
    _threads.clear()
