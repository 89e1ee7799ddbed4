"""What the findings say: right service, span, cause, share of time, and what to do."""

from __future__ import annotations

import pytest
from opentelemetry.trace import SpanKind, StatusCode

from findings.made import MS, NOISES, Scene, faulty
from tracekit.findings._history import Usual, history_of
from tracekit.findings._many import patterns
from tracekit.findings._ranking import find_all
from tracekit.model import Finding, Severity
from tracekit.testing import build_span
from tracekit.trace import traces_of

SERVER, CLIENT = SpanKind.SERVER, SpanKind.CLIENT


def found_in(scene: Scene) -> list[Finding]:
    (trace,) = traces_of(scene.records())
    return find_all(trace)


def test_a_step_that_waits_until_it_times_out_is_told_first() -> None:
    scene = Scene(1)
    with scene.http("gateway", "payment", "POST", "/pay"):
        scene.rest(30)
        scene.outside("payment", "fraud.example", 2850, error="httpx.ReadTimeout")
        scene.rest(20)
    first = found_in(scene)[0]
    assert first.kind == "slow_step"
    assert first.message.startswith(
        "payment waited for fraud.example:443 in POST /v1 until it timed out (httpx.ReadTimeout)"
    )
    assert (first.service, first.severity) == ("payment", Severity.HIGH)
    assert first.share == pytest.approx(0.98, abs=0.02)


def test_the_same_row_read_by_several_services_is_one_finding_with_its_share() -> None:
    scene = Scene(2)
    with scene.span("gateway", "GET /page", SERVER):
        for service in ("auth", "cart", "profile"):
            with scene.http("gateway", service, "GET", f"/{service}"):
                scene.query(service, "SELECT * FROM users WHERE id = $1", 100, "u7")
        scene.rest(200)
    first = found_in(scene)[0]
    assert first.kind == "redundant_calls"
    assert "SELECT users was asked 3 times by auth, cart and profile" in first.message
    assert first.share == pytest.approx(0.4, abs=0.02)
    assert "cache that the services share" in first.advice


def test_retries_at_the_bottom_come_before_the_timeouts_that_inherit_them() -> None:
    scene = Scene(3)
    with scene.span("a", "GET /a", SERVER, failed="status 504") as root:
        began = scene.now
        with scene.http("a", "b", "GET", "/b", error="requests.ReadTimeout"):
            inner = scene.now
            with scene.http("b", "c", "GET", "/c", error="requests.ReadTimeout") as c:
                for number in range(3):
                    resent = {"http.request.resend_count": number} if number else {}
                    scene.outside("c", "api.example", 10_000, "GET", status=503, **resent)
                c.failed = "status 503"
            scene.done[-1].end = inner + 10_000 * MS
        scene.done[-1].end = began + 5_000 * MS
        root.end = began + 5_001 * MS
    kinds = [item.kind for item in found_in(scene)]
    retries = next(item for item in found_in(scene) if item.kind == "retries")
    timeouts = next(item for item in found_in(scene) if item.kind == "timeouts")
    assert kinds.index("retries") < kinds.index("timeouts")
    assert retries.service == "c"
    assert "3 times, and every attempt failed (503)" in retries.message
    assert "circuit" in retries.advice
    assert "a gave up on b after 5.00 s, b gave up on c after 10.0 s" in timeouts.message


def test_a_read_after_a_write_to_the_same_table_is_another_question() -> None:
    scene = Scene(4)
    with scene.span("shop", "job"):
        scene.query("shop", "SELECT * FROM users WHERE id = $1", 20, "u7")
        scene.query("shop", "UPDATE x users SET n = 1 FROM users", 5, "u7")
        scene.query("shop", "SELECT * FROM users WHERE id = $1", 20, "u7")
    assert "redundant_calls" not in {item.kind for item in found_in(scene)}


def test_different_parameters_are_different_questions() -> None:
    scene = Scene(5)
    with scene.span("shop", "job"):
        for user in ("u1", "u2", "u3"):
            scene.query("shop", "SELECT * FROM users WHERE id = $1", 20, user)
    assert found_in(scene) == []


def test_attempts_that_multiply_are_told_with_their_product() -> None:
    (trace,) = traces_of(faulty("retried_in_two_layers", 0, NOISES["none"], 6))
    found = [item for item in find_all(trace) if item.kind == "retries"]
    inner = next(item for item in found if item.service == "payment")
    assert "callers retry as well, so attempts multiply (2 × " in inner.message
    outer = next(item for item in found if item.service == "orders")
    assert outer.severity is Severity.LOW


def test_a_refusal_that_is_sent_again_is_told_as_hopeless() -> None:
    (trace,) = traces_of(faulty("retried_refusal", 1, NOISES["none"], 7))
    found = next(item for item in find_all(trace) if item.kind == "retries")
    assert found.advice.startswith("Do not send again what was refused")


def test_redirects_are_no_retries() -> None:
    scene = Scene(8)
    with scene.span("shop", "job"):
        scene.outside("shop", "x.example", 5, "GET", "/a", status=302)
        scene.outside("shop", "x.example", 5, "GET", "/a", **{"http.request.resend_count": 1})
    assert "retries" not in {item.kind for item in found_in(scene)}


def test_a_failure_is_traced_to_where_it_began() -> None:
    (trace,) = traces_of(faulty("fails_two_services_down", 0, NOISES["interleaved"], 9))
    found = next(item for item in find_all(trace) if item.kind == "first_failure")
    assert found.message.startswith(
        "the request failed because depot ▸ open failed first: builtins.OSError"
    )
    assert found.message.endswith("stock and orders passed it on")


def test_a_step_is_slow_against_its_own_history() -> None:
    def visit(ms: int):
        scene = Scene(ms)
        with scene.span("shop", "GET /", SERVER):
            scene.rest(10)
            scene.query("shop", "SELECT * FROM users WHERE id = $1", ms, f"{ms}")
        return traces_of(scene.records())

    history = history_of(trace for ms in range(20, 45) for trace in visit(ms))
    assert history["shop", "SELECT users", CLIENT.value] == Usual(25, 32 * MS, 43 * MS)
    (slow,), (usual,) = visit(200), visit(40)
    (found,) = find_all(slow, history)
    assert (found.kind, found.operation) == ("slow_step", "SELECT users")
    assert "usually 32.0 ms" in found.message
    assert found.cost_ns == 168 * MS
    assert find_all(usual, history) == []


def test_a_finding_names_the_line_of_code() -> None:
    scene = Scene(10)
    where = {"code.file.path": "shop/cart.py", "code.line.number": 42}
    with scene.span("shop", "job"):
        for number in range(8):
            text = "SELECT * FROM products WHERE id = $1"
            scene.query("shop", text, 5, f"p{number}", **where)
    (found,) = found_in(scene)
    assert (found.kind, found.location) == ("n_plus_one", "shop/cart.py:42")


def test_the_clock_of_another_machine_is_brought_to_the_callers() -> None:
    scene = Scene(11)
    with scene.http("a", "b", "GET", "/b"):
        scene.rest(10)
    server, _ = scene.done
    server.start -= 500 * MS
    server.end -= 500 * MS
    (trace,) = traces_of(scene.records())
    by_service = {node.service: node for node in trace.nodes}
    assert by_service["a"].start <= by_service["b"].start
    assert by_service["b"].end <= by_service["a"].end
    assert by_service["b"].skew_ns == pytest.approx(500 * MS, abs=MS)
    assert find_all(trace) == []


def test_a_span_that_came_twice_counts_once() -> None:
    span = build_span("x", span_id=1)
    (trace,) = traces_of([span, span])
    assert len(trace.nodes) == 1


def test_a_finding_that_fails_does_not_take_the_others_along(monkeypatch, caplog) -> None:
    from tracekit.findings import retries

    def broken(trace, history):
        raise RuntimeError("broken")

    monkeypatch.setattr(retries, "plugin", broken)
    scene = Scene(12)
    with scene.span("shop", "job", failed="builtins.KeyError"):
        scene.rest(1)
    assert [item.kind for item in found_in(scene)] == ["first_failure"]
    assert "finding 'retries' failed" in caplog.text


def test_over_many_traces_what_wastes_most_is_first() -> None:
    traces = [
        trace
        for name, count in (("same_row_by_one", 3), ("slow_query", 2), ("fails_itself", 4))
        for seed in range(count)
        for trace in traces_of(faulty(name, 1, NOISES["none"], seed))
    ]
    found = patterns((trace, find_all(trace)) for trace in traces)
    told = [(item.kind, item.traces) for item in found]
    assert told == [("slow_step", 2), ("redundant_calls", 3), ("first_failure", 4)]
    assert found[0].endpoints == {"orders ▸ POST /orders": 2}
    assert found[0].examples[0].cost_ns >= found[0].examples[1].cost_ns


def test_a_client_that_failed_by_itself_is_its_own_cause() -> None:
    """What the callee met after the caller had given up did not make the caller give up."""
    spans = [
        build_span(
            "GET /a",
            span_id=1,
            kind=SERVER,
            duration_ns=50 * MS,
            status=StatusCode.ERROR,
            service_name="a",
        ),
        build_span(
            "GET",
            span_id=2,
            parent_id=1,
            kind=CLIENT,
            duration_ns=50 * MS,
            status=StatusCode.ERROR,
            service_name="a",
            attributes={"http.request.method": "GET", "error.type": "ReadTimeout"},
        ),
        build_span(
            "GET /b",
            span_id=3,
            parent_id=2,
            kind=SERVER,
            duration_ns=40 * MS,
            status=StatusCode.ERROR,
            service_name="b",
        ),
    ]
    (trace,) = traces_of(spans)
    found = next(item for item in find_all(trace) if item.kind == "first_failure")
    assert "because a gave up on b in GET: ReadTimeout" in found.message
