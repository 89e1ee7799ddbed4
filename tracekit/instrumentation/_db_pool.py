"""What pools of connections do: let wait, and ask whether a connection lives."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from tracekit._otel_context import attach, current_context, detach
from tracekit.instrumentation._db import add_pool_wait, unwatched_context

__all__ = ["unwatched", "unwatched_async", "waiting", "waiting_async"]

Call = Callable[..., Any]
CallAsync = Callable[..., Awaitable[Any]]
Owners = Sequence[object]


def waiting(original: Call, owners: Owners) -> Call:
    """Replace the function in which a program waits for a connection of a used-up pool.

    The time is recorded on the next statement in the same context, and on that alone.
    """

    def wait(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter_ns()
        result = original(*args, **kwargs)
        if owners:
            add_pool_wait(time.perf_counter_ns() - began)
        return result

    return wait


def waiting_async(original: CallAsync, owners: Owners) -> CallAsync:
    """Replace such a coroutine."""

    async def wait(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter_ns()
        result = await original(*args, **kwargs)
        if owners:
            add_pool_wait(time.perf_counter_ns() - began)
        return result

    return wait


def unwatched(original: Call, owners: Owners) -> Call:
    """Replace a function whose statements are a pool's and not the program's."""

    def call(*args: Any, **kwargs: Any) -> Any:
        if not owners:
            return original(*args, **kwargs)
        token = attach(unwatched_context(current_context()))
        try:
            return original(*args, **kwargs)
        finally:
            detach(token)

    return call


def unwatched_async(original: CallAsync, owners: Owners) -> CallAsync:
    """Replace such a coroutine."""

    async def call(*args: Any, **kwargs: Any) -> Any:
        if not owners:
            return await original(*args, **kwargs)
        token = attach(unwatched_context(current_context()))
        try:
            return await original(*args, **kwargs)
        finally:
            detach(token)

    return call
