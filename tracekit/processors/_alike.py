"""Siblings that are alike: what two spans must have in common, and one record of many."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tracekit import semconv
from tracekit.model import SpanRecord

__all__ = ["Alike"]

# What differs from call to call although the same is done.
_VARYING = frozenset(
    (
        semconv.PARAMETERS_HASH,
        semconv.DB_RESPONSE_RETURNED_ROWS,
        semconv.NETWORK_PEER_PORT,
        semconv.CLIENT_PORT,
        semconv.THREAD_ID,
        semconv.THREAD_NAME,
        semconv.POOL_WAIT,
        semconv.AWS_REQUEST_ID,
        semconv.HTTP_REQUEST_BODY_SIZE,
        semconv.HTTP_RESPONSE_BODY_SIZE,
    )
)
_ERROR, _EVENTS = 2, 1

Attributes = Mapping[str, Any]


def _varies(key: str) -> bool:
    return key in _VARYING or key.startswith(semconv.DB_QUERY_PARAMETER)


class Alike:
    """Spans that say the same: the first of them, and what is known of all.

    Args:
        fields: What ``span.alike_fields()`` returns.

    Concurrency: none; whoever has one holds a lock.
    """

    __slots__ = (
        "_agreed",
        "_end",
        "_first",
        "_same",
        "_says",
        "_varying",
        "begun_s",
        "count",
        "max_ns",
        "min_ns",
        "total_ns",
    )

    def __init__(self, span: Any, fields: tuple[Any, ...], now_s: float) -> None:
        _, _, start, self._end, code, kind, scope, attributes, _ = fields
        self._first = span
        self._same = (code, kind, scope)
        self._varying = [key for key in attributes if _varies(key)]
        self._says = self._without_varying(attributes)
        self._agreed = {key: attributes[key] for key in self._varying}
        self.begun_s = now_s
        self.total_ns = self.min_ns = self.max_ns = self._end - start
        self.count = 1

    @staticmethod
    def may_have_equals(fields: tuple[Any, ...]) -> bool:
        """Whether a span can be told by another: what it links to, or notes, is its own.

        That an error has an event lies in its nature.
        """
        code, extras = fields[4], fields[8]
        return bool(extras == 0 or (extras == _EVENTS and code == _ERROR))

    def takes(self, fields: tuple[Any, ...]) -> bool:
        """Count a span that says the same; False, and nothing else, for any other."""
        _, _, start, end, code, kind, scope, attributes, _ = fields
        same_code, same_kind, same_scope = self._same
        if code != same_code or kind is not same_kind or scope is not same_scope:
            return False
        if self._without_varying(attributes) != self._says:
            return False
        took = end - start
        self.count += 1
        self.total_ns += took
        self.min_ns = min(self.min_ns, took)
        self.max_ns = max(self.max_ns, took)
        self._end = max(self._end, end)
        if self._agreed:
            self._agree(attributes)
        return True

    def _without_varying(self, attributes: Attributes) -> Attributes:
        if not self._varying:
            return attributes
        said = dict(attributes)
        for key in self._varying:
            said.pop(key, None)
        return said

    def _agree(self, attributes: Attributes) -> None:
        for key in tuple(self._agreed):
            if attributes.get(key) != self._agreed[key]:
                del self._agreed[key]

    @property
    def single(self) -> Any:
        """The span, where it stayed the only one."""
        return self._first if self.count == 1 else None

    def record(self, measures: Attributes) -> SpanRecord:
        """Return one span for all: the first, from its start to the end of the last.

        What they do not agree on is left out, and ``measures`` are added.
        """
        first = self._first
        differing = {key for key in self._varying if key not in self._agreed}
        attributes = {
            **{key: value for key, value in first.attributes.items() if key not in differing},
            **measures,
        }
        return SpanRecord(
            name=first.name,
            context=first.context,
            parent=first.parent,
            kind=first.kind,
            start_time=first.start_time,
            end_time=self._end,
            attributes=attributes,
            events=first.events,
            status=first.status,
            resource=first.resource,
            instrumentation_scope=first.instrumentation_scope,
            dropped_attributes=first.dropped_attributes,
            dropped_events=first.dropped_events,
        )
