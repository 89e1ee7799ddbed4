"""Where an error began, and who only passed it on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from opentelemetry.trace import SpanKind

from tracekit import semconv
from tracekit.findings._calls import called_service, is_timeout, label, status_of
from tracekit.findings._found import Finder, counted, finding, listed, span_name
from tracekit.findings._history import History
from tracekit.model import Finding, Severity
from tracekit.trace import Node, Trace

__all__ = ["plugin"]

KIND = "first_failure"
MAX_WORDS = 200


def first_failure(trace: Trace, history: History) -> Iterator[Finding]:
    """Find the error that made the request fail; else the errors that nobody passed on."""
    tops = [node for node in trace.nodes if node.is_error and not _has_failed(node.parent)]
    fatal = [node for node in tops if _is_root(node)]
    for node in fatal:
        yield _told(trace, _chain(node))
    swallowed = [node for node in tops if not _is_root(node) and not _is_expected(node)]
    if swallowed and not fatal:
        yield _told_swallowed(trace, swallowed)


def _has_failed(node: Node | None) -> bool:
    return node is not None and node.is_error


def _is_root(node: Node) -> bool:
    return node.parent is None or node.parent.span is None


def _is_expected(node: Node) -> bool:
    """Whether it is an answer rather than a failure, or was mended by a later attempt."""
    status = status_of(node)
    if len(status) == 3 and status.startswith("4"):
        return True
    siblings: Sequence[Node] = node.parent.children if node.parent is not None else ()
    return any(
        other.name == node.name and not other.is_error and other.start >= node.end
        for other in siblings
    )


def _chain(node: Node) -> list[Node]:
    """Return the errors from a span down to the one that began it.

    The child that failed last before its parent did is the one that was passed on. A call that
    timed out failed by itself: what its callee met later is no cause of it.
    """
    chain = [node]
    while not _has_given_up(node):
        failed = [child for child in node.children if child.is_error and child.end <= node.end]
        if not failed:
            break
        node = max(failed, key=lambda child: child.end)
        chain.append(node)
    return chain


def _told(trace: Trace, chain: Sequence[Node]) -> Finding:
    origin = chain[-1]
    passed_on = [node.service or node.name for node in reversed(chain[:-1])]
    passed_on = [name for name in dict.fromkeys(passed_on) if name != origin.service]
    through = f"; {listed(passed_on)} passed it on" if passed_on else ""
    return finding(
        trace,
        KIND,
        Severity.HIGH,
        f"the request failed because {_what(origin)}: {_why(origin)}{through}",
        list(reversed(chain)),
        advice=_advice(origin),
    )


def _what(origin: Node) -> str:
    if _has_given_up(origin):
        return f"{origin.service} gave up on {called_service(origin)} in {label(origin)}"
    return f"{span_name(origin)} failed first"


def _has_given_up(node: Node) -> bool:
    return node.kind is SpanKind.CLIENT and is_timeout(node)


def _advice(origin: Node) -> str:
    if _has_given_up(origin):
        return "Find out what it waited for; the limit only says when the waiting ended."
    return "Mend it where it began; what is above only repeats it."


def _told_swallowed(trace: Trace, swallowed: Sequence[Node]) -> Finding:
    origins = [_chain(node)[-1] for node in swallowed]
    first = origins[0]
    more = f" and {counted(len(origins) - 1, 'more error')}" if len(origins) > 1 else ""
    return finding(
        trace,
        KIND,
        Severity.LOW,
        f"{span_name(first)} failed{more}, but the request went on as if it had not: {_why(first)}",
        origins,
        advice="If the result can do without it, say so to the caller; else let it fail.",
    )


def _why(node: Node) -> str:
    told = ""
    for event in reversed(node.span.events):
        found = event.attributes or {}
        if event.name == semconv.EXCEPTION_EVENT and semconv.EXCEPTION_TYPE in found:
            message = found.get(semconv.EXCEPTION_MESSAGE) or ""
            told = f"{found[semconv.EXCEPTION_TYPE]}{': ' if message else ''}{message}"
            break
    told = told or node.description or str(node.attributes.get(semconv.ERROR_TYPE, ""))
    status = status_of(node)
    words = " ".join((told or (f"status {status}" if status else "an error")).split())
    return words if len(words) <= MAX_WORDS else f"{words[:MAX_WORDS]}…"


plugin: Finder = first_failure
