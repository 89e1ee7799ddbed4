"""A span's tags as Datadog keeps them: texts in ``meta``, numbers in ``metrics``."""

from __future__ import annotations

import http
from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Any

from tracekit.exporters._anyvalue import exact
from tracekit.exporters._datadog_semantics import mapped_key
from tracekit.exporters._readable import plain_attributes
from tracekit.exporters._tag_text import json_text, tag_text

__all__ = ["DatadogTags"]

# Read for the span's own fields, so they are no tags of it.
_FIELDS = frozenset({"operation.name", "resource.name", "service.name", "span.type"})

_RESOURCE_NAMES = {
    "deployment.environment": "env",
    "deployment.environment.name": "env",
    "process.pid": "process_id",
    "service.instance.id": "runtime-id",
    "service.version": "version",
    "telemetry.sdk.language": "language",
}

# A double holds every integer up to here; larger ones are kept whole, as text.
_MAX_EXACT = 2**53

_STATUS_NAMES = ("Unset", "Ok", "Error")

_ERROR_OF_EVENT = {
    "exception.type": "error.type",
    "exception.message": "error.message",
    "exception.stacktrace": "error.stack",
}


class DatadogTags:
    """Collect the tags of one span; what is added later stands.

    Args:
        defaults: ``env`` and ``version`` for resources that do not say.
    """

    def __init__(self, defaults: Mapping[str, str]) -> None:
        self.meta: dict[str, str] = {
            name: defaults[name] for name in ("env", "version") if defaults.get(name)
        }
        self.metrics: dict[str, float] = {}

    def add_resource(self, attributes: Mapping[str, Any]) -> None:
        for key, value in attributes.items():
            if key == "process.pid":
                self._add("process_id", value)
            elif key not in _FIELDS:
                self.meta[_RESOURCE_NAMES.get(key, key)] = tag_text(value)

    def add_scope(self, scope: Any) -> None:
        for part in ("name", "version"):
            try:
                value = exact(getattr(scope, part))
            except Exception:
                continue
            if value:
                for family in ("otel.scope", "otel.library"):
                    self.meta[f"{family}.{part}"] = tag_text(value)

    def add_attributes(self, attributes: Mapping[str, Any]) -> None:
        for key, value in attributes.items():
            if key not in _FIELDS:
                self._add(mapped_key(key), value)

    def _add(self, key: str, value: Any) -> None:
        is_number = type(value) is float and isfinite(value)
        is_number = is_number or (type(value) is int and abs(value) <= _MAX_EXACT)
        # Datadog's own tracers write this one as text, and its agent looks for it there.
        if is_number and key != "http.status_code":
            self.metrics[key] = float(value)
            self.meta.pop(key, None)
        else:
            self.meta[key] = tag_text(value)

    def add_events(self, events: Iterable[Any]) -> None:
        """Write the events as JSON, and the last exception among them as the span's error."""
        written = [_event(event) for event in events]
        if not written:
            return
        self.meta["events"] = json_text(written)
        exceptions = [event for event in written if event["name"] == "exception"]
        if exceptions:
            self.meta["_dd.span_events.has_exception"] = "true"
            self._add_exception(exceptions[-1].get("attributes", {}))

    def _add_exception(self, attributes: Mapping[str, Any]) -> None:
        for key, name in _ERROR_OF_EVENT.items():
            if key in attributes:
                self.meta[name] = tag_text(attributes[key])

    def set_status(self, code: int, description: str, attributes: Mapping[str, Any]) -> None:
        self.meta["otel.status_code"] = _STATUS_NAMES[code]
        if description:
            self.meta["otel.status_description"] = description
        if code == 2 and "error.message" not in self.meta:
            message = description or _http_error(attributes)
            if message:
                self.meta["error.message"] = message

    def set_dropped(self, counts: tuple[int, int, int]) -> None:
        for name, count in zip(("attributes", "events", "links"), counts, strict=True):
            if count:
                self.metrics[f"otel.dropped_{name}_count"] = float(count)


def _event(event: Any) -> dict[str, Any]:
    # Beyond 63 bits the time would become a text, and the list of events unreadable.
    moment = min(event.timestamp, 2**63 - 1)
    body: dict[str, Any] = {"time_unix_nano": moment, "name": tag_text(event.name)}
    if attributes := plain_attributes(lambda: event.attributes):
        body["attributes"] = attributes
    if dropped := getattr(event, "dropped_attributes", 0):
        body["dropped_attributes_count"] = dropped
    return body


def _http_error(attributes: Mapping[str, Any]) -> str:
    code = attributes.get("http.response.status_code", attributes.get("http.status_code"))
    if type(code) is not int:
        return ""
    try:
        return f"{code} {http.HTTPStatus(code).phrase}"
    except ValueError:
        return str(code)
