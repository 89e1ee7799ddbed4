"""The key under which opentelemetry-api keeps baggage in a Context."""

from __future__ import annotations

from opentelemetry import baggage
from opentelemetry.context import Context

__all__ = ["BAGGAGE_KEY"]

# As with the span's key: a Context shows it. Asking for baggage that is not there takes 0.5 µs,
# and one write beats one per entry.
BAGGAGE_KEY: str = next(iter(baggage.set_baggage("key", "value", Context())))
