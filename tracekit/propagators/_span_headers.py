"""The steps shared by the formats that spell a span context in headers of their own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

from opentelemetry.context import Context
from opentelemetry.propagators.textmap import (
    CarrierT,
    Getter,
    Setter,
    TextMapPropagator,
    default_getter,
    default_setter,
)
from opentelemetry.trace import SpanContext, get_current_span

from tracekit.propagators._headers import Headers
from tracekit.propagators._refusal import RefusedError, count_refusal

__all__ = ["SpanHeadersPropagator"]


class SpanHeadersPropagator(TextMapPropagator):
    """A format says how it writes a span context and how it reads one; the rest is here.

    Attributes:
        refused: How often what came in could not be used, by reason.
    """

    def __init__(self) -> None:
        self.refused: dict[str, int] = {}

    @abstractmethod
    def _written(
        self, span_context: SpanContext, context: Context | None
    ) -> Iterable[tuple[str, str]]:
        """Yield the headers, (name, value), of a valid span context."""

    @abstractmethod
    def _read(self, headers: Headers[Any], context: Context) -> Context:
        """Return the context with what the headers say, or as it is when they say nothing.

        Raises:
            RefusedError: They say something that cannot be used.
        """

    def inject(
        self,
        carrier: CarrierT,
        context: Context | None = None,
        setter: Setter[CarrierT] = default_setter,
    ) -> None:
        """Write the headers of the context's span, if that has a valid span context."""
        span_context = get_current_span(context).get_span_context()
        if not span_context.is_valid:
            return
        for name, value in self._written(span_context, context):
            setter.set(carrier, name, value)

    def extract(
        self,
        carrier: CarrierT,
        context: Context | None = None,
        getter: Getter[CarrierT] = default_getter,
    ) -> Context:
        """Return the context with the caller's span as remote parent.

        It is returned as it is when the headers are missing or cannot be used, and a new empty
        one when none was given.
        """
        if context is None:
            context = Context()
        try:
            return self._read(Headers(carrier, getter), context)
        except RefusedError as error:
            count_refusal(self.refused, error.reason)
            return context
