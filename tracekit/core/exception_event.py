"""The ``exception`` event: what is written down of an exception, whatever it does when read."""

from __future__ import annotations

import traceback

from tracekit import semconv

__all__ = ["describe", "exception_attributes", "type_name"]

MAX_STACKTRACE = 256 * 1024
"""Characters kept of a stack trace; recursion to death would make one of many megabytes."""

MAX_FRAMES = 128
"""Frames kept of each traceback, the innermost: a recursion to death that passes a span at each
level would otherwise be written down in full at each of them."""


def exception_attributes(exception: BaseException, escaped: bool = False) -> dict[str, str]:
    """Return type, message and stack trace, with causes, notes and the members of groups.

    Cost: 20 µs and more, on the caller's path: keeping the exception for later would keep
    its frames and all their locals alive.
    Source: https://opentelemetry.io/docs/specs/semconv/exceptions/exceptions-spans/
    """
    return {
        semconv.EXCEPTION_TYPE: type_name(type(exception)),
        semconv.EXCEPTION_MESSAGE: message(exception),
        semconv.EXCEPTION_STACKTRACE: _stacktrace(exception),
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


def _stacktrace(exception: BaseException) -> str:
    try:
        text = "".join(
            traceback.format_exception(
                type(exception), exception, exception.__traceback__, limit=-MAX_FRAMES
            )
        )
    except Exception as error:
        text = f"<stack trace not readable: {type(error).__name__}>"
    if len(text) <= MAX_STACKTRACE:
        return text
    half = MAX_STACKTRACE // 2
    return f"{text[:half]}\n[... cut ...]\n{text[-half:]}"
