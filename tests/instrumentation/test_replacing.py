"""A plain function in the place of a library's does what a wrapper does, and goes like one."""

from __future__ import annotations

import copy
import functools
import inspect
import pickle
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import wrapt

from tracekit.instrumentation._replacing import put_in_place
from tracekit.instrumentation._wrapping import take_off

SOURCE = """
class Base:
    def inherited(self, x, *, y=1): return ("inherited", x, y)
class Client(Base):
    def send(self, x, *, y=1): return ("sent", x, y)
    async def wait(self, x): return ("waited", x)
def call(x): return ("called", x)
"""
ATTRIBUTES = ["Client.send", "Client.inherited", "call"]


class Watch:
    """Notes the first argument of each call."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def make(self, original: Callable[..., Any], owners: Sequence[object]) -> Callable[..., Any]:
        def watched(first: Any, *args: Any, **kwargs: Any) -> Any:
            if owners:
                self.seen.append(first)
            return original(first, *args, **kwargs)

        return watched


@pytest.fixture
def library() -> Iterator[Any]:
    module: Any = types.ModuleType("replaced_library")
    sys.modules["replaced_library"] = module
    exec(SOURCE, vars(module))
    yield module
    del sys.modules["replaced_library"]


@pytest.fixture
def watch() -> Watch:
    return Watch()


def run(library: Any, attribute: str) -> Any:
    if attribute == "call":
        return library.call(1)
    return getattr(library.Client(), attribute.rpartition(".")[2])(1, y=2)


def entries(library: Any) -> list[dict[str, Any]]:
    return [dict(vars(holder)) for holder in (library, library.Base, library.Client)]


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_function_does_what_it_did_and_is_seen(library: Any, watch: Watch, attribute: str) -> None:
    before = run(library, attribute)
    put_in_place(library, attribute, watch.make, OWNER)
    assert run(library, attribute) == before
    assert len(watch.seen) == 1


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_library_is_left_as_it_was(library: Any, watch: Watch, attribute: str) -> None:
    before = entries(library)
    patched: Any = put_in_place(library, attribute, watch.make, OWNER)
    take_off(patched, OWNER)
    for was, now in zip(before, entries(library), strict=True):
        assert list(was) == list(now)
        assert all(was[name] is now[name] for name in was)


def test_function_looks_as_before(library: Any, watch: Watch) -> None:
    signature = inspect.signature(library.Client.send)
    put_in_place(library, "Client.send", watch.make, OWNER)
    assert inspect.signature(library.Client.send) == signature
    assert library.Client.send.__qualname__ == "Client.send"
    assert inspect.isfunction(library.Client.send)


@pytest.mark.parametrize(
    "twin", [copy.copy, copy.deepcopy, lambda f: pickle.loads(pickle.dumps(f))]
)
def test_function_can_be_copied_and_pickled(library: Any, watch: Watch, twin: Any) -> None:
    put_in_place(library, "Client.send", watch.make, OWNER)
    assert twin(library.Client.send)(library.Client(), 1) == ("sent", 1, 1)
    assert twin(library.Client().send)(1) == ("sent", 1, 1)


def test_second_owner_shares_the_function_and_the_last_restores(library: Any, watch: Watch) -> None:
    original = vars(library.Client)["send"]
    first: Any = put_in_place(library, "Client.send", watch.make, "first")
    second: Any = put_in_place(library, "Client.send", Watch().make, "second")
    assert first is second
    take_off(first, "first")
    assert vars(library.Client)["send"] is not original
    take_off(first, "second")
    assert vars(library.Client)["send"] is original


def test_below_somebody_elses_it_has_no_owners(library: Any, watch: Watch) -> None:
    patched: Any = put_in_place(library, "Client.send", watch.make, OWNER)
    ours = library.Client.send
    library.Client.send = on_top = functools.wraps(ours)(lambda *args: ours(*args))
    take_off(patched, OWNER)
    assert vars(library.Client)["send"] is on_top
    assert library.Client().send(1) == ("sent", 1, 1)
    assert watch.seen == []


def test_it_is_put_on_once_below_somebody_elses(library: Any, watch: Watch) -> None:
    patched: Any = put_in_place(library, "Client.send", watch.make, "first")
    ours = library.Client.send
    # Copies our mark to a function that is not ours.
    library.Client.send = functools.wraps(ours)(lambda *args, **kwargs: ours(*args, **kwargs))
    assert put_in_place(library, "Client.send", watch.make, "second") is patched
    library.Client().send(1)
    assert len(watch.seen) == 1


@pytest.mark.parametrize("attribute", ["Client.send", "call"])
def test_wrapper_of_the_programs_own_is_called_as_before(
    library: Any, watch: Watch, attribute: str
) -> None:
    instances = []

    def own(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        instances.append(instance)
        return wrapped(*args, **kwargs)

    wrapt.wrap_function_wrapper(library, attribute, own)
    before = entries(library)
    patched: Any = put_in_place(library, attribute, watch.make, OWNER)
    result = run(library, attribute)
    assert result == (("called", 1) if attribute == "call" else ("sent", 1, 2))
    assert (len(watch.seen), len(instances)) == (1, 1)
    assert instances[0] is (None if attribute == "call" else watch.seen[0])
    take_off(patched, OWNER)
    assert entries(library) == before


def test_wrapper_of_another_tracer_is_left_alone(library: Any, watch: Watch) -> None:
    theirs: dict[str, Any] = {"__name__": "ddtrace.contrib.x"}
    exec("def traced(wrapped, instance, args, kwargs): return wrapped(*args, **kwargs)", theirs)
    wrapt.wrap_function_wrapper(library, "Client.send", theirs["traced"])
    refusal = put_in_place(library, "Client.send", watch.make, OWNER)
    assert refusal == "already instrumented by ddtrace"


OWNER = "the tests"
"""Who owns what they put on."""
