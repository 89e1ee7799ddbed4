"""The ``exception`` event: what is written down of an exception, whatever it does when read."""

from __future__ import annotations

from tracekit import semconv
from tracekit.core.stack_trace import stack_trace

__all__ = ["describe", "exception_attributes", "type_name"]


def exception_attributes(exception: BaseException, escaped: bool = False) -> dict[str, str]:
    """Return type, message and stack trace, with causes, notes and the members of groups.

    Cost: 20 µs and more, on the caller's path: keeping the exception for later would keep
    its frames and all their locals alive.
    Source: https://opentelemetry.io/docs/specs/semconv/exceptions/exceptions-spans/
    """
    return {
        semconv.EXCEPTION_TYPE: type_name(type(exception)),
        semconv.EXCEPTION_MESSAGE: message(exception),
        semconv.EXCEPTION_STACKTRACE: stack_trace(exception),
        # Deprecated in the conventions, but read by what was written against opentelemetry-sdk.
        "exception.escaped": str(escaped),
    }


def describe(exception: BaseException) -> str:
    """Return ``TypeName: message`` for the span's status."""
    return f"{type(exception).__name__}: {message(exception)}"


def type_name(kind: type) -> str:
    """Return the qualified name of a class; builtins without their module."""
    module = kind.__module__
    return kind.__qualname__ if module in (None, "builtins") else f"{module}.{kind.__qualname__}"


def message(exception: BaseException) -> str:
    try:
        return str.__str__(str(exception))
    except Exception as error:
        return f"<{type(error).__name__} raised by {type(exception).__name__}.__str__>"
