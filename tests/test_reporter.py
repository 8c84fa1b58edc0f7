"""What was counted is told once, whatever fails, forks or ends meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest
from django.test import override_settings

from cache_memoize import cache_memoize, process
from cache_memoize.stats.counters import Stats
from cache_memoize.stats.reporter import reporter
from cache_memoize.stats.totals import Totals


class Sink:
    def __init__(self):
        self.told = []
        self.fails = False
        self.error = OSError("the cache is away")
        self.called = threading.Event()

    def __call__(self, source, new):
        self.called.set()
        if self.fails:
            raise self.error
        self.told.append((source.name, new))

    @property
    def hits(self):
        return [new.hits for _, new in self.told]


@pytest.fixture
def sink(monkeypatch):
    monkeypatch.setattr(reporter, "_told", {})
    monkeypatch.setattr(reporter, "_known", type(reporter._known)())
    with override_settings(CACHE_MEMOIZE={"STATS_INTERVAL": 0}):
        sink = Sink()
        reporter.add(sink)
        yield sink
    reporter.remove(sink)
    assert reporter.join()


def hit(stats, times=1):
    for _ in range(times):
        stats.served(None, "key", 0.5, (), {})


def test_only_what_is_new_is_told(sink):
    stats = Stats("f")
    hit(stats, 2)
    assert reporter.flush_stats() and sink.told == [("f", Totals(hits=2, saved=1.0))]
    assert reporter.flush_stats() and len(sink.told) == 1, "nothing new"
    hit(stats)
    stats.computed("key", 2.0)
    reporter.flush_stats()
    (_, new) = sink.told[-1]
    assert (new.hits, new.computations, new.spent) == (1, 1, 2.0)
    assert sum(new.costs.values()) == 1


def test_who_is_told_something_does_not_hear_of_an_invalidation(sink):
    Stats("f").invalidated("key")
    assert reporter.flush_stats() and sink.told == []


def test_what_was_not_taken_is_told_again(sink):
    stats, other = Stats("f"), Sink()
    reporter.add(other)
    hit(stats)
    sink.fails = True
    assert not reporter.flush_stats()
    hit(stats)
    assert not reporter.flush_stats()
    sink.fails = False
    assert reporter.flush_stats()
    assert sink.hits == [2] and other.hits == [1, 1], "each in its own time"


def test_what_is_counted_while_it_is_told_is_told_next_time(sink):
    stats = Stats("f")
    count, told = [3], sink.told

    def tell(source, new):
        told.append((source.name, new))
        if count:
            hit(stats, count.pop())

    reporter.remove(sink)
    reporter.add(tell)
    hit(stats)
    reporter.flush_stats(), reporter.flush_stats()
    assert sink.hits == [1, 3]
    reporter.remove(tell)


def test_a_hit_tells_nobody_and_is_told_all_the_same(sink):
    """That is what a wrapper does on a hit."""
    stats = Stats("f")
    reporter.watch(stats)  # as of a function whose settings were read
    stats.hits += 1
    assert reporter.flush_stats() and sink.hits == [1]
    stats.hits += 2
    assert reporter.flush_stats() and sink.hits == [1, 2]


def test_a_function_without_a_miss_is_told_too(sink):
    """Another process has computed its value."""

    def double(x):
        return 2 * x

    options = {"prefix": "test_reporter.double"}
    cache_memoize(60, **options)(double)(2)
    other = cache_memoize(60, **options)(double)
    assert reporter.flush_stats()
    sink.told.clear()
    assert other(2) == 4 and reporter.flush_stats()
    assert sink.hits == [1]
    other.invalidate(2)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_without_a_miss_has_a_thread_that_tells(sink):
    def double(x):
        return 2 * x

    f = cache_memoize(60, prefix="test_reporter.forked")(double)
    with override_settings(CACHE_MEMOIZE={"STATS_INTERVAL": 60}):
        f(2), f(2)
        assert reporter.join()
        reader, writer = os.pipe()
        if not (child := os.fork()):
            try:
                sink.told.clear()
                f(2), f(2)
                running = reporter._thread is not None and reporter.join()
                os.write(writer, repr((running, sink.hits)).encode())
            finally:
                os._exit(0)
        os.waitpid(child, 0)
    assert os.read(reader, 100) == b"(True, [2])"
    os.close(reader), os.close(writer)
    f.invalidate(2)


def test_only_what_was_counted_is_a_source(sink):
    stats = Stats("f")
    reporter.watch(stats)
    assert stats not in reporter.sources()
    hit(stats)
    assert stats in reporter.sources()


def test_a_sink_that_comes_late_hears_of_all(sink):
    stats, late = Stats("f"), Sink()
    hit(stats)
    reporter.flush_stats()
    reporter.add(late)
    hit(stats)
    reporter.flush_stats()
    assert late.hits == [2] and sink.hits == [1, 1]


def test_a_sink_may_leave_while_others_are_told(sink):
    other = Sink()

    def leaving(source, new):
        reporter.remove(other)

    reporter.add(leaving)
    reporter.add(other)
    stats = Stats("f")
    hit(stats)
    assert reporter.flush_stats() and not other.called.is_set()


def test_without_an_interval_there_is_no_thread(sink):
    stats = Stats("f")
    hit(stats)
    assert reporter._thread is None


def test_a_thread_tells_until_there_is_no_interval(sink):
    stats = Stats("f")
    hit(stats)
    with override_settings(CACHE_MEMOIZE={"STATS_INTERVAL": 0.01}):
        assert sink.called.wait(10)  # started by the change of the settings
        sink.called.clear()
        stats.hits += 1
        assert sink.called.wait(10)
        thread = reporter._thread
    thread.join(10)
    assert reporter._thread is None and sink.hits == [1, 1]


def test_a_thread_that_was_ended_is_started_by_the_next_event(sink):
    stats = Stats("f")
    with override_settings(CACHE_MEMOIZE={"STATS_INTERVAL": 60}):
        hit(stats)
        assert reporter.join() and reporter._thread is None
        hit(stats)
        assert reporter._thread is not None
        assert reporter.join()
    assert sink.hits == [1, 1]


def test_a_thread_goes_on_until_what_failed_was_taken(sink):
    sink.fails = True
    closed = []
    reporter.after.append(lambda: closed.append(1))
    try:
        stats = Stats("f")
        with override_settings(CACHE_MEMOIZE={"STATS_INTERVAL": 0.01}):
            hit(stats)
            for _ in range(3):
                assert sink.called.wait(10)
                sink.called.clear()
            sink.fails = False
            sink.called.clear()
            assert sink.called.wait(10)
        assert reporter.join() and sink.hits == [1] and len(closed) >= 3
    finally:
        reporter.after.pop()


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnhandledThreadExceptionWarning"  # that is what it is about
)
def test_a_sink_that_ends_the_thread_is_asked_again(sink):
    """SystemExit, for instance, goes through everything."""
    sink.error = SystemExit
    sink.fails = True
    stats, other = Stats("f"), Stats("g")
    with override_settings(CACHE_MEMOIZE={"STATS_INTERVAL": 0.01}):
        hit(stats), hit(other)
        for _ in range(3):
            assert sink.called.wait(10)
            sink.called.clear()
        sink.fails = False
        while len(sink.told) != 2:
            assert sink.called.wait(10)
            sink.called.clear()
    assert sink.hits == [1, 1]


def test_what_a_signal_handler_tells_is_not_told_twice(sink):
    stats = Stats("f")
    sink.told, told = [], []

    def fails_meanwhile(source, new):
        told.append(new.hits)
        if len(told) == 1:
            hit(stats, 3)
            reporter.flush_stats()
            raise OSError

    reporter.remove(sink)
    reporter.add(fails_meanwhile)
    hit(stats, 2)
    reporter.flush_stats(), reporter.flush_stats()
    assert told == [2, 3, 2]
    reporter.remove(fails_meanwhile)


def test_what_a_function_counted_that_is_gone_is_told_too(sink):
    with override_settings(CACHE_MEMOIZE={"STATS_INTERVAL": 60}):
        for number in range(3):
            hit(Stats(f"gone{number}"))
        assert len(reporter._kept) == 3
        assert reporter.join() and not reporter._kept
    assert sorted(sink.told)[0] == ("gone0", Totals(hits=1, saved=0.5))
    assert len(sink.told) == 3


def test_of_those_that_are_gone_so_many_are_kept(sink, monkeypatch):
    monkeypatch.setattr("cache_memoize.stats.reporter.MOST", 2)
    sink.fails = True
    with override_settings(CACHE_MEMOIZE={"STATS_INTERVAL": 60}):
        there = [Stats(f"{number}") for number in range(4)]
        for stats in there:
            hit(stats)
        assert not reporter.flush_stats() and len(reporter._kept) == 2
        sink.fails = False
        assert reporter.join() and len(sink.told) == 4
    hit(Stats("g"))
    assert not reporter._kept, "nobody would ever tell it"


def test_what_fails_after_a_round_is_in_the_log(sink, caplog):
    def failing():
        raise LookupError("closing")

    reporter.after.append(failing)
    try:
        stats = Stats("f")
        with override_settings(CACHE_MEMOIZE={"STATS_INTERVAL": 60}):
            hit(stats)
            assert reporter.join() and sink.hits == [1]
    finally:
        reporter.after.pop()
    assert "a function after a report of the figures failed" in caplog.text


def test_the_thread_closes_what_it_has_opened(sink, monkeypatch):
    threads = []
    at_end = [lambda: threads.append(threading.current_thread())]
    monkeypatch.setattr(process, "_at_thread_end", at_end)
    with override_settings(CACHE_MEMOIZE={"STATS_INTERVAL": 60}):
        hit(Stats("f"))
        thread = reporter._thread
        assert reporter.join() and threads == [thread]


@pytest.mark.parametrize("interval", [1e300, 10**400], ids=["float", "int"])
def test_an_interval_longer_than_a_thread_can_wait(sink, interval):
    stats = Stats("f")
    with override_settings(CACHE_MEMOIZE={"STATS_INTERVAL": interval}):
        hit(stats)
        assert reporter._thread.is_alive()
        assert reporter.join() and sink.hits == [1]


def test_wrong_settings_are_for_others_to_report(sink):
    stats = Stats("f")
    with override_settings(CACHE_MEMOIZE={"NO": 1}):
        hit(stats)
        assert reporter._thread is None
    reporter.flush_stats()


def test_a_process_that_is_ending_starts_no_thread(sink, monkeypatch):
    def no(self):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", no)
    stats = Stats("f")
    with override_settings(CACHE_MEMOIZE={"STATS_INTERVAL": 60}):
        hit(stats)
    assert reporter._thread is None and reporter.flush_stats() and sink.hits == [1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_tells_only_what_it_has_counted_itself(sink):
    stats, quiet = Stats("f"), Stats("g")
    hit(quiet, 4)
    reporter.flush_stats()
    hit(stats, 5)
    reader, writer = os.pipe()
    if not (child := os.fork()):
        try:
            sink.told.clear()
            reporter.flush_stats()
            hit(stats, 2), hit(quiet, 1)
            reporter.flush_stats()
            os.write(writer, repr(sorted(sink.hits)).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 100) == b"[1, 2]"
    os.close(reader), os.close(writer)
    reporter.flush_stats()
    assert sink.hits == [4, 5]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("hangs", [False, True])
def test_a_fork_waits_for_what_is_being_told_but_not_for_ever(sink, monkeypatch, hangs):
    """Else a child would inherit a lock of the cache client that is held."""
    of_client, telling, go_on = threading.Lock(), threading.Event(), threading.Event()

    def tell(source, new):
        with of_client:
            telling.set()
            go_on.wait(30)

    reporter.add(tell)
    stats = Stats("f")
    hit(stats)
    thread = threading.Thread(target=reporter.flush_stats)
    thread.start()
    assert telling.wait(10)
    # While the fork waits for it, it comes to its end, or does not.
    patience = 0.05 if hangs else 30
    monkeypatch.setattr("cache_memoize.stats.reporter.FORK_WAIT", patience)
    timer = threading.Timer(0.05, go_on.set)
    if not hangs:
        timer.start()
    if not (child := os.fork()):
        os._exit(of_client.locked())
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == hangs
    go_on.set()
    thread.join()
    timer.cancel()
    assert not reporter._held and reporter.flush_stats()
    reporter.remove(tell)


def test_a_signal_handler_may_count_whatever_it_interrupts(sink):
    stats = Stats("f")

    def handler(*args):
        hit(stats)

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with reporter._lock, reporter._telling:
            os.kill(os.getpid(), signal.SIGUSR1)
            assert stats.hits == 1
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("interval, told", [(60, "f 3\n"), (0, "")])
def test_a_process_tells_the_rest_when_it_ends(interval, told):
    code = (
        "from django.conf import settings\n"
        f"settings.configure(CACHE_MEMOIZE={{'STATS_INTERVAL': {interval}}})\n"
        "from cache_memoize.stats.reporter import reporter\n"
        "from cache_memoize.stats.counters import Stats\n"
        "reporter.add(lambda source, new: print(source.name, new.hits))\n"
        "stats = Stats('f')\n"
        "for _ in range(3): stats.served(None, 'key', 0.5, (), {})\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.stdout, run.stderr) == (told, "")


def test_a_cache_that_hangs_does_not_keep_a_process_from_ending():
    code = (
        "import threading\n"
        "from django.conf import settings\n"
        "settings.configure(CACHE_MEMOIZE={'STATS_INTERVAL': 60})\n"
        "from cache_memoize.stats import reporter as module\n"
        "from cache_memoize.stats.counters import Stats\n"
        "module.LAST, reporter = 0.1, module.reporter\n"
        "reporter.add(lambda source, new: threading.Event().wait())\n"
        "Stats('f').missed('key')\n"
        "stats = Stats('g')\n"
        "stats.missed('key')\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30
    )
    assert (run.stdout, run.stderr, run.returncode) == ("", "", 0)


def test_a_child_counts_from_now_on_and_tells_when_it_ends(sink):
    """What a child does, in this process, where its lines are counted."""
    waiting = threading.Event()

    class Ending(threading.Event):
        def wait(self, timeout=None):
            waiting.set()
            return super().wait(timeout)

    stats = Stats("f")
    with override_settings(CACHE_MEMOIZE={"STATS_INTERVAL": 60}):
        hit(stats, 3)
        assert reporter.join()
        reporter._ending = ending = Ending()
        hit(stats)
        thread = reporter._thread
        assert waiting.wait(10)
        reporter.after_fork_in_child()
        assert not reporter._kept and reporter._thread is None
        ending.set()  # the parent goes on: here both are one
        thread.join()
        hit(stats, 2)
        reporter.at_exit()
    assert sink.hits == [3, 2]


def test_without_an_interval_nothing_is_told_at_the_end_either(sink):
    stats = Stats("f")
    hit(stats)
    reporter.at_exit()
    assert sink.hits == []
    with override_settings(CACHE_MEMOIZE={"STATS_INTERVAL": 60}):
        reporter.at_exit()
    assert sink.hits == [1]
