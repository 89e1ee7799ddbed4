"""pymongo: one CLIENT span for each command that a server is sent; sync and async.

Commands are told by the library's own listeners, in the thread or task that sends them. A client
takes the listeners that there are when it is made: one that was made before is not watched. What
a cursor fetches later is a command, `getMore`, and a span; what keeps connections alive is none.
https://opentelemetry.io/docs/specs/semconv/database/mongodb/
"""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from opentelemetry.trace import SpanKind

from tracekit import semconv
from tracekit._otel_context import NO_CONTEXT, OnlySpan, current_context
from tracekit.instrumentation._caller import caller_from, frame_at
from tracekit.instrumentation._carry import is_suppressed
from tracekit.instrumentation._http import truncated
from tracekit.instrumentation._operation import Operation
from tracekit.instrumentation._patch import LibraryInstrumentor, Patch, quiet, report
from tracekit.instrumentation._said import Said

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
_CLIENT = SpanKind.CLIENT
_NONE: tuple[Any, Any] = (None, None)
_modules: Any = sys.modules
_MOST_KEPT = 512
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
        self._start_span = self.tracer.start_span
        self._alike: dict[Any, Said] = {}
        self._under_way: dict[Any, tuple[Operation, Any]] = {}
        self._tasks: weakref.WeakSet[Any] = weakref.WeakSet()

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

    def started(self, event: Any) -> None:
        # try and not `quiet`, and in one function: on the path of every command.
        try:
            name = event.command_name
            # A client that was made meanwhile keeps the listener.
            if not self._wanted or name in _NOT_WATCHED:
                return
            parent = current_context()
            # A context of a span only says nothing else, and would be filled by looking into it.
            if type(parent) is not OnlySpan and parent is not NO_CONTEXT and is_suppressed(parent):
                return
            address, command = event.connection_id, event.command
            collection = command.get("collection" if name == "getMore" else name)
            key = name, collection, event.database_name, address
            try:
                said = self._alike[key]
            except (KeyError, TypeError):  # a collection that is none cannot be looked for
                said = self._say(key)
            attributes = said.attributes
            if self._caller is not None:
                attributes = self._caller.asked(said, frame_at(1), 1)
            if name in _BATCHES:
                batch = command.get(_BATCHES[name])
                if isinstance(batch, list) and len(batch) > 1:
                    attributes = {**attributes, semconv.DB_OPERATION_BATCH_SIZE: len(batch)}
            span = self._start_span(said.name, parent, _CLIENT, attributes)
            operation = Operation(span, "mongodb", parent, current=False)
            under_way, task = self._under_way, None
            asyncio = _modules.get("asyncio")
            if asyncio is not None and asyncio._get_running_loop() is not None:
                task = self._watched_task(asyncio)
            under_way[event.request_id, address] = operation, task
            if len(under_way) > _MOST_UNDER_WAY:
                self._forget_first()
        except Exception:
            report("the beginning of a command")

    def _say(self, key: Sequence[Any]) -> Said:
        """Return what is said of commands that were not seen before, and keep it."""
        said = _said_of(*key)
        if isinstance(key[1], str):
            if len(self._alike) >= _MOST_KEPT:
                self._alike.clear()
            self._alike[key] = said
        return said

    def _watched_task(self, asyncio: Any) -> Any:
        """Return the current task, whose commands are over when it is.

        Not every version says that a command was cancelled with its task.
        """
        task = asyncio.current_task()
        if task is not None and task not in self._tasks:
            self._tasks.add(task)
            task.add_done_callback(self._end_with_task)
        return task

    def _forget_first(self) -> None:
        try:
            operation, _ = self._under_way.pop(next(iter(self._under_way)))
        except (KeyError, RuntimeError, StopIteration):  # other threads were here meanwhile
            return
        operation.succeed()

    def succeeded(self, event: Any) -> None:
        try:
            operation, _ = self._under_way.pop((event.request_id, event.connection_id), _NONE)
            if operation is None:
                return
            reply = event.reply
            errors = reply.get("writeErrors") if isinstance(reply, dict) else None
            if errors:
                _fail(operation, errors[0])
            else:
                operation.succeed()
        except Exception:
            report("the end of a command")

    @quiet
    def failed(self, event: Any) -> None:
        operation, _ = self._under_way.pop((event.request_id, event.connection_id), _NONE)
        if operation is not None:
            _fail(operation, event.failure)

    @quiet
    def _end_with_task(self, task: Any) -> None:
        for key, (operation, owner) in tuple(self._under_way.items()):
            if owner is task and self._under_way.pop(key, _NONE) is not _NONE:
                operation.succeed()


def _unchanged(wrapped: Any, _instance: Any, args: Any, kwargs: Any) -> Any:
    return wrapped(*args, **kwargs)


def _listener(monitoring: Any, told: PymongoInstrumentor) -> Any:
    """Return a listener of the library's class; made here, where that is imported."""

    class TracekitListener(monitoring.CommandListener):  # type: ignore[misc]
        started = staticmethod(told.started)
        succeeded = staticmethod(told.succeeded)
        failed = staticmethod(told.failed)

    return TracekitListener()


def _said_of(name: str, collection: Any, database: str, address: Any) -> Said:
    attributes: dict[str, Any] = {
        semconv.DB_SYSTEM_NAME: "mongodb",
        semconv.DB_OPERATION_NAME: truncated(name, _LONGEST_NAME),
        semconv.DB_NAMESPACE: database,
    }
    subject = database
    if isinstance(collection, str):  # the whole database is 1
        subject = attributes[semconv.DB_COLLECTION_NAME] = truncated(collection, _LONGEST_NAME)
    if address is not None:
        host, port = address
        attributes[semconv.SERVER_ADDRESS] = host
        if port is not None and port != _DEFAULT_PORT:
            attributes[semconv.SERVER_PORT] = port
    return Said(truncated(f"{name} {subject or database}", _LONGEST_NAME), attributes)


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
