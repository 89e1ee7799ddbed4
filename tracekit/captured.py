"""Spans of a test, and assertions about them that say what is wrong in words."""

from __future__ import annotations

import difflib
import re
import textwrap
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanContext, SpanKind, StatusCode

from tracekit.interfaces import ReadableSpan, SpanProcessor

if TYPE_CHECKING:
    from tracekit.model import Finding, SpanRecord

__all__ = ["ANY", "CapturedSpans", "Recording"]

_MOST_HELD = 100_000
_MOST_SHOWN = 50
_WIDEST = 160


class _Any:
    def __repr__(self) -> str:
        return "ANY"


ANY: Any = _Any()
"""Stands for a condition that is not made; None is one: a parent of None is no parent."""


class Recording(SpanProcessor):
    """Hold spans from their start on, the newest hundred thousand.

    Concurrency: as for every SpanProcessor.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[int, Any] = {}
        self._ended: deque[ReadableSpan] = deque(maxlen=_MOST_HELD)

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        with self._lock:
            self._open[id(span)] = span

    def on_end(self, span: ReadableSpan) -> None:
        with self._lock:
            self._open.pop(id(span), None)
            self._ended.append(span)

    @property
    def ended(self) -> list[ReadableSpan]:
        with self._lock:
            return list(self._ended)

    @property
    def open(self) -> list[Any]:
        """Spans that have started and not ended, by their start."""
        with self._lock:
            return list(self._open.values())

    def clear(self) -> None:
        with self._lock:
            self._ended.clear()


class _Condition(NamedTuple):
    """One thing that is wanted of a span.

    Attributes:
        wanted: As it is shown: ``amount=5``.
        is_met: Asked with a span.
        found: What a span has instead, as it is shown.
    """

    wanted: str
    is_met: Callable[[Any], bool]
    found: Callable[[Any], str]


class CapturedSpans(Sequence[Any]):
    """The spans that have ended, by their start; spans of the test itself are left out.

    Conditions of ``one``, ``all`` and ``none``:

    * ``name``: text, a compiled pattern that is searched, or a function that is asked;
    * ``kind`` and ``status``: the enumeration's member or its name (``"server"``, ``"error"``);
    * ``parent``: a span, a span's name, or None for a span without a parent here;
    * ``service``: what ``service.name`` of the resource says;
    * ``attributes``: a mapping of what the span must have, and more attributes by name.
    """

    def __init__(self, recording: Recording, own_scope: str = "") -> None:
        self._recording = recording
        self._own_scope = own_scope

    # --- the spans themselves --------------------------------------------------------------

    def _spans(self) -> list[Any]:
        found = [span for span in self._recording.ended if not self._is_own(span)]
        return sorted(found, key=lambda span: span.start_time or 0)

    def _is_own(self, span: Any) -> bool:
        scope = span.instrumentation_scope
        return bool(self._own_scope) and scope is not None and scope.name == self._own_scope

    def __len__(self) -> int:
        return len(self._spans())

    def __getitem__(self, index: Any) -> Any:
        return self._spans()[index]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._spans())

    def __repr__(self) -> str:
        return f"<{len(self)} spans: {', '.join(repr(span.name) for span in self)}>"

    def clear(self) -> None:
        """Forget what has ended until now."""
        self._recording.clear()

    # --- assertions ------------------------------------------------------------------------

    def one(self, name: Any = ANY, **conditions: Any) -> Any:
        """Return the one span that meets all conditions.

        Raises:
            AssertionError: There is none, or more than one; with what comes closest, and all
                spans as a tree.
        """
        __tracebackhide__ = True
        wanted = self._conditions(name, **conditions)
        found = self._matching(wanted)
        if len(found) != 1:
            raise AssertionError(self._explained("one span", wanted, found))
        return found[0]

    def all(self, name: Any = ANY, *, count: int | None = None, **conditions: Any) -> list[Any]:
        """Return the spans that meet all conditions, by their start.

        Raises:
            AssertionError: They are not ``count``.
        """
        __tracebackhide__ = True
        wanted = self._conditions(name, **conditions)
        found = self._matching(wanted)
        if count is not None and len(found) != count:
            raise AssertionError(self._explained(f"{count} spans", wanted, found))
        return found

    def none(self, name: Any = ANY, **conditions: Any) -> None:
        """Assert that no span meets all conditions."""
        __tracebackhide__ = True
        wanted = self._conditions(name, **conditions)
        found = self._matching(wanted)
        if found:
            raise AssertionError(self._explained("no span", wanted, found))

    def assert_tree(self, expected: str, *, ordered: bool = True) -> None:
        """Assert that all spans together have this shape: a name a line, indented below its parent.

        Args:
            ordered: False where siblings may start in any order.
        """
        __tracebackhide__ = True
        wanted = _nested(_lines(expected))
        real = _nested(_lines(self.tree()))
        if not ordered:
            wanted, real = _sorted(wanted), _sorted(real)
        if wanted != real:
            diff = difflib.ndiff(list(_written(wanted)), list(_written(real)))
            lines = [line for line in diff if not line.startswith("?")]
            legend = "the spans are not those expected (-), but these (+):"
            raise AssertionError("\n".join([legend, *lines, *self._open_ones()]))

    def assert_parent(self, child: Any, parent: Any) -> None:
        """Assert that a span is a direct child of another; each is a span or the name of one."""
        __tracebackhide__ = True
        below = self.one(child) if isinstance(child, str) else child
        above = self.one(parent) if isinstance(parent, str) else parent
        if not _is_parent(above, below):
            real = self.parent_of(below)
            said = f"its parent is {real.name!r}" if real is not None else "it has no parent here"
            text = f"{below.name!r} is not a child of {above.name!r}: {said}"
            raise AssertionError("\n".join([text, *self._shown()]))

    # --- relations -------------------------------------------------------------------------

    def roots(self) -> list[Any]:
        """Return the spans whose parent is not here: none, in another process, or the test."""
        return [span for span in self if self.parent_of(span) is None]

    def children(self, parent: Any) -> list[Any]:
        """Return the direct children of a span, or of the one with that name."""
        above = self.one(parent) if isinstance(parent, str) else parent
        return [span for span in self if _is_parent(above, span)]

    def parent_of(self, span: Any) -> Any:
        return next((other for other in self if _is_parent(other, span)), None)

    def tree(self) -> str:
        """Return the names of all spans, a line each, indented below their parents."""
        return "\n".join(self._tree_lines(lambda span: span.name))

    def _tree_lines(self, label: Callable[[Any], str]) -> Iterator[str]:
        spans = self._spans()
        known = {(span.context.trace_id, span.context.span_id) for span in spans}
        below: dict[Any, list[Any]] = {}
        for span in spans:
            key = (span.context.trace_id, span.parent.span_id) if span.parent else None
            below.setdefault(key if key in known else None, []).append(span)
        # A list and not recursion: a chain of spans may be as deep as the program made it.
        waiting = [(span, 0) for span in reversed(below.get(None, []))]
        while waiting:
            span, depth = waiting.pop()
            yield "  " * depth + label(span)
            key = (span.context.trace_id, span.context.span_id)
            waiting += [(child, depth + 1) for child in reversed(below.get(key, []))]

    # --- findings --------------------------------------------------------------------------

    def findings(self, *kinds: str) -> list[Finding]:
        """Return what ``tracekit findings`` says of these spans, and of those not ended yet.

        Args:
            kinds: Only these, such as ``"redundant_calls"``; all, if none is named.

        Raises:
            UnknownNameError: There is no such kind.
        """
        from tracekit import discovery
        from tracekit.findings import find_all
        from tracekit.trace import traces_of

        for kind in kinds:
            discovery.find("finding", kind)
        found = [item for trace in traces_of(self._records()) for item in find_all(trace)]
        return [item for item in found if not kinds or item.kind in kinds]

    def assert_no_findings(self, *kinds: str) -> None:
        """Assert that nothing is wrong with these spans, or nothing of these kinds.

        Raises:
            AssertionError: Something is; with each finding, and its spans marked in the tree.
            UnknownNameError: There is no such kind.
        """
        __tracebackhide__ = True
        found = self.findings(*kinds)
        if found:
            raise AssertionError("\n".join(self._told(found, kinds)))

    def _told(self, found: Sequence[Finding], kinds: Sequence[str]) -> Iterator[str]:
        of = f" of {', '.join(kinds)}" if kinds else ""
        yield f"expected no findings{of}, found {len(found)}"
        for item in found:
            yield f"{item.kind}: {item.message}"
            yield f"  do: {item.advice}"
            if item.location:
                yield f"  code: {item.location}"
        proof = {(item.trace_id, span_id) for item in found for span_id in item.spans}
        yield from self._shown({id(span) for span in self if _ids(span) in proof})

    def _records(self) -> Iterator[SpanRecord]:
        """Yield all spans but the test's own, which is left as a parent that is elsewhere."""
        from dataclasses import replace

        from tracekit.exporters._readable import salvage

        spans = [*self._recording.ended, *self._recording.open]
        own = {_ids(span) for span in spans if self._is_own(span)}
        for span in spans:
            if self._is_own(span):
                continue
            record, parent = salvage(span), span.parent
            if parent is not None and (parent.trace_id, parent.span_id) in own:
                elsewhere = SpanContext(parent.trace_id, parent.span_id, True, parent.trace_flags)
                record = replace(record, parent=elsewhere)
            yield record

    # --- matching and explaining -----------------------------------------------------------

    def _matching(self, wanted: Sequence[_Condition]) -> list[Any]:
        return [span for span in self if all(each.is_met(span) for each in wanted)]

    def _conditions(
        self,
        name: Any = ANY,
        *,
        kind: Any = ANY,
        status: Any = ANY,
        parent: Any = ANY,
        service: Any = ANY,
        attributes: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> list[_Condition]:
        found = []
        if name is not ANY:
            found.append(_on_name(name))
        if kind is not ANY:
            found.append(_on_member("kind", kind, SpanKind, lambda span: span.kind))
        if status is not ANY:
            read = lambda span: span.status.status_code  # noqa: E731 - one expression, used once
            found.append(_on_member("status", status, StatusCode, read))
        if parent is not ANY:
            found.append(self._on_parent(parent))
        if service is not ANY:
            read = lambda span: span.resource.attributes.get("service.name")  # noqa: E731
            found.append(_equal("service", service, read))
        for key, value in {**(attributes or {}), **more}.items():
            found.append(_on_attribute(key, value))
        return found

    def _on_parent(self, parent: Any) -> _Condition:
        def name(span: Any) -> Any:
            above = self.parent_of(span)
            return None if above is None else above.name

        if parent is None or isinstance(parent, str):
            return _equal("parent", parent, name)
        shown = f"parent={parent.name!r}"
        return _Condition(
            shown, lambda span: _is_parent(parent, span), lambda span: f"parent={name(span)!r}"
        )

    def _explained(self, what: str, wanted: Sequence[_Condition], found: Sequence[Any]) -> str:
        conditions = ", ".join(each.wanted for each in wanted)
        of = f" with {conditions}" if conditions else ""
        lines = [f"expected {what}{of}, found {len(found) or 'none'}"]
        if not found and wanted:
            lines += self._closest(wanted)
        return "\n".join([*lines, *self._shown({id(span) for span in found})])

    def _closest(self, wanted: Sequence[_Condition]) -> Iterator[str]:
        """Say what the spans that meet most conditions have instead of the others."""
        missed = [
            (span, [each for each in wanted if not each.is_met(span)]) for span in self._spans()
        ]
        least = min((len(each) for _, each in missed), default=len(wanted))
        if least == len(wanted):
            return
        for span, conditions in [each for each in missed if len(each[1]) == least][:3]:
            has = ", ".join(each.found(span) for each in conditions)
            yield f"closest: {span.name!r} has {has}"

    def _shown(self, marked: set[int] = frozenset()) -> Iterator[str]:  # type: ignore[assignment]
        def label(span: Any) -> str:
            mark = "  <--" if id(span) in marked else ""
            return f"{_label(span)}{mark}"

        lines = list(self._tree_lines(label))
        yield f"captured {len(lines)} spans:" if lines else "no span was captured"
        yield from (f"  {line}" for line in lines[:_MOST_SHOWN])
        if len(lines) > _MOST_SHOWN:
            yield f"  and {len(lines) - _MOST_SHOWN} more"
        yield from self._open_ones()

    def _open_ones(self) -> Iterator[str]:
        names = [repr(span.name) for span in self._recording.open if not self._is_own(span)]
        if names:
            yield f"not ended yet: {', '.join(names[:_MOST_SHOWN])}"


def _ids(span: Any) -> tuple[int, int]:
    return span.context.trace_id, span.context.span_id


def _is_parent(above: Any, below: Any) -> bool:
    parent = below.parent
    return (
        parent is not None
        and parent.span_id == above.context.span_id
        and below.context.trace_id == above.context.trace_id
    )


def _on_name(name: Any) -> _Condition:
    if isinstance(name, re.Pattern):
        is_met: Callable[[Any], bool] = lambda span: bool(name.search(span.name))  # noqa: E731
    elif callable(name):
        is_met = lambda span: bool(name(span.name))  # noqa: E731
    else:
        is_met = lambda span: bool(span.name == name)  # noqa: E731
    shown = f"/{name.pattern}/" if isinstance(name, re.Pattern) else repr(name)
    return _Condition(f"name={shown}", is_met, lambda span: f"name={span.name!r}")


def _on_member(label: str, wanted: Any, members: Any, read: Callable[[Any], Any]) -> _Condition:
    if isinstance(wanted, str):
        known = [member.name for member in members]
        if wanted.upper() not in known:
            raise ValueError(f"{label}={wanted!r}: expected one of {', '.join(known)}")
        wanted = members[wanted.upper()]
    return _Condition(
        f"{label}={wanted.name}",
        # By name: spans of other providers have enumerations that are equal in name only.
        lambda span: bool(read(span).name == wanted.name),
        lambda span: f"{label}={read(span).name}",
    )


def _equal(label: str, wanted: Any, read: Callable[[Any], Any]) -> _Condition:
    return _Condition(
        f"{label}={wanted!r}",
        lambda span: bool(read(span) == wanted),
        lambda span: f"{label}={read(span)!r}",
    )


def _on_attribute(key: str, wanted: Any) -> _Condition:
    def read(span: Any) -> Any:
        value = (span.attributes or {}).get(key, ANY)
        return list(value) if isinstance(value, tuple) else value

    expected = list(wanted) if isinstance(wanted, tuple) else wanted

    def found(span: Any) -> str:
        value = read(span)
        return f"no {key}" if value is ANY else f"{key}={value!r}"

    return _Condition(f"{key}={wanted!r}", lambda span: bool(read(span) == expected), found)


def _label(span: Any) -> str:
    attributes = ", ".join(f"{key}={value!r}" for key, value in (span.attributes or {}).items())
    failed = "  ERROR" if span.status.status_code.name == "ERROR" else ""
    text = f"{span.name}{failed}  {attributes}".rstrip().replace("\n", " ")
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 1]}…"


# --- trees as text -------------------------------------------------------------------------

_Nested = list[tuple[str, Any]]


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in textwrap.dedent(text).splitlines() if line.strip()]


def _nested(lines: Sequence[str]) -> _Nested:
    """Return names with what is indented below them, by however many spaces."""
    roots: _Nested = []
    path: list[tuple[int, _Nested]] = [(-1, roots)]
    for line in lines:
        indent = len(line) - len(line.lstrip())
        while path[-1][0] >= indent:
            path.pop()
        below: _Nested = []
        path[-1][1].append((line.strip(), below))
        path.append((indent, below))
    return roots


def _sorted(nested: _Nested) -> _Nested:
    parts = [(name, _sorted(below)) for name, below in nested]
    return sorted(parts, key=lambda part: (part[0], list(_written(part[1]))))


def _written(nested: _Nested, indent: str = "") -> Iterator[str]:
    for name, below in nested:
        yield f"{indent}{name}"
        yield from _written(below, f"{indent}  ")
