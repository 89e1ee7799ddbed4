"""Attribute values as text, for destinations whose tags are strings.

Source: https://opentelemetry.io/docs/specs/otel/common/#anyvalue-representation-for-non-otlp-protocols
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from math import isfinite, isnan
from typing import Any

from tracekit.exporters._anyvalue import attribute_key, exact

__all__ = ["json_text", "plain_json", "tag_text", "text_tags"]

plain_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
"""Write what is built of clean texts and finite numbers."""


def tag_text(value: object) -> str:
    """Return one attribute value as text; lists and maps as JSON, bytes in base64."""
    if type(value) is bool:
        return "true" if value else "false"
    plain = exact(value)
    if isinstance(plain, str):
        return plain
    if plain is None:
        return ""
    if isinstance(plain, float):
        return _float_text(plain)
    if isinstance(plain, bytes):
        return b64encode(plain).decode()
    return plain_json(_jsonable(plain))


def json_text(value: object) -> str:
    """Return any value as JSON, with texts in place of what JSON has no form for."""
    return plain_json(_jsonable(exact(value)))


def text_tags(attributes: Mapping[Any, Any] | None) -> dict[str, str]:
    """Return attributes with both keys and values as text."""
    return {attribute_key(key): tag_text(value) for key, value in (attributes or {}).items()}


def _float_text(value: float) -> str:
    if isnan(value):
        return "NaN"
    if not isfinite(value):
        return "Infinity" if value > 0 else "-Infinity"
    return repr(value)


def _jsonable(value: Any) -> Any:
    if isinstance(value, float) and not isfinite(value):
        return _float_text(value)
    if isinstance(value, bytes):
        return b64encode(value).decode()
    if isinstance(value, list):
        return [_jsonable(item) for item in value]
    if isinstance(value, dict):
        return {key: _jsonable(item) for key, item in value.items()}
    return value
