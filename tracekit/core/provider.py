"""The TracerProvider: hands out tracers, and joins them to the parts that spans pass through."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Sequence
from typing import Any

from opentelemetry import trace as trace_api
from opentelemetry.context import Context
from opentelemetry.trace import Link, NoOpTracer, SpanKind

from tracekit import _fork as fork
from tracekit import semconv
from tracekit.core import exit_hooks
from tracekit.core.binding import Binding, Parts
from tracekit.core.chain import Chain
from tracekit.core.clock import SYSTEM_CLOCK, Clock
from tracekit.core.counts import Counts
from tracekit.core.ids import RandomIdGenerator
from tracekit.core.limits import SpanLimits
from tracekit.core.lookalike import looks_like
from tracekit.core.open_spans import open_spans
from tracekit.core.resource import Resource, new_instance_id
from tracekit.core.tracer import Tracer
from tracekit.interfaces import IdGenerator, ReadableSpan, Sampler
from tracekit.model import Attributes, Decision, InstrumentationScope, SamplingResult
from tracekit.model import Resource as PlainResource

__all__ = ["DEFAULT_EXIT_S", "TracerProvider"]

_logger = logging.getLogger("tracekit")

DEFAULT_EXIT_S = 5.0
"""How long shutting down waits for what is still queued."""
SHARE_FOR_UNFINISHED = 0.2
"""Of that time, at most, for noting which spans are open."""


class TracerProvider(trace_api.TracerProvider):
    """Hand out tracers that share a sampler, a resource, limits and span processors.

    The parts can be replaced while tracers are in use: tracers follow, spans that are under
    way keep the parts that they were started with.

    Args:
        sampler: Decides about root spans, and others if it wants to.
        resource: What the spans are of; detected when not given.
        shutdown_on_exit: Flush and stop, within a few seconds, when the interpreter exits.
        id_generator: Random ids when not given.
        span_limits: From the environment when not given.
        clock: For tests that need known times.

    Concurrency: all methods may be called from any thread.
    Source: https://opentelemetry.io/docs/specs/otel/trace/sdk/#tracer-provider
    """

    def __init__(
        self,
        sampler: Sampler,
        resource: PlainResource | None = None,
        shutdown_on_exit: bool = True,
        id_generator: IdGenerator | None = None,
        span_limits: SpanLimits | None = None,
        *,
        clock: Clock = SYSTEM_CLOCK,
        exit_timeout_s: float = DEFAULT_EXIT_S,
    ) -> None:
        self._lock = threading.RLock()
        self._tracers: dict[InstrumentationScope, Tracer] = {}
        self._counts = Counts()
        self._shutdown_on_exit = shutdown_on_exit
        self._exit_registered = False
        self._exit_timeout_s = exit_timeout_s
        self._is_shut_down = False
        self._chain = Chain((), self._counts)
        self._parts = Parts(
            sampler,
            id_generator or RandomIdGenerator(),
            span_limits or SpanLimits(),
            resource if resource is not None else Resource.create(),
            clock,
        )
        self._said_nameless = False
        fork.on_fork_in_child(self)
        _report_malformed_switch()

    __class__ = looks_like("TracerProvider")  # pyright: ignore[reportIncompatibleMethodOverride]

    @property
    def resource(self) -> PlainResource:
        return self._parts.resource

    @property
    def sampler(self) -> Sampler:
        return self._parts.sampler

    @property
    def id_generator(self) -> IdGenerator:
        return self._parts.id_generator

    @property
    def span_processors(self) -> tuple[Any, ...]:
        return self._chain.processors

    def get_tracer(
        self,
        instrumenting_module_name: str,
        instrumenting_library_version: str | None = None,
        schema_url: str | None = None,
        attributes: Attributes | None = None,
    ) -> trace_api.Tracer:
        """Return the tracer of that instrumentation scope, always the same one."""
        if _is_disabled():
            return NoOpTracer()
        if not instrumenting_module_name and not self._said_nameless:
            self._said_nameless = True
            _logger.warning("a tracer was asked for without a name; told once")
        scope = InstrumentationScope(
            instrumenting_module_name or "",
            instrumenting_library_version or "",
            schema_url or "",
            dict(attributes or {}),
        )
        with self._lock:
            tracer = self._tracers.get(scope)
            if tracer is None:
                tracer = self._tracers[scope] = Tracer(scope)
                tracer.bind(self._parts_in_force(), self._chain, self._counts)
            return tracer

    def add_span_processor(self, span_processor: Any) -> None:
        """Add a processor, ours or one written for opentelemetry-sdk, behind the others."""
        self._set_processors((*self._chain.processors, span_processor))

    def reconfigure(self, processors: Sequence[Any] | None = None, **parts: Any) -> None:
        """Replace parts while tracers are in use; processors that go are shut down.

        Args:
            parts: ``sampler``, ``resource``, ``id_generator``, ``limits``, ``clock``.
        """
        leaving = self._chain
        with self._lock:
            self._parts = self._parts._replace(**parts)
            self._is_shut_down = False
            self._set_processors(leaving.processors if processors is None else processors)
        if processors is not None:
            gone = [part for part in leaving.processors if part not in processors]
            _spare_exporters(gone, processors)
            Chain(gone, self._counts).shutdown(self._exit_timeout_s)

    def use_sampler(self, sampler: Sampler) -> None:
        """Let another sampler decide about spans that start from now on; nothing else changes."""
        with self._lock:
            self._parts = self._parts._replace(sampler=sampler)
            self._rebind()

    def _set_processors(self, processors: Sequence[Any]) -> None:
        with self._lock:
            self._chain = Chain(processors, self._counts, self._chain)
            # In a child, what tracers are bound to is made anew before they are bound to it.
            fork.on_fork_in_child(self)
            self._rebind()
            self._chain.call_when_changed(self._follow_processors)
            if processors and self._shutdown_on_exit and not self._exit_registered:
                self._exit_registered = True
                exit_hooks.add(self.shutdown)

    def _follow_processors(self) -> None:
        """Ask the processors anew what they want to be told of: one has other rules now."""
        with self._lock:
            self._chain = Chain(self._chain.processors, self._counts, self._chain)
            self._rebind()

    def _rebind(self) -> None:
        parts = self._parts_in_force()
        for tracer in self._tracers.values():
            tracer.bind(parts, self._chain, self._counts)

    def _parts_in_force(self) -> Parts:
        return self._parts._replace(sampler=_NOTHING) if self._is_shut_down else self._parts

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Hand on every span that has ended; True only if all of it arrived within the time."""
        return self._chain.force_flush(timeout_millis)

    def flush_or_keep(self, timeout_millis: int = 2_000) -> bool:
        """Leave nothing in memory, within the time: what cannot be sent now is kept on the disk.

        For a process that is about to be frozen and may never wake up again, such as one of
        AWS Lambda between two invocations.

        Returns:
            Whether all of it arrived.
        """
        return self._chain.flush_or_keep(timeout_millis)

    def shutdown(self, timeout_s: float | None = None) -> None:
        """Flush and stop within a bounded time; spans that start later are not recorded.

        Spans that are open go to the store, if that is where spans go, as unfinished ones.
        """
        with self._lock:
            if self._is_shut_down:
                return
            self._is_shut_down = True
            if self._exit_registered:
                self._exit_registered = False
                exit_hooks.remove(self.shutdown)
        timeout_s = self._exit_timeout_s if timeout_s is None else timeout_s
        deadline = time.monotonic() + timeout_s
        self._tell_unfinished(timeout_s * SHARE_FOR_UNFINISHED)
        self._chain.shutdown(max(0.1, deadline - time.monotonic()))
        with self._lock:
            self._rebind()

    def _tell_unfinished(self, timeout_s: float) -> None:
        """Note what is open, where that can be noted: whoever looks sees what was under way."""
        takers = [part for part in self.span_processors if getattr(part, "takes_unfinished", False)]
        spans = open_spans(self._is_ours) if takers and self.live() else []
        # What is open has not been through the stages that a span meets when it ends.
        for part in self.span_processors if spans else ():
            if getattr(part, "redacts_unfinished", False):
                for span in spans:
                    part.on_ending(span)
        for part in takers if spans else ():
            part.export_unfinished(spans, int(timeout_s * 1000))

    def _is_ours(self, binding: Binding) -> bool:
        # What was open when the process forked is the parent's.
        is_inherited = binding.on_end == self._inherited
        return binding.tracer in self._tracers.values() and not is_inherited

    def has_spans(self) -> bool:
        """Say whether any span was started in this process."""
        return self._counts.started.read() > 0

    def live(self) -> int:
        """Return how many spans are open, or were lost by the program without being ended."""
        ended = self._chain.ended()
        return max(0, self._counts.started.read() - ended)

    def clear(self) -> None:
        """Shut down, forget the processors and count from zero again; for tests."""
        self.shutdown()
        with self._lock:
            self._counts = Counts()
            self._chain = Chain((), self._counts)
            self._rebind()

    @property
    def is_shut_down(self) -> bool:
        return self._is_shut_down

    def stats(self) -> dict[str, Any]:
        """Return the ledger: where every started span is now."""
        # What ended is read first: a span that starts and ends meanwhile counts as live.
        chain = self._chain
        ended = chain.ended()
        counts = self._counts.read()
        live = max(0, counts["started"] - ended)
        return {**counts, "ended": ended, "live": live, "processors": chain.stats()}

    def after_fork_in_child(self) -> None:
        """Begin anew in the child: another instance id, and no spans of the parent's.

        A span that was open when the process forked exists twice; it belongs to the parent,
        so ending it in the child counts and does nothing else.
        """
        self._lock = threading.RLock()
        self._chain.after_fork_in_child()
        self._parts = self._parts._replace(resource=_renewed(self.resource))
        for tracer in self._tracers.values():
            tracer.binding.on_end = self._inherited
            tracer.binding.on_end_unsampled = self._inherited
        self._rebind()

    def _inherited(self, span: ReadableSpan) -> None:
        self._counts.inherited_by_fork.add()


def _spare_exporters(gone: Sequence[Any], staying: Sequence[Any]) -> None:
    """Keep an exporter at work that a processor takes over from one that goes."""
    kept = [exporter for part in staying for exporter in getattr(part, "exporters", ())]
    for part in gone:
        if kept and hasattr(part, "spare"):
            part.spare(kept)


class _Nothing:
    """What decides about spans after shutdown."""

    follows_local_parent = True
    threshold = 1 << 56

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes | None = None,
        links: Sequence[Link] | None = None,
    ) -> SamplingResult:
        return SamplingResult(Decision.DROP)

    def get_description(self) -> str:
        return "shut down"


_NOTHING: Sampler = _Nothing()


def _renewed(resource: PlainResource) -> PlainResource:
    """Return the resource of a forked child: its own pid and, where detected, instance id."""
    known = resource.attributes
    if semconv.SERVICE_INSTANCE_ID not in known and semconv.PROCESS_PID not in known:
        return resource
    own = {semconv.SERVICE_INSTANCE_ID: new_instance_id(), semconv.PROCESS_PID: os.getpid()}
    return resource.merge(PlainResource({key: own[key] for key in own if key in known}))


def _switch() -> str:
    return os.environ.get("OTEL_SDK_DISABLED", "").strip().lower()


def _is_disabled() -> bool:
    return _switch() == "true"


def _report_malformed_switch() -> None:
    """Say that a value which is neither true nor false counts as false.

    Source: https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/#boolean
    """
    if _switch() not in ("", "true", "false"):
        _logger.warning(
            "OTEL_SDK_DISABLED=%r counts as false: expected true or false", _switch()[:80]
        )
