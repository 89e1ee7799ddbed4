"""What of OpenTelemetry is kept in tags by formats that have no place for it.

Source: https://opentelemetry.io/docs/specs/otel/common/mapping-to-non-otlp/
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from opentelemetry.trace import Status, StatusCode

from tracekit.model import InstrumentationScope

__all__ = ["numbers", "scope_from", "status_from"]

_CODES = {"OK": StatusCode.OK, "ERROR": StatusCode.ERROR}

# Where all tags are text, these are numbers by the conventions, and read by whoever looks for slow
# or failed requests.
_NUMBERS = re.compile(r"\.(?:status_code|port|size|pid|resend_count|line\.number)$|^thread\.id$")
_WHOLE_NUMBER = re.compile(r"-?\d{1,18}").fullmatch
_DECIMALS = re.compile(r"^tracekit\.(?:pool\.wait_s|loop\.blocked_ms|timeout\.\w+_s)$")
_DECIMAL = re.compile(r"\d{1,15}(?:\.\d{1,15})?(?:e-?\d{1,2})?").fullmatch


def numbers(tags: Mapping[str, str]) -> dict[str, Any]:
    """Return tags that are all text with those as numbers that are."""
    return {key: _number(key, value) for key, value in tags.items()}


def _number(key: str, value: str) -> int | float | str:
    is_decimal = _DECIMALS.search(key)
    if (is_decimal or _NUMBERS.search(key)) and _WHOLE_NUMBER(value):
        return int(value)
    return float(value) if is_decimal and _DECIMAL(value) else value


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
