"""Carry the context of the submitter to the thread or process of a pool that does the work."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from tracekit._otel_context import NO_CONTEXT, current_context
from tracekit.instrumentation._around import around
from tracekit.instrumentation._carry import call_within, remote, threads_inherit
from tracekit.instrumentation._patch import LibraryInstrumentor
from tracekit.instrumentation._replacing import Replacing, ReplacingInstrumentor

__all__ = ["ConcurrentFuturesInstrumentor", "plugin"]

_FUNCTION = {"fn": 1}


class ConcurrentFuturesInstrumentor(ReplacingInstrumentor):
    """Context for ``submit`` and ``map`` of thread and process pools. Makes no spans.

    ``loop.run_in_executor`` and ``asyncio.to_thread`` submit too.
    """

    name = "concurrent_futures"
    makes_spans = False

    def patches(self) -> Sequence[Replacing]:
        # Each without the other where a second tracer sits on one: theirs carries as well.
        return (
            Replacing("concurrent.futures.thread", "ThreadPoolExecutor.submit", _to_thread, True),
            Replacing(
                "concurrent.futures.process", "ProcessPoolExecutor.submit", _to_process, True
            ),
        )


class _Handed:
    """What a pool is handed in place of the program's function."""

    __slots__ = ("fn",)

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn = fn


def _to_thread(original: Callable[..., Any], owners: Sequence[object]) -> Callable[..., Any]:
    from concurrent.futures.thread import ThreadPoolExecutor

    inherits = threads_inherit()

    # As the library's, and without around(): what is added to a call is a microsecond in all.
    def submit(self: Any, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        context = current_context()
        if (
            # Servers hand each request to a pool, where nothing is current yet.
            (context is NO_CONTEXT and not inherits)
            or not owners
            or (type(self) is not ThreadPoolExecutor and _crosses_interpreters(self))
        ):
            return original(self, fn, *args, **kwargs)
        return original(self, partial(call_within, context, fn), *args, **kwargs)

    return submit


def _to_process(original: Callable[..., Any], owners: Sequence[object]) -> Callable[..., Any]:
    def before(function: Any) -> _Handed | None:
        return None if function is None else _Handed(remote(function))

    return around(original, _FUNCTION, before, _rest, _rest, _FUNCTION, owners)


def _rest(*_told: object) -> None:
    """Leave it at that."""


def _crosses_interpreters(pool: object) -> bool:
    # It is a ThreadPoolExecutor that hands the function to an interpreter in which neither our
    # Context nor, perhaps, our extension modules can live.
    module = sys.modules.get("concurrent.futures.interpreter")
    return module is not None and isinstance(pool, module.InterpreterPoolExecutor)


plugin: type[LibraryInstrumentor] = ConcurrentFuturesInstrumentor
