"""`tracekit instrumentations`."""

from __future__ import annotations

import importlib.metadata
import json
from typing import Any

import pytest


def listed(tracekit, *names: str, **environment: str) -> dict[str, dict[str, Any]]:
    result = tracekit("instrumentations", "--json", *names, env=environment)
    assert result.exit_code == 0, result.output
    return {row["name"]: row for row in json.loads(result.stdout)["instrumentations"]}


def test_every_instrumentation_is_listed(tracekit) -> None:
    from tracekit import discovery

    assert listed(tracekit).keys() == set(discovery.own_names("instrumentation"))


def test_a_library_is_listed_with_what_is_installed_and_what_is_supported(tracekit) -> None:
    httpx = listed(tracekit)["httpx"]
    assert httpx["installed"] == importlib.metadata.version("httpx")
    assert httpx["supported"].startswith(">=")
    assert httpx["active"]


def test_a_library_that_is_not_installed_says_so(tracekit, monkeypatch) -> None:
    _pretend(monkeypatch, "aiobotocore", None)
    found = listed(tracekit)["aiobotocore"]
    assert (found["active"], found["reason"]) == (False, "not installed")


def test_a_version_that_is_not_supported_says_so(tracekit, monkeypatch) -> None:
    _pretend(monkeypatch, "httpx", "0.1")
    found = listed(tracekit)["httpx"]
    assert not found["active"]
    assert found["reason"] == f"version 0.1 is not supported ({found['supported']})"


def test_a_library_that_is_switched_off_says_by_what(tracekit) -> None:
    variable = "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"
    assert listed(tracekit, **{variable: "httpx"})["httpx"]["reason"] == f"disabled by {variable}"


def test_a_library_that_contrib_watches_says_so(tracekit) -> None:
    contrib = pytest.importorskip("opentelemetry.instrumentation.httpx").HTTPXClientInstrumentor()
    contrib.instrument(skip_dep_check=True)
    try:
        found = listed(tracekit)["httpx"]
    finally:
        contrib.uninstrument()
    assert found["reason"] == "already instrumented by opentelemetry-instrumentation-httpx"


def test_the_table_has_only_what_is_asked_for(tracekit) -> None:
    shown = tracekit("instrumentations", "http-client", "redis").stdout.splitlines()
    assert [line.split()[1] for line in shown] == ["http_client", "redis"]


def test_the_table_says_why_not(tracekit) -> None:
    shown = tracekit("instrumentations").stdout
    assert "nothing to patch: wrap applications in" in shown
    assert "covered by tracekit" not in shown


def test_a_name_that_is_unknown_is_an_error_that_tells_the_known(tracekit) -> None:
    result = tracekit("instrumentations", "htpx")
    assert result.exit_code == 1
    assert "httpx" in result.output


def test_nothing_stays_patched(tracekit) -> None:
    from tracekit.configure import instrumentations

    listed(tracekit)
    assert [item.name for item in instrumentations() if item.status.active] == []


def _pretend(monkeypatch: pytest.MonkeyPatch, library: str, version: str | None) -> None:
    """Let a library be of another version, or not there."""
    real = importlib.metadata.version

    def pretended(name: str) -> str:
        if name != library:
            return real(name)
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(importlib.metadata, "version", pretended)
