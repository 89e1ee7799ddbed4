"""Commands of a pymongo that is told apart by nothing but its listeners.

A client takes the listeners that there are when it is made: one that was made before is not
watched.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

from opentelemetry.trace import Span

from tracekit.instrumentation._mongo import Commands
from tracekit.instrumentation._patch import quiet

__all__ = ["CommandsUnderWay", "listener"]

# More commands than this are not under way at once: the end of some was not told.
_MOST_UNDER_WAY = 1024
_modules: Any = sys.modules


class _At(NamedTuple):
    address: Any


class CommandsUnderWay:
    """Is told of commands by events, and ends a span by the event that belongs to its beginning.

    Concurrency: from any thread or task; dictionaries are written by single operations.
    """

    def __init__(self, commands: Commands, is_wanted: Callable[[], bool]) -> None:
        """Watch while it is wanted: a client that was made meanwhile keeps its listeners."""
        self._commands = commands
        self._is_wanted = is_wanted
        self._under_way: dict[Any, tuple[Span, Any]] = {}
        self._tasks: weakref.WeakSet[Any] = weakref.WeakSet()

    # The library logs what these raise into the program's stderr.

    @quiet
    def started(self, event: Any) -> None:
        if not self._is_wanted():
            return
        # Of what must not be told, it tells the name.
        command = event.command or {event.command_name: None}
        address, database = event.connection_id, event.database_name
        span = self._commands.begin(_At(address), command, database, self, None)
        if span is None:
            return
        self._under_way[event.request_id, address] = span, self._watched_task()
        if len(self._under_way) > _MOST_UNDER_WAY:
            self._forget_first()

    def _watched_task(self) -> Any:
        """Return the current task, whose commands are over when it is.

        Not every version says that a command was cancelled with its task.
        """
        asyncio = _modules.get("asyncio")
        if asyncio is None or asyncio._get_running_loop() is None:
            return None
        task = asyncio.current_task()
        if task is not None and task not in self._tasks:
            self._tasks.add(task)
            task.add_done_callback(self._end_with_task)
        return task

    def _forget_first(self) -> None:
        try:
            span, _ = self._under_way.pop(next(iter(self._under_way)))
        except (KeyError, RuntimeError, StopIteration):  # other threads were here meanwhile
            return
        self._commands.end(span)

    @quiet
    def succeeded(self, event: Any) -> None:
        span = self._ended(event)
        if span is not None:
            self._commands.answered(span, event.reply)

    @quiet
    def failed(self, event: Any) -> None:
        span = self._ended(event)
        if span is None:
            return
        if event.failure.get("errtype") == "CancelledError":  # the task stopped waiting, on purpose
            self._commands.end(span)
        else:
            self._commands.failed(span, event.failure)

    def _ended(self, event: Any) -> Span | None:
        ended = self._under_way.pop((event.request_id, event.connection_id), None)
        return None if ended is None else ended[0]

    @quiet
    def _end_with_task(self, task: Any) -> None:
        for key, (span, owner) in tuple(self._under_way.items()):
            if owner is task and self._under_way.pop(key, None) is not None:
                self._commands.end(span)


def listener(monitoring: Any, told: CommandsUnderWay) -> Any:
    """Return a listener of the library's class; made here, where that is imported."""

    class TracekitListener(monitoring.CommandListener):  # type: ignore[misc]
        started = staticmethod(told.started)
        succeeded = staticmethod(told.succeeded)
        failed = staticmethod(told.failed)

    return TracekitListener()
