"""What a tail sampler keeps, how long it waits, and how much it may hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from tracekit.errors import InvalidValueError, UnknownNameError
from tracekit.interfaces import ReadableSpan
from tracekit.processors._share_rules import share_rules

__all__ = ["TailSettings"]

Predicate = Callable[[Sequence[ReadableSpan]], object]
Finder = Callable[[Sequence[ReadableSpan]], str]


@dataclass(frozen=True)
class TailSettings:
    """The settings of a tail sampler, checked; a local trace is what one process has of a trace.

    Args:
        share: Of the traces for which nothing else speaks, 0.0 to 1.0.
        slow_s: A trace is kept when its local root took at least so long.
        slow_percentile: A trace is kept when its local root took longer than this percentile of
            its operation (the root's name); None for no such comparison.
        rules: What share is kept of the traces in which a span matches, the first rule wins; in
            the language of sampling rules: ``"keep tenant=acme; 50% route=/pay/*"``.
        predicate: Called with the ended spans of a trace; kept when the answer is true.
        find: Called likewise; what it returns, if anything, is what is wrong with the trace.
        linger_s: How long spans that end after their local root are waited for.
        max_age_s: How long a trace is held whose local root does not end.
        max_spans: Most spans that are held, of all traces together.
        max_trace_spans: Most spans that are held of one trace.
        max_bytes: Most bytes that are held, by estimate.

    Raises:
        ConfigurationError: A value or a rule cannot be used; the message says what to write.
    """

    share: float = 0.1
    slow_s: float | None = None
    slow_percentile: float | None = 99.0
    rules: Any = None
    predicate: Predicate | None = None
    find: Finder | None = None
    linger_s: float = 0.2
    max_age_s: float = 60.0
    max_spans: int = 100_000
    max_trace_spans: int = 10_000
    max_bytes: int = 64 * 1024 * 1024

    def __post_init__(self) -> None:
        _check("share", self.share, "a number from 0.0 to 1.0", 0.0, 1.0)
        if self.slow_s is not None:
            _check("slow_s", self.slow_s, "a number of seconds that is not negative")
        if self.slow_percentile is not None:
            _check_percentile(self.slow_percentile)
        _check("linger_s", self.linger_s, "a number of seconds from 0 to 3600", 0.0, 3600.0)
        _check("max_age_s", self.max_age_s, "a number of seconds that is not negative")
        for name in ("max_spans", "max_trace_spans", "max_bytes"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InvalidValueError(f"tail: {name}", value, "a whole number above 0")
        share_rules(self.rules)
        for name in ("predicate", "find"):
            value = getattr(self, name)
            if value is not None and not callable(value):
                raise InvalidValueError(f"tail: {name}", value, "a function of a trace's spans")

    @classmethod
    def from_setting(
        cls, given: Any, source: str, finder: Callable[[Any], Finder | None]
    ) -> TailSettings | None:
        """Make what ``configure(tail=...)``, a variable or a table says; None for no tail sampler.

        Args:
            given: True or False, a share, a table of the arguments above or its JSON, or the
                settings themselves.
            finder: Makes ``find`` of what a table says under ``findings``.

        Raises:
            ConfigurationError: What is wrong, and what to write instead.
        """
        if isinstance(given, cls):
            return given
        if isinstance(given, str):
            given = _read(given.strip())
        if isinstance(given, Mapping):
            return cls._from_table(given, source, finder)
        # `TRACEKIT_TAIL=1` switches it on, as elsewhere; to keep all needs no tail sampler.
        if given is True or (type(given) is int and given == 1):
            return cls()
        if given is False or (type(given) is int and given == 0):
            return None
        if isinstance(given, float):
            return cls(share=given)
        expected = "true, false, a share such as 0.1 or 5%, a table, or TailSettings"
        raise InvalidValueError("tail" if source == "argument" else source, given, expected)

    @classmethod
    def _from_table(
        cls, table: Mapping[Any, Any], source: str, finder: Callable[[Any], Finder | None]
    ) -> TailSettings:
        known = {*(field.name for field in fields(cls)), "findings"} - {"find"}
        for key in table:
            if key not in known:
                where = "" if source == "argument" else source
                raise UnknownNameError("setting of tail", str(key), known, where)
        given = dict(table)
        find = finder(given.pop("findings", False))
        return cls(**given, find=find)


def _read(text: str) -> Any:
    """Return what a text stands for; the text itself when it stands for nothing."""
    word = text.lower()
    if word in ("true", "1", "false", "0"):
        return word in ("true", "1")
    try:
        if text.startswith("{"):
            import json  # only settings that are JSON need it

            return json.loads(text)
        return float(word.removesuffix("%")) / (100 if word.endswith("%") else 1)
    except ValueError:
        return text


def _check(
    name: str, value: Any, expected: str, least: float = 0.0, most: float = float("inf")
) -> None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    # Written so that NaN is refused too.
    if not is_number or not least <= value <= most:
        raise InvalidValueError(f"tail: {name}", value, expected)


def _check_percentile(value: Any) -> None:
    _check("slow_percentile", value, expected := "a number from 50 to below 100", 50.0, 100.0)
    if value >= 100:
        raise InvalidValueError("tail: slow_percentile", value, expected)
