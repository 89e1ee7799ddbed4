"""The first thing that happens in every Python process under ``tracekit run``."""

from __future__ import annotations

import os
import sys

from opentelemetry import context as context_api
from opentelemetry import propagate

from tracekit.configure import configure, instrument
from tracekit.errors import ConfigurationError

__all__ = ["begin"]


def begin() -> None:
    """Configure and instrument this process; whatever fails, the program runs.

    Nothing but patches and a provider is made here. Threads and connections come with the first
    span, so a worker that is forked later has its own.
    """
    try:
        _begin()
    except ConfigurationError as error:
        _say(f"not tracing, {error}")
    except Exception as error:
        _say(f"not tracing, {type(error).__name__}: {error}")


def _begin() -> None:
    from tracekit.cli._other_provider import make_room

    provider = configure()
    if os.environ.get("TRACEKIT_RUN_INSTRUMENT") != "0":
        instrument()
    make_room(provider)
    _continue_trace()
    if os.environ.get("TRACEKIT_RUN_VERBOSE") == "1":
        exporters = ", ".join(_exporter_names(provider.stats())) or "nowhere"
        _say(f"tracing {provider.resource.attributes['service.name']}, spans go to {exporters}")


def _continue_trace() -> None:
    """Make the span that TRACEPARENT names the remote parent of this process's root spans.

    ``site`` runs in the main thread, and what is attached there and never detached is what that
    thread's code finds. Other threads begin with what the thread that starts them hands over.
    Source: https://opentelemetry.io/docs/specs/otel/context/env-carriers/
    """
    from tracekit.propagators._environment import EnvironmentGetter

    context = propagate.extract(os.environ, getter=EnvironmentGetter())
    if context != context_api.get_current():
        context_api.attach(context)


def _exporter_names(stats: dict[str, object]) -> list[str]:
    processors = stats["processors"]
    assert isinstance(processors, list)
    return [lane["exporter"] for part in processors for lane in part.get("exporters", ())]


def _say(message: str) -> None:
    """Tell the developer, once: only the process that ``tracekit run`` became speaks."""
    if os.environ.get("TRACEKIT_RUN_PID") == str(os.getpid()) and sys.stderr is not None:
        sys.stderr.write(f"tracekit: {message}\n")
