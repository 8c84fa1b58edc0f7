"""Metrics for Prometheus: true, cheap, without keys, and over several processes."""

from __future__ import annotations

import importlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from django.core.cache import caches
from django.test import RequestFactory, override_settings
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest

from cache_memoize import cache_memoize, prometheus, signals
from cache_memoize.cache import breaker
from cache_memoize.protocol import threads
from cache_memoize.stats.counters import Stats
from cache_memoize.stats.reporter import reporter
from tests.conftest import FakeClock
from tests.servers import free_port

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 60


@pytest.fixture(autouse=True)
def nobody_else():
    """The sink and the receivers of each test go with it, and so does the thread."""
    yield
    for registry in list(prometheus._exporters):
        prometheus.disconnect(registry)
    assert reporter.join()
    assert not any(each.receivers for each in signals.ALL.values())
    caches["default"].clear()


@pytest.fixture
def registry():
    registry = CollectorRegistry()
    prometheus.connect(registry)
    reporter.flush_stats()  # what the tests before have counted
    return registry


def sample(registry, name, f, **labels):
    """What a metric of one function shows; None, if it does not."""
    reporter.flush_stats()
    stats = f if isinstance(f, Stats) else f._memoized.stats
    labels |= {"function": stats.path, "alias": stats.alias}
    return registry.get_sample_value(f"cache_memoize_{name}", labels)


def outcomes(registry, f):
    each = ("hit", "stale", "miss")
    return [sample(registry, "calls_total", f, outcome=outcome) for outcome in each]


def memoized(function, name, **options):
    """Under another name in each test: a function of it may be told of already."""
    function.__qualname__ = name
    return cache_memoize(60, prefix=name, **options)(function)


def test_what_a_function_shows(registry):
    clock = FakeClock()

    def function(x):
        clock.tick(2)
        return x

    f = memoized(function, "shown", stale=600, _clock=clock)
    for x in (1, 1, 1, 2):
        f(x)
    assert outcomes(registry, f) == [2, 0, 2]
    clock.tick(100)
    f(1)
    assert threads.join()
    assert outcomes(registry, f) == [2, 1, 2]
    assert sample(registry, "saved_seconds_total", f) == 6
    assert sample(registry, "computation_seconds_count", f) == 3
    assert sample(registry, "computation_seconds_sum", f) == 6
    assert sample(registry, "computation_seconds_bucket", f, le="2.5") == 3
    assert sample(registry, "computation_seconds_bucket", f, le="1.0") == 0
    assert sample(registry, "errors_total", f) == 0
    assert sample(registry, "waits_total", f) == 0
    f._memoized.stats.refresh_failed("key", clock, "nothing was stored")
    assert sample(registry, "failed_total", f) == 1


def test_callers_that_waited(registry):
    stats = counting("waited")
    stats.waited("key")
    assert sample(registry, "waits_total", stats) == 1


def counting(name):
    stats = Stats(name, f"{__name__}.{name}", counting)
    stats.alias = "default"
    return stats


def test_a_hit_does_not_know_of_it(registry):
    """Nobody listens to hits: not the cost of a signal is paid."""
    assert not signals.hit.receivers
    assert [name for name, each in signals.ALL.items() if each.receivers] == [
        "computed"
    ]


def test_labels_hold_no_keys_and_no_arguments(registry):
    f = memoized(lambda secret: secret, "secretive")
    f("s3cret")
    f("s3cret")
    reporter.flush_stats()
    text = generate_latest(registry).decode()
    assert "secretive" in text
    assert "s3cret" not in text and f.get_cache_key("s3cret") not in text
    names = set(re.findall(r"(\w+)=", text))
    assert names == {"function", "alias", "outcome", "le"}


def test_connecting_twice_counts_once(registry):
    prometheus.connect(registry)
    f = memoized(lambda: 1, "twice")
    f()
    assert outcomes(registry, f) == [0, 0, 1]
    assert sample(registry, "computation_seconds_count", f) == 1


def test_two_registries_are_both_told(registry):
    other = CollectorRegistry()
    prometheus.connect(other)
    f = memoized(lambda: 1, "both")
    f()
    for each in (registry, other):
        assert outcomes(each, f) == [0, 0, 1]
    prometheus.disconnect(other)
    prometheus.disconnect(other)
    assert generate_latest(other) == b""
    f()
    assert outcomes(registry, f) == [1, 0, 1]


def test_what_was_read_in_the_middle_of_a_call_is_told_later_and_whole(registry):
    reporter.flush_stats()  # what other functions have counted
    stats = counting("halfway")
    stats.missed("key")
    stats.stale += 1
    assert not reporter.flush_stats() and outcomes(registry, stats) == [None] * 3
    stats.hits += 1
    assert reporter.flush_stats() and outcomes(registry, stats) == [0, 1, 1]


def test_the_state_of_the_breaker(registry, monkeypatch):
    broken = breaker.breaker_of("default")

    def state():
        prometheus._exporters[registry].update_breakers()
        return registry.get_sample_value(
            "cache_memoize_breaker_state", {"alias": "default"}
        )

    assert state() == 0
    for _ in range(breaker.THRESHOLD):
        broken.failure(time.monotonic())
    assert state() == 2
    monkeypatch.setattr(breaker, "PAUSE", 0)
    broken._retry_at = 0
    assert state() == 1
    assert not broken.blocks(time.monotonic())
    broken.success()
    assert state() == 0


def test_errors_are_counted_with_the_breaker(registry, monkeypatch):
    def broken(*args, **kwargs):
        raise OSError("down")

    f = memoized(lambda: 1, "unlucky")
    monkeypatch.setattr(type(caches["default"]), "get", broken)
    for _ in range(breaker.THRESHOLD):
        f()
    assert sample(registry, "errors_total", f) == breaker.THRESHOLD
    name, labels = "cache_memoize_breaker_state", {"alias": "default"}
    assert registry.get_sample_value(name, labels) == 2


def test_it_is_told_by_itself_every_few_seconds(registry):
    with override_settings(CACHE_MEMOIZE={"STATS_INTERVAL": 0.01}):
        f = memoized(lambda: 1, "by_itself")
        f()
        labels = {"function": f._memoized.path, "alias": "default"}
        name = "cache_memoize_saved_seconds_total"
        until(lambda: registry.get_sample_value(name, labels) is not None)


def until(condition: Callable[[], object], seen: Callable[[], object] = str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, seen()
        threading.Event().wait(0.02)


def test_the_page_of_django_prometheus_shows_it():
    from django_prometheus import exports

    prometheus.connect()
    assert REGISTRY in prometheus._exporters
    f = memoized(lambda: 1, "on_the_page")
    f()
    reporter.flush_stats()
    page = exports.ExportToDjangoView(RequestFactory().get("/metrics")).content.decode()
    path = f._memoized.path
    assert (
        f'cache_memoize_calls_total{{alias="default",function="{path}",outcome="miss"}}'
        " 1.0" in page
    )


# --- several processes ---------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_fork_waits_for_what_is_being_told(registry):
    """The client's locks would be copied as they are, and nobody opens the copies."""
    calls = prometheus._exporters[registry].calls
    labels, inside, go = calls.labels, threading.Event(), threading.Event()

    def slow(*args):
        with calls._lock:
            inside.set()
            assert go.wait(PATIENCE)
            time.sleep(0.2)  # a fork that does not wait is made now
        return labels(*args)

    stats = counting("forked")
    stats.missed("key")
    calls.labels = slow
    teller = threading.Thread(target=reporter.flush_stats)
    teller.start()
    assert inside.wait(PATIENCE)
    os.register_at_fork(before=go.set)
    child = os.fork()
    if not child:  # pragma: no cover
        signal.alarm(10)
        labels("f", "default", "hit").inc()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    teller.join()


@pytest.fixture
def site(tmp_path):
    """Two gunicorn workers, forked from a process that had made calls."""
    port, metrics = free_port(), tmp_path / "metrics"
    metrics.mkdir()
    options = ["--workers", "2", "--preload", "--bind", f"127.0.0.1:{port}"]
    environment = os.environ | {
        "PROMETHEUS_MULTIPROC_DIR": str(metrics),
        "MEMOIZE_FOLDER": str(tmp_path / "cache"),
        "PYTHONPATH": str(ROOT),
    }
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    with (
        (tmp_path / "log").open("w+") as log,
        subprocess.Popen(
            [sys.executable, "-m", "gunicorn", *options, "tests.metrics:application"],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        url = f"http://127.0.0.1:{port}/"
        try:
            until(lambda: process.poll() is not None or read(f"{url}metrics"))
            yield url
        finally:
            process.terminate()
            process.wait(PATIENCE)
            log.seek(0)
            text = log.read()
    assert "Traceback" not in text, text


def read(url):
    try:
        with urlopen(url, timeout=PATIENCE) as response:
            return response.read().decode()
    except URLError:
        return ""


def shown(url):
    """[hits, misses, computations] of all processes."""
    page = read(f"{url}metrics")
    found = [
        re.search(rf"^cache_memoize_{name}.* ([\d.]+)$", page, re.M)
        for name in (
            'calls_total{.*outcome="hit"',
            'calls_total{.*outcome="miss"',
            "computation_seconds_count",
        )
    ]
    return [float(each[1]) for each in found if each]


def test_the_workers_of_a_site_are_summed_up(site):
    """What was counted before the fork counts once, and what a worker that has ended
    had counted still does."""
    visits: list[int] = []

    def seen():
        return shown(site), visits

    until(lambda: shown(site) == [4, 1, 1], seen)
    visits += [visit(site)]
    while len({*visits}) < 2:
        visits.append(visit(site))
    # One of them computed.
    until(lambda: shown(site) == [4 + len(visits) - 1, 2, 2], seen)
    for worker in {*visits}:
        os.kill(worker, signal.SIGTERM)
    while len({*visits}) < 3:
        visits.append(visit(site))
    # Both have ended and others have begun: nothing is lost, and nothing comes twice.
    until(lambda: shown(site)[0] >= 4 + len(visits) - 1, seen)
    assert shown(site) == [4 + len(visits) - 1, 2, 2]


def visit(site):
    """The number of the worker that has made the call."""
    return int(read(site))


def test_without_the_extra_the_import_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.delitem(sys.modules, "cache_memoize.prometheus")
    with pytest.raises(ModuleNotFoundError, match=r"memoize\[prometheus\]'$") as caught:
        importlib.import_module("cache_memoize.prometheus")
    assert caught.value.name == "prometheus_client"
