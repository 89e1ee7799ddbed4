"""`make demo`: five services, one trace, and what made it slow."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from integration.serving import end_session, spans_of

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
RUN = [sys.executable, str(ROOT / "examples" / "slow_checkout" / "run.py")]

ORDER = {
    "gateway ▸ POST /checkout": None,
    "auth ▸ GET /users/{name}": "gateway",
    "orders ▸ POST /orders": "gateway",
    "payment ▸ POST /payments": "orders",
    "fraud-check ▸ POST /score": "payment",
}
"""The SERVER spans of the slow checkout, and the service that called each."""


class Demo(NamedTuple):
    output: str
    spans: list[Any]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    folder = tmp_path_factory.mktemp("demo")
    # What the shell of a developer may hold must not reach the example.
    env = os.environ | {"TMPDIR": str(folder), "OTEL_TRACES_SAMPLER": "always_off"}
    env["COLUMNS"] = "100"
    done = subprocess.run(RUN, env=env, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    (store,) = folder.glob("*/traces.db")
    spans = spans_of(store)
    return Demo(done.stdout, [span for span in spans if _is_slow(span, spans)])


def _is_slow(span: Any, spans: list[Any]) -> bool:
    slow = [other.context.trace_id for other in spans if other.name == "POST /score"]
    return span.context.trace_id in slow


def _service(span: Any) -> str:
    return span.resource.attributes["service.name"]


def test_one_trace_holds_all_five_services_in_the_right_order(demo: Demo) -> None:
    by_id = {span.context.span_id: span for span in demo.spans}
    served = [span for span in demo.spans if span.kind.name == "SERVER"]

    def caller(span: Any) -> str | None:
        return span.parent and _service(by_id[span.parent.span_id])

    assert {f"{_service(span)} ▸ {span.name}": caller(span) for span in served} == ORDER
    assert len([span for span in demo.spans if span.parent is None]) == 1
    pids = {span.resource.attributes["process.pid"] for span in demo.spans}
    assert len(pids) == 5, "each service is a process of its own"


def test_the_tree_is_printed(demo: Demo) -> None:
    for line in ORDER:
        assert line in demo.output


def test_it_says_where_the_time_went(demo: Demo) -> None:
    assert re.search(r"2\.\d+ s +[89]\d\.\d% .* fraud-check\n", demo.output)


def test_it_says_what_is_wrong(demo: Demo) -> None:
    told = " ".join(demo.output.partition("what is wrong")[2].split())
    assert re.search(
        r"⚑1 slow_step payment waited for fraud-check in POST /score until it timed out "
        r"\(httpx\.ReadTimeout\): 2\.[89]\d s \([89]\d %\) of the trace ⚑2 timeouts",
        told,
    )


def test_fast_checkouts_are_fast(demo: Demo) -> None:
    took = re.findall(r"pays +\d+ +(\d\.\d\d) s", demo.output)
    assert len(took) == 3
    assert all(float(text) < 1.5 for text in took[:2])


def test_the_command_to_look_again_works(demo: Demo) -> None:
    (command,) = re.findall(r"Look again: +(\S+) (show --store \S+)", demo.output)
    words = [sys.executable, "-m", "tracekit", *command[1].split()]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=True)
    assert "POST /checkout" in done.stdout


def test_ctrl_c_stops_every_service(tmp_path: Path) -> None:
    process = subprocess.Popen(
        RUN,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout.readline().startswith("Running:")
        services = _children_of(process.pid)
        assert len(services) == 5
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    finally:
        end_session(process)
    assert (process.returncode, errors) == (1, "stopped\n")
    assert [pid for pid in services if Path(f"/proc/{pid}").exists()] == []


def _children_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
