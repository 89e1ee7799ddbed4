"""Carry a trace through something that tracekit does not know: here, a queue of messages.

The sender writes the current span into the message's headers, the receiver goes on from there.

    python examples/headers.py && tracekit show
"""

from __future__ import annotations

import queue
from typing import NamedTuple

from opentelemetry.trace import SpanKind

import tracekit


class Message(NamedTuple):
    headers: dict[str, str]
    body: str


def send(messages: queue.Queue[Message], body: str) -> None:
    with tracekit.span("send", kind=SpanKind.PRODUCER):
        messages.put(Message(tracekit.inject({}), body))


def receive(messages: queue.Queue[Message]) -> str:
    message = messages.get()
    with tracekit.continue_trace(message.headers), tracekit.span("work", kind=SpanKind.CONSUMER):
        return message.body.upper()


def main() -> None:
    tracekit.configure(service_name="post")
    messages: queue.Queue[Message] = queue.Queue()
    send(messages, "parcel")
    print(receive(messages))


if __name__ == "__main__":
    main()
