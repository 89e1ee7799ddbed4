"""Carry the context of the submitter to the thread or process of a pool that does the work."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from tracekit.instrumentation._carry import carried, remote
from tracekit.instrumentation._patch import LibraryInstrumentor, Patch

__all__ = ["ConcurrentFuturesInstrumentor", "plugin"]


class ConcurrentFuturesInstrumentor(LibraryInstrumentor):
    """Context for ``submit`` and ``map`` of thread and process pools. Makes no spans.

    ``loop.run_in_executor`` and ``asyncio.to_thread`` submit too.
    """

    name = "concurrent_futures"

    def patches(self) -> Sequence[Patch]:
        # Each without the other where a second tracer sits on one: theirs carries as well.
        return (
            Patch("concurrent.futures.thread", "ThreadPoolExecutor.submit", _to_thread, True),
            Patch("concurrent.futures.process", "ProcessPoolExecutor.submit", _to_process, True),
        )


def _to_thread(
    wrapped: Callable[..., Any], pool: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    if not args or _crosses_interpreters(pool):
        return wrapped(*args, **kwargs)
    return wrapped(carried(args[0]), *args[1:], **kwargs)


def _to_process(
    wrapped: Callable[..., Any], _pool: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    if not args:
        return wrapped(*args, **kwargs)
    return wrapped(remote(args[0]), *args[1:], **kwargs)


def _crosses_interpreters(pool: object) -> bool:
    # It is a ThreadPoolExecutor that hands the function to an interpreter in which neither our
    # Context nor, perhaps, our extension modules can live.
    module = sys.modules.get("concurrent.futures.interpreter")
    return module is not None and isinstance(pool, module.InterpreterPoolExecutor)


plugin: type[LibraryInstrumentor] = ConcurrentFuturesInstrumentor
