"""What of OpenTelemetry is kept in tags by formats that have no place for it.

Source: https://opentelemetry.io/docs/specs/otel/common/mapping-to-non-otlp/
"""

from __future__ import annotations

from typing import Any

from opentelemetry.trace import Status, StatusCode

from tracekit.model import InstrumentationScope

__all__ = ["scope_from", "status_from"]

_CODES = {"OK": StatusCode.OK, "ERROR": StatusCode.ERROR}


def scope_from(tags: dict[str, Any]) -> InstrumentationScope:
    """Take the scope out of tags, under its names or those that it had before."""
    old = {part: tags.pop(f"otel.library.{part}", None) for part in ("name", "version")}
    new = {part: tags.pop(f"otel.scope.{part}", None) for part in ("name", "version")}
    name, version = (new[part] or old[part] for part in ("name", "version"))
    return InstrumentationScope(str(name or ""), str(version) if version else None)


def status_from(tags: dict[str, Any], description: str = "") -> Status:
    """Take the status out of tags: ``otel.status_code``, or OpenTracing's ``error``.

    Args:
        description: Stands for a tag ``otel.status_description`` that is missing.
    """
    code = _CODES.get(str(tags.pop("otel.status_code", "")).upper())
    said = str(tags.pop("otel.status_description", "") or description)
    error = tags.get("error")
    if code is None and error is not None and str(error).lower() != "false":
        code = StatusCode.ERROR
    if code is StatusCode.ERROR:
        if error is True or str(error).lower() in ("true", "", said.lower()):
            tags.pop("error", None)
        return Status(StatusCode.ERROR, said or None)
    return Status(code or StatusCode.UNSET)
