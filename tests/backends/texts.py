"""Attribute values as text, as OpenTelemetry lays it down for those who know only texts.

Source: https://opentelemetry.io/docs/specs/otel/common/#anyvalue-representation-for-non-otlp-protocols
"""

from __future__ import annotations

import json
import math
from base64 import b64encode
from collections.abc import Mapping
from typing import Any

__all__ = ["as_json", "as_text", "as_texts"]


def as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bytes):
        return b64encode(value).decode()
    if isinstance(value, float) and not math.isfinite(value):
        return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(value)]
    return as_json(value)


def as_json(value: Any) -> str:
    return json.dumps(
        value,
        ensure_ascii=False,
        separators=(",", ":"),
        default=lambda item: b64encode(item).decode() if isinstance(item, bytes) else dict(item),
    )


def as_texts(attributes: Mapping[str, Any] | None) -> dict[str, str]:
    return {key: as_text(value) for key, value in (attributes or {}).items()}
