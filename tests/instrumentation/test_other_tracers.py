"""Libraries that another tracer has patched: no span too many, no crash, in either order.

The real packages are used. ddtrace brings a plugin of pytest's and is not among the packages of
the tests: ``python tests/compat/matrix.py ddtrace`` runs these with it.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from database_servers import DatabaseServer
from instrumentation.conftest import LoopbackServer
from redis_servers import needs_redis, redis_server

PROGRAM = Path(__file__).parent / "programs" / "beside_other_tracer.py"
PACKAGES = {"sentry": "sentry_sdk", "sentry_tracing": "sentry_sdk", "ddtrace": "ddtrace"}
LEFT_ALONE = {
    "sentry": frozenset[str](),
    "sentry_tracing": {"flask", "django", "redis"},
    "ddtrace": frozenset[str](),
}
"""What is left to the other tracer, where it was there first and has wrapped what ours would."""

pytestmark = [pytest.mark.slow, pytest.mark.matrix_skip]


@needs_redis
@pytest.mark.parametrize("order", ["first", "afterwards"])
@pytest.mark.parametrize("tracer", PACKAGES)
def test_a_call_has_one_span_of_ours_or_is_left_to_who_was_there_first(
    tracer: str,
    order: str,
    server: LoopbackServer,
    postgresql: DatabaseServer,
    tmp_path: Path,
) -> None:
    if importlib.util.find_spec(PACKAGES[tracer]) is None:
        pytest.skip(f"{PACKAGES[tracer]} is not installed")
    with redis_server(tmp_path) as redis_port:
        ports = [str(postgresql.port), str(redis_port)]
        done = subprocess.run(
            [sys.executable, PROGRAM, tracer, order, f"{server.url}/status/200", *ports],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert all(did for did, _ in found.values())
    none = LEFT_ALONE[tracer] if order == "first" else set()
    counts = {name: len(spans) for name, (_, spans) in found.items()}
    assert counts == {name: int(name not in none) for name in found}
    assert "Traceback" not in done.stderr
    for name in none:
        assert f"does not instrument {name}: already instrumented by sentry-sdk" in done.stderr


BESIDE_SENTRY = """
import concurrent.futures, json, os, threading
import sentry_sdk
from sentry_sdk.integrations.httpx import HttpxIntegration

sentry_sdk.init(
    "http://key@127.0.0.1:9/1",
    traces_sample_rate=1.0,
    auto_enabling_integrations=False,
    integrations=[HttpxIntegration()],
    transport=lambda _: None,
)
import httpx
import tracekit
from tracekit import contrib
from tracekit.testing import capture_spans

def work():
    tracekit.current_span().set_attribute("worked", True)
    with tracekit.span("work"):
        pass

with capture_spans() as spans:
    tracekit.instrument()
    with tracekit.span("program") as program:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            pool.submit(work).result()
    handed_on = [one.name for one in contrib.active() if one.active]
above = [span.parent and span.parent.span_id for span in spans.get_finished_spans()]
followed = above == [program.get_span_context().span_id] * 2 + [None]
print(json.dumps([followed, handed_on]), flush=True)
os._exit(0)
"""


@pytest.fixture(scope="module")
def beside_sentry() -> Any:
    # Not imported here, where other tests would find it: it says that it makes no spans.
    for package in ("sentry_sdk", "opentelemetry.instrumentation.httpx"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    done = subprocess.run(
        [sys.executable, "-c", BESIDE_SENTRY],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def test_context_follows_threads_that_sentry_has_wrapped_before(beside_sentry: Any) -> None:
    followed, _ = beside_sentry
    assert followed


def test_what_is_left_to_sentry_is_not_handed_to_contrib(beside_sentry: Any) -> None:
    _, handed_on = beside_sentry
    assert "httpx" not in handed_on
