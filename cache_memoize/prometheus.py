"""Metrics for Prometheus: ``connect()`` once, where the project starts.

Counters are fed every few seconds (``CACHE_MEMOIZE["STATS_INTERVAL"]``) with what has
come since, so a hit does not know of them, and after a fork each process tells its own.
Labels are the path of the function and the alias of its cache, never a key.

In multiprocess mode (``PROMETHEUS_MULTIPROC_DIR``) the client adds up what all
processes have told, those that have ended too.
"""

from __future__ import annotations

import threading
import time
from typing import Any

try:
    from prometheus_client import (
        REGISTRY,
        CollectorRegistry,
        Counter,
        Gauge,
        Histogram,
    )
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"cache_memoize.prometheus: {error}; "
        "pip install 'django-cache-memoize[prometheus]'",
        name=error.name,
    ) from error

from . import signals
from .cache.breaker import breaker_of, known
from .signals import Event
from .stats.reporter import reporter
from .stats.totals import Totals

__all__ = ["BUCKETS", "connect", "disconnect"]

#: Upper bounds of the histogram, in seconds: from what is hardly worth a cache on.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

_LABELS = ("function", "alias")
#: The states of a breaker, by the value of their gauge.
_STATES = ("closed", "half-open", "open")

#: Held while metrics are changed, and while a process forks: the client's own locks
#: would else be copied as they are, and a worker would wait for them for ever.
_lock = threading.RLock()
reporter.guarded.append(_lock)


class Exporter:
    """The metrics of one registry, and who feeds them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry

        def counter(name: str, text: str, *more: str) -> Counter:
            labels = (*_LABELS, *more)
            return Counter(f"cache_memoize_{name}", text, labels, registry=registry)

        self.calls = counter(
            "calls",
            "Calls of memoized functions: served fresh, served stale, or computed.",
            "outcome",
        )
        self.waits = counter(
            "waits", "Callers that began to wait for another's computation."
        )
        self.errors = counter(
            "errors", "Failures of the cache that a function had to do without."
        )
        self.saved = counter(
            "saved_seconds", "Seconds of computation that hits made unnecessary."
        )
        self.computations = Histogram(
            "cache_memoize_computation_seconds",
            "Seconds that memoized functions ran, in the background too.",
            _LABELS,
            buckets=BUCKETS,
            registry=registry,
        )
        self.breaker = Gauge(
            "cache_memoize_breaker_state",
            "Circuit breaker of a cache: 0 closed, 1 half-open, 2 open.",
            ("alias",),
            multiprocess_mode="livemax",  # the worst of the living processes
            registry=registry,
        )
        self.metrics = (
            self.calls,
            self.waits,
            self.errors,
            self.saved,
            self.computations,
            self.breaker,
        )

    def connect(self) -> None:
        reporter.add(self.tell)
        reporter.after.append(self.look)
        signals.computed.connect(self.computed)

    def disconnect(self) -> None:
        reporter.remove(self.tell)
        reporter.after.remove(self.look)
        signals.computed.disconnect(self.computed)
        for metric in self.metrics:
            self.registry.unregister(metric)

    def tell(self, source: Any, new: Totals) -> None:
        """Add what one function has counted since the last time."""
        if not new.is_whole:
            raise ValueError("counted meanwhile")  # then it is told again, later
        labels, fresh = (source.path, source.alias), new.hits - new.stale
        outcomes = {"hit": fresh, "stale": new.stale, "miss": new.misses}
        with _lock:
            for outcome, number in outcomes.items():
                self.calls.labels(*labels, outcome).inc(number)
            self.waits.labels(*labels).inc(new.waits)
            self.errors.labels(*labels).inc(new.errors)
            self.saved.labels(*labels).inc(new.saved)
            self.look(source.alias)

    def look(self, *aliases: str) -> None:
        now = time.monotonic()
        with _lock:
            for alias in aliases or known():
                state = breaker_of(alias).state(now)
                self.breaker.labels(alias).set(_STATES.index(state))

    def computed(self, event: Event, **kwargs: Any) -> None:
        with _lock:
            of = self.computations.labels(event.function, event.alias)
            of.observe(event.seconds)


_exporters: dict[CollectorRegistry, Exporter] = {}


def connect(registry: CollectorRegistry = REGISTRY) -> None:
    """Export the figures of all memoized functions of this process.

    :param registry: where the metrics are registered; the default one is what
        ``django-prometheus`` and ``start_http_server()`` show. A second call for the
        same registry does nothing.
    :raises ValueError: if the registry has metrics with these names from elsewhere.
    """
    if registry not in _exporters:
        exporter = Exporter(registry)
        exporter.connect()
        _exporters[registry] = exporter


def disconnect(registry: CollectorRegistry = REGISTRY) -> None:
    """Undo :func:`connect`: the metrics are gone from the registry."""
    exporter = _exporters.pop(registry, None)
    if exporter is not None:
        exporter.disconnect()
