"""Metrics and span events for OpenTelemetry, as the SDK collects them."""

from __future__ import annotations

import gc
import importlib
import os
import sys
import time

import pytest
from django.core.cache import caches
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from cache_memoize import cache_memoize, opentelemetry, signals
from cache_memoize.cache import breaker
from cache_memoize.protocol import threads
from cache_memoize.stats.counters import Stats
from tests.conftest import FakeClock

NAMES = {
    "cache_memoize.calls",
    "cache_memoize.waits",
    "cache_memoize.errors",
    "cache_memoize.failed",
    "cache_memoize.near",
    "cache_memoize.saved",
    "cache_memoize.stored",
    "cache_memoize.stored_bytes",
    "cache_memoize.too_large",
    "cache_memoize.invalidations",
    "cache_memoize.audited",
    "cache_memoize.wrong",
    "cache_memoize.cache.breaker.state",
    "cache_memoize.computation.duration",
}


class Collector:
    """A meter provider whose metrics can be read."""

    def __init__(self):
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider([self.reader])

    def metrics(self):
        data = self.reader.get_metrics_data()
        return {
            metric.name: metric
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def points(self, name, path):
        metric = self.metrics().get(f"cache_memoize.{name}")
        return [
            point
            for point in (metric.data.data_points if metric else ())
            if point.attributes.get("code.function.name") == path
        ]

    def value(self, name, path, **attributes):
        for point in self.points(name, path):
            named = {k.rpartition(".")[2]: v for k, v in point.attributes.items()}
            if attributes.items() <= named.items():
                return point.value
        return None

    def calls(self, path):
        each = ("hit", "stale", "miss")
        return [self.value("calls", path, outcome=outcome) for outcome in each]


@pytest.fixture
def collector():
    collector = Collector()
    opentelemetry.connect(collector.provider)
    yield collector
    opentelemetry.disconnect(collector.provider)
    collector.provider.shutdown()
    assert not any(each.receivers for each in signals.ALL.values())
    caches["default"].clear()


def memoized(function, name, **options):
    function.__qualname__ = name
    return cache_memoize(60, prefix=name, **options)(function), f"{__name__}.{name}"


def test_what_a_function_shows(collector):
    clock = FakeClock()

    def function(x):
        clock.tick(2)
        return x

    f, path = memoized(function, "shown", stale=600, _clock=clock)
    for x in (1, 1, 1, 2):
        f(x)
    assert collector.calls(path) == [2, 0, 2]
    clock.tick(100)
    f(1)
    assert threads.join()
    assert collector.calls(path) == [2, 1, 2]
    assert collector.value("saved", path, alias="default") == 6
    assert collector.value("errors", path) == collector.value("waits", path) == 0
    f._memoized.stats.refresh_failed("key", clock, "nothing was stored")
    assert collector.value("failed", path) == 1
    (point,) = collector.points("computation.duration", path)
    assert (point.count, point.sum) == (3, 6)
    assert point.explicit_bounds == opentelemetry.BUCKETS


def test_names_units_and_attributes(collector):
    f, path = memoized(lambda secret: secret, "secretive")
    f("s3cret")
    metrics = collector.metrics()
    assert metrics.keys() == NAMES
    units = {name: metric.unit for name, metric in metrics.items()}
    assert units["cache_memoize.saved"] == "s"
    assert units["cache_memoize.computation.duration"] == "s"
    assert units["cache_memoize.calls"] == "{call}"
    assert all(metric.description for metric in metrics.values())
    names = {
        name
        for metric in metrics.values()
        for point in metric.data.data_points
        for name in point.attributes
    }
    assert names == {
        "code.function.name",
        "cache_memoize.alias",
        "cache_memoize.outcome",
    }
    everything = str(metrics)
    assert path in everything
    assert "s3cret" not in everything and f.get_cache_key("s3cret") not in everything


def test_a_hit_does_not_know_of_it(collector):
    heard = [name for name, each in signals.ALL.items() if each.receivers]
    assert heard == ["computed"]


def test_connecting_twice_counts_once(collector):
    opentelemetry.connect(collector.provider)
    f, path = memoized(lambda: 1, "twice")
    f()
    assert collector.calls(path) == [0, 0, 1]


def test_two_providers_see_the_same(collector):
    other = Collector()
    opentelemetry.connect(other.provider)
    f, path = memoized(lambda: 1, "both")
    f()
    assert collector.calls(path) == other.calls(path) == [0, 0, 1]
    opentelemetry.disconnect(other.provider)
    opentelemetry.disconnect(other.provider)
    f()
    assert collector.calls(path) == [1, 0, 1]
    assert other.calls(path) == [None, None, None]
    other.provider.shutdown()


def test_the_global_provider_may_be_set_later():
    """Before it is, everything goes nowhere."""
    opentelemetry.connect()
    f, _ = memoized(lambda: 1, "nowhere")
    assert f() == 1
    opentelemetry.disconnect()
    assert not signals.computed.receivers


def test_what_a_function_that_is_gone_has_counted_stays(collector):
    for expected in (1, 2):
        f, path = memoized(lambda: 1, "gone")
        f.refresh()
        assert collector.value("calls", path, outcome="miss") == expected
        del f
        gc.collect()
        assert collector.value("calls", path, outcome="miss") == expected


def test_what_was_read_in_the_middle_of_a_call_comes_later_and_whole(collector):
    stats = Stats("halfway", "halfway", memoized)
    stats.alias = "default"
    stats.missed("key")
    stats.stale += 1
    assert collector.calls(stats.path) == [None] * 3
    stats.hits += 1
    assert collector.calls(stats.path) == [0, 1, 1]


def test_the_state_of_the_breaker(collector):
    broken = breaker.breaker_of("default")

    def state():
        data = collector.metrics()["cache_memoize.cache.breaker.state"].data
        (value,) = (
            point.value
            for point in data.data_points
            if point.attributes == {"cache_memoize.alias": "default"}
        )
        return value

    assert state() == 0
    broken.failure(time.monotonic(), hanging=True)
    assert state() == 2
    broken._retry_at = 0
    assert state() == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_forked_process_tells_its_own_only(collector):
    f, path = memoized(lambda: 1, "forked")
    f()
    assert collector.calls(path) == [0, 0, 1]
    read, write = os.pipe()
    child = os.fork()
    if not child:  # pragma: no cover
        try:
            f()
            os.write(write, repr(collector.calls(path)).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read) as pipe:
        assert pipe.read() == "[1, 0, 0]"
    f()
    assert collector.calls(path) == [1, 0, 1]


def test_what_is_done_after_a_fork(collector):
    """The same in this process, where it can be measured."""
    f, path = memoized(lambda: 1, "as_if_forked")
    f()
    opentelemetry._after_fork()
    assert collector.calls(path) == [0, 0, 0]
    f()
    assert collector.calls(path) == [1, 0, 0]


# --- spans ---------------------------------------------------------------------------


@pytest.fixture
def spans():
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider.get_tracer("tests"), exporter
    provider.shutdown()


def test_events_are_added_to_the_span_in_which_they_happen(collector, spans):
    tracer, exporter = spans
    clock = FakeClock()
    f, path = memoized(lambda secret: clock.tick(2), "traced", _clock=clock)
    opentelemetry.connect(collector.provider, spans=True)
    f("before")  # in no span
    with tracer.start_as_current_span("view"):
        f("s3cret")
        f("s3cret")
        f.invalidate("s3cret")
    f("after")
    (span,) = exporter.get_finished_spans()
    names = [event.name.removeprefix("cache_memoize.") for event in span.events]
    assert names == ["miss", "computed", "hit", "invalidated"]
    function = {"code.function.name": path, "cache_memoize.alias": "default"}
    assert [dict(event.attributes) for event in span.events] == [
        function,
        {**function, "cache_memoize.seconds": 2.0},
        {**function, "cache_memoize.seconds": 2.0},
        function,
    ]


def test_an_error_says_what_failed(collector, spans, monkeypatch):
    def broken(*args, **kwargs):
        raise OSError("s3cret")

    tracer, exporter = spans
    f, _ = memoized(lambda: 1, "unlucky")
    opentelemetry.connect(collector.provider, spans=True)
    monkeypatch.setattr(type(caches["default"]), "get", broken)
    with tracer.start_as_current_span("view"):
        f()
    (span,) = exporter.get_finished_spans()
    assert span.events[0].name == "cache_memoize.error"
    said = span.events[0].attributes["cache_memoize.detail"]
    assert said == "the cache failed before the call"


def test_span_events_can_be_switched_off_again(collector, spans):
    tracer, exporter = spans
    opentelemetry.connect(collector.provider, spans=True)
    assert signals.hit.receivers
    opentelemetry.connect(collector.provider, spans=True)
    opentelemetry.connect(collector.provider)
    assert not signals.hit.receivers and signals.computed.receivers


def test_without_the_extra_the_import_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.delitem(sys.modules, "cache_memoize.opentelemetry")
    with pytest.raises(
        ModuleNotFoundError, match=r"memoize\[opentelemetry\]'$"
    ) as caught:
        importlib.import_module("cache_memoize.opentelemetry")
    assert caught.value.name == "opentelemetry"
