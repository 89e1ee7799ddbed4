"""Servers that tests start: what is said of one that does not, and that none stays."""

from __future__ import annotations

import signal
import socket
import sys
from pathlib import Path

import pytest

import servers
from servers import free_ports, listens, running


def test_what_a_server_wrote_is_said_when_it_ends(tmp_path: Path) -> None:
    words = [sys.executable, "-c", "print('no disk'); raise SystemExit(3)"]
    with (
        pytest.raises(RuntimeError, match=r"ended with 3:\nno disk"),
        running(words, lambda: False, tmp_path / "log"),
    ):
        pytest.fail("it is not running")


def test_a_server_that_is_never_ready_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "START_S", 0.1)
    (port,) = free_ports(1)
    words = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", port]
    with (
        pytest.raises(RuntimeError, match="is not ready"),
        running(words, lambda: False, tmp_path / "log"),
    ):
        pytest.fail("it is not ready")
    assert not listens(port)


def test_a_server_that_does_not_heed_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "STOP_S", 0.1)
    ready = tmp_path / "ready"
    program = (
        "import pathlib, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        f"pathlib.Path({str(ready)!r}).touch(); time.sleep(60)"
    )
    with running([sys.executable, "-c", program], ready.exists, tmp_path / "log") as process:
        pass
    assert process.returncode == -signal.SIGKILL


def test_a_port_that_something_listens_at_is_no_free_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert listens(port)
        assert port not in free_ports(8)
    assert not listens(port)
