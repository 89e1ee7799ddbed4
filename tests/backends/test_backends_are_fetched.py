"""``make backends``: what is there is not fetched again, and what cannot be had says why."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from backends import where
from backends.running import fetched

pytestmark = pytest.mark.matrix_skip

ROOT = Path(__file__).parents[2]


def fetch(folder: Path, *names: str, path: str = os.environ["PATH"]) -> tuple[int, str]:
    done = subprocess.run(
        ["/bin/sh", str(ROOT / ".ci" / "backends"), sys.executable, *names],
        env={"BACKENDS": str(folder), "PATH": path, "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr


def test_a_name_that_is_none_is_refused_with_those_that_are(tmp_path: Path) -> None:
    code, said = fetch(tmp_path, "zipkn")
    assert code == 2
    assert "is called zipkn: ferretdb, zipkin, datadog, collector, jaeger, balancer" in said


def test_what_is_there_is_not_fetched_again(tmp_path: Path) -> None:
    (tmp_path / "jaeger").mkdir()
    script = (ROOT / ".ci" / "backends").read_text()
    (version,) = [line for line in script.splitlines() if line.startswith("jaeger=")]
    (tmp_path / "jaeger" / "version").write_text(version.split("#")[0].strip()[len("jaeger=") :])
    assert fetch(tmp_path, "jaeger") == (0, "")


def test_what_cannot_be_had_says_why_and_fails_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("cat", "dirname", "grep", "mkdir", "rm", "sed", "tail"):
        (tools / tool).symlink_to(
            f"/bin/{tool}" if Path(f"/bin/{tool}").exists() else f"/usr/bin/{tool}"
        )
    code, said = fetch(tmp_path, "zipkin", path=str(tools))
    assert code == 0
    assert "zipkin cannot be had" in said

    monkeypatch.setattr(where, "FOLDER", tmp_path)
    with pytest.raises(where.NotThereError, match="mvn: not found"):
        where.program("zipkin", "zipkin.jar")


def test_what_was_never_fetched_says_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(where, "FOLDER", tmp_path)
    with pytest.raises(where.NotThereError, match="`make backends` fetches it"):
        where.program("zipkin", "zipkin.jar")


@pytest.mark.slow
def test_servers_run_until_ctrl_c_and_say_how_to_send_to_them() -> None:
    try:
        where.program("datadog", "ddapm-test-agent")
    except where.NotThereError as why:
        pytest.skip(str(why))
    process = subprocess.Popen(
        [sys.executable, "-m", "backends.serve", "datadog"],
        cwd=ROOT / "tests",
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        lines = [process.stdout.readline().strip()]
        while lines[-1] != "Ctrl-C stops.":
            lines.append(process.stdout.readline().strip())
        url = lines[0].split()[1]
        assert f"export DD_TRACE_AGENT_URL={url}" in lines
        assert fetched(f"{url}/info").status_code == 200
    finally:
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=20)
    assert (process.returncode, rest) == (0, "stopped\n")
    with pytest.raises(OSError, match="refused"):
        fetched(f"{url}/info")
