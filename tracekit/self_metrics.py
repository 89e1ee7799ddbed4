"""What tracekit tells of itself as metrics, by OpenTelemetry's names, when somebody collects them.

Nothing is counted for this: each time a metric reader collects, the instruments read the ledger
that the tracer keeps anyway, so the path of a span pays nothing. Only the duration of an export
is told as it happens, by the thread that exports.

Left out of the recommended attributes is what would have to be noted for each span: the origin
of its parent, and of a live span the sampler's answer. A batch processor with several exporters
counts as one batching processor for each of them, which is what it is: each has a queue of its
own.
Source: https://opentelemetry.io/docs/specs/semconv/otel/sdk-metrics/
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary, WeakSet

from tracekit._ledger import export_watchers
from tracekit._version import __version__

__all__ = ["Watched", "observe", "observe_global"]

SAMPLING_RESULT = "otel.span.sampling_result"
COMPONENT_NAME, COMPONENT_TYPE = "otel.component.name", "otel.component.type"
ERROR_TYPE = "error.type"

PROCESSOR_TYPES = {"batch": "batching_span_processor", "simple": "simple_span_processor"}
EXPORTER_TYPES = {
    ("tracekit.exporters.otlp", "http/protobuf"): "otlp_http_span_exporter",
    ("tracekit.exporters.otlp", "http/json"): "otlp_http_json_span_exporter",
    ("tracekit.exporters.otlp", "grpc"): "otlp_grpc_span_exporter",
    ("tracekit.exporters.zipkin", None): "zipkin_http_span_exporter",
}
"""By module and protocol; other exporters are called by their class, as the conventions ask."""

ERROR_TYPES = {"after_shutdown": "already_shutdown"}
"""Our reasons where the conventions have a word for them; ``queue_full`` is one already."""

Attributes = dict[str, Any]
Measured = tuple[int, Attributes]


class Watched(Protocol):
    """What is read of a TracerProvider."""

    @property
    def span_processors(self) -> tuple[Any, ...]: ...
    def stats(self) -> dict[str, Any]: ...


class _Names:
    """Names of components: unique in this process, and the same for as long as one lives."""

    def __init__(self) -> None:
        self._known: WeakKeyDictionary[Any, list[str]] = WeakKeyDictionary()
        self._next: Counter[str] = Counter()
        self._lock = threading.Lock()

    def of(self, component: Any, kind: str, part: int = 0) -> Attributes:
        """Return the attributes that name a component, or the ``part``-th part of one."""
        with self._lock:
            try:
                names = self._known.setdefault(component, [])
            except TypeError:  # cannot be referred to weakly, or hashed
                return {COMPONENT_TYPE: kind, COMPONENT_NAME: kind}
            while len(names) <= part:
                names.append(f"{kind}/{self._next[kind]}")
                self._next[kind] += 1
            return {COMPONENT_TYPE: kind, COMPONENT_NAME: names[part]}


_names = _Names()


def _exporter_attributes(exporter: Any) -> Attributes:
    cls = type(exporter)
    protocol = getattr(getattr(exporter, "settings", None), "protocol", None)
    own_name = f"{cls.__module__}.{cls.__qualname__}"
    kind = EXPORTER_TYPES.get((cls.__module__, protocol), own_name)
    return {**_names.of(exporter, kind), **_server(getattr(exporter, "destination", None))}


def _server(destination: Any) -> Attributes:
    """Return where an exporter sends to, if it says so."""
    if not isinstance(destination, str) or ":" not in destination:
        return {}
    try:
        url = urlsplit(destination if "://" in destination else f"//{destination}")
        port = url.port or {"http": 80, "https": 443}.get(url.scheme)
    except ValueError:
        return {}
    found = {"server.address": url.hostname, "server.port": port}
    return {key: value for key, value in found.items() if value is not None}


def _failures(base: Attributes, *reasons: Mapping[str, int]) -> Iterator[Measured]:
    total: Counter[str] = Counter()
    for counted in reasons:
        total.update(counted)
    for reason, count in total.items():
        if count:
            yield count, {**base, ERROR_TYPE: ERROR_TYPES.get(reason, reason)}


def _exporters(providers: Sequence[Watched]) -> Iterator[Any]:
    for provider in providers:
        for processor in provider.span_processors:
            exporters = getattr(processor, "exporters", None)
            yield from exporters if isinstance(exporters, tuple) else ()


def _lanes(providers: Sequence[Watched]) -> Iterator[tuple[Any, int, Any, Attributes, Attributes]]:
    """Yield each processor's exporters: processor, position, exporter, and both ledgers."""
    for provider in providers:
        for processor in provider.span_processors:
            exporters = getattr(processor, "exporters", None)
            if not isinstance(exporters, tuple) or not hasattr(processor, "stats"):
                continue
            ledger = processor.stats()
            for place, lane in enumerate(ledger["exporters"]):
                yield processor, place, exporters[place], ledger, lane


# One function for each instrument: what it says now ---------------------------------------


def _started(providers: Sequence[Watched]) -> Iterator[Measured]:
    total: Counter[str] = Counter()
    for provider in providers:
        # Whoever starts meanwhile is counted as recorded before as recorded only, or not yet.
        ledger = provider.stats()
        total["DROP"] += ledger["sampled_out"] + sum(ledger["filtered"].values())
        total["RECORD_ONLY"] += ledger["recorded_only"]
        total["RECORD_AND_SAMPLE"] += max(0, ledger["started"] - ledger["recorded_only"])
    for result, count in total.items():
        yield count, {SAMPLING_RESULT: result}


def _live(providers: Sequence[Watched]) -> Iterator[Measured]:
    if providers:
        yield sum(provider.stats()["live"] for provider in providers), {}


def _queue_size(providers: Sequence[Watched]) -> Iterator[Measured]:
    for processor, place, _exporter, ledger, lane in _lanes(providers):
        if "queue_capacity" in ledger:
            waiting = ledger["queued"] + lane["pending"] - lane["exporting"]
            yield waiting, _processor_attributes(processor, ledger, place)


def _queue_capacity(providers: Sequence[Watched]) -> Iterator[Measured]:
    for processor, place, _exporter, ledger, _lane in _lanes(providers):
        if "queue_capacity" in ledger:
            yield ledger["queue_capacity"], _processor_attributes(processor, ledger, place)


def _processed(providers: Sequence[Watched]) -> Iterator[Measured]:
    for processor, place, _exporter, ledger, lane in _lanes(providers):
        own = _processor_attributes(processor, ledger, place)
        # A span is processed when it is handed to the exporter, whatever becomes of it there.
        settled = lane["exported"] + lane["spooled"] + sum(lane["failed"].values())
        yield settled + lane["exporting"], own
        yield from _failures(own, ledger["dropped"], lane["dropped"])


def _inflight(providers: Sequence[Watched]) -> Iterator[Measured]:
    for _processor, _place, exporter, _ledger, lane in _lanes(providers):
        # What waits on the disk is neither exported nor lost yet.
        kept = lane.get("delivery", {}).get("waiting", 0)
        yield lane["exporting"] + kept, _exporter_attributes(exporter)


def _exported(providers: Sequence[Watched]) -> Iterator[Measured]:
    for _processor, _place, exporter, _ledger, lane in _lanes(providers):
        own = _exporter_attributes(exporter)
        told = lane.get("delivery", {})
        if not {"sent", "rejected", "dropped"} <= set(told):
            yield lane["exported"], own
            yield from _failures(own, lane["failed"])
        else:
            # What an exporter counts itself: of a batch, some spans may have been rejected.
            spool = told.get("spool") or {"rejected": 0, "dropped": {}}
            yield told["sent"] + told.get("recovered", 0), own
            rejected = {"rejected": told["rejected"] + spool["rejected"]}
            yield from _failures(own, told["dropped"], spool["dropped"], rejected)


def _processor_attributes(processor: Any, ledger: Attributes, place: int) -> Attributes:
    return _names.of(processor, PROCESSOR_TYPES[ledger["processor"]], place)


Read = Callable[[Sequence[Watched]], Iterator[Measured]]

COUNTERS: Mapping[str, tuple[Read, str]] = {
    "otel.sdk.span.started": (_started, "The number of created spans."),
    "otel.sdk.processor.span.processed": (
        _processed,
        "The number of spans that were handed to the exporter, or that could not be.",
    ),
    "otel.sdk.exporter.span.exported": (
        _exported,
        "The number of spans whose export is over, with success or without.",
    ),
}

UP_DOWN_COUNTERS: Mapping[str, tuple[Read, str]] = {
    "otel.sdk.span.live": (_live, "The number of recording spans that have not ended yet."),
    "otel.sdk.processor.span.queue.size": (
        _queue_size,
        "The number of spans in the processor's queue.",
    ),
    "otel.sdk.processor.span.queue.capacity": (
        _queue_capacity,
        "The number of spans that the processor's queue can hold.",
    ),
    "otel.sdk.exporter.span.inflight": (
        _inflight,
        "The number of spans that the exporter was given and has not settled yet.",
    ),
}

DURATION = "otel.sdk.exporter.operation.duration"


class _Instruments:
    """The instruments on one MeterProvider, and the tracer providers that they tell of."""

    def __init__(self, meter_provider: Any) -> None:
        self.providers: WeakSet[Any] = WeakSet()
        meter = meter_provider.get_meter("tracekit", __version__)
        for name, (read, description) in COUNTERS.items():
            meter.create_observable_counter(name, [self._callback(read)], "{span}", description)
        for name, (read, description) in UP_DOWN_COUNTERS.items():
            meter.create_observable_up_down_counter(
                name, [self._callback(read)], "{span}", description
            )
        self._duration = meter.create_histogram(DURATION, "s", "How long one export took.")

    def _callback(self, read: Read) -> Callable[[Any], list[Any]]:
        from opentelemetry.metrics import Observation

        def callback(_options: Any) -> list[Any]:
            return [Observation(value, own) for value, own in read(tuple(self.providers))]

        return callback

    def tell_duration(self, exporter: object, duration_s: float, reason: str) -> None:
        if any(exporter is other for other in _exporters(tuple(self.providers))):
            own = _exporter_attributes(exporter)
            self._duration.record(duration_s, {**own, ERROR_TYPE: reason} if reason else own)


_instruments: WeakKeyDictionary[Any, _Instruments] = WeakKeyDictionary()
_lock = threading.Lock()


def observe(tracer_provider: Watched, meter_provider: Any) -> None:
    """Tell of ``tracer_provider`` through ``meter_provider``; twice is once.

    Both are held weakly: a provider that is gone is told of no more.
    """
    with _lock:
        if meter_provider not in _instruments:
            _instruments[meter_provider] = _Instruments(meter_provider)
        _instruments[meter_provider].providers.add(tracer_provider)
        if _tell_duration not in export_watchers:
            export_watchers.append(_tell_duration)


def observe_global(tracer_provider: Watched) -> None:
    """Tell through OpenTelemetry's global MeterProvider, if the program has set one."""
    from opentelemetry.metrics import get_meter_provider

    meter_provider = get_meter_provider()
    # The API's own two do nothing: one stands for a provider that may come, one for none.
    if not type(meter_provider).__module__.startswith("opentelemetry.metrics"):
        observe(tracer_provider, meter_provider)


def _tell_duration(exporter: object, duration_s: float, reason: str) -> None:
    for instruments in tuple(_instruments.values()):
        instruments.tell_duration(exporter, duration_s, reason)
