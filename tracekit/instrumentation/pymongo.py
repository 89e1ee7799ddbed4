"""pymongo: one CLIENT span for each command that a server is sent; sync and async.

The seam is ``_run_command``, of which there is one for either half of the library since 4.18:
every command is sent and answered in it, of clients that were made before as well. It is private,
and is taken only where it has the parameters that are read here and tells the listeners itself;
otherwise the library's own listeners are joined. These are its stable interface, but not free: as
soon as there is one, pymongo makes two events for each command, 15 µs.

What a cursor fetches later is a command, `getMore`, and a span; what keeps connections alive is
none.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

from opentelemetry.trace import Span

from tracekit.instrumentation._around import around
from tracekit.instrumentation._caller import caller_from
from tracekit.instrumentation._http import is_cancellation, message_of
from tracekit.instrumentation._mongo import Commands
from tracekit.instrumentation._mongo_listener import CommandsUnderWay, listener
from tracekit.instrumentation._patch import LibraryInstrumentor, Patch, report
from tracekit.instrumentation._replacing import put_in_place

__all__ = ["PymongoInstrumentor"]

_HALVES = ("synchronous", "asynchronous")
_SEAM = "_run_command"
# What is read of its arguments; the last two are named by whoever calls it.
_TOLD = {"conn": 0, "cmd": 1, "dbname": 2, "listeners": 5, "orig": 5}


class PymongoInstrumentor(LibraryInstrumentor):
    """Watch pymongo. Option ``code_location``: record the program's line."""

    name = "pymongo"
    distributions = ("pymongo",)
    supported = ">=4,<5"
    contrib = ("pymongo",)

    def __init__(self) -> None:
        super().__init__()
        self._listener: Any = None

    def configure(self, options: Mapping[str, Any]) -> None:
        self._read(**options)

    def _read(self, *, code_location: bool | None = None) -> None:
        self._commands = Commands(self.tracer.start_span, caller_from(os.environ, code_location))

    def patches(self) -> Sequence[Patch]:
        # Nothing of it is wrapped: once it is imported, so are both halves of the library.
        return (Patch("pymongo", "MongoClient", _unchanged),)

    def _put_all_on(self, module: ModuleType, name: str) -> str | None:
        done: list[Any] = self._put_on.setdefault(name, [])
        runners = _runners()
        if runners is None:
            return self._listen()
        self._errors: Any = sys.modules["pymongo.errors"]
        for runner, make in zip(runners, (self._around, self._around_async), strict=True):
            result = put_in_place(runner, _SEAM, make, self)
            if isinstance(result, str):
                return result
            done.append(result)
        return None

    def _around(
        self, original: Callable[..., Any], owners: Sequence[object], awaits: bool = False
    ) -> Callable[..., Any]:
        begin = self._commands.begin
        return around(
            original, _TOLD, begin, self._answered, self._fail, owners=owners, awaits=awaits
        )

    def _around_async(
        self, original: Callable[..., Any], owners: Sequence[object]
    ) -> Callable[..., Any]:
        return self._around(original, owners, awaits=True)

    def _answered(self, span: Span, result: Any, *_told: Any) -> None:
        # As `answered` does, without its frame, where nothing went wrong.
        try:
            reply = result[0][0]
            if type(reply) is dict and "writeErrors" not in reply:
                span.end()
            else:
                self._commands.answered(span, reply)
        except Exception:
            report("the end of a command")

    def _fail(self, span: Span, error: BaseException) -> None:
        try:
            # The server has carried it out, and the library cannot read what it answered.
            if is_cancellation(error) or isinstance(error, self._errors.EncryptionError):
                self._commands.end(span)
            else:
                self._commands.failed(span, self._failure(error))
        except Exception:
            report("the reading of a failure")

    def _failure(self, error: Any) -> Mapping[str, Any]:
        """Return what listeners are told of an error."""
        answers = (self._errors.NotPrimaryError, self._errors.OperationFailure)
        details = error.details if isinstance(error, answers) else None
        if isinstance(details, Mapping):
            return details
        return {"errmsg": message_of(error), "errtype": type(error).__name__}

    def _listen(self) -> str | None:
        monitoring: Any = sys.modules.get("pymongo.monitoring")
        listeners = getattr(monitoring, "_LISTENERS", None)
        if listeners is None:
            return "pymongo.monitoring has no list of listeners"
        if not any(type(one).__name__ == "TracekitListener" for one in listeners[0]):
            told = CommandsUnderWay(self._commands, lambda: self._wanted)
            self._listener = listener(monitoring, told)
            listeners[0].append(self._listener)
        return None

    def _withdraw(self) -> None:
        monitoring: Any = sys.modules.get("pymongo.monitoring")
        if self._listener is not None and monitoring is not None:
            monitoring._LISTENERS[0].remove(self._listener)
        self._listener = None
        super()._withdraw()


def _runners() -> tuple[ModuleType, ModuleType] | None:
    """Return where both halves of the library send commands; None where that is elsewhere."""
    sync, aio = (sys.modules.get(f"pymongo.{half}.command_runner") for half in _HALVES)
    if sync is None or aio is None:
        return None
    return (sync, aio) if _tells_listeners(sync) and _tells_listeners(aio) else None


def _tells_listeners(runner: ModuleType) -> bool:
    """Say whether the module's function is the one that sends, and tells listeners of it."""
    try:
        function = inspect.unwrap(getattr(runner, _SEAM))
        has = inspect.signature(function).parameters.keys() >= _TOLD.keys()
        return has and "_CommandTelemetry" in function.__code__.co_names
    except (AttributeError, TypeError, ValueError):
        return False


def _unchanged(wrapped: Any, _instance: Any, args: Any, kwargs: Any) -> Any:
    return wrapped(*args, **kwargs)


plugin: type[LibraryInstrumentor] = PymongoInstrumentor
