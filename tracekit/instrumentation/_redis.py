"""What redis and valkey have in common: two clients of one protocol, with the same classes.

One CLIENT span for each command of the program, retries inside the client included. A pipeline
or transaction is one span; what it loads and watches on the way, and what a cluster asks of its
nodes, is part of the span. Messages of a subscription make none: nobody asked for each.
https://opentelemetry.io/docs/specs/semconv/database/redis/
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from opentelemetry.trace import Span, SpanKind

from tracekit import semconv
from tracekit._otel_context import NO_CONTEXT, SPAN_KEY, OnlySpan, current_context
from tracekit.instrumentation._caller import caller_from, frame_at
from tracekit.instrumentation._db_parameters import hash_of, secret_of
from tracekit.instrumentation._operation import Operation, begin, is_spoken_for, under_way
from tracekit.instrumentation._patch import quiet, report
from tracekit.instrumentation._redis_status import status_code_of
from tracekit.instrumentation._replacing import Make, Replacing, ReplacingInstrumentor
from tracekit.instrumentation._said import Said

__all__ = ["RedisProtocolInstrumentor"]

Hook = Callable[..., None]

_DEFAULT_PORT = 6379
_LONGEST_NAME = 64
_MOST_ARGUMENTS = 16
_MOST_COMMANDS = 32
_MOST_KEPT = 512
_CLIENT = SpanKind.CLIENT
# Frames that are certainly ours where a command begins: that, and what stands in the place of the
# client's method.
_INSIDE = 2

# Commands whose first argument says what they do. https://redis.io/docs/latest/commands/
# fmt: off
_CONTAINERS = frozenset((
    "ACL", "CLIENT", "CLUSTER", "COMMAND", "CONFIG", "DEBUG", "FUNCTION", "LATENCY",
    "MEMORY", "MODULE", "OBJECT", "PUBSUB", "SCRIPT", "SENTINEL", "SLOWLOG",
    "XGROUP", "XINFO", "FT.CONFIG", "FT.CURSOR", "JSON.DEBUG",
))
# fmt: on


class RedisProtocolInstrumentor(ReplacingInstrumentor):
    """Watch one client of the protocol; its name is that of the package."""

    system: str
    """What ``db.system.name`` says."""
    classes: tuple[str, str] = ("Redis", "RedisCluster")

    def configure(self, options: Mapping[str, Any]) -> None:
        self._read(**options)

    def _read(
        self,
        *,
        request_hook: Hook | None = None,
        response_hook: Hook | None = None,
        code_location: bool | None = None,
        hash_secret: str | None = None,
    ) -> None:
        """Take the options.

        Args:
            request_hook: Called with span, client, arguments and keyword arguments.
            response_hook: Called with span, client and response.
            code_location: Record the program's line; ``TRACEKIT_CODE_LOCATION``.
            hash_secret: Goes into the hash of arguments; ``TRACEKIT_DB_HASH_SECRET``.
        """
        self._request_hook, self._response_hook = request_hook, response_hook
        self._caller = caller_from(os.environ, code_location)
        self._hash_secret = secret_of(hash_secret, os.environ)
        self._no_pool = _NoPool()
        self._start_span = self.tracer.start_span

    def patches(self) -> Sequence[Replacing]:
        return (
            *self._places(
                self.name,
                self._sync(self._command),
                self._sync(self._pipeline),
                self._await_connection,
            ),
            *self._places(
                f"{self.name}.asyncio",
                self._async(self._command),
                self._async(self._pipeline),
                self._async_await_connection,
            ),
        )

    def _places(
        self, package: str, command: Make, pipeline: Make, wait: Make
    ) -> Sequence[Replacing]:
        client, cluster = self.classes
        return (
            Replacing(f"{package}.client", f"{client}.execute_command", command),
            Replacing(f"{package}.client", "Pipeline.execute", pipeline),
            Replacing(f"{package}.client", "Pipeline.immediate_execute_command", command),
            Replacing(f"{package}.connection", "BlockingConnectionPool.get_connection", wait, True),
            Replacing(f"{package}.cluster", f"{cluster}.execute_command", command, True),
            Replacing(f"{package}.cluster", f"{cluster}._execute_command", self._ask_node, True),
            Replacing(f"{package}.cluster", "ClusterPipeline.execute", pipeline, True),
        )

    def _sync(self, beginning: _Beginning) -> Make:
        def make(original: Callable[..., Any], owners: Sequence[object]) -> Callable[..., Any]:
            # The client is among `args`: these go on as they are, and are not put together anew.
            def execute(*args: Any, **kwargs: Any) -> Any:
                operation = beginning(args, kwargs) if owners else None
                if operation is None:
                    return original(*args, **kwargs)
                try:
                    response = original(*args, **kwargs) if kwargs else original(*args)
                except BaseException as error:
                    _fail(operation, error)
                    raise
                if self._response_hook is not None:
                    _call_hook(self._response_hook, operation, args[0], response)
                operation.succeed()
                return response

            return execute

        return make

    def _async(self, beginning: _Beginning) -> Make:
        def make(original: Callable[..., Any], owners: Sequence[object]) -> Callable[..., Any]:
            async def execute(*args: Any, **kwargs: Any) -> Any:
                operation = beginning(args, kwargs) if owners else None
                if operation is None:
                    return await original(*args, **kwargs)
                try:
                    response = await (original(*args, **kwargs) if kwargs else original(*args))
                except BaseException as error:
                    _fail(operation, error)
                    raise
                if self._response_hook is not None:
                    _call_hook(self._response_hook, operation, args[0], response)
                operation.succeed()
                return response

            return execute

        return make

    def _command(self, args: Any, kwargs: Mapping[str, Any]) -> Operation | None:
        # In one function: with cold caches each further call costs a microsecond.
        try:
            parent = current_context()
            # A context of a span only says nothing else, and would be filled by looking into it.
            if type(parent) is OnlySpan:
                outer: Any = parent.span
            elif parent is not NO_CONTEXT:
                if is_spoken_for(parent, self.system):
                    return None
                outer = parent.get(SPAN_KEY)
            else:
                outer = None
            try:
                pool = args[0].connection_pool
                kept = pool._tracekit_commands
                if kept.by is not self or kept.host is not pool.connection_kwargs.get("host"):
                    kept = self._commands_to(args[0])
            except AttributeError:  # a cluster, or the first one
                kept = self._commands_to(args[0])
            said = kept.said.get((args[1], len(args))) or kept.say(args[1:])
            attributes = said.attributes
            is_known = outer is None or outer.is_recording()
            if is_known:
                # What differs from call to call; below one that is not recorded, few spans are.
                if self._caller is not None:
                    try:
                        frame = frame_at(_INSIDE)
                    except ValueError:  # the stack begins with ours, as in a greenlet
                        frame = None
                    code, at, attributes = said.seen
                    if frame is None or frame.f_code is not code or frame.f_lasti != at:
                        attributes = self._caller.asked(said, frame, _INSIDE)
                if outer is not None:
                    digest = hash_of(args[2:], outer, self._hash_secret)
                    if digest is not None:
                        attributes = {**attributes, semconv.PARAMETERS_HASH: digest}
            span = self._start_span(said.name, parent, _CLIENT, attributes)
            operation = Operation(span, self.system, parent)
            if not is_known and span.is_recording():
                self._say_more(span, args)
        except Exception:
            report("the beginning of a command")
            return None
        if self._request_hook is not None:
            _call_hook(self._request_hook, operation, args[0], args[1:], kwargs)
        return operation

    def _say_more(self, span: Span, args: Any) -> None:
        """Write what differs from call to call on a span of which it was not said at its start."""
        if self._caller is not None:
            span.set_attributes(self._caller.attributes(_INSIDE))
        digest = hash_of(args[2:], span, self._hash_secret)
        if digest is not None:
            span.set_attribute(semconv.PARAMETERS_HASH, digest)

    def _commands_to(self, client: Any) -> _Commands:
        """Return what is said of commands to where a client's pool leads, and keep it there.

        As an attribute of the pool: a dictionary keyed by weak references is asked in Python.
        """
        pool: Any = getattr(client, "connection_pool", self._no_pool)
        kept: _Commands | None = getattr(pool, "_tracekit_commands", None)
        host = pool.connection_kwargs.get("host")
        if kept is None or kept.by is not self or kept.host is not host:
            kept = pool._tracekit_commands = _Commands(self, _place_of(pool), host)
        return kept

    def _pipeline(self, args: Any, kwargs: Mapping[str, Any]) -> Operation | None:
        client = args[0]
        try:
            commands = [command_of(arguments) for arguments in _stack_of(client)]
            if not commands:
                return None  # nothing is sent
            place = _place_of(getattr(client, "connection_pool", self._no_pool))
            operation_name = _batch_name(client, commands)
            attributes = {
                semconv.DB_SYSTEM_NAME: self.system,
                semconv.DB_OPERATION_NAME: operation_name,
                semconv.DB_QUERY_TEXT: _batch_text(commands),
                **place.attributes,
            }
            if len(commands) > 1:
                attributes[semconv.DB_OPERATION_BATCH_SIZE] = len(commands)
            if self._caller is not None:
                attributes.update(self._caller.attributes())
            name = operation_name + place.suffix
        except Exception:
            report("what is known of a pipeline")
            return None
        operation = begin(self.tracer.start_span, self.system, name, attributes)
        if operation is not None and self._request_hook is not None:
            _call_hook(self._request_hook, operation, client, args[1:], kwargs)
        return operation

    def _ask_node(
        self, original: Callable[..., Any], owners: Sequence[object]
    ) -> Callable[..., Any]:
        """Say which node of a cluster was asked; known only once the client has chosen."""

        def execute(client: Any, target_node: Any, *args: Any, **kwargs: Any) -> Any:
            if owners:
                self._note_node(target_node)
            return original(client, target_node, *args, **kwargs)

        return execute

    @quiet
    def _note_node(self, node: Any) -> None:
        operation = under_way(self.system)
        if operation is not None:
            operation.span.set_attributes(_place(node.host, node.port, None, None, None).attributes)

    def _await_connection(
        self, original: Callable[..., Any], owners: Sequence[object]
    ) -> Callable[..., Any]:
        def get_connection(pool: Any, *args: Any, **kwargs: Any) -> Any:
            operation = under_way(self.system) if owners else None
            # Otherwise there is a free one, and what takes time is to connect it.
            if operation is None or not _is_used_up(pool):
                return original(pool, *args, **kwargs)
            began = time.perf_counter_ns()
            try:
                return original(pool, *args, **kwargs)
            finally:
                operation.add_pool_wait(time.perf_counter_ns() - began)

        return get_connection

    def _async_await_connection(
        self, original: Callable[..., Any], owners: Sequence[object]
    ) -> Callable[..., Any]:
        async def get_connection(pool: Any, *args: Any, **kwargs: Any) -> Any:
            operation = under_way(self.system) if owners else None
            if operation is None or not _is_used_up(pool):
                return await original(pool, *args, **kwargs)
            began = time.perf_counter_ns()
            try:
                return await original(pool, *args, **kwargs)
            finally:
                operation.add_pool_wait(time.perf_counter_ns() - began)

        return get_connection


_Beginning = Callable[[Any, Mapping[str, Any]], "Operation | None"]
_Command = tuple[str, str]


@quiet
def _is_used_up(pool: Any) -> bool:
    """Say whether a blocking pool has no connection to give."""
    if hasattr(pool, "can_get_connection"):  # asyncio, from redis-py 5 on
        return not pool.can_get_connection()
    return bool(pool.pool.empty())


@quiet
def _call_hook(hook: Hook, operation: Operation, *seen: Any) -> None:
    if operation.span.is_recording():
        hook(operation.span, *seen)


# What is sent


def command_of(args: Sequence[Any]) -> _Command:
    """Return a command's name, and its text with a question mark for each argument."""
    name = args[0]
    if len(name) > _LONGEST_NAME:
        # A client splits at spaces: this may be a whole command with its arguments.
        name = name[:_LONGEST_NAME]
    return _described(name, len(args) - 1)


@functools.lru_cache(maxsize=1024)
def _described(name: str | bytes, arguments: int) -> _Command:
    text = name if isinstance(name, str) else name.decode("ascii", "replace")
    words = text.split() or [""]
    named = 2 if words[0].upper() in _CONTAINERS else 1
    operation_name = " ".join(words[:named])
    arguments += len(words[named:])
    shown = " ?" * min(arguments, _MOST_ARGUMENTS)
    more = f" … {arguments} in all" if arguments > _MOST_ARGUMENTS else ""
    return operation_name, operation_name + shown + more


def _stack_of(pipeline: Any) -> Iterable[Sequence[Any]]:
    """Yield the arguments of each command that a pipeline has gathered."""
    # Of a cluster, from redis-py 6.1 on, it is the strategy that gathers them.
    holder = getattr(pipeline, "_execution_strategy", pipeline)
    stack: Iterable[Any] = ()
    for name in ("command_stack", "command_queue", "_command_stack", "_command_queue"):
        stack = stack or getattr(holder, name, ())
    for command in stack:
        yield command.args if hasattr(command, "args") else command[0]


def _batch_name(pipeline: Any, commands: Sequence[_Command]) -> str:
    """Return ``MULTI`` or ``PIPELINE``, with the command that it consists of if it is one."""
    # `transaction` is a flag of the synchronous pipeline and a method of the asynchronous client.
    flags = (
        getattr(pipeline, name, False)
        for name in ("is_transaction", "transaction", "explicit_transaction", "_transaction")
    )
    kind = "MULTI" if True in flags else "PIPELINE"
    names = {name for name, _ in commands}
    return f"{kind} {names.pop()}" if len(names) == 1 else kind


def _batch_text(commands: Sequence[_Command]) -> str:
    text = "; ".join(text for _, text in commands[:_MOST_COMMANDS])
    more = len(commands) - _MOST_COMMANDS
    return f"{text}; … {more} more" if more > 0 else text


# Where it is sent


class _Commands:
    """What the spans of commands to one place start with; kept with the pool that leads there.

    Attributes:
        host: As the pool has it: a server that goes into maintenance sends clients elsewhere.

    Concurrency: from any thread; the dictionary is read and written by single operations.
    """

    __slots__ = ("_place", "by", "host", "said")

    def __init__(self, by: RedisProtocolInstrumentor, place: _Place, host: Any) -> None:
        self.by = by
        self.host = host
        self.said: dict[tuple[str | bytes, int], Said] = {}
        self._place = place

    def say(self, args: Sequence[Any]) -> Said:
        """Return what is said of a command that was not seen before, and keep it."""
        operation_name, text = command_of(args)
        attributes = {
            semconv.DB_SYSTEM_NAME: self.by.system,
            semconv.DB_OPERATION_NAME: operation_name,
            semconv.DB_QUERY_TEXT: text,
            **self._place.attributes,
        }
        said = Said(operation_name + self._place.suffix, attributes)
        # A client splits at spaces: a long one may be a whole command with its arguments.
        if len(args[0]) <= _LONGEST_NAME:
            if len(self.said) >= _MOST_KEPT:
                self.said.clear()
            self.said[args[0], len(args) + 1] = said  # the client is counted where it is looked up
        return said


class _Place(NamedTuple):
    attributes: Mapping[str, Any]
    suffix: str


class _NoPool:
    """Stands for the pool of a cluster, which has one for each node: which is asked shows later."""

    def __init__(self) -> None:
        self.connection_kwargs: dict[str, Any] = {}


def _place_of(pool: Any) -> _Place:
    if isinstance(pool, _NoPool):
        return _Place({}, "")
    known = pool.connection_kwargs.get
    path = known("path")
    return _place(
        path or known("host", "localhost"),
        None if path else known("port", _DEFAULT_PORT),
        known("db") or 0,
        known("socket_connect_timeout"),
        known("socket_timeout"),
    )


@functools.lru_cache(maxsize=256)
def _place(
    address: Any, port: Any, database: Any, connect_timeout: Any, read_timeout: Any
) -> _Place:
    if address is None:
        return _Place({}, "")
    attributes: dict[str, Any] = {semconv.SERVER_ADDRESS: str(address)}
    suffix = f" {address}"
    if port is not None and int(port) != _DEFAULT_PORT:
        attributes[semconv.SERVER_PORT] = int(port)
        suffix += f":{port}"
    if database is not None:
        attributes[semconv.DB_NAMESPACE] = str(database)
    if isinstance(connect_timeout, (int, float)):
        attributes[semconv.TIMEOUT_CONNECT] = connect_timeout
    if isinstance(read_timeout, (int, float)):
        attributes[semconv.TIMEOUT_READ] = read_timeout
    return _Place(attributes, suffix)


# What came of it


def _fail(operation: Operation, error: BaseException) -> None:
    if type(error).__name__ == "WatchError":
        # Somebody else was faster: the outcome that a transaction watches for, not a failure.
        operation.succeed()
        return
    code = status_code_of(error)
    if code:
        operation.fail(error, {semconv.DB_RESPONSE_STATUS_CODE: code, semconv.ERROR_TYPE: code})
    else:
        operation.fail(error)
