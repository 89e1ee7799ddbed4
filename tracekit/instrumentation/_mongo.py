"""What the span of a MongoDB command says, when it starts and when it ends.

https://opentelemetry.io/docs/specs/semconv/database/mongodb/
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from opentelemetry.trace import Span, SpanKind

from tracekit import semconv
from tracekit._otel_context import NO_CONTEXT, OnlySpan, current_context
from tracekit.instrumentation._caller import Caller
from tracekit.instrumentation._carry import is_suppressed
from tracekit.instrumentation._http import truncated
from tracekit.instrumentation._operation import Operation
from tracekit.instrumentation._patch import report
from tracekit.instrumentation._said import Said

__all__ = ["Commands"]

_DEFAULT_PORT = 27017
_LONGEST_NAME = 255
_MOST_KEPT = 512
_CLIENT = SpanKind.CLIENT
_modules: Any = sys.modules

# What the library asks for itself. https://www.mongodb.com/docs/manual/reference/command/
_NOT_WATCHED = frozenset(
    (
        *("hello", "ismaster", "isMaster", "endSessions", "killCursors", "authenticate"),
        *("saslStart", "saslContinue", "getnonce", "copydbgetnonce"),
    )
)
# What these name is a person. The library's listeners are not told it either.
_NAMES_NO_COLLECTION = frozenset(("createuser", "updateuser", "copydb", "copydbsaslstart"))
# Where a command has what it does several times.
_BATCHES = {"insert": "documents", "update": "updates", "delete": "deletes"}


class Commands:
    """Starts and ends the spans of commands. No method raises.

    Concurrency: from any thread or task.
    """

    __slots__ = ("_alike", "_caller", "_start_span")

    def __init__(self, start_span: Callable[..., Span], caller: Caller | None) -> None:
        self._start_span = start_span
        self._caller = caller
        self._alike: dict[Any, Said] = {}

    def begin(
        self, connection: Any, sent: Any, database: str, listeners: Any, published: Any
    ) -> Span | None:
        """Start the span of a command; None when it is not to be watched.

        It does not become current: nothing that is watched runs until the answer is there.

        Args:
            connection: Whose ``address`` is the server's host and port.
            sent: The command.
            listeners: None where the library speaks for itself, and tells its listeners nothing.
            published: What these are told instead of what is sent, where that is not None.
        """
        # In one function, with the library's own arguments: on the path of every command.
        try:
            if listeners is None:
                return None
            command = sent if published is None else published
            name = next(iter(command))
            if name in _NOT_WATCHED:
                return None
            parent = current_context()
            # A context of a span only says nothing else, and would be filled by looking into it.
            if type(parent) is not OnlySpan and parent is not NO_CONTEXT and is_suppressed(parent):
                return None
            key = (
                name,
                command.get("collection" if name == "getMore" else name),
                database,
                connection.address,
            )
            try:
                said = self._alike[key]
            except (KeyError, TypeError):  # a collection that is none cannot be looked for
                said = self._say(key)
            attributes = said.attributes
            if self._caller is not None:
                place, last = self._caller.attributes(2), said.last
                attributes = last[1] if last[0] is place else said.asked_from(place)
            if name in _BATCHES:
                batch = command.get(_BATCHES[name])
                if isinstance(batch, list) and len(batch) > 1:
                    attributes = {**attributes, semconv.DB_OPERATION_BATCH_SIZE: len(batch)}
            return self._start_span(said.name, parent, _CLIENT, attributes)
        except Exception:
            report("the beginning of a command")
            return None

    def _say(self, key: Sequence[Any]) -> Said:
        """Return what is said of commands that were not seen before, and keep it."""
        said = _said_of(*key)
        if isinstance(key[1], str):
            if len(self._alike) >= _MOST_KEPT:
                self._alike.clear()
            self._alike[key] = said
        return said

    def answered(self, span: Span, reply: Any) -> None:
        """End the span of a command that was carried out, of a part of it at least."""
        try:
            errors = reply.get("writeErrors") if isinstance(reply, dict) else None
            if errors:
                self.failed(span, errors[0])
            else:
                span.end()
        except Exception:
            report("the end of a command")

    def failed(self, span: Span, failure: Mapping[str, Any]) -> None:
        """End the span of a command that the server refused, or that did not get there.

        Args:
            failure: The server's answer, with a ``code``, or an exception: the name of its class
                is ``errtype``.
        """
        operation = Operation(span, "mongodb", NO_CONTEXT, current=False)
        try:
            code = failure.get("code")
            message = truncated(str(failure.get("errmsg", "")), 4096)
            if code is None:
                operation.fail_with(_error_type(failure.get("errtype")), message, {})
            else:
                status = {semconv.DB_RESPONSE_STATUS_CODE: str(code)}
                operation.fail_with(str(code), message, status)
        except Exception:
            report("the failure of a command")
            operation.succeed()

    def end(self, span: Span) -> None:
        """End the span of a command whose answer nobody awaits any more."""
        try:
            span.end()
        except Exception:
            report("the end of a command")


def _said_of(name: str, collection: Any, database: str, address: Any) -> Said:
    attributes: dict[str, Any] = {
        semconv.DB_SYSTEM_NAME: "mongodb",
        semconv.DB_OPERATION_NAME: truncated(name, _LONGEST_NAME),
        semconv.DB_NAMESPACE: database,
    }
    subject = database
    # Of the whole database it is 1.
    if isinstance(collection, str) and name.lower() not in _NAMES_NO_COLLECTION:
        subject = attributes[semconv.DB_COLLECTION_NAME] = truncated(collection, _LONGEST_NAME)
    if address is not None:
        host, port = address
        attributes[semconv.SERVER_ADDRESS] = host
        if port is not None and port != _DEFAULT_PORT:
            attributes[semconv.SERVER_PORT] = port
    return Said(truncated(f"{name} {subject or database}", _LONGEST_NAME), attributes)


def _error_type(name: Any) -> str:
    """Return the class of an exception: the library's, or else what it has from the system."""
    if not isinstance(name, str):
        return "_OTHER"
    return f"pymongo.errors.{name}" if hasattr(_modules.get("pymongo.errors"), name) else name
