"""Passing for opentelemetry-sdk's classes where the program has that package loaded.

Third parties ask ``isinstance(provider, opentelemetry.sdk.trace.TracerProvider)`` before they
call what our provider has as well. ``isinstance`` looks at an object's type first and at its
``__class__`` second, so saying the SDK's class there satisfies them, and imports nothing: a
program that asks has imported the class.
https://github.com/open-telemetry/opentelemetry-python/issues/4489
"""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["looks_like"]

_SDK = "opentelemetry.sdk.trace"


def looks_like(name: str) -> Any:
    """Return a ``__class__`` property that names the SDK's class when the SDK is loaded."""

    def sdk_class(self: object) -> type:
        found = getattr(sys.modules.get(_SDK), name, None)
        return found if isinstance(found, type) else type(self)

    return property(sdk_class)
