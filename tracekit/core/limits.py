"""Span limits: how much one span may hold."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

from tracekit.errors import InvalidValueError

__all__ = ["SpanLimits"]

_logger = logging.getLogger("tracekit")

_DEFAULT_COUNT = 128
_MAX_DIGITS = 18


class SpanLimits:
    """How many attributes, events and links a span keeps, and how long their values may be.

    A limit is a non-negative integer, ``SpanLimits.UNSET`` for no limit, or None to take it
    from its environment variable and else from the default. A specific limit wins over the
    general one.

    Args:
        max_attributes: OTEL_ATTRIBUTE_COUNT_LIMIT; general, default 128.
        max_events: OTEL_SPAN_EVENT_COUNT_LIMIT; default 128.
        max_links: OTEL_SPAN_LINK_COUNT_LIMIT; default 128.
        max_span_attributes: OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT.
        max_event_attributes: OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT.
        max_link_attributes: OTEL_LINK_ATTRIBUTE_COUNT_LIMIT.
        max_attribute_length: OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT, in characters; no default.
        max_span_attribute_length: OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT.

    Raises:
        InvalidValueError: A limit that was passed is negative or not a whole number.

    Source: https://opentelemetry.io/docs/specs/otel/trace/sdk/#span-limits
    """

    UNSET = -1

    def __init__(
        self,
        max_attributes: int | None = None,
        max_events: int | None = None,
        max_links: int | None = None,
        max_span_attributes: int | None = None,
        max_event_attributes: int | None = None,
        max_link_attributes: int | None = None,
        max_attribute_length: int | None = None,
        max_span_attribute_length: int | None = None,
    ) -> None:
        general = _limit(max_attributes, "OTEL_ATTRIBUTE_COUNT_LIMIT", _DEFAULT_COUNT)
        length = _limit(max_attribute_length, "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", None)
        self.max_attributes = general
        self.max_attribute_length = length
        self.max_events = _limit(max_events, "OTEL_SPAN_EVENT_COUNT_LIMIT", _DEFAULT_COUNT)
        self.max_links = _limit(max_links, "OTEL_SPAN_LINK_COUNT_LIMIT", _DEFAULT_COUNT)
        self.max_span_attributes = _limit(
            max_span_attributes, "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", general
        )
        self.max_event_attributes = _limit(
            max_event_attributes, "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", general
        )
        self.max_link_attributes = _limit(
            max_link_attributes, "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", general
        )
        self.max_span_attribute_length = _limit(
            max_span_attribute_length, "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", length
        )

    def __repr__(self) -> str:
        values = ", ".join(f"{key}={value}" for key, value in vars(self).items())
        return f"SpanLimits({values})"


def _limit(
    value: int | None,
    variable: str,
    default: int | None,
    environ: Mapping[str, str] = os.environ,
) -> int | None:
    """Return the limit in force; None means unlimited."""
    if value == SpanLimits.UNSET:
        return None
    if value is not None:
        given: Any = value
        if isinstance(given, bool) or not isinstance(given, int) or given < 0:
            raise InvalidValueError("limit", value, "a whole number that is not negative")
        return value
    text = environ.get(variable, "").strip()
    if text.isdecimal() and len(text) <= _MAX_DIGITS:
        return int(text)
    # An empty variable counts as not set; one that cannot be used is reported and ignored.
    # https://opentelemetry.io/docs/specs/otel/configuration/common/#numeric
    if text:
        _logger.warning("%s=%r is ignored: expected a whole number", variable, text[:80])
    return default
