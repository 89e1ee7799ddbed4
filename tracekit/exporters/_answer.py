"""What is sent in one request, and what the destination said to it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from tracekit.interfaces import ReadableSpan

__all__ = ["Answer", "Encode", "OnSkip", "Payload", "Sender", "Verdict", "printable"]

OnSkip = Callable[[ReadableSpan, Exception], None]

MAX_SAID = 300
"""Characters of a destination's text that a log line may hold."""


@dataclass(frozen=True)
class Payload:
    """One request: its body, and the spans in it should it have to be split."""

    body: bytes
    spans: Sequence[ReadableSpan] = ()
    headers: tuple[tuple[str, str], ...] = ()


Encode = Callable[[Sequence[ReadableSpan], int, OnSkip], Iterator[Payload]]
"""Turn spans into requests of at most so many bytes; a span that is larger comes alone."""


class Verdict(Enum):
    """What becomes of a request's spans."""

    TAKEN = "taken"
    TRY_AGAIN = "try again"
    TOO_LARGE = "too large"
    REFUSED = "refused"


@dataclass(frozen=True)
class Answer:
    """A destination's answer to one request.

    Attributes:
        said: Status and reason in a few words, fit for a log line.
        retry_after_s: How long the destination wants to be left alone.
        rejected: Spans that it did not keep of a request that it took.
        was_reached: False when nobody answered.
    """

    verdict: Verdict
    said: str = ""
    retry_after_s: float | None = None
    rejected: int = 0
    was_reached: bool = True


class Sender(Protocol):
    """Carry one request to one destination, once."""

    @property
    def destination(self) -> str:
        """The destination as shown to people, without secrets."""
        ...

    def send(self, payload: Payload, timeout_s: float) -> Answer:
        """Send, and return what was said within the time.

        Raises:
            Nothing; what goes wrong is an answer.
        Concurrency: any thread, at the same time.
        """
        ...

    def close(self) -> None:
        """Let go of connections; a request under way may end early."""
        ...

    def after_fork_in_child(self) -> None:
        """Forget the parent's connections without saying anything through them."""
        ...


def printable(text: str) -> str:
    """Return a destination's text in one short line that cannot pretend to be another log line."""
    line = re.sub(r"\s+", " ", text[: 4 * MAX_SAID]).strip()
    line = "".join(char if char.isprintable() else "?" for char in line)
    return line if len(line) <= MAX_SAID else f"{line[:MAX_SAID]}…"
