"""Who else has wrapped a function of a library, and whether they make spans of it."""

from __future__ import annotations

import inspect
import sys
from typing import Any

__all__ = ["other_tracer"]

_OTHERS = {
    "opentelemetry": "opentelemetry-instrumentation",
    "ddtrace": "ddtrace",
    "sentry_sdk": "sentry-sdk",
    "logfire": "logfire",
    "newrelic": "newrelic",
    "elasticapm": "elastic-apm",
}


def other_tracer(layer: Any) -> str | None:
    """Name the tracer that this layer of wrapping belongs to, if it is one that makes spans.

    ``functools.wraps`` copies ``__module__`` from what is wrapped, so the code that wraps is
    told by its globals; a wrapt proxy by its wrapper function; ddtrace replaces the code of a
    function in place and leaves a mark.
    """
    if inspect.getattr_static(layer, "__dd_wrapped__", None) is not None:
        return _OTHERS["ddtrace"]
    code: Any = getattr(layer, "_self_wrapper", None) or layer
    code = getattr(code, "__func__", getattr(code, "func", code))
    module = getattr(code, "__globals__", {}).get("__name__", "").partition(".")[0]
    if module == "sentry_sdk" and not _sentry_traces():
        return None
    return _OTHERS.get(module)


def _sentry_traces() -> bool:
    """Tell whether Sentry makes spans: most programs have it report errors, and nothing else.

    https://docs.sentry.io/platforms/python/configuration/options/#traces_sample_rate
    """
    sentry: Any = sys.modules.get("sentry_sdk")
    try:
        options = sentry.get_client().options
        return bool(options.get("traces_sample_rate") or options.get("traces_sampler"))
    except Exception:  # half imported, or of another time: it is left alone
        return True
