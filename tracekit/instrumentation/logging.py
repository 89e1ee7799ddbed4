"""Write the ids of the current span into every log record.

Why ``LogRecord.__init__`` and not a record factory: a program that sets its own factory after
us would lose the attributes, and a format that names them would fail on each of its records.
Whatever a factory does, it makes a ``LogRecord``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from opentelemetry.trace import TracerProvider, get_current_span, get_tracer_provider

from tracekit.instrumentation._patch import LibraryInstrumentor, Patch

__all__ = ["LoggingInstrumentor", "plugin"]

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
# Position of `extra` among the arguments of makeRecord.
_EXTRA = 8
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
    Makes no spans.
    """

    name = "logging"
    contrib = ("logging",)

    def __init__(self) -> None:
        super().__init__()
        self._provider: TracerProvider | None = None
        self._service: tuple[TracerProvider | None, str] = (None, "")
        self._format = _Format(False, _FORMAT, logging.INFO)
        self._root_change: _RootChange | None = None

    def configure(self, options: Mapping[str, Any]) -> None:
        others = dict(options)
        environment = os.environ.get
        self._format = _Format(
            wanted=bool(
                others.pop(
                    "set_logging_format",
                    environment("OTEL_PYTHON_LOG_CORRELATION", "").strip().lower() == "true",
                )
            ),
            text=others.pop("logging_format", None)
            or environment("OTEL_PYTHON_LOG_FORMAT")
            or _FORMAT,
            level=others.pop("log_level", None) or _level(environment("OTEL_PYTHON_LOG_LEVEL", "")),
        )
        super().configure(others)

    def patches(self) -> Sequence[Patch]:
        return (
            Patch("logging", "LogRecord.__init__", self._init_record),
            Patch("logging", "Logger.makeRecord", _make_record),
        )

    def instrument(self, *, tracer_provider: TracerProvider | None = None, **options: Any) -> None:
        if not self._wanted:
            self._provider = tracer_provider
        super().instrument(tracer_provider=tracer_provider, **options)
        if self._format.wanted and self._root_change is None and self.status.active:
            self._set_format()

    def uninstrument(self) -> None:
        # The format first: it names attributes that records are about to lose.
        self._restore_root()
        super().uninstrument()

    def _init_record(
        self,
        wrapped: Callable[..., Any],
        record: logging.LogRecord,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        wrapped(*args, **kwargs)
        fields = record.__dict__
        span_context = get_current_span().get_span_context()
        if span_context.is_valid:
            fields["otelTraceID"] = f"{span_context.trace_id:032x}"
            fields["otelSpanID"] = f"{span_context.span_id:016x}"
            fields["otelTraceSampled"] = span_context.trace_flags.sampled
        else:
            fields["otelTraceID"] = fields["otelSpanID"] = "0"
            fields["otelTraceSampled"] = False
        fields["otelServiceName"] = self._service_name()

    def _service_name(self) -> str:
        """Return the name in the provider's resource; providers may be set, or replaced, later."""
        provider = self._provider or get_tracer_provider()
        if self._service[0] is not provider:
            # Before it is looked up: a resource that is detected on first use may log.
            self._service = (provider, "")
            self._service = (provider, _service_name_of(provider))
        return self._service[1]

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


def _make_record(
    wrapped: Callable[..., Any],
    _its_logger: logging.Logger,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Let a program that correlates by hand have its own values.

    The logging module refuses, with KeyError, an `extra` that names an attribute of the record,
    which these were not before we came.
    """
    extra = kwargs.get("extra", args[_EXTRA] if len(args) > _EXTRA else None)
    if not isinstance(extra, Mapping) or _NAMES.isdisjoint(extra):
        return wrapped(*args, **kwargs)
    others = {key: value for key, value in extra.items() if key not in _NAMES}
    if "extra" in kwargs:
        record = wrapped(*args, **{**kwargs, "extra": others})
    else:
        record = wrapped(*args[:_EXTRA], others, *args[_EXTRA + 1 :], **kwargs)
    record.__dict__.update({key: extra[key] for key in _NAMES & extra.keys()})
    return record


def _level(name: str) -> int:
    known = name.strip().upper()
    return int(getattr(logging, known)) if known in _LEVELS else logging.INFO


def _service_name_of(provider: TracerProvider) -> str:
    try:
        return str(provider.resource.attributes["service.name"])  # type: ignore[attr-defined]
    except Exception:
        return ""


plugin: type[LibraryInstrumentor] = LoggingInstrumentor
