"""Tell child processes the current span through ``TRACEPARENT`` in their environment.

Source: https://opentelemetry.io/docs/specs/otel/context/env-carriers/
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from opentelemetry.trace import get_current_span

from tracekit.instrumentation._carry import current_headers, is_suppressed
from tracekit.instrumentation._patch import LibraryInstrumentor, Patch, quiet

__all__ = ["SubprocessInstrumentor", "plugin"]

# Position of `env` among the arguments of Popen, the same in every Python that is supported.
_ENV = 10


class SubprocessInstrumentor(LibraryInstrumentor):
    """Context for ``Popen`` and everything built on it, asyncio's subprocesses too. No spans.

    ``instrument(subprocess_env=False)`` leaves the environment of children alone.
    """

    name = "subprocess"
    makes_spans = False
    _writes_env = True

    def configure(self, options: Mapping[str, Any]) -> None:
        others = dict(options)
        self._writes_env = bool(others.pop("subprocess_env", True))
        super().configure(others)

    def patches(self) -> Sequence[Patch]:
        if not self._writes_env:
            return ()
        return (
            Patch("subprocess", "Popen.__init__", _popen),
            # uvloop starts processes in C; on other loops Popen finds the work done.
            Patch("asyncio.subprocess", "create_subprocess_exec", _create, True),
            Patch("asyncio.subprocess", "create_subprocess_shell", _create, True),
            Patch("asyncio", "create_subprocess_exec", _create, True),
            Patch("asyncio", "create_subprocess_shell", _create, True),
        )


def _popen(
    wrapped: Callable[..., Any], _self: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    if len(args) <= _ENV:
        return wrapped(*args, **_with_env(kwargs))
    env = _traced(args[_ENV])
    if env is None:
        return wrapped(*args, **kwargs)
    return wrapped(*args[:_ENV], env, *args[_ENV + 1 :], **kwargs)


def _create(
    wrapped: Callable[..., Any], _none: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    return wrapped(*args, **_with_env(kwargs))


def _with_env(kwargs: dict[str, Any]) -> dict[str, Any]:
    env = _traced(kwargs.get("env"))
    return kwargs if env is None else {**kwargs, "env": env}


@quiet
def _traced(env: Any) -> dict[Any, Any] | None:
    """Return a copy of the environment with the current span in it; None to change nothing."""
    if env is not None and not isinstance(env, Mapping):
        return None  # Popen is to refuse it in its own words
    if is_suppressed() or not get_current_span().get_span_context().is_valid:
        return None
    variables = _variables()
    child = dict(os.environ if env is None else env)
    kept = {name for name in variables if _is_chosen(name, child)}
    if "TRACEPARENT" in kept:
        return None
    if "TRACEPARENT" in variables:
        # An old one belongs to another trace; empty is the same as absent.
        variables.setdefault("TRACESTATE", "")
        kept.discard("TRACESTATE")
    for name in variables.keys() - kept:
        _put(name, variables[name], child)
    return child


def _variables() -> dict[str, str]:
    """Return the headers of the current context by the names that environment variables have."""
    return {
        re.sub(r"[^A-Z0-9_]", "_", name.upper()): value
        for name, value in current_headers().items()
        # A zero byte, or a lone surrogate, would fail the program's call.
        if value.isascii() and value.isprintable()
    }


def _is_chosen(name: str, env: dict[Any, Any]) -> bool:
    """Say whether the caller set this variable.

    ``env=os.environ.copy()``, which everybody writes, repeats what this process was started
    with: that is the parent of our own spans, not a choice.
    """
    value = env.get(name, env.get(name.encode()))
    return value is not None and os.fsencode(value) != os.fsencode(os.environ.get(name, ""))


def _put(name: str, value: str, env: dict[Any, Any]) -> None:
    """Set a variable, or unset it when there is no value, in names of either type."""
    env.pop(name, None)
    env.pop(name.encode(), None)
    if not value:
        return
    if any(isinstance(key, bytes) for key in env):
        env[name.encode()] = value.encode()
    else:
        env[name] = value


plugin: type[LibraryInstrumentor] = SubprocessInstrumentor
