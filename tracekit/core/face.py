"""What users type: spans, inherited attributes and carried context, without a tracer in hand.

``configure()`` puts a tracer in here. Before that, everything is a cheap no-op, unless the
program set a TracerProvider of its own, which is used then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any, TypeVar

from opentelemetry import trace as trace_api
from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanKind

from tracekit._otel_context import SPAN_KEY, attach, current_context, detach
from tracekit.core.ambient import AttributesScope
from tracekit.core.binding import DEFAULT_OPTIONS, SpanOptions
from tracekit.core.scoped import ScopedSpan, scope_with_options
from tracekit.core.tracer import Tracer
from tracekit.core.wrap import wrap

__all__ = [
    "attributes",
    "continue_trace",
    "current_span",
    "extract",
    "get_tracer",
    "inject",
    "keep",
    "new_scope",
    "scope_maker",
    "span",
    "use_tracer",
]

SCOPE_NAME = "tracekit"
_INTERNAL = SpanKind.INTERNAL
_NO_LINKS: Sequence[Link] = ()
_tracer: Tracer | None = None
_C = TypeVar("_C", bound=MutableMapping[str, Any])


def use_tracer(tracer: Tracer | None) -> None:
    """Make spans with ``tracer`` from now on; None undoes it."""
    global _tracer
    _tracer = tracer


def new_scope(
    name: str,
    kind: SpanKind,
    attributes: dict[str, Any] | None,
    options: SpanOptions = DEFAULT_OPTIONS,
) -> Any:
    """Return a span that is current in a ``with`` block, or what stands for it unconfigured."""
    tracer = _tracer
    if tracer is None:
        return _UnconfiguredScope(name, kind, attributes, options)
    binding = tracer.binding
    if options is DEFAULT_OPTIONS:
        return binding.new_scope(binding, name, kind, attributes)
    return scope_with_options(binding, name, kind, attributes, options)


def scope_maker(name: str, kind: SpanKind) -> Callable[[Any, Any], Any]:
    """Return what makes the scope of a decorated call that has no attributes."""

    def scope_of(_args: Any, _kwargs: Any) -> Any:
        tracer = _tracer
        if tracer is not None:
            binding = tracer.binding
            return binding.new_scope(binding, name, kind, None)
        return new_scope(name, kind, None)

    return scope_of


def span(
    name: str,
    /,
    *,
    kind: SpanKind = _INTERNAL,
    links: Sequence[Link] = _NO_LINKS,
    context: Context | None = None,
    start_time: int | None = None,
    **attributes: Any,
) -> ScopedSpan:
    """Return a span that starts and is current in a ``with`` block; also a decorator.

    Args:
        name: Low in variety: values go into attributes.
        links: Spans of other traces that this one is about.
        context: Holds the parent; None stands for the current one.
        start_time: Unix nanoseconds; None stands for now.
        attributes: Set at the start. Names with dots: ``**{"user.id": 7}``.

    Cost: see docs/reference; about a tenth of opentelemetry-sdk's.
    """
    options = DEFAULT_OPTIONS
    if links is not _NO_LINKS or context is not None or start_time is not None:
        given = context if isinstance(context, dict) else None
        options = SpanOptions(given, links or (), start_time)
    # Its frame is not to be saved: as deep as this one goes at least, a span can still be ended.
    scope: ScopedSpan = new_scope(name, kind, attributes or None, options)
    return scope


def attributes(**values: Any) -> AttributesScope:
    """Return a block in which every span that starts carries these attributes."""
    return AttributesScope(values)


def current_span() -> trace_api.Span:
    """Return the current span; an invalid, non-recording one when there is none."""
    return trace_api.get_current_span()


def keep(reason: str = "asked") -> None:
    """Ask the tail sampler to keep the trace under way; without one, nothing happens.

    Args:
        reason: Under which the kept trace is counted; a word, low in variety.
    """
    ask = getattr(trace_api.get_current_span(), "keep", None)
    if callable(ask):
        ask(reason)


def get_tracer(name: str = SCOPE_NAME, version: str | None = None) -> trace_api.Tracer:
    """Return an OpenTelemetry tracer for a library of that name."""
    return trace_api.get_tracer(name, version)


def inject(carrier: _C) -> _C:
    """Write the current span's context into a carrier, such as a dict of headers; return it."""
    # It reads the environment and loads the entry points of propagators, 5 ms: not on the way of
    # `import tracekit`.
    from opentelemetry import propagate

    propagate.inject(carrier)
    return carrier


def extract(carrier: Mapping[str, Any]) -> Context:
    """Read a remote parent out of a carrier; the current Context when there is none."""
    from opentelemetry import propagate

    return propagate.extract(carrier)


def continue_trace(carrier: Mapping[str, Any]) -> ContinuedTrace:
    """Return a block in which spans are children of the remote span named in ``carrier``."""
    return ContinuedTrace(carrier)


class ContinuedTrace:
    """A block in which the context that came with a carrier is current."""

    __slots__ = ("_attached", "_carrier", "_token")

    def __init__(self, carrier: Mapping[str, Any]) -> None:
        self._carrier = carrier

    def __enter__(self) -> Context:
        self._attached = extract(self._carrier)
        self._token = attach(self._attached)
        return self._attached

    def __exit__(self, *_exception: object) -> None:
        # Somebody may have attached more inside; what counts is whether the parent is still ours.
        if current_context().get(SPAN_KEY) is not self._attached.get(SPAN_KEY):
            return
        try:
            detach(self._token)
        except (ValueError, RuntimeError):
            return


class _UnconfiguredScope:
    """A block that runs under the program's own provider, or under none."""

    __slots__ = ("_attributes", "_kind", "_name", "_options", "_scope")

    def __init__(
        self, name: str, kind: SpanKind, attributes: dict[str, Any] | None, options: SpanOptions
    ) -> None:
        self._name = name
        self._kind = kind
        self._attributes = attributes
        self._options = options
        self._scope: Any = None

    def __enter__(self) -> trace_api.Span:
        if _tracer is not None:
            self._scope = self._again()
        elif _foreign_provider():
            self._scope = self._foreign()
        else:
            return trace_api.get_current_span()
        entered: trace_api.Span = self._scope.__enter__()
        return entered

    def _foreign(self) -> Any:
        options = self._options
        return trace_api.get_tracer(SCOPE_NAME).start_as_current_span(
            self._name,
            options.context,
            self._kind,
            self._attributes,
            options.links,
            options.start_time,
        )

    def __exit__(self, exc_type: Any, exc_val: Any, exc_tb: Any) -> None:
        scope, self._scope = self._scope, None
        if scope is not None:
            scope.__exit__(exc_type, exc_val, exc_tb)

    def begin_detached(self) -> trace_api.Span:
        if _tracer is not None:
            self._scope = self._again()
            begun: trace_api.Span = self._scope.begin_detached()
            return begun
        if not _foreign_provider():
            return trace_api.get_current_span()
        self._scope = trace_api.get_tracer(SCOPE_NAME).start_span(
            self._name, kind=self._kind, attributes=self._attributes
        )
        return self._scope  # type: ignore[no-any-return]

    def end_detached(self, exception: BaseException | None) -> None:
        scope, self._scope = self._scope, None
        if hasattr(scope, "end_detached"):
            scope.end_detached(exception)
        elif scope is not None:
            scope.__exit__(type(exception) if exception else None, exception, None)

    def __call__(self, function: Any) -> Any:
        return wrap(function, self._again)

    def _again(self) -> Any:
        attributes = dict(self._attributes) if self._attributes else None
        return new_scope(self._name, self._kind, attributes, self._options)


def _foreign_provider() -> bool:
    """Whether somebody set a provider by hand that is at work."""
    provider = trace_api.get_tracer_provider()
    stopped = getattr(provider, "is_shut_down", False)
    return not (stopped or isinstance(provider, trace_api.ProxyTracerProvider))
