"""What `tracekit run` does to a program: it is traced, and otherwise as it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from integration.serving import RUN, end_session, run, spans_of

TRACED = """
from opentelemetry import trace
with trace.get_tracer("app").start_as_current_span("step"):
    pass
"""

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def app(tmp_path: Path) -> Path:
    path = tmp_path / "app.py"
    path.write_text(TRACED)
    return path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "traces.db"


@pytest.mark.parametrize(
    "words", [["app.py"], [sys.executable, "app.py"], [sys.executable, "-m", "app"], ["-m", "app"]]
)
def test_every_way_of_naming_a_program_works(app: Path, store: Path, words: list[str]) -> None:
    done = run("--store", str(store), *words, cwd=app.parent)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [span.name for span in spans_of(store)] == ["step"]


def test_options_of_the_program_are_its_own(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("import sys; print(sys.argv[1:])")
    done = run("--exporter", "none", "app.py", "--store", "x", "-v", "--", cwd=tmp_path)
    assert done.stdout == "['--store', 'x', '-v', '--']\n"


def test_the_exit_code_is_the_programs(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("raise SystemExit(7)")
    assert run("app.py", cwd=tmp_path).returncode == 7


def test_what_the_program_prints_is_all_that_is_printed(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("import sys; print('out'); print('err', file=sys.stderr)")
    done = run("app.py", cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("out\n", "err\n")


def test_verbose_says_one_line_and_only_once(tmp_path: Path, store: Path) -> None:
    (tmp_path / "app.py").write_text(
        "import subprocess, sys\nsubprocess.run([sys.executable, '-c', ''], check=True)"
    )
    options = ["-v", "--service-name", "shop", "--store", str(store)]
    done = run(*options, "app.py", cwd=tmp_path)
    assert done.stderr.count("\n") == 1
    assert "shop" in done.stderr


def test_a_signal_reaches_the_program_and_its_spans_are_kept(tmp_path: Path, store: Path) -> None:
    (tmp_path / "app.py").write_text(
        f"{TRACED}\nimport sys, time\nprint('ready', flush=True)\ntime.sleep(60)"
    )
    process = subprocess.Popen(
        [*RUN, "--store", str(store), "app.py"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        assert process.wait(20) == -signal.SIGTERM
    finally:
        end_session(process)
        process.stdout.close()
    assert [span.name for span in spans_of(store)] == ["step"]


def test_options_reach_the_tracer(app: Path, store: Path) -> None:
    done = run("--service-name", "shop", "--sampler", "0", "--store", str(store), str(app))
    assert done.returncode == 0
    assert not store.exists()
    assert run("--service-name", "shop", "--store", str(store), str(app)).returncode == 0
    (span,) = spans_of(store)
    assert span.resource.attributes["service.name"] == "shop"


def test_the_store_named_relative_to_here_stays_there(app: Path, tmp_path: Path) -> None:
    app.write_text(f"import os; os.chdir('/')\n{TRACED}")
    assert run("--store", "mine.db", "app.py", cwd=tmp_path).returncode == 0
    assert len(spans_of(tmp_path / "mine.db")) == 1


def test_libraries_are_left_alone_when_asked(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "import requests\nprint(hasattr(requests.Session.send, '__wrapped__'))"
    )
    words = ["--exporter", "none", "app.py"]
    assert run(*words, cwd=tmp_path).stdout == "True\n"
    assert run("--no-instrument", *words, cwd=tmp_path).stdout == "False\n"


# Names that cannot work ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--exporter", "stor"], "'store'"),
        (["--sampler", "always_of"], "'always_off'"),
        (["--exportr", "store"], "--exporter"),
        ([], "CMD"),
    ],
)
def test_a_wrong_option_is_refused_before_the_program_runs(
    options: list[str], named: str, app: Path
) -> None:
    done = run(*options, *([str(app)] if options else []))
    assert done.returncode == 2
    assert named in done.stderr


def test_a_command_that_is_not_there_ends_as_in_a_shell() -> None:
    done = run("no-such-command")
    assert (done.returncode, done.stderr.count("\n")) == (127, 1)


def test_a_file_that_is_no_program_ends_as_in_a_shell(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_text("")
    done = run(str(path))
    assert (done.returncode, done.stderr.count("\n")) == (126, 1)


# Other Pythons ---------------------------------------------------------------------------------


def test_a_python_that_ignores_its_environment_runs_untraced(app: Path, store: Path) -> None:
    for option in ("-I", "-E", "-S"):
        code = "print('ran')"
        done = run("--store", str(store), sys.executable, option, "-c", code, cwd=app.parent)
        assert (done.returncode, done.stdout, done.stderr) == (0, "ran\n", "")
    assert not store.exists()


def test_an_environment_without_tracekit_is_told_in_one_line(tmp_path: Path) -> None:
    venv.create(tmp_path / "bare", with_pip=False)
    python = str(tmp_path / "bare" / "bin" / "python")
    child = f"import subprocess; subprocess.run([{python!r}, '-c', 'print(2)'])"
    done = run("--exporter", "none", python, "-c", f"print(1, flush=True); {child}")
    assert (done.returncode, done.stdout) == (0, "1\n2\n")
    assert done.stderr.count("\n") == 1
    assert python in done.stderr


def test_a_sitecustomize_of_the_programs_own_is_imported(tmp_path: Path, store: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "sitecustomize.py").write_text("import os\nos.environ['OTEL_SERVICE_NAME'] = 'own'\n")
    (tmp_path / "app.py").write_text(
        f"{TRACED}\nimport sitecustomize\nprint(sitecustomize.os.name)"
    )
    env = {"PYTHONPATH": str(own)}
    done = run("--store", str(store), "app.py", cwd=tmp_path, env=env)
    assert (done.stdout, done.stderr) == (f"{os.name}\n", "")
    (span,) = spans_of(store)
    assert span.resource.attributes["service.name"] == "own"


def test_a_sitecustomize_that_fails_is_reported_as_ever_and_the_program_traced(
    tmp_path: Path, app: Path, store: Path
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "sitecustomize.py").write_text("raise ValueError('own')\n")
    done = run("--store", str(store), str(app), env={"PYTHONPATH": str(own)})
    assert done.returncode == 0
    assert "ValueError: own" in done.stderr
    assert len(spans_of(store)) == 1


def test_the_rest_of_pythonpath_is_kept(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("import os; print(os.environ['PYTHONPATH'].split(':')[1:])")
    env = {"PYTHONPATH": "/a:/b"}
    assert run("--exporter", "none", "app.py", cwd=tmp_path, env=env).stdout == "['/a', '/b']\n"


def test_a_run_within_a_run_traces_once(app: Path, store: Path) -> None:
    done = run("--store", str(store), *RUN, "app.py", cwd=app.parent)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(spans_of(store)) == 1


# Context and other tracers ---------------------------------------------------------------------


def test_root_spans_continue_the_trace_of_the_environment(app: Path, store: Path) -> None:
    env = {"TRACEPARENT": TRACEPARENT, "TRACESTATE": "vendor=1"}
    assert run("--store", str(store), str(app), env=env).returncode == 0
    (span,) = spans_of(store)
    assert f"{span.context.trace_id:032x}" == TRACEPARENT.split("-")[1]
    assert f"{span.parent.span_id:016x}" == TRACEPARENT.split("-")[2]
    assert span.parent.is_remote
    assert span.context.trace_state.to_header() == "vendor=1"


def test_a_malformed_traceparent_begins_a_new_trace(app: Path, store: Path) -> None:
    done = run("--store", str(store), str(app), env={"TRACEPARENT": "00-zz-1"})
    assert (done.returncode, done.stderr) == (0, "")
    assert spans_of(store)[0].parent is None


def test_a_program_that_configures_tracekit_itself_wins(tmp_path: Path, store: Path) -> None:
    (tmp_path / "app.py").write_text(
        f"import tracekit\ntracekit.configure(service_name='own')\n{TRACED}"
    )
    done = run("--store", str(store), "--service-name", "ours", "app.py", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    (span,) = spans_of(store)
    assert span.resource.attributes["service.name"] == "own"


def test_a_program_with_a_provider_of_its_own_keeps_it(tmp_path: Path, store: Path) -> None:
    (tmp_path / "app.py").write_text(
        "from opentelemetry.sdk.trace import TracerProvider\n"
        "from opentelemetry.sdk.trace.export import SimpleSpanProcessor\n"
        "from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter\n"
        "from opentelemetry.trace import get_tracer_provider, set_tracer_provider\n"
        "provider, exporter = TracerProvider(), InMemorySpanExporter()\n"
        "provider.add_span_processor(SimpleSpanProcessor(exporter))\n"
        "set_tracer_provider(provider)\n"
        "assert get_tracer_provider() is provider\n"
        f"{TRACED}\n"
        "print([span.name for span in exporter.get_finished_spans()])\n"
        "provider.shutdown()\n"
    )
    done = run("--store", str(store), "app.py", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "['step']\n", "")
    assert [span.name for span in spans_of(store)] == ["step"]


def test_a_setting_that_cannot_work_is_one_line_and_the_program_runs(tmp_path: Path) -> None:
    """The program's own sitecustomize, or a shell in between, may set what was right before."""
    (tmp_path / "app.py").write_text("print('ran')")
    code = f"OTEL_TRACES_EXPORTER=nowhere exec {sys.executable} app.py"
    done = run("sh", "-c", code, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "ran\n")
    assert done.stderr.count("\n") == 1
    assert "nowhere" in done.stderr
