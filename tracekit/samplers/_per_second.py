"""Making a sampler of so many traces per second from what a variable says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from tracekit.errors import InvalidValueError

__all__ = ["made_per_second"]

_Made = TypeVar("_Made")


def made_per_second(make: Callable[[float], _Made], argument: Any, default: float) -> _Made:
    """Make what ``OTEL_TRACES_SAMPLER_ARG`` describes; with ``default`` when it is empty.

    Raises:
        InvalidValueError: It is no number above 0.
    """
    try:
        return make(default if argument in (None, "") else float(argument))
    except (TypeError, ValueError):
        raise InvalidValueError(
            "sampler argument", argument, "traces per second, a number above 0"
        ) from None
