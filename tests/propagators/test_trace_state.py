"""The tracestate that a remote parent carries, under the API's own operations."""

from __future__ import annotations

import pytest
from opentelemetry.trace import TraceState

from tracekit.propagators._trace_state import RemoteTraceState


def received(header: str) -> RemoteTraceState:
    return RemoteTraceState.received(header, {})


def test_reads_like_the_api_s_trace_state() -> None:
    state = received("a=1, b=2")
    same = TraceState([("a", "1"), ("b", "2")])
    assert state == same
    assert (list(state), state["a"], "b" in state, len(state)) == (["a", "b"], "1", True, 2)
    assert repr(state) == repr(same)
    assert (list(state.keys()), list(state.values())) == (["a", "b"], ["1", "2"])


def test_add_puts_a_new_key_in_front() -> None:
    assert received("0a@@b=1").add("ot", "th:8").to_header() == "ot=th:8,0a@@b=1"


def test_add_leaves_a_known_key_alone() -> None:
    state = received("a=1")
    assert state.add("a", "2") is state


def test_update_moves_the_key_to_the_front() -> None:
    assert received("a=1,b=2").update("b", "3").to_header() == "b=3,a=1"


def test_update_of_a_new_key_stops_at_32() -> None:
    state = received(",".join(f"k{n}=1" for n in range(32)))
    assert state.update("new", "1") is state
    assert state.add("new", "1") is state
    assert state.update("k31", "2").to_header().startswith("k31=2,k0=1,")


def test_delete_takes_a_key_out() -> None:
    state = received("a=1,b=2")
    assert state.delete("a").to_header() == "b=2"
    assert state.delete("none") is state


@pytest.mark.parametrize(("key", "value"), [("A", "1"), ("a", ""), ("a", "x "), (1, "1"), ("a", 1)])
def test_invalid_pair_leaves_the_state_as_it_is(key: str, value: str) -> None:
    state = received("b=1")
    assert state.add(key, value) is state
    assert state.update(key, value) is state


def test_original_is_not_changed() -> None:
    state = received("a=1")
    state.update("a", "2")
    assert state.to_header() == "a=1"


def test_class_methods_of_the_api_work() -> None:
    assert RemoteTraceState.from_header(["a=1", "b=2"]).to_header() == "a=1,b=2"
    assert len(RemoteTraceState.get_default()) == 0
    assert len(RemoteTraceState([("a", "1"), ("B", "1")])) == 1
