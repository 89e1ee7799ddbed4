"""Make the span that is current here the remote parent of what runs in a child process."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from opentelemetry.context import Context, get_current

from tracekit.instrumentation._carry import RemoteCall, carried, is_machinery, remote
from tracekit.instrumentation._patch import LibraryInstrumentor, Patch

__all__ = ["MultiprocessingInstrumentor", "plugin"]

# Each of them takes the function first, under the name `func`; `apply` calls `apply_async`.
_SUBMITTERS = (
    "apply_async",
    "map",
    "map_async",
    "starmap",
    "starmap_async",
    "imap",
    "imap_unordered",
)


class MultiprocessingInstrumentor(LibraryInstrumentor):
    """Context for ``Process`` (fork, spawn, forkserver), ``Pool`` and ``ThreadPool``. No spans."""

    name = "multiprocessing"
    makes_spans = False

    def patches(self) -> Sequence[Patch]:
        return (
            Patch("multiprocessing.process", "BaseProcess.start", _start),
            *(Patch("multiprocessing.pool", f"Pool.{name}", _submit) for name in _SUBMITTERS),
        )


def _start(
    wrapped: Callable[..., Any], process: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    own_run = vars(process).get("run")
    # A forked child is born with its parent's live span as the current one. In the process of a
    # pool that would be the parent of everybody's work.
    context = Context() if is_machinery(process) else get_current()
    # On the object, because that is what reaches the child: in memory, or pickled.
    vars(process)["run"] = RemoteCall(process.run, context)
    try:
        return wrapped(*args, **kwargs)
    finally:
        del vars(process)["run"]
        if own_run is not None:
            vars(process)["run"] = own_run


def _submit(
    wrapped: Callable[..., Any], pool: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    bind = carried if _has_threads(pool) else remote
    if args:
        return wrapped(bind(args[0]), *args[1:], **kwargs)
    if "func" in kwargs:
        return wrapped(**{**kwargs, "func": bind(kwargs["func"])})
    return wrapped(**kwargs)


def _has_threads(pool: object) -> bool:
    return isinstance(pool, sys.modules["multiprocessing.pool"].ThreadPool)


plugin: type[LibraryInstrumentor] = MultiprocessingInstrumentor
