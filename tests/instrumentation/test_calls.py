"""Calls of a library are watched by what its file says; a step that breaks breaks nothing else."""

from __future__ import annotations

import asyncio
import sys
import types
from collections.abc import Sequence
from typing import Any

import pytest
from opentelemetry.trace import StatusCode

from instrumentation.conftest import Instrument, Spans
from tracekit.instrumentation._calls import Call, CallInstrumentor, Told

SOURCE = """
class Client:
    async def fetch(self, key, *, wait=0):
        if key == "none": raise KeyError(key)
        return key.upper()
    def fetch_all(self, *keys, **options): return [self.one(key) for key in keys]
    def one(self, key): return key
"""


def _fetch(client: Any, key: str, wait: int, unknown: object) -> tuple[str, Told]:
    assert unknown is None
    return f"fetch {key}", {"key": key, "wait": wait}


def _answered(answer: str) -> Told | None:
    return {"error.type": 404, "answer": answer} if answer == "LOST" else {"answer": answer}


def _named(client: Any) -> tuple[str, Told]:
    return "call", {}


class Watching(CallInstrumentor):
    name = "called_library"

    def calls(self) -> Sequence[Call]:
        return (
            Call("called_library", "Client.fetch", _fetch, _answered),
            Call("called_library", "Client.fetch_all", _named),
            Call("called_library", "Client.one", _named),
        )

    def code_of(self, error: Any) -> object:
        return error.args[0]


@pytest.fixture(autouse=True)
def library(monkeypatch: pytest.MonkeyPatch) -> Any:
    module: Any = types.ModuleType("called_library")
    exec(SOURCE, vars(module))
    monkeypatch.setitem(sys.modules, "called_library", module)
    return module


def test_a_coroutine_has_its_span_until_it_returns(
    instrument: Instrument, spans: Spans, library: Any
) -> None:
    instrument(Watching, code_location=False)

    async def program() -> list[str]:
        client = library.Client()
        return list(await asyncio.gather(client.fetch("a", wait=2), client.fetch("b")))

    assert asyncio.run(program()) == ["A", "B"]
    told = {span.name: dict(span.attributes or {}) for span in spans.watched}
    assert told == {
        "fetch a": {"key": "a", "wait": 2, "answer": "A"},
        "fetch b": {"key": "b", "wait": 0, "answer": "B"},
    }


def test_an_answer_may_tell_of_a_failure(
    instrument: Instrument, spans: Spans, library: Any
) -> None:
    instrument(Watching)
    assert asyncio.run(library.Client().fetch("lost")) == "LOST"
    span = spans.one()
    assert span.status.status_code is StatusCode.ERROR
    assert ((span.attributes or {})["error.type"], (span.attributes or {})["answer"]) == (
        "404",
        "LOST",
    )


def test_an_exception_is_told_by_its_code(
    instrument: Instrument, spans: Spans, library: Any
) -> None:
    instrument(Watching)
    with pytest.raises(KeyError):
        asyncio.run(library.Client().fetch("none"))
    assert (spans.one().attributes or {})["error.type"] == "none"


def test_a_call_inside_of_another_of_the_library_is_part_of_it(
    instrument: Instrument, spans: Spans, library: Any
) -> None:
    instrument(Watching)
    assert library.Client().fetch_all("a", "b") == ["a", "b"]
    assert len(spans.watched) == 1


@pytest.mark.parametrize("step", ["_fetch", "_answered"])
def test_a_step_that_raises_harms_no_call(
    instrument: Instrument, spans: Spans, library: Any, step: str
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise ArithmeticError("broken")

    class Broken(Watching):
        def calls(self) -> Sequence[Call]:
            began = _named if step == "_answered" else lambda key: broken()
            return (Call("called_library", "Client.fetch", began, broken),)

        code_of = broken

    instrument(Broken)
    assert asyncio.run(library.Client().fetch("a")) == "A"
    with pytest.raises(KeyError):
        asyncio.run(library.Client().fetch("none"))
    kinds = [(span.attributes or {}).get("error.type") for span in spans.watched]
    assert kinds == ([None, "KeyError"] if step == "_answered" else [])
