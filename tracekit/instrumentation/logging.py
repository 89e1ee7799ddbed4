"""Write the ids of the current span into every log record.

Why ``LogRecord.__init__`` and not a record factory: a program that sets its own factory after
us would lose the attributes, and a format that names them would fail on each of its records.
Whatever a factory does, it makes a ``LogRecord``.

Why plain functions and not wrapt: a record costs 5 µs, and two wrapt proxies another 1.5.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from opentelemetry.trace import TracerProvider, get_tracer_provider

from tracekit.instrumentation._log_events import LogEvents, exception_in, log_events_from
from tracekit.instrumentation._log_fields import (
    NO_FIELDS,
    Fields,
    current_fields,
    take_outside_from,
)
from tracekit.instrumentation._patch import (
    InstrumentationStatus,
    LibraryInstrumentor,
    Patch,
    quiet,
)

__all__ = ["LoggingInstrumentor", "plugin", "writes_events"]

_logger = logging.getLogger(__name__)

# Names, format and settings are those of opentelemetry-instrumentation-logging, so that formats
# and log pipelines written for it go on working:
# https://opentelemetry-python-contrib.readthedocs.io/en/latest/instrumentation/logging/logging.html
_NAMES = frozenset(("otelTraceID", "otelSpanID", "otelTraceSampled", "otelServiceName"))
_FORMAT = (
    "%(asctime)s %(levelname)s [%(name)s] [%(filename)s:%(lineno)d] "
    "[trace_id=%(otelTraceID)s span_id=%(otelSpanID)s resource.service.name=%(otelServiceName)s "
    "trace_sampled=%(otelTraceSampled)s] - %(message)s"
)
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


@dataclass(frozen=True)
class _Format:
    """What the root logger is to look like, unless the program has configured it."""

    wanted: bool
    text: str
    level: int


@dataclass(frozen=True)
class _RootChange:
    """What our `basicConfig` did, to be undone."""

    added: list[logging.Handler]
    level_before: int


class LoggingInstrumentor(LibraryInstrumentor):
    """Put ``otelTraceID``, ``otelSpanID``, ``otelTraceSampled``, ``otelServiceName`` in records.

    Outside a span they are ``"0"``, ``"0"``, False and the service's name (empty when unknown):
    a format may always name them. With ``OTEL_PYTHON_LOG_CORRELATION=true``, or
    ``instrument(set_logging_format=True)``, the root logger gets a format that does, unless
    it is configured already; ``logging_format`` (``OTEL_PYTHON_LOG_FORMAT``) and ``log_level``
    (``OTEL_PYTHON_LOG_LEVEL``) replace the default ones.
    With ``span_events`` (or ``TRACEKIT_LOG_SPAN_EVENTS``) records from that level on become
    events of the span. Makes no spans.
    """

    name = "logging"
    makes_spans = False
    contrib = ("logging",)

    def __init__(self) -> None:
        super().__init__()
        self._format = _Format(False, _FORMAT, logging.INFO)
        self._root_change: _RootChange | None = None
        self._events: LogEvents | None = None

    def configure(self, options: Mapping[str, Any]) -> None:
        others = dict(options)
        setting = os.environ.get
        correlate = setting("OTEL_PYTHON_LOG_CORRELATION", "").strip().lower() == "true"
        self._format = _Format(
            wanted=bool(others.pop("set_logging_format", correlate)),
            text=others.pop("logging_format", None) or setting("OTEL_PYTHON_LOG_FORMAT") or _FORMAT,
            level=others.pop("log_level", None) or _level(setting("OTEL_PYTHON_LOG_LEVEL", "")),
        )
        self._events = log_events_from(os.environ, others.pop("span_events", None))
        super().configure(others)

    def patches(self) -> Sequence[Patch]:
        return ()

    def instrument(self, *, tracer_provider: TracerProvider | None = None, **options: Any) -> None:
        if self._wanted:
            return
        super().instrument(tracer_provider=tracer_provider, **options)
        if self._hindrance(None) is not None:
            return
        _correlation.join(self, tracer_provider, self._events)
        if self._format.wanted:
            self._set_format()

    def uninstrument(self) -> None:
        # The format first: it names attributes that records are about to lose.
        self._restore_root()
        _correlation.leave(self)
        super().uninstrument()

    @property
    def status(self) -> InstrumentationStatus:
        if self in _correlation.owners:
            return InstrumentationStatus(self.name, None, self.supported, True, "active")
        return super().status

    def _set_format(self) -> None:
        root = logging.getLogger()
        handlers, level = list(root.handlers), root.level
        try:
            logging.basicConfig(format=self._format.text, level=self._format.level)
        except (TypeError, ValueError):
            _logger.warning("not a logging format: %r", self._format.text, exc_info=True)
            return
        added = [handler for handler in root.handlers if handler not in handlers]
        if added:
            self._root_change = _RootChange(added, level)

    def _restore_root(self) -> None:
        change, self._root_change = self._root_change, None
        if change is None:
            return
        root = logging.getLogger()
        for handler in change.added:
            root.removeHandler(handler)
            handler.close()
        root.setLevel(change.level_before)


class _Correlation:
    """The two functions put into the logging module, for as long as anybody wants them."""

    def __init__(self) -> None:
        self.owners: list[LoggingInstrumentor] = []
        self.provider: TracerProvider | None = None
        self._lock = threading.Lock()
        self._replaced: list[tuple[type, str, Any, Any]] = []
        # Replaced as one object, so that threads never see halves of two.
        self._outside: tuple[object, Fields] = (None, NO_FIELDS)
        self.events: LogEvents | None = None

    def join(
        self,
        owner: LoggingInstrumentor,
        provider: TracerProvider | None,
        events: LogEvents | None,
    ) -> None:
        with self._lock:
            self.events = events or self.events
            self.owners.append(owner)
            self.provider = provider
            take_outside_from(self._fields_outside)
            if not self._replaced:
                init = self._replace(logging.LogRecord, "__init__", self._init)
                make_record = functools.partial(_make_record, init)
                self._replace(logging.Logger, "makeRecord", make_record)
            if events is not None and not self._is_replaced("callHandlers"):
                self._replace(logging.Logger, "callHandlers", self._call_handlers)

    def leave(self, owner: LoggingInstrumentor) -> None:
        with self._lock:
            if owner in self.owners:
                self.owners.remove(owner)
            if self.owners:
                return
            self.events = None
            take_outside_from(None)
            for holder, name, original, ours in self._replaced:
                # Somebody has wrapped it since: it stays underneath, and does nothing.
                if vars(holder)[name] is ours:
                    setattr(holder, name, original)
            self._replaced = []

    def _is_replaced(self, name: str) -> bool:
        return any(each[1] == name for each in self._replaced)

    def _replace(self, holder: type, name: str, around: Callable[[Any], Any]) -> Any:
        original = vars(holder)[name]
        ours = functools.wraps(original)(around(original))
        setattr(holder, name, ours)
        self._replaced.append((holder, name, original, ours))
        return ours

    def _init(self, original: Callable[..., None]) -> Callable[..., None]:
        # The arguments by name: *args costs a tuple and a slower call for each record. The
        # attributes one by one: asking for the record's __dict__ would build it.
        def init(
            record: Any,
            name: Any,
            level: Any,
            pathname: Any,
            lineno: Any,
            msg: Any,
            args: Any,
            exc_info: Any,
            func: Any = None,
            sinfo: Any = None,
            **kwargs: Any,
        ) -> None:
            if kwargs:
                given = (name, level, pathname, lineno, msg, args, exc_info, func, sinfo)
                original(record, *given, **kwargs)
            else:
                original(record, name, level, pathname, lineno, msg, args, exc_info, func, sinfo)
            if self.owners:
                (
                    record.otelTraceID,
                    record.otelSpanID,
                    record.otelTraceSampled,
                    record.otelServiceName,
                ) = current_fields()

        return init

    def _call_handlers(self, original: Callable[..., None]) -> Callable[..., None]:
        # Called with the records that no level and no filter of the logger's has kept back.
        def call_handlers(logger: logging.Logger, record: logging.LogRecord) -> None:
            original(logger, record)
            if self.events is not None and record.levelno >= self.events.level:
                _write(self.events, record)

        return call_handlers

    def _fields_outside(self) -> Fields:
        """Return the fields outside of a span, the service's name among them.

        The provider may be set, or replaced, at any time.
        """
        provider = self.provider or get_tracer_provider()
        if self._outside[0] is not provider:
            # Before the name is looked up: a resource that is detected on first use may log.
            self._outside = (provider, NO_FIELDS)
            self._outside = (provider, (*NO_FIELDS[:3], _service_name_of(provider)))
        return self._outside[1]


_correlation = _Correlation()


def writes_events() -> bool:
    """Tell whether records of the standard library become events of spans."""
    return _correlation.events is not None


@quiet
def _write(events: LogEvents, record: logging.LogRecord) -> None:
    try:
        message = record.getMessage()
    except Exception:  # arguments that do not fit, of which the handler tells
        message = str(record.msg)
    exception = exception_in(record.exc_info)
    events.write(record.levelno, record.levelname, record.name, message, exception)


def _make_record(init: Any, original: Callable[..., Any]) -> Callable[..., Any]:
    """Make a record in fewer steps, and let a program that correlates by hand have its own values.

    The logging module refuses, with KeyError, an ``extra`` that names an attribute of the
    record, which these were not before we came.

    Args:
        init: What we put into the place of ``LogRecord.__init__``.
    """
    record_class, own_init, new_record = logging.LogRecord, init.__wrapped__, object.__new__
    reserved = _reserved(original, own_init)

    def make_record(
        logger: logging.Logger,
        name: Any,
        level: Any,
        fn: Any,
        lno: Any,
        msg: Any,
        args: Any,
        exc_info: Any,
        func: Any = None,
        extra: Any = None,
        sinfo: Any = None,
    ) -> Any:
        # The usual record, without what calls `init`, and `init`: half of what ids would cost. Not
        # where a program or another tool has put something in their place since, nor where the
        # library may have something to say against `extra`.
        if (
            reserved is not None
            and logging._logRecordFactory is record_class  # type: ignore[attr-defined]
            and record_class.__init__ is init
            and (extra is None or (type(extra) is dict and reserved.isdisjoint(extra)))
        ):
            record: Any = new_record(record_class)
            own_init(record, name, level, fn, lno, msg, args, exc_info, func, sinfo)
            (
                record.otelTraceID,
                record.otelSpanID,
                record.otelTraceSampled,
                record.otelServiceName,
            ) = current_fields()
            if extra is not None:
                record.__dict__.update(extra)
            return record
        if isinstance(extra, Mapping) and not _NAMES.isdisjoint(extra):
            others = {key: value for key, value in extra.items() if key not in _NAMES}
            given = (name, level, fn, lno, msg, args, exc_info, func, others, sinfo)
            record = original(logger, *given)
            record.__dict__.update({key: extra[key] for key in _NAMES & extra.keys()})
            return record
        return original(logger, name, level, fn, lno, msg, args, exc_info, func, extra, sinfo)

    return make_record


def _reserved(make_record: Any, init: Any) -> frozenset[str] | None:
    """Return the names that ``extra`` must not have, or None where a record is not only made.

    What is certain to make it, and to do nothing else, are the logging module's own functions.
    """
    is_own = all(
        type(function) is FunctionType and function.__globals__ is vars(logging)
        for function in (make_record, init)
    )
    if (
        not is_own
        or "_logRecordFactory" not in make_record.__code__.co_names
        or logging.LogRecord.__new__ is not object.__new__
    ):
        return None
    record = object.__new__(logging.LogRecord)
    init(record, "", 0, "", 0, "", (), None)
    # The last two are set when the record is formatted.
    return frozenset((*vars(record), "message", "asctime"))


def _level(name: str) -> int:
    known = name.strip().upper()
    return int(getattr(logging, known)) if known in _LEVELS else logging.INFO


def _service_name_of(provider: TracerProvider) -> str:
    try:
        return str(provider.resource.attributes["service.name"])  # type: ignore[attr-defined]
    except Exception:
        return ""


plugin: type[LibraryInstrumentor] = LoggingInstrumentor
