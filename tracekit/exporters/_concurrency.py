"""How many requests an exporter may have under way, as given by an argument or a variable."""

from __future__ import annotations

from typing import Any

from tracekit.exporters._given import Given, from_environment

__all__ = ["chosen_concurrency"]

VARIABLE = "TRACEKIT_MAX_CONCURRENT_REQUESTS"

DEFAULT = 4
"""Ten thousand spans a second, in batches of 512, to a server that takes 200 ms to answer."""

MOST = 64
"""Each takes a thread and a connection of the traced program."""


def chosen_concurrency(argument: Any, session: object = None) -> int:
    """Return how many requests may be under way at the same time.

    Args:
        session: The requests.Session to be shared by all of them, if one was given. The class
            does not promise that it may be, so whoever wants that has to say so.

    Raises:
        ConfigurationError: The argument or the variable cannot be used.
    Source: https://opentelemetry.io/docs/specs/otlp/#concurrent-requests
    """
    if argument is not None:
        return _checked(Given(argument, "max_concurrent_requests (argument)"), argument)
    given = from_environment(VARIABLE)
    if given is None:
        return DEFAULT if session is None else 1
    text = given.value
    return _checked(
        given, int(text) if text.isascii() and text.isdecimal() and len(text) < 9 else 0
    )


def _checked(given: Given, number: Any) -> int:
    if type(number) is not int or not 1 <= number <= MOST:
        raise given.refused(f"a whole number from 1 to {MOST}")
    return number
