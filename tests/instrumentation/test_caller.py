"""The line of the program that called a library is found, wherever the library's own frames are."""

from __future__ import annotations

import asyncio
import functools
import gc
import importlib.util
import sys
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import greenlet
import pytest
import uvloop

from tracekit.errors import InvalidValueError
from tracekit.instrumentation import _caller
from tracekit.instrumentation._caller import Caller, caller_from
from tracekit.instrumentation._said import Said

LIBRARY = """
async def aquery(ask):
    return ask()

def query(ask, depth=0):
    return query(ask, depth - 1) if depth else ask()

class Client:
    def query(self, ask):
        return query(ask)
"""

Ask = Callable[[], Mapping[str, Any]]


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A package that is installed as others are."""
    return _installed(tmp_path, monkeypatch, "a_driver")


def _installed(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> ModuleType:
    home = folder / "lib" / "site-packages"
    (home / name).mkdir(parents=True)
    path = home / name / "__init__.py"
    path.write_text(LIBRARY)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def ask() -> Ask:
    return Caller().attributes


def line_here() -> int:
    return sys._getframe(1).f_lineno


def test_the_caller_is_the_programs_nearest_line(library: ModuleType, ask: Ask) -> None:
    def load_cart() -> tuple[Mapping[str, Any], int]:
        return library.Client().query(ask), line_here()

    found, line = load_cart()
    assert found["code.file.path"] == __file__
    assert found["code.line.number"] == line
    assert found["code.function.name"].startswith(f"{__name__}.")
    assert found["code.function.name"].endswith("load_cart")


def test_two_lines_of_one_function_are_told_apart(library: ModuleType, ask: Ask) -> None:
    first = library.query(ask)
    second = library.query(ask)
    assert second["code.line.number"] == first["code.line.number"] + 1


def test_a_line_that_was_seen_before_costs_no_new_attributes(library: ModuleType, ask: Ask) -> None:
    found = [library.query(ask) for _ in range(2)]
    assert found[0] is found[1]


def test_what_is_said_has_the_line_that_asks_each_time(library: ModuleType) -> None:
    caller, said = Caller(), Said("SELECT", {"db.system.name": "sqlite"})

    def ask() -> Mapping[str, Any]:
        frame = sys._getframe(1)
        code, at, attributes = said.seen
        if frame.f_code is code and frame.f_lasti == at:
            return attributes
        return caller.asked(said, frame, 1)

    def directly() -> Mapping[str, Any]:
        return ask()

    def through_a_library() -> Mapping[str, Any]:
        return library.query(ask)

    found = [directly(), through_a_library(), directly(), directly(), through_a_library()]
    names = [each["code.function.name"].rpartition(".")[2] for each in found]
    assert names == ["directly", "through_a_library", "directly", "directly", "through_a_library"]
    assert found[2] is found[3]
    assert {each["db.system.name"] for each in found} == {"sqlite"}


def test_the_standard_library_in_between_is_nobody(library: ModuleType, ask: Ask) -> None:
    found = functools.reduce(lambda done, _: done or library.query(ask), [1, 2], {})
    assert found["code.file.path"] == __file__


def test_a_coroutine_that_awaits_the_library_is_its_caller(library: ModuleType, ask: Ask) -> None:
    async def load_cart() -> Mapping[str, Any]:
        return await library.aquery(ask)

    assert asyncio.run(load_cart())["code.function.name"].endswith("load_cart")


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_task_of_the_librarys_own_has_no_caller(
    library: ModuleType, ask: Ask, run: Callable[[Any], Any]
) -> None:
    async def load_all() -> list[Mapping[str, Any]]:
        return await asyncio.gather(library.aquery(ask), library.aquery(ask))

    assert run(load_all()) == [{}, {}]


def test_a_thread_of_the_librarys_own_has_no_caller(library: ModuleType, ask: Ask) -> None:
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(library.query, ask).result() == {}


def test_the_stack_goes_on_outside_of_a_greenlet(library: ModuleType, ask: Ask) -> None:
    def load_cart() -> Mapping[str, Any]:
        return greenlet.greenlet(library.query).switch(ask)

    assert load_cart()["code.function.name"].endswith("load_cart")


def test_what_is_typed_in_is_the_program(library: ModuleType, ask: Ask) -> None:
    names: dict[str, Any] = {"library": library, "ask": ask, "__name__": "__main__"}
    exec("\nfound = library.query(ask)", names)
    assert names["found"] == {
        "code.function.name": "__main__.<module>",
        "code.file.path": "<string>",
        "code.line.number": 2,
    }


def test_generated_code_is_not_the_program(library: ModuleType, ask: Ask) -> None:
    names: dict[str, Any] = {"library": library, "ask": ask}
    exec(compile("found = library.query(ask)", "<attrs generated init app.Order>", "exec"), names)
    assert names["found"]["code.file.path"] == __file__


def test_an_installed_package_can_be_the_program(
    library: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = _installed(tmp_path, monkeypatch, "shop")
    caller = caller_from({"TRACEKIT_CODE_LOCATION_PACKAGES": "cart, shop"})
    assert caller is not None
    found = shop.query(lambda: None) or shop.query(caller.attributes)
    assert found["code.function.name"] == "shop.query"
    assert library.query(caller.attributes)["code.file.path"] == __file__


def test_a_stack_without_end_is_walked_to_a_bound(library: ModuleType, ask: Ask) -> None:
    assert library.query(ask, depth=60)["code.file.path"] == __file__
    assert library.query(ask, depth=300) == {}


def test_code_that_is_made_all_the_time_takes_bounded_memory(library: ModuleType) -> None:
    caller = Caller()
    for number in range(5000):
        names = {"query": library.query, "ask": caller.attributes}
        exec(compile("query(ask)", f"/app/cell_{number}.py", "exec"), names)
    assert len(caller._places) <= 2048
    assert len(caller._verdicts) <= 2048


@pytest.mark.parametrize("text", ["true", "TRUE", ""])
def test_callers_are_recorded_unless_switched_off(text: str) -> None:
    assert caller_from({"TRACEKIT_CODE_LOCATION": text}) is not None
    assert caller_from({"TRACEKIT_CODE_LOCATION": "False"}) is None


def test_an_option_precedes_the_variable() -> None:
    assert caller_from({"TRACEKIT_CODE_LOCATION": "true"}, False) is None
    assert caller_from({"TRACEKIT_CODE_LOCATION": "false"}, True) is not None


def test_a_switch_that_is_neither_is_an_error() -> None:
    with pytest.raises(InvalidValueError, match="TRACEKIT_CODE_LOCATION='yes'"):
        caller_from({"TRACEKIT_CODE_LOCATION": "yes"})


@pytest.mark.parametrize("inside", [1, 2])
def test_a_search_keeps_no_frame_and_nothing_that_frames_hold(inside: int) -> None:
    class Held:
        """What a frame holds."""

    caller, gone = Caller(), list[weakref.ref[Held]]()

    def ask() -> None:
        held = Held()
        gone.append(weakref.ref(held))
        caller.attributes(inside)

    gc.disable()  # which would end a cycle, but who knows when
    try:
        for _ in range(3):
            ask()
            assert gone[-1]() is None
    finally:
        gc.enable()


def test_a_line_is_found_wherever_the_last_search_ended(library: ModuleType, ask: Ask) -> None:
    def load_cart(depth: int) -> Mapping[str, Any]:
        return library.query(ask, depth=depth)

    found = [load_cart(depth)["code.line.number"] for depth in (2, 2, 9, 9, 0, 0, 2)]
    assert set(found) == {load_cart.__code__.co_firstlineno + 1}


def test_a_stack_that_is_less_deep_than_the_last_one_is_walked(
    library: ModuleType, ask: Ask
) -> None:
    assert library.query(ask, depth=60)["code.file.path"] == __file__
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(library.query, ask).result() == {}


@pytest.mark.parametrize("called_at", [_caller.called_at, _caller._code_at])
def test_a_nearer_line_is_found_where_a_farther_one_was(
    library: ModuleType, ask: Ask, monkeypatch: pytest.MonkeyPatch, called_at: Callable[[int], Any]
) -> None:
    monkeypatch.setattr(_caller, "called_at", called_at)

    def load_cart(query: Callable[..., Mapping[str, Any]]) -> str:
        return str(query(ask)["code.function.name"])

    def own_query(ask: Ask) -> Mapping[str, Any]:
        return library.query(ask)

    through_client = library.Client().query
    for _ in range(2):
        # As many frames from the client as from the program's own function.
        assert load_cart(through_client).endswith("load_cart")
        assert load_cart(own_query).endswith("own_query")
