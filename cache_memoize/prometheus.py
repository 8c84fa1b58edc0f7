"""Metrics for Prometheus: call :func:`connect` once, where the project starts.

Counters are updated every few seconds (``CACHE_MEMOIZE["STATS_INTERVAL"]``) with the
new counts, so they cost a hit nothing, and after a fork each process reports its own.
Labels are the path of the function and the alias of its cache, never a key.

In multiprocess mode (``PROMETHEUS_MULTIPROC_DIR``) the client adds up the reports of
all processes, also of those that have ended.
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

#: Upper bounds of the histogram, in seconds, from computations hardly worth a cache.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

_LABELS = ("function", "alias")
#: The states of a breaker, by the value of their gauge.
_STATES = ("closed", "half-open", "open")
#: Counters by their fields in the totals: name and help.
_COUNTERS = {
    "waits": ("waits", "Callers that began to wait for another's computation."),
    "errors": ("errors", "Failures of the cache that a function had to do without."),
    "failed": ("failed", "Refreshes that stored nothing: the old value is served."),
    "near": ("near", "Hits whose entry was a copy in the memory of the process."),
    "too_large": ("too_large", "Results that were too large to be stored."),
    "invalidations": ("invalidations", "Invalidations of a call, or of all."),
    "audited": ("audited", "Hits that were computed again, and compared."),
    "wrong": ("wrong", "Audited hits whose value was wrong."),
    "stored": ("stored", "Entries that were stored."),
    "stored_bytes": ("stored_bytes", "Bytes of the entries that were stored."),
    "saved": ("saved_seconds", "Seconds of computation that hits made unnecessary."),
}

#: Held while metrics change, and while a process forks: otherwise a worker could
#: inherit a lock of the client that is held, and wait for it for ever.
_lock = threading.RLock()
reporter.guarded.append(_lock)


class Exporter:
    """The metrics of one registry, and the receivers that update them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.calls = Counter(
            "cache_memoize_calls",
            "Calls of memoized functions: served fresh, served stale, or computed.",
            (*_LABELS, "outcome"),
            registry=registry,
        )
        self.counters = {
            field: Counter(f"cache_memoize_{name}", text, _LABELS, registry=registry)
            for field, (name, text) in _COUNTERS.items()
        }
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

    def connect_signals(self) -> None:
        reporter.add(self.add_counts)
        reporter.after.append(self.update_breakers)
        signals.computed.connect(self.observe_duration)

    def disconnect_signals(self) -> None:
        reporter.remove(self.add_counts)
        reporter.after.remove(self.update_breakers)
        signals.computed.disconnect(self.observe_duration)
        metrics = self.calls, *self.counters.values(), self.computations, self.breaker
        for metric in metrics:
            self.registry.unregister(metric)

    def add_counts(self, source: Any, new: Totals) -> None:
        """Add the new counts of one function."""
        if not source.path:
            return  # of a cache
        if not new.is_whole:
            raise ValueError("read in the middle of a call")  # reported again, later
        labels, fresh = (source.path, source.alias), new.hits - new.stale
        outcomes = {"hit": fresh, "stale": new.stale, "miss": new.misses}
        with _lock:
            for outcome, number in outcomes.items():
                self.calls.labels(*labels, outcome).inc(number)
            for field, counter in self.counters.items():
                counter.labels(*labels).inc(getattr(new, field))
            self.update_breakers(source.alias)

    def update_breakers(self, *aliases: str) -> None:
        now = time.monotonic()
        with _lock:
            for alias in aliases or known():
                state = breaker_of(alias).state(now)
                self.breaker.labels(alias).set(_STATES.index(state))

    def observe_duration(self, event: Event, **kwargs: Any) -> None:
        with _lock:
            labels = event.function, event.alias
            self.computations.labels(*labels).observe(event.seconds)


_exporters: dict[CollectorRegistry, Exporter] = {}


def connect(registry: CollectorRegistry = REGISTRY) -> None:
    """Export the figures of all memoized functions of this process.

    :param registry: of the metrics; ``django-prometheus`` and ``start_http_server()``
        export the default one. A second call for the same registry does nothing.
    :raises ValueError: if the registry has other metrics with these names.
    """
    if registry not in _exporters:
        exporter = Exporter(registry)
        exporter.connect_signals()
        _exporters[registry] = exporter


def disconnect(registry: CollectorRegistry = REGISTRY) -> None:
    """Undo :func:`connect`: remove the metrics from the registry."""
    exporter = _exporters.pop(registry, None)
    if exporter is not None:
        exporter.disconnect_signals()
