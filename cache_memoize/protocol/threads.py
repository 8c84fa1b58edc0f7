"""A bounded pool of threads with a bounded queue, for work that nobody waits for.

A thread ends when there is nothing more to do: so a fork copies none that idles, and a
process ends without waiting for them.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

from .. import process

__all__ = ["is_full", "join", "submit"]

#: Threads at most, and jobs at most that wait for one.
THREADS = 4
QUEUE = 100

logger = logging.getLogger("cache_memoize")

_lock = threading.Lock()
_jobs: deque[Callable[[], None]] = deque()
_threads: set[threading.Thread] = set()
_working = 0


def is_full() -> bool:
    return len(_jobs) >= QUEUE


def submit(job: Callable[[], None]) -> bool:
    """Have ``job`` done soon; False when the queue is full.

    Raises RuntimeError when no thread can be started, as at the end of the process.
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
    """Wait until everything is done, as tests want; whether it is."""
    for thread in list(_threads):
        thread.join(seconds)
    return not _threads and not _jobs


def _work() -> None:
    global _working
    try:
        while True:
            with _lock:
                if not _jobs:
                    _working -= 1  # in here: a job that comes now starts a thread
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
    """The child has none of the threads, and perhaps a lock that one of them held."""
    global _lock, _working
    _lock, _working = threading.Lock(), 0
    _jobs.clear()
    _threads.clear()
