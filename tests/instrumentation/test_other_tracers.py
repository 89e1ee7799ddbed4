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
