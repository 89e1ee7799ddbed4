"""celery: a PRODUCER span for each task that is sent, a CONSUMER span for each that is run.

``Celery.send_task`` is where every way to send one meets: ``delay``, ``apply_async``, chains,
groups, chords, retries and beat. What runs one, in whatever pool, says so by signals, in the
thread that runs it; whatever it sends on success, the next of a chain, is still inside.

A prefork child leaves with ``os._exit``, when it is recycled too, where no exit hook runs: its
spans are flushed when it says that it goes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import Link, SpanKind, TracerProvider

from tracekit import semconv
from tracekit._otel_context import NO_CONTEXT, OnlySpan, current_context
from tracekit._otel_propagate import TEXTMAP
from tracekit.instrumentation._around import around
from tracekit.instrumentation._celery_places import broker_of, destination_of
from tracekit.instrumentation._http import error_type, message_of, truncated
from tracekit.instrumentation._messages import (
    correlation_of,
    lone_sender_of,
    origin_of,
    reading,
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
_RETRIES = semconv.CELERY_RETRIES
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
        self._is_below_sender = self._correlation == "parent"

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

        # Not with the library's own thirty parameters: Python compares each of them with each of
        # the options that are none, in this function and in the library's. With none at all, it
        # hands on its arguments as they came. What begins the span is no function of its own: it
        # would be a sixth of the frames.
        def send_task(*args: Any, **kwargs: Any) -> Any:
            sent = None
            if owners and args:
                try:
                    parent = current_context()
                    # A context of a span only says nothing else, and would be filled by looking
                    # into it.
                    if (
                        type(parent) is OnlySpan
                        or parent is NO_CONTEXT
                        or not is_spoken_for(parent, _SENDING)
                    ):
                        app, name = args[0], args[1] if len(args) > 1 else kwargs.get("name")
                        sending = sendings.get((id(app), name))
                        if sending is None:
                            sending = self._new_sending(app, name)
                        attributes = sending.attributes
                        if kwargs.get("retries"):
                            attributes = {**attributes, _RETRIES: kwargs["retries"]}
                        span = start_span(sending.name, parent, _PRODUCER, attributes)
                        # It speaks for the commands that the broker's client sends.
                        sent = _Sent(span, _SENDING, parent, True, True)
                        sent.told = None
                except Exception:
                    report("the beginning of a sending")
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
            **broker_of(app.conf),
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
                destination = destination_of(exchange, routing_key) if exchange else routing_key
                # Said with the end of the span, in one step.
                if destination and "id" in headers:
                    sent.told = {
                        _DESTINATION: destination,
                        _MESSAGE_ID: headers["id"],
                        _CONVERSATION_ID: headers["root_id"],
                    }
                else:
                    sent.told = _told_of(destination, headers)
            except Exception:
                report("the completion of a message")

        return around(original, _TOLD_OF_MESSAGE, complete, owners=owners)

    # Running

    # In place of a bound method of the signal, with the names that celery gives and no others: a
    # dictionary of them would be made to take them and another to hand them on.

    def _send_prerun(
        self, original: Callable[..., Any], owners: Sequence[object]
    ) -> Callable[..., Any]:
        signal, begin_run = vars(sys.modules["celery.signals"].task_prerun), self._begin_run

        def send_prerun(
            sender: Any = None,
            *,
            task_id: Any = None,
            task: Any = None,
            args: Any = None,
            kwargs: Any = None,
            **named: Any,
        ) -> Any:
            if owners:
                begin_run(task)
                if len(signal["receivers"]) == 1:  # which would do the same
                    return []
            return original(sender, task_id=task_id, task=task, args=args, kwargs=kwargs, **named)

        return send_prerun

    def _send_postrun(
        self, original: Callable[..., Any], owners: Sequence[object]
    ) -> Callable[..., Any]:
        signal, end_run = vars(sys.modules["celery.signals"].task_postrun), self._end_run

        def send_postrun(
            sender: Any = None,
            *,
            task_id: Any = None,
            task: Any = None,
            args: Any = None,
            kwargs: Any = None,
            retval: Any = None,
            state: Any = None,
            **named: Any,
        ) -> Any:
            if owners:
                end_run(task, state, retval)
                if len(signal["receivers"]) == 1:
                    return []
            named.update(args=args, kwargs=kwargs, retval=retval, state=state)
            return original(sender, task_id=task_id, task=task, **named)

        return send_postrun

    def _before_run(self, *, task: Any, **_: Any) -> None:
        self._begin_run(task)

    def _after_run(self, *, task: Any, state: Any = None, retval: Any = None, **_: Any) -> None:
        self._end_run(task, state, retval)

    # `try` and not `quiet`: a frame less, and one that takes everything apart to hand it on.

    def _begin_run(self, task: Any, told: dict[str, Any] | None = None) -> Operation | None:
        """Start the span of a run, in one straight line for a message with a traceparent.

        Args:
            told: What is known of a run that is not to be; None for the one that begins.
        """
        try:
            known: dict[str, Any] = vars(_request_of(task)) if told is None else told
            if _OPERATION in known:  # the signal says it once more
                return None
            name = task.name
            run = self._runs.get(name)
            if run is None:
                run = self._new_run(name)
            span_name, attributes = run
            attributes = attributes.copy()
            # What is not in the instance is None, False or 0 in the class.
            if task_id := known.get("id"):
                attributes[_MESSAGE_ID] = str(task_id)
            if root_id := known.get("root_id"):
                attributes[_CONVERSATION_ID] = str(root_id)
            delivery = known.get("delivery_info")
            if isinstance(delivery, dict):
                destination, exchange = delivery.get("routing_key"), delivery.get("exchange")
                if exchange:
                    destination = destination_of(exchange, destination)
                if destination:
                    attributes[_DESTINATION] = str(destination)
            if retries := known.get("retries"):
                attributes[_RETRIES] = retries
            links: Sequence[Link] | None = None
            parent = None
            if known.get("is_eager"):
                parent = current_context()
            elif self._is_below_sender:
                # celery makes attributes of what it does not know, and keeps them as headers too.
                parent = lone_sender_of(known, known.get("headers"))
            if parent is None:
                parent, links = origin_of(_headers_of(known), self._correlation)
            operation = begin_work(
                self._start_span, span_name, attributes, _CONSUMER, parent, links
            )
            if operation is not None:
                known[_OPERATION] = operation
            return operation
        except Exception:
            report("the beginning of a task")
            return None

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

    def _end_run(self, task: Any, state: Any, retval: Any) -> None:
        try:
            operation = vars(_request_of(task)).pop(_OPERATION, None)
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
        known = {**vars(request), "headers": getattr(request, "headers", None)}
        known = {
            **_headers_of(known),
            "id": request.id,
            "root_id": getattr(request, "root_id", None),
            "delivery_info": request.delivery_info,
        }
        operation = self._begin_run(sender, known)
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


def _told_of(destination: Any, headers: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is known of a message that is not like most."""
    told: dict[str, Any] = {_DESTINATION: destination} if destination else {}
    if "id" in headers:  # the first version of the protocol has them elsewhere
        told[_MESSAGE_ID] = headers["id"]
        told[_CONVERSATION_ID] = headers["root_id"]
    return told


def _uid(receiver: Callable[..., Any]) -> str:
    # One, however many instrumentors there are.
    return f"tracekit.{receiver.__name__}"


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


def _request_of(task: Any) -> Any:
    """Return what ``task.request`` does: one frame for three, and no AttributeError on the way.

    Where celery keeps it otherwise, as when it is told to by ``USE_FAST_LOCALS``, it is asked.
    """
    try:
        local = task.request_stack._local
        return local.__storage__[local.__ident_func__()]["stack"][-1]
    except (AttributeError, LookupError):
        return task.request


def _headers_of(known: Mapping[str, Any]) -> dict[str, str]:
    """Return the trace headers of a message: celery makes attributes of what it does not know."""
    beside = known.get("headers") or {}
    found: dict[str, str] = {}
    for name in reading().names:
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


plugin: type[LibraryInstrumentor] = CeleryInstrumentor
