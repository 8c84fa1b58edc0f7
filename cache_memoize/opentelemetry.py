"""Metrics and optional span events for OpenTelemetry: call :func:`connect` once.

Only the API is imported: without an SDK nothing happens. Counters are read when they
are collected, so they cost a hit nothing. Attributes are the path of the function and
the alias of its cache, never a key.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any
from weakref import WeakKeyDictionary

try:
    from opentelemetry import trace
    from opentelemetry.metrics import (
        CallbackOptions,
        MeterProvider,
        Observation,
        get_meter,
    )
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"cache_memoize.opentelemetry: {error}; "
        "pip install 'django-cache-memoize[opentelemetry]'",
        name=error.name,
    ) from error

from . import process, signals
from .cache import breaker
from .signals import Event
from .stats.reporter import reporter
from .stats.totals import Totals

__all__ = ["BUCKETS", "connect", "disconnect"]

FUNCTION = "code.function.name"
ALIAS = "cache_memoize.alias"
OUTCOME = "cache_memoize.outcome"

#: Upper bounds of the histogram, in seconds.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

#: The states of a breaker, by the value of their gauge.
_STATES = ("closed", "half-open", "open")
#: Counters of one field of the totals: the field, the unit and the description.
_COUNTERS = {
    "cache_memoize.waits": ("waits", "{wait}", "Callers that began to wait."),
    "cache_memoize.errors": ("errors", "{error}", "Failures of the cache."),
    "cache_memoize.failed": ("failed", "{refresh}", "Refreshes that stored nothing."),
    "cache_memoize.near": ("near", "{call}", "Hits from the memory of the process."),
    "cache_memoize.too_large": ("too_large", "{result}", "Results not stored."),
    "cache_memoize.invalidations": ("invalidations", "{call}", "Invalidations."),
    "cache_memoize.audited": ("audited", "{call}", "Hits that were compared."),
    "cache_memoize.wrong": ("wrong", "{call}", "Audited hits that were wrong."),
    "cache_memoize.stored": ("stored", "{entry}", "Entries that were stored."),
    "cache_memoize.stored_bytes": ("stored_bytes", "By", "Bytes of these entries."),
    "cache_memoize.saved": ("saved", "s", "Computation that hits made unnecessary."),
}


class Exporter:
    """The instruments of one meter provider."""

    def __init__(self, provider: MeterProvider | None) -> None:
        self.closed = False
        self.spans = False
        self._lock = threading.Lock()
        #: Totals already in the sums, which keep those of functions that are gone:
        #: a counter must not fall.
        self._seen: WeakKeyDictionary[Any, Totals] = WeakKeyDictionary()
        self._sums: dict[tuple[str, str], Totals] = {}
        meter = get_meter("cache_memoize", meter_provider=provider)
        meter.create_observable_counter(
            "cache_memoize.calls",
            [self._make_callback(self._observe_calls)],
            unit="{call}",
            description="Calls: served fresh, served stale, or computed.",
        )
        for name, (field, unit, text) in _COUNTERS.items():
            meter.create_observable_counter(
                name,
                [self._make_callback(functools.partial(self._observe_field, field))],
                unit=unit,
                description=text,
            )
        meter.create_observable_gauge(
            "cache_memoize.cache.breaker.state",
            [self._make_callback(self._observe_breakers)],
            description="Circuit breaker of a cache: 0 closed, 1 half-open, 2 open.",
        )
        self._duration = meter.create_histogram(
            "cache_memoize.computation.duration",
            unit="s",
            description="How long memoized functions ran, in the background too.",
            explicit_bucket_boundaries_advisory=BUCKETS,
        )
        signals.computed.connect(self._record_duration)

    def stop_observing(self) -> None:
        """Stop observing. Instruments cannot be removed."""
        self.closed = True
        self.set_spans(False)
        signals.computed.disconnect(self._record_duration)

    def set_spans(self, spans: bool) -> None:
        for signal in signals.ALL.values() if spans != self.spans else ():
            if spans:
                signal.connect(self._add_span_event)
            else:
                signal.disconnect(self._add_span_event)
        self.spans = spans

    def _make_callback(
        self, observe: Callable[[], Iterable[Observation]]
    ) -> Callable[[CallbackOptions], Iterable[Observation]]:
        return lambda options: [] if self.closed else observe()

    def update_sums(self) -> dict[tuple[str, str], Totals]:
        """Return the totals of this process, by function and alias."""
        with self._lock:
            for source in reporter.sources():
                now = source.totals()
                new = now.minus(self._seen.get(source, Totals()))
                if new.is_whole:  # else the next time; a counter must not fall
                    self._seen[source] = now
                    name = source.path, source.alias
                    self._sums[name] = self._sums.get(name, Totals()).plus(new)
            return dict(self._sums)

    def after_fork(self) -> None:
        """Begin with zero: the parent goes on reporting its own counts."""
        self._lock = threading.Lock()
        for source in reporter.sources():
            self._seen[source] = source.totals()
        self._sums = {}

    def _observe_calls(self) -> Iterable[Observation]:
        for (function, alias), of in self.update_sums().items():
            outcomes = ("hit", of.hits - of.stale), ("stale", of.stale)
            for outcome, number in *outcomes, ("miss", of.misses):
                named = {FUNCTION: function, ALIAS: alias, OUTCOME: outcome}
                yield Observation(number, named)

    def _observe_field(self, name: str) -> Iterable[Observation]:
        for (function, alias), of in self.update_sums().items():
            yield Observation(getattr(of, name), {FUNCTION: function, ALIAS: alias})

    def _observe_breakers(self) -> Iterable[Observation]:
        for alias in breaker.known():
            state = breaker.breaker_of(alias).state(time.monotonic())
            yield Observation(_STATES.index(state), {ALIAS: alias})

    def _record_duration(self, event: Event, **kwargs: Any) -> None:
        named = {FUNCTION: event.function, ALIAS: event.alias}
        self._duration.record(event.seconds, named)

    def _add_span_event(self, event: Event, **kwargs: Any) -> None:
        span = trace.get_current_span()
        if not span.is_recording():
            return
        named: dict[str, str | float] = {FUNCTION: event.function, ALIAS: event.alias}
        if event.seconds:
            named["cache_memoize.seconds"] = event.seconds
        if event.detail:
            named["cache_memoize.detail"] = event.detail
        span.add_event(f"cache_memoize.{event.kind}", named)


_exporters: dict[MeterProvider | None, Exporter] = {}


def connect(
    meter_provider: MeterProvider | None = None, *, spans: bool = False
) -> None:
    """Export the figures of all memoized functions of this process.

    :param meter_provider: None for the global one, which may be set later. A second
        call for the same provider only changes ``spans``.
    :param spans: whether each event is also added to the current span, which makes
        hits slower.
    """
    if meter_provider not in _exporters:
        _exporters[meter_provider] = Exporter(meter_provider)
    _exporters[meter_provider].set_spans(spans)


def disconnect(meter_provider: MeterProvider | None = None) -> None:
    """Undo :func:`connect`: stop observing."""
    exporter = _exporters.pop(meter_provider, None)
    if exporter is not None:
        exporter.stop_observing()


@process.after_fork
def _after_fork() -> None:
    for exporter in _exporters.values():
        exporter.after_fork()
