"""pymongo: one CLIENT span for each command that a server is sent; sync and async.

Commands are told by the library's own listeners, in the thread or task that sends them. A client
takes the listeners that there are when it is made: one that was made before is not watched. What
a cursor fetches later is a command, `getMore`, and a span; what keeps connections alive is none.
https://opentelemetry.io/docs/specs/semconv/database/mongodb/
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from opentelemetry.trace import SpanKind

from tracekit import semconv
from tracekit._otel_context import current_context
from tracekit.instrumentation._caller import caller_from
from tracekit.instrumentation._carry import is_suppressed
from tracekit.instrumentation._http import truncated
from tracekit.instrumentation._operation import Operation
from tracekit.instrumentation._patch import LibraryInstrumentor, Patch, quiet

__all__ = ["PymongoInstrumentor"]

_DEFAULT_PORT = 27017
_LONGEST_NAME = 255
# More commands than this are not under way at once: the end of some was not told.
_MOST_UNDER_WAY = 1024

# What the library asks for itself. https://www.mongodb.com/docs/manual/reference/command/
_NOT_WATCHED = frozenset(
    (
        *("hello", "ismaster", "isMaster", "endSessions", "killCursors", "authenticate"),
        *("saslStart", "saslContinue", "getnonce", "copydbgetnonce"),
    )
)
# Where a command has what it does several times.
_BATCHES = {"insert": "documents", "update": "updates", "delete": "deletes"}


class PymongoInstrumentor(LibraryInstrumentor):
    """Watch pymongo. Option ``code_location``: record the program's line."""

    name = "pymongo"
    distributions = ("pymongo",)
    supported = ">=4,<5"
    contrib = ("pymongo",)

    def configure(self, options: Mapping[str, Any]) -> None:
        self._read(**options)

    def _read(self, *, code_location: bool | None = None) -> None:
        self._caller = caller_from(os.environ, code_location)
        self._listener: Any = None
        self._under_way: OrderedDict[Any, tuple[Operation, Any]] = OrderedDict()
        self._tasks: weakref.WeakSet[Any] = weakref.WeakSet()
        self._lock = threading.Lock()

    def patches(self) -> Sequence[Patch]:
        # Nothing is wrapped: the module is awaited, and its list of listeners joined.
        return (Patch("pymongo.monitoring", "register", _unchanged),)

    def _put_all_on(self, module: ModuleType, name: str) -> str | None:
        listeners = getattr(module, "_LISTENERS", None)
        if listeners is None:
            return "pymongo.monitoring has no list of listeners"
        self._put_on[name] = []
        if not any(type(one).__name__ == "TracekitListener" for one in listeners[0]):
            self._listener = _listener(module, self)
            listeners[0].append(self._listener)
        return None

    def _withdraw(self) -> None:
        module: Any = sys.modules.get("pymongo.monitoring")
        if self._listener is not None and module is not None:
            module._LISTENERS[0].remove(self._listener)
        self._listener = None
        super()._withdraw()

    # What the listener is told. The library logs what these raise into the program's stderr.

    @quiet
    def started(self, event: Any) -> None:
        name = event.command_name
        # A client that was made meanwhile keeps the listener.
        if not self._wanted or name in _NOT_WATCHED:
            return
        parent = current_context()
        if parent and is_suppressed(parent):
            return
        attributes = _attributes(event)
        if self._caller is not None:
            attributes.update(self._caller.attributes())
        collection = attributes.get(semconv.DB_COLLECTION_NAME) or event.database_name
        span_name = truncated(f"{name} {collection}", _LONGEST_NAME)
        span = self.tracer.start_span(span_name, parent, SpanKind.CLIENT, attributes)
        operation = Operation(span, "mongodb", parent, current=False)
        task = _current_task()
        forgotten: list[tuple[Operation, Any]] = []
        with self._lock:
            self._under_way[_key(event)] = (operation, task)
            if len(self._under_way) > _MOST_UNDER_WAY:
                forgotten.append(self._under_way.popitem(last=False)[1])
        for lost, _ in forgotten:
            lost.succeed()
        if task is not None and task not in self._tasks:
            # Not every version says that a command was cancelled with its task.
            self._tasks.add(task)
            task.add_done_callback(self._end_with_task)

    @quiet
    def succeeded(self, event: Any) -> None:
        operation = self._ended(event)
        if operation is None:
            return
        errors = event.reply.get("writeErrors") if isinstance(event.reply, dict) else None
        if errors:
            _fail(operation, errors[0])
        else:
            operation.succeed()

    @quiet
    def failed(self, event: Any) -> None:
        operation = self._ended(event)
        if operation is not None:
            _fail(operation, event.failure)

    def _ended(self, event: Any) -> Operation | None:
        with self._lock:
            operation, _ = self._under_way.pop(_key(event), (None, None))
        return operation

    @quiet
    def _end_with_task(self, task: Any) -> None:
        with self._lock:
            keys = [key for key, (_, owner) in self._under_way.items() if owner is task]
            left = [self._under_way.pop(key)[0] for key in keys]
        for operation in left:
            operation.succeed()


def _current_task() -> Any:
    asyncio = sys.modules.get("asyncio")
    try:
        return None if asyncio is None else asyncio.current_task()
    except RuntimeError:  # no event loop runs here
        return None


def _unchanged(wrapped: Any, _instance: Any, args: Any, kwargs: Any) -> Any:
    return wrapped(*args, **kwargs)


def _key(event: Any) -> Any:
    return event.request_id, event.connection_id


def _listener(monitoring: Any, told: PymongoInstrumentor) -> Any:
    """Return a listener of the library's class; made here, where that is imported."""

    class TracekitListener(monitoring.CommandListener):  # type: ignore[misc]
        def started(self, event: Any) -> None:
            told.started(event)

        def succeeded(self, event: Any) -> None:
            told.succeeded(event)

        def failed(self, event: Any) -> None:
            told.failed(event)

    return TracekitListener()


def _attributes(event: Any) -> dict[str, Any]:
    name, command = event.command_name, event.command
    attributes: dict[str, Any] = {
        semconv.DB_SYSTEM_NAME: "mongodb",
        semconv.DB_OPERATION_NAME: truncated(name, _LONGEST_NAME),
        semconv.DB_NAMESPACE: event.database_name,
    }
    collection = command.get("collection" if name == "getMore" else name)
    if isinstance(collection, str):  # the whole database is 1
        attributes[semconv.DB_COLLECTION_NAME] = truncated(collection, _LONGEST_NAME)
    batch = command.get(_BATCHES.get(name, ""))
    if isinstance(batch, list) and len(batch) > 1:
        attributes[semconv.DB_OPERATION_BATCH_SIZE] = len(batch)
    if event.connection_id is not None:
        address, port = event.connection_id
        attributes[semconv.SERVER_ADDRESS] = address
        if port is not None and port != _DEFAULT_PORT:
            attributes[semconv.SERVER_PORT] = port
    return attributes


def _fail(operation: Operation, failure: Any) -> None:
    """End the span of a command that the server refused, or that did not get there."""
    if failure.get("errtype") == "CancelledError":  # the task stopped waiting, on purpose
        operation.succeed()
        return
    code = failure.get("code")
    message = truncated(str(failure.get("errmsg", "")), 4096)
    if code is None:
        kind = failure.get("errtype")
        operation.fail_with(f"pymongo.errors.{kind}" if kind else "_OTHER", message, {})
    else:
        operation.fail_with(str(code), message, {semconv.DB_RESPONSE_STATUS_CODE: str(code)})


plugin: type[LibraryInstrumentor] = PymongoInstrumentor
