"""What is sent in one request, and what the destination said to it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from tracekit.interfaces import ReadableSpan

__all__ = [
    "Answer",
    "Encode",
    "OnSkip",
    "PATH",
    "Payload",
    "Sender",
    "Verdict",
    "identity_of",
    "printable",
]

Headers = Iterable[tuple[str, str]]
OnSkip = Callable[[ReadableSpan, Exception], None]

PATH = ":path"
"""What HTTP/2 calls it; as a header it is kept with a request that has to wait on the disk."""

MAX_SAID = 300
"""Characters of a destination's text that a log line may hold."""


@dataclass(frozen=True)
class Payload:
    """One request: its body, and the spans in it should it have to be split.

    The header ``PATH`` names another path than the destination's own.
    """

    body: bytes
    spans: Sequence[ReadableSpan] = ()
    headers: tuple[tuple[str, str], ...] = ()


Encode = Callable[[Sequence[ReadableSpan], int, OnSkip], Iterator[Payload]]
"""Turn spans into requests of at most so many bytes; a span that is larger comes alone."""


class Verdict(Enum):
    """What becomes of a request's spans.

    OTHER_FORM: the sender has learnt that it is to be encoded differently, and will be.
    """

    TAKEN = "taken"
    TRY_AGAIN = "try again"
    TOO_LARGE = "too large"
    REFUSED = "refused"
    OTHER_FORM = "in another form"


@dataclass(frozen=True)
class Answer:
    """A destination's answer to one request.

    Attributes:
        said: Status and reason in a few words, fit for a log line.
        retry_after_s: How long the destination wants to be left alone.
        rejected: Spans that it did not keep of a request that it took.
        was_reached: False when nobody answered.
        status: Of an answer by HTTP that is an error; else 0.
    """

    verdict: Verdict
    said: str = ""
    retry_after_s: float | None = None
    rejected: int = 0
    was_reached: bool = True
    status: int = 0


class Sender(Protocol):
    """Carry one request to one destination, once."""

    @property
    def destination(self) -> str:
        """The destination as shown to people, without secrets."""
        ...

    @property
    def identity(self) -> str:
        """The same for every sender whose requests this one may send, and for no other.

        Format and address as shown to people, and a digest of what may not be shown.
        """
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


_OF_A_VERSION = re.compile(r"user-agent|accept-encoding|content-.*|datadog-meta-.*").fullmatch
"""Headers that say who sends and how, and not to whom: those of another version differ."""


def identity_of(what: str, destination: str, *secrets: object, headers: Headers = ()) -> str:
    """Return a sender's identity: headers tell tenants apart, so they are part of it.

    Spans of one team must not be sent with the key of another that uses the same address.
    """
    telling = sorted(pair for pair in headers if not _OF_A_VERSION(pair[0].lower()))
    digest = hashlib.sha256(repr((secrets, telling)).encode("utf-8", "backslashreplace"))
    return f"{what} {destination} #{digest.hexdigest()[:16]}"


def printable(text: str) -> str:
    """Return a destination's text in one short line that cannot pretend to be another log line."""
    line = re.sub(r"\s+", " ", text[: 4 * MAX_SAID]).strip()
    line = "".join(char if char.isprintable() else "?" for char in line)
    return line if len(line) <= MAX_SAID else f"{line[:MAX_SAID]}…"
