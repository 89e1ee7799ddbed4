"""Several propagators as one, with separate lists for both ways and a word on whom to trust."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from opentelemetry.context import Context, set_value
from opentelemetry.propagators.textmap import (
    Getter,
    Setter,
    TextMapPropagator,
    default_getter,
    default_setter,
)
from opentelemetry.trace import Span, SpanContext, get_current_span, set_span_in_context

from tracekit._otel_context import SPAN_KEY, OnlySpan, current_context
from tracekit.propagators._headers import Headers

__all__ = [
    "UNTRUSTED_SPAN_CONTEXT_KEY",
    "CompositePropagator",
    "RemoteCaller",
    "TrustPolicy",
]

# Written out, not made by create_key(): an instrumentation reads it through OpenTelemetry's
# get_value() and must not import this module.
UNTRUSTED_SPAN_CONTEXT_KEY = "tracekit-untrusted-span-context"

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RemoteCaller:
    """Who sent a request, as far as a trust policy may ask."""

    span_context: SpanContext
    headers: Headers[Any]

    def header(self, name: str) -> str | None:
        """Return the first value of one of the request's headers, or None."""
        return self.headers.first(name, name.title())


def _nobody(_: RemoteCaller) -> bool:
    return False


@dataclass(frozen=True)
class TrustPolicy:
    """What becomes of the context of a caller that is not trusted.

    Attributes:
        untrusted: "ignore" takes nothing at all from the caller, baggage included; "link" keeps
            its span context under UNTRUSTED_SPAN_CONTEXT_KEY, to be linked to, and nothing else.
        trusts: Says whom to trust; nobody, unless given. One that raises trusts nobody.

    Source: https://www.w3.org/TR/trace-context-2/#mutating-the-traceparent-field ("Restart trace")
    """

    untrusted: Literal["link", "ignore"] = "link"
    trusts: Callable[[RemoteCaller], bool] = _nobody


class CompositePropagator(TextMapPropagator):
    """Run several propagators, each for itself: one that raises does not stop the others.

    A propagator that has an attribute `injects_key` is not called for a context without that key:
    it would find nothing to write. One that has `extracts_headers`, two spellings of the header
    without which it reads nothing, is not called for a dictionary that has neither. One that has
    `traceparent_alone` says by it what it writes of a span, if that is this header alone; one that
    has `context_alone`, what it reads from this header alone.

    Args:
        inject: In the order in which they write.
        extract: In the order in which they read; as `inject` when not given.
        order: Whose trace context counts when several find one: the "last" in the list, as with
            opentelemetry-api, or the "first". Baggage is always taken from all.
        trust: Whose trace context is continued; everybody's when not given.

    Attributes:
        failed: How often a propagator raised, by class name. The first time is logged.
        traceparent_of: Takes a span that has started; returns the header traceparent, where that is
            all that would be written of it if it were current and nothing else were; or else None.
        context_of: Takes a header traceparent; returns the context that :meth:`extract` makes of a
            dictionary that has none other of the headers that are read, or None where that must be
            asked.
        reads: The names of all headers that are read, so that a dictionary of these does for the
            request; None where that is not known: a member does not say, or a policy may ask.
    """

    def __init__(
        self,
        inject: Sequence[TextMapPropagator],
        extract: Sequence[TextMapPropagator] | None = None,
        *,
        order: Literal["first", "last"] = "last",
        trust: TrustPolicy | None = None,
    ) -> None:
        self._inject = tuple(inject)
        self._extract = self._inject if extract is None else tuple(extract)
        # Bound once: these are on the path of each request, out and in.
        self._injects = tuple(
            (getattr(propagator, "injects_key", None), propagator.inject)
            for propagator in self._inject
        )
        self._injects_span = tuple(
            inject for key, inject in self._injects if key in (None, SPAN_KEY)
        )
        self.traceparent_of = _traceparent_of(self, self._inject)
        self._extracts = tuple(
            (*_only_headers(propagator), propagator.extract) for propagator in self._extract
        )
        self.reads = _all_headers(self, self._extract) if trust is None else None
        is_plain = trust is None and order == "last"
        self.context_of = _context_of(self, self._extract) if is_plain else _unsaid
        self._order = order
        self._takes_care = trust is not None or order == "first"
        self._trust = trust
        self.failed: dict[str, int] = {}

    @property
    def injectors(self) -> tuple[TextMapPropagator, ...]:
        return self._inject

    @property
    def extractors(self) -> tuple[TextMapPropagator, ...]:
        return self._extract

    @property
    def refused(self) -> dict[str, int]:
        """How often something sent could not be used, by reason, over all members."""
        total: dict[str, int] = {}
        for member in {id(member): member for member in self._inject + self._extract}.values():
            for reason, count in dict(getattr(member, "refused", {})).items():
                total[reason] = total.get(reason, 0) + count
        return total

    @property
    def fields(self) -> set[str]:
        return {field for propagator in self._inject for field in propagator.fields}

    def inject(
        self,
        carrier: Any,
        context: Context | None = None,
        setter: Setter[Any] = default_setter,
    ) -> None:
        if context is None:
            context = current_context()
        if type(context) is OnlySpan:
            injects: Sequence[Callable[..., None]] = self._injects_span
        else:
            injects = [
                inject
                for key, inject in self._injects
                if key is None or context.get(key) is not None
            ]
        for inject in injects:
            try:
                inject(carrier, context, setter)
            except Exception:
                self._count_failure(getattr(inject, "__self__", inject), "inject")

    def extract(
        self,
        carrier: Any,
        context: Context | None = None,
        getter: Getter[Any] = default_getter,
    ) -> Context:
        """Return the context with what the propagators find.

        Without a context the first propagator starts from its own default: an empty one for
        trace contexts, the current one for baggage.
        """
        if self._takes_care:
            return self._extract_with_care(carrier, context, getter)
        for name, other, extract in self._extracts:
            # Without a context each has a default of its own.
            if (
                context is not None
                and name is not None
                and getter is default_getter
                and type(carrier) is dict
                and name not in carrier
                and other not in carrier
            ):
                continue
            try:
                found = extract(carrier, context, getter)
                if found is not None:
                    context = found
            except Exception:
                self._count_failure(getattr(extract, "__self__", extract), "extract")
        return Context() if context is None else context

    def _extract_with_care(
        self, carrier: Any, context: Context | None, getter: Getter[Any]
    ) -> Context:
        """Extract where the first one counts, or where not everybody is trusted."""
        given = context
        winner: Span | None = None
        for _, _, extract in self._extracts:
            try:
                found = extract(carrier, context, getter)
            except Exception:
                self._count_failure(getattr(extract, "__self__", extract), "extract")
                continue
            if found is context or found is None:
                continue
            if self._order == "first":
                found, winner = _keep_first(found, context, winner)
            context = found
        if context is None:
            return Context()
        if self._trust is None or context is given:
            return context
        return _judged(self._trust, context, given, Headers(carrier, getter))

    def _count_failure(self, propagator: object, step: str) -> None:
        name = type(propagator).__name__
        self.failed[name] = self.failed.get(name, 0) + 1
        if self.failed[name] == 1:
            _logger.warning("Propagator %s failed to %s; said once", name, step, exc_info=True)


def _only_headers(propagator: TextMapPropagator) -> tuple[str | None, str | None]:
    return _of_own_class(propagator, "extracts_headers") or (None, None)


def _of_own_class(propagator: TextMapPropagator, name: str) -> Any:
    # Of the class itself: one that inherits from it may read more.
    return vars(type(propagator)).get(name)


def _traceparent_of(
    composite: CompositePropagator, members: Sequence[TextMapPropagator]
) -> Callable[[Any], str | None]:
    writing = [each for each in members if getattr(each, "injects_key", None) in (None, SPAN_KEY)]
    if len(writing) != 1 or type(composite) is not CompositePropagator:
        return _unsaid
    member: Any = writing[0]
    is_brief = _of_own_class(member, "traceparent_alone") is not None
    return member.traceparent_alone if is_brief else _unsaid


def _context_of(
    composite: CompositePropagator, members: Sequence[TextMapPropagator]
) -> Callable[[str], Context | None]:
    # Of the others, each reads nothing without a header of its own.
    reading = [each for each in members if _may_read(each, "traceparent")]
    if len(reading) != 1 or type(composite) is not CompositePropagator:
        return _unsaid
    member: Any = reading[0]
    is_brief = _of_own_class(member, "context_alone") is not None
    return member.context_alone if is_brief else _unsaid


def _may_read(propagator: TextMapPropagator, name: str) -> bool:
    needed = _only_headers(propagator)
    return needed == (None, None) or name in needed


def _unsaid(_asked: Any) -> None:
    return None


def _all_headers(
    composite: CompositePropagator, members: Sequence[TextMapPropagator]
) -> tuple[str, ...] | None:
    reads = [_of_own_class(propagator, "reads") for propagator in members]
    if None in reads or type(composite) is not CompositePropagator:
        return None
    return tuple(name for names in reads for name in names)


def _keep_first(
    found: Context, before: Context | None, winner: Span | None
) -> tuple[Context, Span | None]:
    span = get_current_span(found)
    if winner is None:
        is_new = before is None or span is not get_current_span(before)
        return found, span if is_new and span.get_span_context().is_remote else None
    # The later one may have found baggage, which stays.
    return (found if span is winner else set_span_in_context(winner, found)), winner


def _judged(
    policy: TrustPolicy, context: Context, given: Context | None, headers: Headers[Any]
) -> Context:
    """Return the context as the policy leaves it; the header counts as not sent, if so."""
    before = get_current_span(Context() if given is None else given)
    span = get_current_span(context)
    if span is before:
        return context
    caller = RemoteCaller(span.get_span_context(), headers)
    if _is_trusted(policy, caller):
        return context
    kept = Context() if given is None else given
    if policy.untrusted == "ignore":
        return kept
    return set_value(UNTRUSTED_SPAN_CONTEXT_KEY, caller.span_context, kept)


def _is_trusted(policy: TrustPolicy, caller: RemoteCaller) -> bool:
    try:
        return policy.trusts(caller)
    except Exception:
        # The safe side: a new trace loses a connection, a wrong trust loses the decision.
        _logger.warning("TrustPolicy.trusts failed; the caller is not trusted", exc_info=True)
        return False
