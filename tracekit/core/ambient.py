"""Attributes that every span started inside a block inherits.

They are kept in the OpenTelemetry Context, not in a variable of their own, so that they
follow the current span into threads, tasks and callbacks by the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from opentelemetry import context as context_api
from opentelemetry.context import Context

from tracekit._otel_context import attach, current_context, detach
from tracekit.core.attributes import snapshots

__all__ = ["AttributesScope", "inherited_attributes"]

_KEY = context_api.create_key("tracekit-attributes")


def inherited_attributes(context: Context) -> Mapping[str, Any] | None:
    """Return the attributes that a span started in ``context`` inherits."""
    return context.get(_KEY)  # type: ignore[return-value]


class AttributesScope:
    """Let spans that start inside the block carry ``attributes``; inner blocks win."""

    __slots__ = ("_attached", "_attributes", "_outer", "_token")

    def __init__(self, attributes: Mapping[str, Any]) -> None:
        self._attributes = snapshots(attributes) or {}

    def __enter__(self) -> None:
        context = current_context()
        self._outer = inherited_attributes(context) or {}
        merged = {**self._outer, **self._attributes}
        self._attached = Context({**context, _KEY: merged})
        self._token = attach(self._attached)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        current = current_context()
        if current is self._attached:
            try:
                detach(self._token)
                return
            except (ValueError, RuntimeError):
                pass
        # Something else was attached meanwhile and left there: only what is ours is taken back.
        if inherited_attributes(current) is self._attached[_KEY]:
            attach(Context({**current, _KEY: self._outer}))
