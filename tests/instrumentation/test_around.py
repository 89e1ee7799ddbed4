"""A function that is written around a library's goes like the library's, and tells our steps."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from tracekit.instrumentation._around import around

DEFAULT = object()


def plain(self, x, y=DEFAULT):
    return "plain", self, x, y


def keywords_only(self, x, *, y=DEFAULT):
    return "keywords only", self, x, y


def positions_only(self, x, /, y=DEFAULT):
    return "positions only", self, x, y


def all_positions_only(self, x, y=DEFAULT, /):
    return "all positions only", self, x, y


def with_rest(self, x, **rest):
    return "with rest", self, x, rest


def with_positions(self, x, *more, z=3, **rest):
    return "with positions", self, x, more, z, rest


def anything(*args, **kwargs):
    return "anything", args, kwargs


def many(
    self, x, *, y=DEFAULT, a=0, b=0, c=0, d=0, e=0, f=0, g=0, h=0, i=0, j=0, k=0, m=0, n=0, o=0
):
    return "many", self, x, y, (a, b, c, d, e, f, g, h, i, j, k, m, n, o)


FUNCTIONS = [
    plain,
    keywords_only,
    positions_only,
    all_positions_only,
    with_rest,
    with_positions,
    anything,
]
CALLS: list[Callable[[Any], Any]] = [
    lambda call: call(0, 1),
    lambda call: call(0, 1, 2),
    lambda call: call(0, 1, y=2),
    lambda call: call(0, x=1, y=2),
    lambda call: call(0, 1, z=4),
    lambda call: call(0),
]


class Steps:
    def __init__(self, step: Any = "step") -> None:
        self.step = step
        self.owners: list[object] = [self]
        self.told: list[Any] = []

    def around(self, original: Any) -> Any:
        told = {"self": 0, "x": 1, "y": 2}
        return around(original, told, self.before, self.after, self.failed, owners=self.owners)

    def before(self, *told: Any) -> Any:
        self.told.append(("before", *told))
        return self.step

    def after(self, *told: Any) -> None:
        self.told.append(("after", *told))

    def failed(self, *told: Any) -> None:
        self.told.append(("failed", *told))


def outcome(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except TypeError:
        return TypeError


@pytest.mark.parametrize("step", ["step", None])
@pytest.mark.parametrize("call", range(len(CALLS)))
@pytest.mark.parametrize("original", [*FUNCTIONS, many])
def test_call_is_answered_as_before(original: Any, call: int, step: Any) -> None:
    made = Steps(step).around(original)
    assert outcome(lambda: CALLS[call](made)) == outcome(lambda: CALLS[call](original))


@pytest.mark.parametrize("original", FUNCTIONS)
def test_signature_is_the_librarys(original: Any) -> None:
    assert inspect.signature(Steps().around(original)) == inspect.signature(original)


@pytest.mark.parametrize("original", [*FUNCTIONS, many])
def test_steps_are_told_what_they_asked_for(original: Any) -> None:
    steps = Steps()
    result = outcome(lambda: steps.around(original)(0, 1, y=2))
    if result is TypeError:
        result = steps.around(original)(0, 1, 2)
    y = next(told[-1] for told in steps.told)
    assert steps.told == [("before", 0, 1, y), ("after", "step", result, 0, 1, y)]
    assert y == 2


def test_arguments_without_a_name_are_found_by_their_place() -> None:
    steps = Steps()
    steps.around(anything)(0, 1, 2)
    steps.around(lambda instance, *more: None)(0, 1)
    assert steps.told[0] == ("before", 0, 1, 2)
    assert steps.told[2] == ("before", 0, 1, None)


def test_an_argument_that_has_a_place_under_another_name_is_not_told() -> None:
    steps = Steps()
    steps.around(lambda instance, other, *more: None)(0, 1)
    assert steps.told[0] == ("before", 0, None, None)


def test_of_many_parameters_only_those_that_were_given_are_handed_on() -> None:
    def given(*args: Any, **kwargs: Any) -> Any:
        return args, kwargs

    given.__signature__ = inspect.signature(many)  # type: ignore[attr-defined]
    assert Steps().around(given)(0, 1, y=2) == ((0, 1), {"y": 2})


def test_where_the_first_step_returns_none_nothing_else_is_called() -> None:
    steps = Steps(None)
    steps.around(plain)(0, 1)
    assert steps.told == [("before", 0, 1, DEFAULT)]


def test_without_owners_nothing_is_called() -> None:
    steps = Steps()
    made = steps.around(plain)
    steps.owners.clear()
    assert made(0, 1) == plain(0, 1)
    assert steps.told == []


def test_coroutine_function_is_awaited_between_the_steps() -> None:
    async def answer(x: int, *, y: int) -> int:
        steps.told.append("answered")
        return x + y

    steps = Steps()
    told = {"x": 0, "y": 1}
    made = around(answer, told, steps.before, steps.after, steps.failed, awaits=True)
    assert asyncio.run(made(1, y=2)) == 3
    assert steps.told == [("before", 1, 2), "answered", ("after", "step", 3, 1, 2)]


@pytest.mark.parametrize("error", [ValueError("full"), KeyboardInterrupt()])
def test_exception_is_told_and_goes_on(error: BaseException) -> None:
    def fails(self: Any) -> None:
        raise error

    steps = Steps()
    with pytest.raises(type(error)) as raised:
        steps.around(fails)(0)
    assert raised.value is error
    assert steps.told[1:] == [("failed", "step", error)]


def test_parameters_may_have_any_name() -> None:
    def shadowing(call: Any, original: Any, before: Any = 1, step: Any = 2, result: Any = 3) -> Any:
        return call, original, before, step, result

    steps = Steps()
    assert steps.around(shadowing)(7, 8) == (7, 8, 1, 2, 3)
    assert steps.told[0] == ("before", 7, None, None)


def test_of_somebodys_wrapper_the_parameters_are_its_own() -> None:
    wrapper = functools.wraps(plain)(lambda *args, **kwargs: (args, kwargs))
    assert Steps().around(wrapper)(0, 1, y=2) == ((0, 1), {"y": 2})


def larger(x: Any, y: Any) -> Any:
    """Return a step that makes something else of two arguments."""
    return SimpleNamespace(x=None if x is None else x + 10, y=None if y is None else y + 20)


def ignore(*_: Any) -> None:
    """Be told and do nothing."""


CHANGED = {"x": 1, "y": 2}


@pytest.mark.parametrize("call", range(1, 4))
@pytest.mark.parametrize("original", [plain, keywords_only, positions_only, anything])
def test_arguments_that_a_step_changes_reach_the_library_changed(original: Any, call: int) -> None:
    expected: list[Callable[[Any], Any]] = [
        lambda original: original(0, 11, 22),
        lambda original: original(0, 11, y=22),
        lambda original: original(0, x=11, y=22),
    ]
    changing = around(original, CHANGED, larger, ignore, ignore, CHANGED)
    assert outcome(lambda: CALLS[call](changing)) == outcome(lambda: expected[call - 1](original))


def test_an_argument_that_is_not_given_is_changed_too() -> None:
    made = around(anything, {}, lambda: SimpleNamespace(y="fresh"), ignore, ignore, {"y": 2})
    assert made(0, 1) == ("anything", (0, 1), {"y": "fresh"})
    assert made(0, 1, 2, 3) == ("anything", (0, 1, "fresh", 3), {})
