"""What a tail sampler shows of its decisions, on spans of any provider."""

from __future__ import annotations

from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.trace import Status, StatusCode


class Deciding(SpanProcessor):
    """Give every span a ``kept`` and a ``keep()``, as spans in front of a tail sampler have.

    Args:
        kept: What is settled from the start.

    Attributes:
        asked: The reason for each call of ``keep()``, in order.
    """

    def __init__(self, kept: bool = False) -> None:
        self._kept = kept
        self.asked: list[str] = []

    def on_start(self, span: Any, parent_context: Context | None = None) -> None:
        span.kept = self._kept
        set_status = span.set_status

        def keep(reason: str = "asked") -> None:
            span.kept = True
            self.asked.append(reason)

        def set_status_and_see(status: Any, description: str | None = None) -> None:
            code = status.status_code if isinstance(status, Status) else status
            span.kept = span.kept or code is StatusCode.ERROR
            set_status(status, description)

        span.keep, span.set_status = keep, set_status_and_see
