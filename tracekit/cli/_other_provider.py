"""Living with a program under ``tracekit run`` that sets a TracerProvider of its own."""

from __future__ import annotations

import logging
from typing import Any

from opentelemetry import trace as trace_api

from tracekit.configure import TracerProvider
from tracekit.interfaces import ReadableSpan, SpanProcessor

__all__ = ["JoinedPipeline", "make_room"]

_logger = logging.getLogger("tracekit")

_ONCE = "_TRACER_PROVIDER_SET_ONCE"


class JoinedPipeline(SpanProcessor):
    """Give the spans of the program's own provider to the processors of ours as well."""

    def __init__(self, ours: TracerProvider) -> None:
        self._ours = ours

    def _on_ending(self, span: Any) -> None:
        """Do nothing; opentelemetry-sdk calls this before ``on_end``."""

    def on_end(self, span: ReadableSpan) -> None:
        for processor in self._ours.span_processors:
            processor.on_end(span)


def make_room(ours: TracerProvider) -> None:
    """Let the program set the global provider, once, as if tracekit had not done so before it.

    OpenTelemetry sets the global provider only once: ours, which came first, would make the
    program's own call a warning and no more, and its spans would never reach its back end. So
    its provider replaces ours as the global one and our processors listen in on it. The spans
    of ``tracekit.instrument()`` stay with ours; all of them share the current context, hence
    the traces.
    """
    original = trace_api.set_tracer_provider

    def set_tracer_provider(tracer_provider: trace_api.TracerProvider) -> None:
        if trace_api.get_tracer_provider() is ours and hasattr(trace_api, _ONCE):
            setattr(trace_api, _ONCE, type(getattr(trace_api, _ONCE))())
            original(tracer_provider)
            _listen_in(tracer_provider, ours)
        else:
            original(tracer_provider)

    if trace_api.get_tracer_provider() is ours:
        trace_api.set_tracer_provider = set_tracer_provider


def _listen_in(theirs: Any, ours: TracerProvider) -> None:
    try:
        theirs.add_span_processor(JoinedPipeline(ours))
    except Exception:
        _logger.debug("no processor can be added to %r", theirs, exc_info=True)
