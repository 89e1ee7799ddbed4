"""Programs that OpenTelemetry's own ways of starting set up with tracekit."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from integration.otlp_receiver import Receiver, receiving

INSTRUMENT = str(Path(sys.executable).with_name("opentelemetry-instrument"))

REPORT = """
import json, sys
from opentelemetry import trace
provider = trace.get_tracer_provider()
print(json.dumps({
    "provider": f"{type(provider).__module__}.{type(provider).__name__}",
    "sdk": sorted(name for name in sys.modules if name.startswith("opentelemetry.sdk")),
}))
"""

WORK = """
from opentelemetry import trace
with trace.get_tracer("app").start_as_current_span("work"):
    pass
"""

CALL = """
import sys, threading
from http.server import BaseHTTPRequestHandler, HTTPServer
import requests
from opentelemetry import trace

class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_): pass

with HTTPServer(("127.0.0.1", 0), Answer) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with trace.get_tracer("app").start_as_current_span("work"):
        requests.get(f"http://127.0.0.1:{server.server_port}/", timeout=10)
    server.shutdown()
"""

CHOSEN = {"OTEL_PYTHON_DISTRO": "tracekit", "OTEL_PYTHON_CONFIGURATOR": "tracekit"}
BY_PROVIDER = {"OTEL_PYTHON_TRACER_PROVIDER": "tracekit"}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


def run(
    program: str,
    variables: Mapping[str, str],
    folder: Path,
    *,
    receiver: Receiver | None = None,
    instrumented: bool = True,
) -> dict[str, object]:
    """Run a program in a child, under `opentelemetry-instrument` or plainly; return its report."""
    path = folder / "app.py"
    path.write_text(program + REPORT)
    words = [sys.executable, str(path)]
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.base} if receiver else {}
    done = subprocess.run(
        [INSTRUMENT, *words] if instrumented else words,
        env=os.environ | endpoint | variables,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return {**report, "stderr": done.stderr}


def test_spans_arrive_and_the_sdk_is_not_imported(receiver: Receiver, tmp_path: Path) -> None:
    report = run(WORK, CHOSEN, tmp_path, receiver=receiver)
    assert report["provider"] == "tracekit.configure.TracerProvider"
    assert report["sdk"] == []
    assert [span.name for span in receiver.wait_for_spans(1)] == ["work"]


@pytest.mark.parametrize("variables", [CHOSEN, {"OTEL_PYTHON_DISTRO": "tracekit"}])
def test_a_library_is_watched_once(
    variables: Mapping[str, str], receiver: Receiver, tmp_path: Path
) -> None:
    run(CALL, variables, tmp_path, receiver=receiver)
    by_name = {span.name: span for span in receiver.wait_for_spans(2)}
    assert sorted(by_name) == ["GET", "work"]
    assert len(receiver.spans()) == 2
    assert by_name["GET"].parent_span_id == by_name["work"].span_id


def test_instrument_in_the_program_watches_nothing_twice(
    receiver: Receiver, tmp_path: Path
) -> None:
    program = f"import tracekit\ntracekit.instrument()\n{CALL}"
    run(program, CHOSEN, tmp_path, receiver=receiver)
    assert sorted(span.name for span in receiver.wait_for_spans(2)) == ["GET", "work"]


def test_libraries_that_are_switched_off_stay_alone(receiver: Receiver, tmp_path: Path) -> None:
    off = {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "requests,urllib3,http_client"}
    run(CALL, CHOSEN | off, tmp_path, receiver=receiver)
    assert [span.name for span in receiver.wait_for_spans(1)] == ["work"]


def test_with_nothing_said_spans_go_to_the_store(tmp_path: Path) -> None:
    run(WORK, CHOSEN | {"TRACEKIT_STORE": str(tmp_path / "spans.db")}, tmp_path)
    assert (tmp_path / "spans.db").exists()


def test_the_api_loads_our_provider_by_name(receiver: Receiver, tmp_path: Path) -> None:
    report = run(WORK, BY_PROVIDER, tmp_path, receiver=receiver, instrumented=False)
    assert report["provider"] == "tracekit.configure.TracerProvider"
    assert report["sdk"] == []
    assert [span.name for span in receiver.wait_for_spans(1)] == ["work"]


@pytest.mark.parametrize(
    "program",
    [
        "import tracekit\ntracekit.configure()\n",
        "from opentelemetry import trace\ntrace.get_tracer_provider()\n"
        "import tracekit\ntracekit.configure(service_name='again')\n",
    ],
    ids=["first", "later"],
)
def test_configure_is_the_same_provider(program: str, receiver: Receiver, tmp_path: Path) -> None:
    program += WORK + "assert tracekit.configure() is trace.get_tracer_provider()\n"
    report = run(program, BY_PROVIDER, tmp_path, receiver=receiver, instrumented=False)
    assert report["stderr"] == ""
    assert [span.name for span in receiver.wait_for_spans(1)] == ["work"]


def test_threads_that_ask_at_once_get_one_provider(receiver: Receiver, tmp_path: Path) -> None:
    program = (
        "import threading\nfrom opentelemetry import trace\n"
        "gate, got = threading.Barrier(8), []\n"
        "def ask():\n    gate.wait()\n    got.append(trace.get_tracer_provider())\n"
        "threads = [threading.Thread(target=ask) for _ in range(8)]\n"
        "for each in threads: each.start()\n"
        "for each in threads: each.join()\n"
        "assert len(got) == 8 and len(set(map(id, got))) == 1, got\n"
    )
    report = run(program, BY_PROVIDER, tmp_path, receiver=receiver, instrumented=False)
    assert report["stderr"] == ""


@pytest.mark.parametrize("variables", [CHOSEN, BY_PROVIDER], ids=["distro", "provider"])
def test_an_unknown_exporter_is_said_and_the_program_runs(
    variables: Mapping[str, str], tmp_path: Path
) -> None:
    wrong = {"OTEL_TRACES_EXPORTER": "nonsense"}
    report = run(WORK, variables | wrong, tmp_path, instrumented="OTEL_PYTHON_DISTRO" in variables)
    assert "unknown exporter 'nonsense'" in str(report["stderr"])
    assert str(report["stderr"]).count("Traceback") == 0


@pytest.mark.parametrize("names", ["datadog", "b3,datadog", "xray,tracecontext"])
def test_the_api_finds_our_propagators_when_it_is_imported(names: str, tmp_path: Path) -> None:
    program = (
        "from opentelemetry import propagate\n"
        "headers = {}\npropagate.inject(headers)\n"
        "import tracekit.configure\n"
    )
    run(program, {"OTEL_PROPAGATORS": names}, tmp_path, instrumented=False)


def test_our_exporters_plug_into_opentelemetry_sdk(receiver: Receiver, tmp_path: Path) -> None:
    program = (
        "from opentelemetry.sdk._configuration import _OTelSDKConfigurator\n"
        "_OTelSDKConfigurator().configure()\n"
    )
    chosen = {"OTEL_TRACES_EXPORTER": "tracekit_otlp", "OTEL_SERVICE_NAME": "theirs"}
    flush = "trace.get_tracer_provider().shutdown()\n"
    chosen |= {"OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}
    report = run(program + WORK + flush, chosen, tmp_path, receiver=receiver, instrumented=False)
    assert report["provider"] == "opentelemetry.sdk.trace.TracerProvider"
    assert [span.name for span in receiver.wait_for_spans(1)] == ["work"]


def test_an_entry_point_of_no_exporter_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nonsense_exporter"):
        vars(importlib.import_module("tracekit.distro"))["__getattr__"]("nonsense_exporter")


def _other_package(folder: Path) -> Mapping[str, str]:
    """Install a package with a distro and a configurator of its own, in front of ours."""
    (folder / "their.py").write_text(
        "from opentelemetry.instrumentation.distro import BaseDistro\n"
        "class Distro(BaseDistro):\n"
        "    def _configure(self, **kwargs): print('their distro')\n"
        "class Configurator:\n"
        "    def configure(self, **kwargs): print('their configurator')\n"
    )
    metadata = folder / "their-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: their\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[opentelemetry_distro]\ntheir = their:Distro\n"
        "[opentelemetry_configurator]\ntheir = their:Configurator\n"
    )
    return {"PYTHONPATH": str(folder), "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "*"}


def _said(program: str, variables: Mapping[str, str], folder: Path) -> tuple[str, str]:
    path = folder / "app.py"
    path.write_text(program + REPORT)
    done = subprocess.run(
        [INSTRUMENT, sys.executable, str(path)],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_being_installed_does_not_take_a_program_over(tmp_path: Path) -> None:
    output, _ = _said("", _other_package(tmp_path), tmp_path)
    assert "their distro" in output
    assert "their configurator" in output
    assert "ProxyTracerProvider" in output


def test_a_distro_that_is_chosen_comes_with_its_configurator(tmp_path: Path) -> None:
    chosen = _other_package(tmp_path) | {"OTEL_PYTHON_DISTRO": "tracekit"}
    output, _ = _said("", chosen, tmp_path)
    assert "their" not in output
    assert "tracekit.configure.TracerProvider" in output


def test_another_configurator_may_be_chosen_beside_our_distro(tmp_path: Path) -> None:
    chosen = {"OTEL_PYTHON_DISTRO": "tracekit", "OTEL_PYTHON_CONFIGURATOR": "their"}
    output, _ = _said("", _other_package(tmp_path) | chosen, tmp_path)
    assert "their configurator" in output
    assert "their distro" not in output
