"""celery: a PRODUCER span for each task that is sent, a CONSUMER span for each that is run.

``Celery.send_task`` is where every way to send one meets: ``delay``, ``apply_async``, chains,
groups, chords, retries and beat. What runs one, in whatever pool, says so by signals, in the
thread that runs it; whatever it sends on success, the next of a chain, is still inside.

A prefork child leaves with ``os._exit``, when it is recycled too, where no exit hook runs: its
spans are flushed when it says that it goes.
"""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from opentelemetry import trace
from opentelemetry.trace import SpanKind, TracerProvider

from tracekit import semconv
from tracekit._otel_context import NO_CONTEXT, OnlySpan, current_context
from tracekit._otel_propagate import TEXTMAP
from tracekit.instrumentation._around import around
from tracekit.instrumentation._http import error_type, message_of, truncated
from tracekit.instrumentation._messages import (
    Origin,
    correlation_of,
    origin_of,
    write_headers,
)
from tracekit.instrumentation._operation import (
    OnlySpeaking,
    Operation,
    begin_work,
    is_spoken_for,
    under_way,
)
from tracekit.instrumentation._patch import LibraryInstrumentor, quiet, report
from tracekit.instrumentation._replacing import Replacing, ReplacingInstrumentor

__all__ = ["CeleryInstrumentor"]

_SENDING = "celery"
_PRODUCER, _CONSUMER = SpanKind.PRODUCER, SpanKind.CONSUMER
_SUCCEEDED: dict[str, Any] = {semconv.CELERY_STATE: "SUCCESS"}
_TOLD_OF_MESSAGE = {"headers": 5, "properties": 6, "routing_key": 7, "exchange": 10}
_DESTINATION = semconv.MESSAGING_DESTINATION_NAME
_MESSAGE_ID = semconv.MESSAGING_MESSAGE_ID
_CONVERSATION_ID = semconv.MESSAGING_MESSAGE_CONVERSATION_ID
# In RabbitMQ a task with a countdown waits behind exchanges of kombu's, for as many seconds as the
# first parts of its key say, one for each bit.
_DELAYING, _DELAY = "celery_delayed_", re.compile(r"^(?:[01]\.){28}")
# In the instance dictionary of a task's request, for as long as it runs.
_OPERATION = "_tracekit_operation"
_LONGEST_NAME = 256
_MOST_KEPT = 512
_FLUSH_TIMEOUT_MS = 5000


class CeleryInstrumentor(ReplacingInstrumentor):
    """Watch celery.

    Option ``correlation``: ``parent`` or ``link``, in place of ``TRACEKIT_CELERY_CORRELATION``.
    """

    name = "celery"
    distributions = ("celery",)
    supported = ">=5.2.1,<6"
    contrib = ("celery",)

    def configure(self, options: Mapping[str, Any]) -> None:
        self._read(**options)

    def _read(self, *, correlation: str | None = None) -> None:
        self._sendings: dict[tuple[int, Any], _Sending] = {}
        self._runs: dict[str, tuple[str, dict[str, Any]]] = {}
        self._start_span = self._tracer.start_span
        self._correlation = correlation_of("TRACEKIT_CELERY_CORRELATION", os.environ, correlation)

    def patches(self) -> Sequence[Replacing]:
        return (
            Replacing("celery.app.base", "Celery.send_task", self._send_task),
            Replacing("kombu.messaging", "Producer._publish", self._publish),
            # Where a signal has no receiver but ours, these spare it the search for receivers.
            Replacing("celery.app.trace", "send_prerun", self._send_prerun, optional=True),
            Replacing("celery.app.trace", "send_postrun", self._send_postrun, optional=True),
        )

    def _start(self, tracer_provider: TracerProvider | None, options: Mapping[str, Any]) -> None:
        self._provider = tracer_provider
        super()._start(tracer_provider, options)

    def _put_all_on(self, module: ModuleType, name: str) -> str | None:
        refusal = super()._put_all_on(module, name)
        if refusal is None and name == "celery.app.base":
            for signal, receiver in self._receivers():
                signal.connect(receiver, weak=False, dispatch_uid=_uid(receiver))
        return refusal

    def _withdraw(self) -> None:
        if "celery.app.base" in self._put_on:
            for signal, receiver in self._receivers():
                signal.disconnect(receiver, dispatch_uid=_uid(receiver))
        super()._withdraw()

    def _receivers(self) -> Sequence[tuple[Any, Callable[..., Any]]]:
        # Imported by celery.app.base, whose import is what puts the patches on.
        signals: Any = sys.modules["celery.signals"]
        return (
            (signals.task_prerun, self._before_run),
            (signals.task_postrun, self._after_run),
            (signals.task_revoked, self._when_revoked),
            (signals.worker_process_shutdown, self._flush),
        )

    # Sending

    def _send_task(
        self, original: Callable[..., Any], owners: Sequence[object]
    ) -> Callable[..., Any]:
        start_span, sendings = self._start_span, self._sendings

        def begin(app: Any, name: Any, kwargs: Mapping[str, Any]) -> _Sent | None:
            try:
                parent = current_context()
                # A context of a span only says nothing else, and would be filled by looking into
                # it.
                if (
                    type(parent) is not OnlySpan
                    and parent is not NO_CONTEXT
                    and is_spoken_for(parent, _SENDING)
                ):
                    return None
                sending = sendings.get((id(app), name))
                if sending is None:
                    sending = self._new_sending(app, name)
                attributes = sending.attributes
                if kwargs.get("retries"):
                    attributes = {**attributes, semconv.CELERY_RETRIES: kwargs["retries"]}
                span = start_span(sending.name, parent, _PRODUCER, attributes)
                # It speaks for the commands that the broker's client sends.
                sent = _Sent(span, _SENDING, parent, True, True)
                sent.told = None
                return sent
            except Exception:
                report("the beginning of a sending")
                return None

        # Not with the library's own thirty parameters: Python compares each of them with each of
        # the options that are none, in this function and in the library's. With none at all, it
        # hands on its arguments as they came.
        def send_task(*args: Any, **kwargs: Any) -> Any:
            sent = None
            if owners and args:
                sent = begin(args[0], args[1] if len(args) > 1 else kwargs.get("name"), kwargs)
            if sent is None:
                return original(*args, **kwargs)
            try:
                result = original(*args, **kwargs)
            except BaseException as error:
                sent.fail(error, sent.told)
                raise
            sent.succeed(sent.told)
            return result

        return send_task

    def _new_sending(self, app: Any, name: Any) -> _Sending:
        task = truncated(str(name), _LONGEST_NAME)
        attributes = {
            semconv.MESSAGING_SYSTEM: "celery",
            semconv.MESSAGING_OPERATION_NAME: "apply_async",
            semconv.MESSAGING_OPERATION_TYPE: "send",
            semconv.CELERY_TASK_NAME: task,
            # An application looks through all of its settings for each.
            **_place_of(_only_of(app.conf.broker_write_url or app.conf.broker_url)),
        }
        made = _Sending(f"apply_async {task}", attributes, app)
        if isinstance(name, str) and len(name) <= _LONGEST_NAME:
            if len(self._sendings) >= _MOST_KEPT:
                self._sendings.clear()
            self._sendings[id(app), name] = made
        return made

    def _publish(
        self, original: Callable[..., Any], owners: Sequence[object]
    ) -> Callable[..., Any]:
        """Write the trace headers, once everything that the program says is in the message.

        The signal for it, `before_task_publish`, costs more than the rest of the span.
        """

        def complete(headers: Any, properties: Any, routing_key: Any, exchange: Any) -> None:
            context: Any = current_context()
            is_alone = type(context) is OnlySpeaking
            # As under_way() does, without its frame.
            sent = context.operation if is_alone else under_way(_SENDING)
            if type(sent) is not _Sent or sent._ended:
                return
            try:
                # The event that tells of a sent task is a message too, and answers to nothing.
                if type(headers) is not dict or "correlation_id" not in properties:
                    return
                header = None
                if is_alone:
                    try:
                        header = TEXTMAP._HTTP_TEXT_FORMAT.traceparent_of(sent.span)
                    except AttributeError:  # of somebody else
                        pass
                if header is not None:
                    headers["traceparent"] = header
                else:
                    write_headers(headers, sent.context)
                destination = _destination(exchange, routing_key) if exchange else routing_key
                # Said with the end of the span, in one step.
                sent.told = told = {_DESTINATION: destination} if destination else {}
                if "id" in headers:  # the first version of the protocol has them elsewhere
                    told[_MESSAGE_ID] = headers["id"]
                    told[_CONVERSATION_ID] = headers["root_id"]
            except Exception:
                report("the completion of a message")

        return around(original, _TOLD_OF_MESSAGE, complete, owners=owners)

    # Running

    # `try` and not `quiet`: a frame less, and one that takes everything apart to hand it on.

    def _send_prerun(
        self, original: Callable[..., Any], owners: Sequence[object]
    ) -> Callable[..., Any]:
        signal = sys.modules["celery.signals"].task_prerun
        return _ahead_of_signal(original, owners, self._before_run, signal)

    def _send_postrun(
        self, original: Callable[..., Any], owners: Sequence[object]
    ) -> Callable[..., Any]:
        signal = sys.modules["celery.signals"].task_postrun
        return _ahead_of_signal(original, owners, self._after_run, signal)

    def _before_run(self, *, task: Any = None, **_: Any) -> None:
        try:
            request = task.request
            if _OPERATION in vars(request):  # the signal says it once more
                return
            if request.is_eager:
                origin = Origin(current_context(), ())
            else:
                origin = origin_of(_headers_of(request), self._correlation)
            delivery = request.delivery_info or {}
            destination, exchange = delivery.get("routing_key"), delivery.get("exchange")
            if exchange:
                destination = _destination(exchange, destination)
            operation = self._begin_work(
                task.name, request.id, request.root_id, destination, origin
            )
            if operation is None:
                return
            retries = request.retries
            if retries:
                operation.span.set_attribute(semconv.CELERY_RETRIES, retries)
            vars(request)[_OPERATION] = operation
        except Exception:
            report("the beginning of a task")

    def _begin_work(
        self, name: str, task_id: Any, root_id: Any, destination: Any, origin: Origin
    ) -> Operation | None:
        told = self._runs.get(name)
        if told is None:
            told = self._new_run(name)
        span_name, attributes = told
        attributes = attributes.copy()
        if task_id:
            attributes[_MESSAGE_ID] = str(task_id)
        if root_id:
            attributes[_CONVERSATION_ID] = str(root_id)
        if destination:
            attributes[_DESTINATION] = str(destination)
        parent, links = origin
        return begin_work(self._start_span, span_name, attributes, _CONSUMER, parent, links)

    def _new_run(self, name: Any) -> tuple[str, dict[str, Any]]:
        task = truncated(str(name), _LONGEST_NAME)
        attributes = {
            semconv.MESSAGING_SYSTEM: "celery",
            semconv.MESSAGING_OPERATION_NAME: "run",
            semconv.MESSAGING_OPERATION_TYPE: "process",
            semconv.CELERY_TASK_NAME: task,
        }
        made = (f"run {task}", attributes)
        if isinstance(name, str) and len(name) <= _LONGEST_NAME:
            if len(self._runs) >= _MOST_KEPT:
                self._runs.clear()
            self._runs[name] = made
        return made

    def _after_run(
        self, *, task: Any = None, state: Any = None, retval: Any = None, **_: Any
    ) -> None:
        try:
            operation = vars(task.request).pop(_OPERATION, None)
            if operation is None:
                return
            if state == "SUCCESS":
                operation.succeed(_SUCCEEDED)
            else:
                _end_work(operation, state, retval)
        except Exception:
            report("the end of a task")

    @quiet
    def _when_revoked(
        self,
        *,
        sender: Any = None,
        request: Any = None,
        terminated: bool = False,
        expired: bool = False,
        **_: Any,
    ) -> None:
        """Make a span of a task that is not run: cancelled, expired, or killed while it ran."""
        origin = origin_of(_headers_of(request), self._correlation)
        root_id = getattr(request, "root_id", None)
        delivery = request.delivery_info or {}
        destination = _destination(delivery.get("exchange"), delivery.get("routing_key"))
        operation = self._begin_work(sender.name, request.id, root_id, destination, origin)
        if operation is None:
            return
        told = {semconv.CELERY_STATE: "REVOKED"}
        if terminated:
            operation.fail_with("terminated", "killed while it ran", told)
        elif expired:
            operation.fail_with("expired", "its time was over before it began", told)
        else:
            operation.succeed(told)

    @quiet
    def _flush(self, **_: Any) -> None:
        provider: Any = self._provider or trace.get_tracer_provider()
        if hasattr(provider, "force_flush"):
            provider.force_flush(_FLUSH_TIMEOUT_MS)


class _Sent(Operation):
    """A message that is being sent.

    Attributes:
        told: What is known of it once it is complete; None before.
    """

    __slots__ = ("told",)

    told: dict[str, Any] | None


class _Sending:
    """What the span of every message to one task starts with.

    Attributes:
        app: Held, so that nothing else gets its id.
    """

    # Not a tuple with names, whose fields are found through the class each time.
    __slots__ = ("app", "attributes", "name")

    def __init__(self, name: str, attributes: Mapping[str, Any], app: Any) -> None:
        self.name = name
        self.attributes = attributes
        self.app = app


def _destination(exchange: Any, routing_key: Any) -> Any:
    """Return where a message goes: with the default exchange, to the queue of the key's name.

    Source: https://opentelemetry.io/docs/specs/semconv/messaging/rabbitmq/
    """
    if not exchange or not routing_key:
        return routing_key or exchange
    if _DELAYING in str(exchange):
        return _DELAY.sub("", str(routing_key))
    return f"{exchange}:{routing_key}"


def _uid(receiver: Callable[..., Any]) -> str:
    # One, however many instrumentors there are.
    return f"tracekit.{receiver.__name__}"


def _ahead_of_signal(
    original: Callable[..., Any],
    owners: Sequence[object],
    step: Callable[..., object],
    signal: Any,
) -> Callable[..., Any]:
    """Return what sends a signal after a step of ours, and only if somebody else waits for it."""

    def send(*args: Any, **named: Any) -> Any:
        if owners:
            step(**named)
            if len(signal.receivers) == 1:  # the same step
                return []
        return original(*args, **named)

    return send


def _end_work(operation: Operation, state: Any, retval: Any) -> None:
    """End the span of a task that did not succeed."""
    # Without a state the exception is on its way: SystemExit, or whatever an eager call raises.
    error = retval if state in ("FAILURE", "RETRY") else sys.exc_info()[1]
    told = {semconv.CELERY_STATE: str(state or "FAILURE")}
    if state in ("FAILURE", None) and isinstance(error, BaseException):
        operation.fail(error, told)
    elif state == "FAILURE":
        operation.fail_with("FAILURE", truncated(str(error), 4096), told)
    else:
        if isinstance(error, BaseException) and state == "RETRY":
            operation.span.add_event("retry", _reason_of(error))
        operation.succeed(told)


class _Fields(NamedTuple):
    """The names of the headers that a propagator has: asking for them makes a set each time."""

    textmap: Any
    names: Sequence[str]


_fields = _Fields(None, ())
_NO_HEADERS: Mapping[str, Any] = {}


def _headers_of(request: Any) -> dict[str, str]:
    """Return the trace headers of a message: celery makes attributes of what it does not know."""
    global _fields
    textmap, names = _fields
    if textmap is not TEXTMAP._HTTP_TEXT_FORMAT:
        textmap = TEXTMAP._HTTP_TEXT_FORMAT
        names = tuple(textmap.fields)
        _fields = _Fields(textmap, names)
    known, beside = vars(request), getattr(request, "headers", None) or _NO_HEADERS
    found: dict[str, str] = {}
    for name in names:
        value = known.get(name) or beside.get(name)
        if isinstance(value, str):
            found[name] = value
    return found


def _reason_of(error: BaseException) -> dict[str, str]:
    cause = getattr(error, "exc", None)
    shown = cause if isinstance(cause, BaseException) else error
    return {
        semconv.EXCEPTION_TYPE: error_type(shown),
        semconv.EXCEPTION_MESSAGE: message_of(shown),
    }


def _only_of(brokers: Any) -> str:
    """Return the URL of the broker, and nothing where there are several.

    kombu goes on to the next when one does not answer, so the first may not be who was sent to.
    """
    if not brokers:
        return "amqp://localhost"  # celery's default
    named = [brokers] if isinstance(brokers, str) else brokers
    urls = [url for each in named for url in each.split(";")]
    return urls[0] if len(urls) == 1 else ""


@functools.lru_cache(maxsize=64)
def _place_of(url: str) -> Mapping[str, Any]:
    """Return where a broker is, without the credentials in its URL."""
    try:
        parts = urlsplit(url)
        place: dict[str, Any] = {}
        if parts.hostname:
            place[semconv.SERVER_ADDRESS] = parts.hostname
        if parts.port is not None:
            place[semconv.SERVER_PORT] = parts.port
    except ValueError:
        return {}
    return place


plugin: type[LibraryInstrumentor] = CeleryInstrumentor
