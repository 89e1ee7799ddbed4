"""Findings in what real servers hold: sent to them here, and asked back."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from backends.running import until
from backends.where import NotThereError
from cli.conftest import tracekit  # noqa: F401 - a fixture
from findings.made import NOISES, faulty
from tracekit import discovery
from tracekit.interfaces import SpanExportResult

pytestmark = [pytest.mark.slow, pytest.mark.matrix_skip]

SINCE = "2023-11-14"
FAULTS = {"same_row_by_three": "redundant_calls", "retried_in_vain": "retries"}


@pytest.fixture(scope="module", params=["jaeger", "zipkin"])
def holding(request, tmp_path_factory) -> Iterator[tuple[str, dict[str, str]]]:
    """A server with a trace of each fault; yield how it is named, and the ids by fault."""
    module = importlib.import_module(f"backends.{request.param}")
    try:
        started = module.start(tmp_path_factory.mktemp(request.param))
        with started as server:
            yield f"{request.param}:{server.url}", dict(_sent(server))
    except NotThereError as error:
        pytest.skip(str(error))


def _sent(server: Any) -> Iterator[tuple[str, str]]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.variables.items():
            patch.setenv(name, value)
        exporter = discovery.find("exporter", server.exporter)()
    for seed, fault in enumerate(FAULTS):
        spans = faulty(fault, 2, NOISES["none"], seed)
        assert exporter.export(spans) is SpanExportResult.SUCCESS
        trace_id = spans[0].context.trace_id
        assert until(lambda: len(server.found(trace_id)) == len(spans), 20)  # noqa: B023 - used here
        yield fault, f"{trace_id:032x}"
    exporter.shutdown()


@pytest.mark.parametrize("fault", FAULTS)
def test_one_trace_by_its_id(holding, tracekit, fault: str) -> None:  # noqa: F811
    server, ids = holding
    done = tracekit("findings", ids[fault], "--from", server, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert FAULTS[fault] in {item["kind"] for item in found}
    assert {item["trace_id"] for item in found} == {ids[fault]}
    assert done.stderr == ""


@pytest.mark.parametrize(
    "words", [[], ["--service", "orders"], ["--service", "orders", "--endpoint", "POST /orders"]]
)
def test_recent_traces(holding, tracekit, words: list[str]) -> None:  # noqa: F811
    server, _ = holding
    done = tracekit("findings", "--from", server, "--since", SINCE, *words, "--json")
    found = json.loads(done.stdout)
    assert {"redundant_calls", "retries"} <= {item["kind"] for item in found}


def test_of_a_service_that_is_not_there_nothing_is_found(holding, tracekit) -> None:  # noqa: F811
    server, _ = holding
    done = tracekit("findings", "--from", server, "--since", SINCE, "--service", "nobody")
    assert done.exit_code == 1
    assert "has no such trace in that time" in done.stderr


def test_a_trace_that_is_not_there_is_said(holding, tracekit) -> None:  # noqa: F811
    server, _ = holding
    done = tracekit("findings", "0af7651916cd43dd8448eb211c80319c", "--from", server)
    assert done.exit_code == 1
    assert "has no trace 0af7651916cd43dd8448eb211c80319c" in done.stderr


def test_the_limit_is_kept(holding, tracekit) -> None:  # noqa: F811
    server, _ = holding
    words = ("findings", "--from", server, "--since", SINCE, "--limit", "1", "--json")
    found = json.loads(tracekit(*words).stdout)
    assert {item["traces"] for item in found} == {1}


def test_endpoints_of_a_server_are_listed(holding, tracekit) -> None:  # noqa: F811
    server, ids = holding
    (row,) = json.loads(tracekit("top", "--from", server, "--since", SINCE, "--json").stdout)
    assert (row["service"], row["traces"]) == ("orders", len(ids))
    assert set(row["worst"]) == set(ids.values())
    assert {"redundant_calls", "retries"} <= set(row["findings"])


def test_two_traces_of_a_server_are_compared(holding, tracekit) -> None:  # noqa: F811
    server, ids = holding
    done = tracekit("diff", *ids.values(), "--from", server, "--json")
    assert json.loads(done.stdout)["steps"], done.stderr


def test_a_trace_of_a_server_is_shown_with_its_findings(holding, tracekit) -> None:  # noqa: F811
    server, ids = holding
    told = tracekit("show", ids["retried_in_vain"], "--from", server, color=False).stdout
    assert told.startswith(f"trace {ids['retried_in_vain']}")
    assert "⚑1 " in told
