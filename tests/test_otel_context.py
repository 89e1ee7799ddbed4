"""The Context of a single span: any other Context, seen from every side."""

from __future__ import annotations

import collections
import copy
import operator
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry import baggage, trace
from opentelemetry import context as context_api
from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN, set_span_in_context

from tracekit._otel_context import SPAN_KEY, OnlySpan, with_span

WAYS: dict[str, Callable[[Any], Any]] = {
    "dict()": dict,
    "Context()": Context,
    "{**}": lambda context: {**context},
    "f(**)": lambda context: _named(**context),
    "copy()": lambda context: context.copy(),
    "|": lambda context: context | {"a": 1},
    "reflected |": lambda context: {"a": 1} | context,
    "update": lambda context: _updated({}, context),
    "OrderedDict": collections.OrderedDict,
    "ChainMap": lambda context: dict(collections.ChainMap({}, context)),
    "list": list,
    "set": set,
    "tuple of items": lambda context: tuple(context.items()),
    "values": lambda context: list(context.values()),
    "keys": lambda context: list(context.keys()),
    "reversed": lambda context: list(reversed(context)),
    "len": len,
    "bool": bool,
    "in": lambda context: SPAN_KEY in context,
    "not in": lambda context: "another" in context,
    "[]": lambda context: context[SPAN_KEY],
    "get": lambda context: context.get(SPAN_KEY),
    "get of an equal key": lambda context: context.get("".join(list(SPAN_KEY))),
    "get of another key": lambda context: context.get("another"),
    "get with a default": lambda context: context.get("another", 7),
    "== a dict": lambda context: context == {SPAN_KEY: INVALID_SPAN},
    "a dict ==": lambda context: operator.eq({SPAN_KEY: INVALID_SPAN}, context),
    "== a Context": lambda context: operator.eq(Context({SPAN_KEY: INVALID_SPAN}), context),
    "!=": lambda context: context != {},
    "{} ==": lambda context: operator.eq(Context(), context),
    "repr": repr,
    "str": str,
    "match": lambda context: _matched(context),
    "current span": trace.get_current_span,
    "set_value": lambda context: context_api.set_value("a", 1, context),
    "get_value": lambda context: context_api.get_value(SPAN_KEY, context),
    "baggage": lambda context: dict(baggage.set_baggage("a", "1", context)),
    "another span": lambda context: set_span_in_context(trace.NonRecordingSpan, context),  # type: ignore[arg-type]
    "isinstance": lambda context: isinstance(context, (Context, dict)),
}


def _named(**named: Any) -> dict[str, Any]:
    return named


def _updated(target: dict[str, Any], context: Any) -> dict[str, Any]:
    target.update(context)
    return target


def _matched(context: Any) -> Any:
    match context:
        case {"nothing": _}:
            return None
        case {**rest}:
            return rest


def only_span(span: Any = INVALID_SPAN) -> Context:
    context = with_span(Context(), span)
    assert type(context) is OnlySpan
    return context


@pytest.mark.parametrize("way", WAYS)
def test_what_is_read_is_what_the_apis_own_context_says(way: str) -> None:
    expected = WAYS[way](set_span_in_context(INVALID_SPAN, Context()))
    context = only_span()
    assert WAYS[way](context) == expected
    assert type(WAYS[way](context)) is type(expected)
    # And once more, with a context that is a full dictionary by now.
    assert len(context) == 1
    assert WAYS[way](context) == expected


CHANGES: dict[str, Callable[[Any], Any]] = {
    "[]=": lambda context: context.__setitem__("a", 1),
    "del": lambda context: context.__delitem__(SPAN_KEY),
    "pop": lambda context: context.pop(SPAN_KEY),
    "popitem": lambda context: context.popitem(),
    "setdefault": lambda context: context.setdefault("a", 1),
    "update": lambda context: context.update({"a": 1}),
    "clear": lambda context: context.clear(),
    "|=": lambda context: context.__ior__({"a": 1}),
}


@pytest.mark.parametrize("way", CHANGES)
def test_it_changes_as_little_as_the_apis_own_context(way: str) -> None:
    context, plain = only_span(), set_span_in_context(INVALID_SPAN, Context())
    outcomes = []
    for changed in (plain, context):
        try:
            outcomes.append(CHANGES[way](changed))
        except Exception as error:
            outcomes.append(type(error))
    assert outcomes[0] == outcomes[1]
    assert dict(context) == dict(plain)


def test_a_missing_key_raises_as_in_a_dictionary() -> None:
    with pytest.raises(KeyError):
        only_span()["another"]


def test_it_has_no_hash_like_every_dictionary() -> None:
    with pytest.raises(TypeError):
        hash(only_span())


def _pickled(context: Context) -> Any:
    return pickle.loads(pickle.dumps(context))


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, _pickled])
def test_it_is_copied_as_a_context(duplicate: Callable[[Context], Any]) -> None:
    # More than the API's own can: that refuses what the copy would be filled with.
    context = only_span("a span")
    for _ in ("kept in its slot", "a full dictionary after len()"):
        made = duplicate(context)
        assert type(made) is Context
        assert made == {SPAN_KEY: "a span"}
        assert len(context) == 1


def test_values_that_others_set_are_kept_beside_a_span() -> None:
    context = with_span(context_api.set_value("a", 1, only_span("below")), "above")
    assert dict(context) == {SPAN_KEY: "above", "a": 1}


def test_a_span_replaces_the_only_one() -> None:
    assert dict(with_span(only_span("below"), "above")) == {SPAN_KEY: "above"}
