"""Calls that leave a service, read the same way whatever library or tracer recorded them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from opentelemetry.trace import SpanKind

from tracekit import semconv
from tracekit.findings._once import once
from tracekit.trace import Node, Trace

__all__ = [
    "Call",
    "calls_below",
    "calls_of",
    "calls_of_requests",
    "called_service",
    "entries",
    "grouped",
    "is_named_by_method",
    "is_timeout",
    "label",
    "location_in",
    "status_of",
]

K = TypeVar("K")

_READS = ("GET", "HEAD", "OPTIONS")
# Lists are quicker to look through than sets here: the hash of an enum is a function in Python.
_CALLING = [SpanKind.CLIENT, SpanKind.INTERNAL, SpanKind.PRODUCER]
_METHODS = {*_READS, "POST", "PUT", "PATCH", "DELETE", "QUERY", "HTTP"}
# First words of statements and commands that change nothing.
_READING = re.compile(
    r"\s*(?:/\*.*?\*/\s*)*(?:SELECT|SHOW|EXPLAIN|VALUES|TABLE|GET|MGET|GETRANGE|STRLEN|EXISTS|TTL|TYPE"
    r"|HGET|HGETALL|HMGET|HLEN|LRANGE|LLEN|SMEMBERS|SISMEMBER|SCARD|ZRANGE|ZSCORE|ZCARD"
    r"|find|findOne|aggregate|count|countDocuments|distinct)\b",
    re.IGNORECASE | re.DOTALL,
)
_PLACEHOLDER = re.compile(r"\?|%s|%\(|\$\d|:\w|@\w")
_CHANGING = re.compile(r"\b(?:INSERT|UPDATE|DELETE|MERGE|FOR\s+UPDATE|INTO)\b", re.IGNORECASE)
# A segment of a path that names one of many: a number, a UUID, a long hexadecimal id.
_ONE_OF_MANY = re.compile(r"(?<=/)(?:\d+|[0-9a-fA-F]{8,}|[0-9a-fA-F-]{32,36})(?=/|$)")
_TIMEOUT = re.compile(r"time(?:d\s*)?-?\s?out|deadline.?exceeded", re.IGNORECASE)
# What tracers wrote before OpenTelemetry, or write to Zipkin.
# https://github.com/opentracing/specification/blob/master/semantic_conventions.md and
# https://github.com/openzipkin/brave/blob/master/instrumentation/mysql8/README.md
_DB_SYSTEM = (semconv.DB_SYSTEM_NAME, semconv.OLD_DB_SYSTEM, "db.type")
_OLDER_QUERY = "sql.query"
_OLDER_PEER = ("peer.hostname", "peer.address", "peer.service", semconv.NETWORK_PEER_ADDRESS)
MAX_TEXT = 10_000
MAX_PATH = 60


class Call(NamedTuple):
    """One call to a database or another service.

    Args:
        shape: What is called, whatever the values: a query, a method with its path's template.
        identity: Equal for calls that ask for the very same thing; None where it cannot be known.
        targets: What is read or written: tables, or a path and the one above it.
    """

    node: Node
    system: str
    peer: str
    shape: str
    identity: str | None
    targets: tuple[str, ...]
    is_read: bool
    has_failed: bool
    status: str

    @property
    def is_database(self) -> bool:
        return self.system not in ("http", "rpc")


@once
def calls_of(trace: Trace) -> list[Call]:
    """Return the calls of a trace in the order of their starts."""
    found = [_call(node) for node in trace.nodes if node.kind in _CALLING and node.attributes]
    return [call for call in found if call is not None]


def _call(node: Node) -> Call | None:
    attributes = node.attributes
    system = _first(attributes, *_DB_SYSTEM)
    if system or _OLDER_QUERY in attributes:
        return _database_call(node, attributes, system or "sql")
    if node.kind is SpanKind.CLIENT:
        if method := _first(attributes, semconv.HTTP_REQUEST_METHOD, semconv.OLD_HTTP_METHOD):
            return _http_call(node, attributes, method)
        if method := _first(attributes, "rpc.method"):
            service = _first(attributes, "rpc.service")
            name = f"{service}/{method}" if service else method
            peer = _peer(attributes)
            return Call(node, "rpc", peer, name, None, (name,), False, *_outcome(node))
    return None


def _http_call(node: Node, attributes: Mapping[str, Any], method: str) -> Call:
    url = _first(attributes, semconv.URL_FULL, semconv.OLD_HTTP_URL)
    path, host = _split(url) if url else (_path(attributes), "")
    targets = (path, path.rpartition("/")[0])
    return Call(
        node,
        "http",
        _peer(attributes) or host,
        f"{method} {_template(attributes, path)}",
        f"{method} {url}" if url else None,
        targets,
        method in _READS,
        *_outcome(node),
    )


def _path(attributes: Mapping[str, Any]) -> str:
    if url := _first(attributes, semconv.URL_FULL, semconv.OLD_HTTP_URL):
        return _split(url)[0]
    return _first(attributes, semconv.URL_PATH, "http.path", "http.target").partition("?")[0]


def _template(attributes: Mapping[str, Any], path: str) -> str:
    given = _first(attributes, semconv.URL_TEMPLATE, semconv.HTTP_ROUTE)
    return given or _ONE_OF_MANY.sub("{}", path)


def is_named_by_method(node: Node) -> bool:
    """Whether a span is called GET or POST and nothing else, as those of clients are.

    Source: https://opentelemetry.io/docs/specs/semconv/http/http-spans/#name
    """
    return node.name.upper() in _METHODS


def label(node: Node, *, exact: bool = False) -> str:
    """Return what a span is called in a sentence: its name, with the path where that is a method.

    Args:
        exact: With the ids in the path rather than its shape.
    """
    if not is_named_by_method(node):
        return node.name
    path = _path(node.attributes)
    path = path if exact else _template(node.attributes, path)
    shown = path if len(path) <= MAX_PATH else f"{path[: MAX_PATH - 1]}…"
    return f"{node.name} {shown}" if shown else node.name


def _split(url: str) -> tuple[str, str]:
    try:
        parts = urlsplit(url)
        return parts.path or "/", parts.netloc.rpartition("@")[2]
    except ValueError:
        return url, ""


def _database_call(node: Node, attributes: Mapping[str, Any], system: str) -> Call:
    names = (semconv.DB_QUERY_TEXT, semconv.OLD_DB_STATEMENT, _OLDER_QUERY)
    text = _first(attributes, *names)[:MAX_TEXT]
    summary = _first(attributes, semconv.DB_QUERY_SUMMARY) or node.name
    shape = _first(attributes, semconv.QUERY_HASH) or text or summary
    namespace = _first(attributes, semconv.DB_NAMESPACE, semconv.OLD_DB_NAME)
    targets = _first(attributes, "db.collection.name", "db.sql.table").split() or [
        word for word in summary.split()[1:] if not word.isupper()
    ]
    asked = text or _first(attributes, "db.operation.name", "db.operation") or summary
    is_read = bool(_READING.match(asked)) and not _CHANGING.search(text)
    return Call(
        node,
        system,
        f"{system} {namespace}@{_peer(attributes)}",
        shape,
        _database_identity(attributes, shape, text),
        tuple(targets),
        is_read,
        *_outcome(node),
    )


def _database_identity(attributes: Mapping[str, Any], shape: str, text: str) -> str | None:
    """Return what is equal for equal questions: the query with its parameters, where known.

    A text without a placeholder holds its values, or has none.
    """
    parameters = _first(attributes, semconv.PARAMETERS_HASH) or _parameters_in(attributes)
    if parameters:
        return f"{shape} {parameters}"
    return text if text and not _PLACEHOLDER.search(text) else None


def _parameters_in(attributes: Mapping[str, Any]) -> str:
    prefix = semconv.DB_QUERY_PARAMETER
    named = [f"{key}={attributes[key]!r}" for key in attributes if key.startswith(prefix)]
    return " ".join(sorted(named))


def _outcome(node: Node) -> tuple[bool, str]:
    status = status_of(node)
    refused = status.isdigit() and len(status) == 3 and status >= "400"
    return node.is_error or refused, status


def status_of(node: Node) -> str:
    """Return the code that the other side answered with, as text; empty without one."""
    return _first(
        node.attributes,
        semconv.HTTP_RESPONSE_STATUS_CODE,
        semconv.OLD_HTTP_STATUS_CODE,
        "rpc.status_code",
        "rpc.response.status_code",
        semconv.DB_RESPONSE_STATUS_CODE,
    )


def _peer(attributes: Mapping[str, Any]) -> str:
    address = _first(attributes, semconv.SERVER_ADDRESS, semconv.OLD_NET_PEER_NAME, *_OLDER_PEER)
    port = _first(attributes, semconv.SERVER_PORT, semconv.OLD_NET_PEER_PORT, "peer.port")
    return f"{address}:{port}" if address and port else address


def _first(attributes: Mapping[str, Any], *keys: str) -> str:
    for key in keys:
        if (value := attributes.get(key)) is not None:
            return str(value)
    return ""


def called_service(call: Node) -> str:
    """Return who answered a call: the service below it, else the address that was called."""
    for child in call.children:
        if child.service and child.service != call.service:
            return child.service
    url = _first(call.attributes, semconv.URL_FULL, semconv.OLD_HTTP_URL)
    return _peer(call.attributes) or _split(url)[1] or call.name


@once
def entries(trace: Trace) -> dict[Node, Node]:
    """Return for each span the one by which its request came into the service, or the root."""
    found: dict[Node, Node] = {}
    pending = list(trace.roots)
    while pending:
        node = pending.pop()
        above = node.parent
        if (
            above is None
            or above.span is None
            or node.service != above.service
            or node.kind is SpanKind.SERVER
            or node.kind is SpanKind.CONSUMER
        ):
            found[node] = node
        else:
            found[node] = found[above]
        pending += node.children
    return found


def calls_of_requests(trace: Trace, at_least: int) -> dict[Node, list[Call]]:
    """Return the calls that each request made within its service, of those that made so many."""
    came_in = entries(trace)
    return grouped(calls_of(trace), lambda call: came_in[call.node], at_least)


def calls_below(trace: Trace, at_least: int) -> dict[Node | None, list[Call]]:
    """Return the calls below each span, of those that made so many; below None those of roots."""
    return grouped(calls_of(trace), lambda call: call.node.parent, at_least)


def grouped(calls: Sequence[Call], key: Callable[[Call], K], at_least: int) -> dict[K, list[Call]]:
    """Return calls by a key, where so many have it, in their order; compressed ones count as all.

    The others are only counted: most groups of a large trace are small, and lists for all of them
    would cost more than what is found in them.
    """
    keys = [*map(key, calls)]
    counts = Counter(keys)
    for each, call in zip(keys, calls, strict=True):
        if semconv.COMPRESSED_COUNT in call.node.attributes:
            counts[each] += call.node.count - 1
    found: dict[K, list[Call]] = {each: [] for each, number in counts.items() if number >= at_least}
    if found:
        for each, call in zip(keys, calls, strict=True):
            if each in found:
                found[each].append(call)
    return found


def is_timeout(node: Node) -> bool:
    """Whether a span failed because it did not want to wait any longer."""
    if not node.is_error:
        return False
    told = [_first(node.attributes, semconv.ERROR_TYPE), status_of(node), node.description or ""]
    if any(_TIMEOUT.search(text) for text in told):
        return True
    return any(
        _TIMEOUT.search(_first(event.attributes or {}, semconv.EXCEPTION_TYPE))
        for event in node.span.events
        if event.name == semconv.EXCEPTION_EVENT
    )


def location_in(attributes: Mapping[str, Any]) -> str:
    """Return file and line of the code that attributes of a span or an event name, if they do."""
    path = _first(attributes, semconv.CODE_FILE_PATH, "code.filepath")
    line = _first(attributes, semconv.CODE_LINE_NUMBER, "code.lineno")
    return f"{path}:{line}" if path and line else path
