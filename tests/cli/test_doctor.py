"""`tracekit doctor`."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = """
import os, tracekit
from tracekit import ledger_file
from tracekit.core import exit_hooks

provider = tracekit.configure(service_name="shop")
ledger_file.start(provider, exit_hooks.add)
for _ in range(3):
    with tracekit.span("step"):
        pass
"""


def diagnose(tracekit, *, exit_code: int = 0, **environment: str) -> dict[str, Any]:
    result = tracekit("doctor", "--json", env=environment)
    assert result.exit_code == exit_code, result.output
    return json.loads(result.stdout)


def run_program(code: str = PROGRAM, **environment: str) -> None:
    words = [sys.executable, "-c", code]
    subprocess.run(words, env=os.environ | environment, check=False, timeout=30)


# What would happen ------------------------------------------------------------------------------


def test_every_setting_is_told_with_its_source(tracekit) -> None:
    found = diagnose(tracekit, OTEL_SERVICE_NAME="shop")
    rows = {row["name"]: (row["value"], row["source"]) for row in found["settings"]}
    assert rows["service_name"] == ("shop", "OTEL_SERVICE_NAME")
    assert rows["sampler"] == ("parentbased_always_on", "default")


def test_a_setting_from_pyproject_names_the_file(tracekit, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.tracekit]\nservice_name = 'from-toml'\n")
    monkeypatch.chdir(tmp_path)
    rows = {row["name"]: row for row in diagnose(tracekit)["settings"]}
    assert rows["service_name"]["value"] == "from-toml"
    assert "pyproject.toml" in rows["service_name"]["source"]


def test_libraries_are_told_with_their_versions_and_whether_they_would_be_watched(tracekit) -> None:
    found = {row["name"]: row for row in diagnose(tracekit)["instrumentations"]}
    assert found["httpx"]["active"]
    assert found["httpx"]["installed"]
    assert found["httpx"]["supported"].startswith(">=")


def test_a_library_that_is_switched_off_says_by_what(tracekit) -> None:
    variable = "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"
    found = diagnose(tracekit, **{variable: "httpx"})["instrumentations"]
    (httpx,) = [row for row in found if row["name"] == "httpx"]
    assert (httpx["active"], httpx["reason"]) == (False, f"disabled by {variable}")


def test_nothing_stays_patched_or_configured(tracekit) -> None:
    import requests

    from tracekit.configure import instrumentations

    # The entry itself: a patched method is another object each time that it is looked up.
    before = vars(requests.Session)["send"]
    diagnose(tracekit)
    assert vars(requests.Session)["send"] is before
    assert [item.name for item in instrumentations() if item.status.active] == []


def test_no_store_is_made_by_looking(tracekit, tmp_path: Path) -> None:
    path = tmp_path / "new" / "traces.db"
    (exporter,) = diagnose(tracekit, TRACEKIT_STORE=str(path))["exporters"]
    assert (exporter["name"], exporter["destination"]) == ("store", str(path))
    assert (exporter["checked"], exporter["hindrance"]) == (True, "")
    assert not path.parent.exists()


# What stands in the way --------------------------------------------------------------------------


def problem(tracekit, **environment: str) -> str:
    (found,) = diagnose(tracekit, exit_code=1, **environment)["problems"]
    return found


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"OTEL_TRACES_SAMPLER": "always_off"}, "sampler keeps no trace"),
        ({"OTEL_TRACES_SAMPLER": "parentbased_always_off"}, "sampler keeps no trace"),
        (
            {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"},
            "sampler keeps hardly any",
        ),
        ({"OTEL_TRACES_EXPORTER": "none"}, "No exporter"),
        ({"OTEL_TRACES_EXPORTER": "zipkni"}, "unknown exporter"),
        ({"OTEL_SDK_DISABLED": "true"}, "OTEL_SDK_DISABLED"),
        ({"TRACEKIT_STORE": "/"}, "is a folder"),
        ({"TRACEKIT_STORE": "/dev/null/x/y.db"}, "is not a folder"),
    ],
)
def test_what_keeps_spans_away_is_a_problem(
    tracekit, environment: dict[str, str], words: str
) -> None:
    assert words in problem(tracekit, **environment)


class Sender:
    """An exporter of somebody's."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint

    def export(self, spans: Any) -> Any:
        raise NotImplementedError


def test_an_endpoint_that_nobody_listens_on_cannot_be_reached() -> None:
    from tracekit.cli._reachable import reach

    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        assert reach(Sender(f"http://127.0.0.1:{port}/v1/traces")).hindrance == ""
    found = reach(Sender(f"http://user:secret@127.0.0.1:{port}/v1/traces?key=secret"))
    assert "cannot connect" in found.hindrance
    assert "secret" not in found.destination


def test_an_exporter_that_can_be_asked_is_asked() -> None:
    from tracekit.cli._reachable import reach

    class Asked(Sender):
        def probe(self) -> str | None:
            return "401 Unauthorized: check the key"

    assert reach(Asked("http://127.0.0.1:1")).hindrance == "401 Unauthorized: check the key"


# Where spans went --------------------------------------------------------------------------------


def ledger(tracekit) -> dict[str, Any]:
    (found,) = diagnose(tracekit)["ledgers"]
    return found


def test_a_process_that_ended_left_its_ledger(tracekit) -> None:
    run_program()
    found = ledger(tracekit)
    assert (found["service"], found["running"]) == ("shop", False)
    assert found["fate"]["started"] == 3
    assert found["fate"]["exported"] == {"StoreExporter": 3}
    assert "3 started, 3 exported" in tracekit("doctor").output


def test_spans_that_were_sampled_out_are_told(tracekit) -> None:
    run_program(OTEL_TRACES_SAMPLER="always_off")
    assert "3 sampled out" in tracekit("doctor").output


def test_what_a_tail_sampler_kept_and_left_is_told_by_reason(tracekit) -> None:
    run_program(
        f"{PROGRAM}\nwith tracekit.span('wanted'): tracekit.keep('debug')\n",
        TRACEKIT_TAIL='{"share": 0, "slow_percentile": null}',
    )
    found = diagnose(tracekit)["ledgers"][0]["fate"]
    assert (found["started"], found["sampled_out"]) == (4, 3)
    page = tracekit("doctor").output
    assert "4 started, 1 exported, 3 sampled out" in page
    assert "tail sampler kept of traces: 1 debug; sampled out of spans: 3 share" in page


def test_a_process_that_was_killed_is_told(tracekit) -> None:
    saved = "ledger_file._current.save(); import signal; os.kill(os.getpid(), signal.SIGKILL)"
    run_program(f"{PROGRAM}\ntracekit.span('open').__enter__(); {saved}")
    assert "it was killed" in tracekit("doctor").output


def test_spans_after_shutdown_are_told(tracekit) -> None:
    run_program(
        f"{PROGRAM}\nspan = tracekit.span('late').__enter__()\ntracekit.shutdown()\nspan.end()\n"
    )
    assert "1 lost: they ended after tracekit.shutdown()" in tracekit("doctor").output


def test_a_process_without_exporter_is_told(tracekit) -> None:
    run_program(PROGRAM.replace("shop", "shop', exporters='none").replace('"', "'"))
    assert "no exporter was set" in tracekit("doctor").output


def test_without_any_ledger_it_says_how_to_begin(tracekit) -> None:
    assert "tracekit run" in tracekit("doctor").output


# The spool --------------------------------------------------------------------------------------

SENDING = """
import tracekit
from tracekit.exporters.otlp import OTLPSpanExporter, RetryPolicy

once = RetryPolicy(failures_to_open=1)
exporter = OTLPSpanExporter("http://u:s3cret@localhost:9", retry_policy=once)
tracekit.configure("shop", exporters=[exporter])
for _ in range(3):
    with tracekit.span("step"):
        pass
"""


def test_spans_that_wait_on_the_disk_are_told_with_their_destination(tracekit) -> None:
    run_program(SENDING)
    found = diagnose(tracekit)
    assert [(row["spans"], row["destination"]) for row in found["spool"]] == [
        (3, "http://localhost:9/v1/traces")
    ]
    (ledger,) = found["ledgers"]
    assert (ledger["fate"]["started"], ledger["fate"]["spooled"], ledger["fate"]["lost"]) == (
        3,
        3,
        {},
    )
    page = tracekit("doctor").stdout
    assert "waiting on the disk" in page
    assert "3 spooled" in page
    assert "s3cret" not in page


def test_a_spool_that_cannot_be_read_is_a_problem(tracekit, tmp_path: Path) -> None:
    found = diagnose(tracekit, exit_code=1, TRACEKIT_SPOOL=str(tmp_path))
    assert any("TRACEKIT_SPOOL" in problem for problem in found["problems"])


# Sampling that was changed ----------------------------------------------------------------------


def test_sampling_that_was_changed_is_told_with_by_whom_and_since_when(tracekit) -> None:
    changed = "tracekit.set_sampling(0.5, for_s=600)\nwith tracekit.span('n'):\n    pass\n"
    run_program(f"{PROGRAM}\n{changed}")
    told = ledger(tracekit)["stats"]["sampling"]
    assert told["by"] == "set_sampling()"
    assert told["until"] - told["since"] == pytest.approx(600, abs=5)
    (line,) = [line for line in tracekit("doctor").output.splitlines() if "samples" in line]
    assert "TraceIdRatioBased{0.500000}" in line
    assert ", by set_sampling()" in line


def test_rules_that_sampled_out_are_told(tracekit) -> None:
    run_program(TRACEKIT_RULES="drop name=step; drop name=other; keep")
    assert "3 traces sampled out by rule 1: drop name=step" in tracekit("doctor").output
    assert "rule 2" not in tracekit("doctor").output


def test_sampling_as_configured_is_not_told_again(tracekit) -> None:
    run_program()
    assert ledger(tracekit)["stats"]["sampling"]["by"] == "configuration"
    assert "samples" not in tracekit("doctor").output


def test_a_setting_of_the_watched_file_names_file_and_line(tracekit, tmp_path: Path) -> None:
    path = tmp_path / "tracekit.toml"
    path.write_text("# ours\nservice_name = 'from-file'\n")
    found = diagnose(tracekit, TRACEKIT_CONFIG=str(path))
    rows = {row["name"]: (row["value"], row["source"]) for row in found["settings"]}
    assert rows["service_name"] == ("from-file", f"{path}, line 2")
    assert rows["TRACEKIT_CONFIG"] == (str(path), "environment")
