"""The steps of a database call, the same for every library, sync and async.

1. suppressed, or inside of a database call already? then it is not watched: the highest layer
   that is watched speaks for those below, so that a query of an ORM is one span
2. the query is read: its text without values, its summary, which names the span, its hash
3. the span starts, and is current while the library works
4. what only a recorded span needs: the program's line that asked, a hash of the values
5. the span ends with what came of it

An instrumentation says where a library keeps host, port and database (:class:`Target`) and how
its exceptions tell what the database answered.
https://opentelemetry.io/docs/specs/semconv/db/database-spans/
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Tracer, format_span_id, format_trace_id

from tracekit import semconv
from tracekit._otel_context import NO_CONTEXT, SPAN_KEY, OnlySpan, current_context
from tracekit._sql import LONGEST_READ, Reader, reader
from tracekit.errors import InvalidValueError
from tracekit.instrumentation import _operation
from tracekit.instrumentation._caller import Caller, caller_from, frame_at
from tracekit.instrumentation._db_contrib import (
    contrib,
    contrib_speaks,
    silencing,
    watch_contrib,
)
from tracekit.instrumentation._db_parameters import hash_of, secret_of, values_of
from tracekit.instrumentation._http import truncated
from tracekit.instrumentation._operation import OnlyOperation, Operation
from tracekit.instrumentation._patch import quiet, report
from tracekit.instrumentation._said import Said

__all__ = [
    "OPTIONS",
    "DatabaseSettings",
    "DatabaseSteps",
    "Target",
    "add_pool_wait",
    "is_inside",
    "text_of",
    "unwatched_context",
]

_LAYER = "database"
"""What :mod:`_operation` knows all of these by, whatever database it is."""
_LONGEST_NAME = 255
# Frames that are certainly ours where a query begins: that, who asks for it, and what stands in
# the place of the library's function.
_INSIDE = 3
_PINGS = frozenset(("", "select 1", "select 1 from dual", "values 1"))
_DEFAULT_PORTS = {
    "postgresql": 5432,
    "mysql": 3306,
    "mariadb": 3306,
    "microsoft.sql_server": 1433,
    "oracle.db": 1521,
}
_TEXTS = ("safe", "sanitized", "none")


OPTIONS = frozenset(
    (
        *("query_text", "capture_parameters", "capture_rows", "sql_comments", "pings"),
        *("code_location", "hash_secret"),
    )
)
"""Names of the arguments of :meth:`DatabaseSettings.read`."""


@dataclass(frozen=True)
class DatabaseSettings:
    """What was configured for one database library, read once when it is instrumented."""

    query_text: str = "safe"
    captures_parameters: bool = False
    captures_rows: bool = False
    writes_comments: bool = False
    records_pings: bool = False
    writes_old_names: bool = False
    caller: Caller | None = None
    hash_secret: bytes = b""

    @classmethod
    def read(
        cls,
        environ: Mapping[str, str] = os.environ,
        *,
        query_text: str | None = None,
        capture_parameters: bool | None = None,
        capture_rows: bool | None = None,
        sql_comments: bool | None = None,
        pings: bool | None = None,
        code_location: bool | None = None,
        hash_secret: str | None = None,
    ) -> DatabaseSettings:
        """Read the environment, overridden by options.

        Args:
            query_text: ``safe`` (as it is when values travel beside it, otherwise without them),
                ``sanitized`` (always without) or ``none``; ``TRACEKIT_DB_QUERY_TEXT``.
            capture_parameters: Record the values; ``TRACEKIT_DB_CAPTURE_PARAMETERS``.
            capture_rows: Record how many rows came; ``TRACEKIT_DB_CAPTURE_ROWS``.
            sql_comments: Append ``traceparent`` to queries; ``TRACEKIT_DB_SQL_COMMENTS``.
            pings: Record what a pool asks of its connections; ``TRACEKIT_DB_PINGS``.
            code_location: Record the program's line; ``TRACEKIT_CODE_LOCATION``.
            hash_secret: Goes into the hash of values; ``TRACEKIT_DB_HASH_SECRET``.

        Raises:
            InvalidValueError: a value that there is not.
            TypeError: an option that there is not.
        """
        text = query_text or environ.get("TRACEKIT_DB_QUERY_TEXT") or "safe"
        if text not in _TEXTS:
            raise InvalidValueError(
                "query_text (TRACEKIT_DB_QUERY_TEXT)", text, "safe, sanitized or none"
            )
        opted = (environ.get("OTEL_SEMCONV_STABILITY_OPT_IN") or "").split(",")
        return cls(
            text,
            _flag(capture_parameters, environ, "TRACEKIT_DB_CAPTURE_PARAMETERS"),
            _flag(capture_rows, environ, "TRACEKIT_DB_CAPTURE_ROWS"),
            _flag(sql_comments, environ, "TRACEKIT_DB_SQL_COMMENTS"),
            _flag(pings, environ, "TRACEKIT_DB_PINGS"),
            "database/dup" in [name.strip() for name in opted],
            caller_from(environ, code_location),
            secret_of(hash_secret, environ),
        )


def _flag(given: bool | None, environ: Mapping[str, str], name: str) -> bool:
    if given is not None:
        return given
    text = (environ.get(name) or "false").strip().lower()
    if text not in ("true", "false"):
        raise InvalidValueError(name, text, "true or false")
    return text == "true"


class _Said(Said):
    """What the span of one query to one database says.

    Attributes:
        is_only_for_pools: Nobody else asks nothing at all, and these are not to be recorded.
    """

    __slots__ = ("is_only_for_pools",)

    def __init__(self, name: str, attributes: Mapping[str, Any], is_only_for_pools: bool) -> None:
        super().__init__(name, attributes)
        self.is_only_for_pools = is_only_for_pools


_Kept = dict[str, _Said]
_MOST_KEPT = 256
_LONGEST_KEPT = 8192


class Target:
    """One database at one place: what every span of a call to it says.

    Concurrency: from any thread; dictionaries are read and written by single operations.
    """

    __slots__ = ("_readers", "_settings", "attributes", "kind", "literal", "name", "parameterised")

    literal: _Kept
    """What was said of queries that hold their values; of long ones nothing is kept."""
    parameterised: _Kept
    """What was said of queries whose values travel beside them."""

    def __init__(
        self,
        name: str,
        attributes: Mapping[str, Any],
        kind: SpanKind,
        readers: tuple[Reader, Reader],
        settings: DatabaseSettings,
    ) -> None:
        self.name = name
        self.attributes = attributes
        self.kind = kind
        self.literal = {}
        self.parameterised = {}
        self._readers = readers
        self._settings = settings

    def read(self, query: str, kept: _Kept) -> _Said:
        """Read a query that was not read lately, and keep what is said of it in `kept`."""
        settings = self._settings
        text, summary, digest = self._readers[kept is self.parameterised](query)
        attributes: dict[str, Any] = {**self.attributes, semconv.QUERY_HASH: digest}
        if summary:
            attributes[semconv.DB_QUERY_SUMMARY] = summary
        if settings.query_text != "none":
            attributes[semconv.DB_QUERY_TEXT] = text
            if settings.writes_old_names:
                attributes[semconv.OLD_DB_STATEMENT] = text
        asks = query[:64].strip(" ;\n").lower()
        if asks in _PINGS:
            attributes[semconv.PING] = True
        said = _Said(summary or self.name, attributes, not (asks or settings.records_pings))
        if len(query) <= _LONGEST_KEPT:
            if len(kept) >= _MOST_KEPT:
                kept.clear()
            kept[query] = said
        return said


class _Apart(Operation):
    """An operation that is not made current, and has nothing to leave."""

    __slots__ = ()

    def __init__(self, span: Span) -> None:
        self.span = span
        self._token = None
        self._ended = False

    def succeed(self, attributes: Mapping[str, Any] | None = None) -> None:
        if attributes or self._ended:
            super().succeed(attributes)
            return
        self._ended = True
        try:
            self.span.end()
        except Exception:
            report("the end of a span")


class DatabaseSteps:
    """What the calls of one instrumented library have in common.

    Concurrency: from any thread.
    """

    def __init__(self, tracer: Tracer, settings: DatabaseSettings, *, nests: bool = True) -> None:
        """Prepare for one library.

        Args:
            nests: Whether the library may call what is watched too, inside of a single query; a
                driver does not, and is spared a context of its own for each.
        """
        self.settings = settings
        self._nests = nests
        self._caller = settings.caller
        self._captures_parameters = settings.captures_parameters
        self._start_span = tracer.start_span
        watch_contrib()
        self._readers: dict[str, tuple[Reader, Reader]] = {}
        self.target = functools.lru_cache(maxsize=64)(self._target)
        """Return where calls go: `system`, `namespace`, `host`, `port`, and whether it is the
        memory of this process; one lookup for what was seen before."""

    def _target(
        self,
        system: str,
        namespace: str | None = None,
        host: str | None = None,
        port: int | None = None,
        in_memory: bool = False,
    ) -> Target:
        attributes: dict[str, Any] = {semconv.DB_SYSTEM_NAME: system}
        if namespace:
            attributes[semconv.DB_NAMESPACE] = namespace = truncated(namespace, _LONGEST_NAME)
        if host:
            attributes[semconv.SERVER_ADDRESS] = host = truncated(host, _LONGEST_NAME)
            if port and port != _DEFAULT_PORTS.get(system) and not host.startswith(("/", "@")):
                attributes[semconv.SERVER_PORT] = port
        if self.settings.writes_old_names:
            attributes |= _old_names(attributes, port)
        name = namespace or (f"{host}:{port}" if host and port else host) or system
        kind = SpanKind.INTERNAL if in_memory else SpanKind.CLIENT
        if system not in self._readers:
            keeps = self.settings.query_text == "safe"
            literal, beside = (reader(system, parameterised=p) for p in (False, keeps))
            self._readers[system] = literal, beside
        return Target(name, attributes, kind, self._readers[system], self.settings)

    def begin(  # noqa: PLR0912 - in one function, see below
        self, target: Target, query: str, parameters: Any = None, batch_size: int = 1
    ) -> Operation | None:
        """Start the span of a query; None when it is not to be watched. Never raises.

        Called by what replaces the library's function, or by something that this calls; the line
        of the program is looked for outside of those two.

        Args:
            parameters: The values that travel beside it; True for a batch of them.
            batch_size: How often it is asked, with other values each time; -1 when unknown.
        """
        # In one function, and nothing looked up twice: this is on the path of every query.
        try:
            parent = current_context()
            # Looking into a context of a span only would fill it, and it says nothing else.
            if type(parent) is OnlySpan:
                outer: Any = parent.span
            elif parent is not NO_CONTEXT:
                if _is_spoken_for(parent):
                    return None
                outer = parent.get(SPAN_KEY)
            else:
                outer = None
            if contrib.is_loaded and contrib_speaks():
                return None
            kept = target.parameterised if parameters else target.literal
            said = kept.get(query) or target.read(query, kept)
            if said.is_only_for_pools:
                return None
            attributes = said.attributes
            # Below a span that is recorded so is this one, as a rule; of a root it is hoped.
            # Writing attributes afterwards costs a microsecond more than handing them over now.
            is_known = outer is None or outer.is_recording()
            if is_known and self._caller is not None:
                try:
                    frame = frame_at(_INSIDE)
                except ValueError:  # the stack begins with ours, as in a greenlet
                    frame = None
                code, at, attributes = said.seen
                if frame is None or frame.f_code is not code or frame.f_lasti != at:
                    attributes = self._caller.asked(said, frame, _INSIDE)
            is_batch = parameters is True
            if batch_size != 1:
                parameters = None
                if batch_size >= 0:
                    attributes = {**attributes, semconv.DB_OPERATION_BATCH_SIZE: batch_size}
            elif is_known and (outer is not None or self._captures_parameters) and parameters:
                attributes = self._with_values(attributes, parameters, outer)
            span = self._start_span(said.name, parent, target.kind, attributes)
            if self._nests or is_batch or contrib.is_loaded:
                operation = Operation(span, _LAYER, parent)
            else:
                operation = _Apart(span)
            if contrib.is_loaded or not is_known or _waited_ns():
                self._begin_unusual(operation, is_known, parameters)
            return operation
        except Exception:
            report("the beginning of a database span")
            return None

    @quiet
    def begin_procedure(self, target: Target, name: str, parameters: Any) -> Operation | None:
        """Start the span of a stored procedure that is called by a function for it."""
        parent = current_context()
        if parent and _is_spoken_for(parent):
            return None
        if contrib.is_loaded and contrib_speaks():
            return None
        name = truncated(name, _LONGEST_NAME - 5)
        attributes = {
            **target.attributes,
            semconv.DB_STORED_PROCEDURE_NAME: name,
            semconv.DB_QUERY_SUMMARY: f"CALL {name}",
        }
        span = self._start_span(f"CALL {name}", parent, target.kind, attributes)
        operation = Operation(span, _LAYER, parent)
        self._begin_unusual(operation, False, parameters)
        return operation

    @quiet
    def _begin_unusual(self, operation: Operation, is_known: bool, parameters: Any) -> None:
        span = operation.span
        if not is_known and span.is_recording():
            details: Mapping[str, Any] = {}
            if self._caller is not None:
                details = self._caller.attributes()
            if parameters:
                details = self._with_values(details, parameters, span)
            span.set_attributes(details)
        operation.add_pool_wait(_waited_ns())
        _pool_wait_ns.set(0)
        if contrib.is_loaded:
            operation.enter(silencing(operation.context))

    def _with_values(
        self, attributes: Mapping[str, Any], parameters: Any, within: Any
    ) -> Mapping[str, Any]:
        """Return `attributes` and what is said of the values that travel beside a query.

        Args:
            within: A span of the trace, if there is one before this.
        """
        digest = hash_of(parameters, within, self.settings.hash_secret)
        if digest is not None:
            attributes = {**attributes, semconv.PARAMETERS_HASH: digest}
        if self._captures_parameters:
            attributes = {**attributes, **values_of(parameters)}
        return attributes

    def commented(self, operation: Operation, query: Any) -> Any:
        """Return `query` with the span's ``traceparent`` behind it, where that was asked for.

        https://opentelemetry.io/docs/specs/semconv/db/database-spans/#sql-commenter
        """
        if not self.settings.writes_comments:
            return query
        context = operation.span.get_span_context()
        comment = (
            f"/*traceparent='00-{format_trace_id(context.trace_id)}-"
            f"{format_span_id(context.span_id)}-{context.trace_flags:02x}'*/"
        )
        if isinstance(query, str):
            return f"{query} {comment}"
        return query + b" " + comment.encode() if isinstance(query, bytes) else query


def is_inside() -> bool:
    """Tell whether this runs inside of a database call that has a span, or is not to have one."""
    context = current_context()
    return _is_spoken_for(context) or (contrib.is_loaded and contrib_speaks())


UNWATCHED = "tracekit-database-unwatched"
"""Is in a context whose statements are not the program's."""


def unwatched_context(context: Context) -> Context:
    """Return a context in which statements have no spans."""
    if contrib.is_loaded:
        context = silencing(context)
    return Context({**context, UNWATCHED: True})


def _is_spoken_for(context: Context) -> bool:
    # A context that holds the current span alone, as most do, says nothing else.
    if type(context) is OnlySpan:
        return False
    if type(context) is not OnlyOperation and len(context) == 1 and SPAN_KEY in context:
        return False
    return _operation.is_spoken_for(context, _LAYER) or UNWATCHED in context


def _old_names(new: Mapping[str, Any], port: int | None) -> dict[str, Any]:
    """Return the same under the names that conventions had before they were stable."""
    old = {
        semconv.OLD_DB_SYSTEM: new[semconv.DB_SYSTEM_NAME],
        semconv.OLD_DB_NAME: new.get(semconv.DB_NAMESPACE),
        semconv.OLD_NET_PEER_NAME: new.get(semconv.SERVER_ADDRESS),
        semconv.OLD_NET_PEER_PORT: port if semconv.SERVER_ADDRESS in new else None,
    }
    return {name: value for name, value in old.items() if value is not None}


def text_of(query: Any) -> str:
    """Return a query as text; of a long one in bytes, what would be read."""
    if isinstance(query, str):
        return query
    if isinstance(query, (bytes, bytearray)):
        return query[:LONGEST_READ].decode("utf-8", "replace")
    return str(query)


# What a pool's user has waited for a connection since the last query in this context.
_pool_wait_ns: ContextVar[int] = ContextVar("tracekit-db-pool-wait", default=0)
_waited_ns = _pool_wait_ns.get


def add_pool_wait(duration_ns: int) -> None:
    """Record a wait for a free connection on the next query, which had to wait for it."""
    _pool_wait_ns.set(_waited_ns() + duration_ns)
