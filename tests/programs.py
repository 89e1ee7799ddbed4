"""Running a small program in a process of its own, on this Python or another one."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import opentelemetry.trace

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGES = Path(opentelemetry.trace.__file__).resolve().parents[2]

EXPORTERS = """
import json, os, sys, threading, time
import tracekit
from tracekit.sdk import SpanExporter, SpanExportResult

class ToStderr(SpanExporter):
    def export(self, spans):
        for span in spans:
            sys.stderr.write(f"{os.getpid()} {span.name}\\n")
        return SpanExportResult.SUCCESS

class Hanging(SpanExporter):
    def __init__(self):
        self.lock = threading.Lock()
    def export(self, spans):
        with self.lock:
            time.sleep(3600)
    def shutdown(self):
        with self.lock:
            pass
"""


def run(
    program: str,
    *arguments: str,
    python: str = sys.executable,
    timeout: float = 60,
    **environ: str,
) -> subprocess.CompletedProcess[str]:
    """Run a program text to its end and return what it wrote; the exit code is the caller's."""
    return subprocess.run(
        [python, "-W", "ignore", "-c", textwrap.dedent(program), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        cwd="/",
        env={**environment(), **environ},
    )


def environment() -> dict[str, str]:
    """Return what a program needs to find us, and nothing that would configure it."""
    return {
        "PATH": os.environ["PATH"],
        "XDG_STATE_HOME": os.environ.get("XDG_STATE_HOME", "/nowhere"),
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(PACKAGES)]),
    }


def other_pythons() -> list[str]:
    """Return the interpreters of other versions that pyenv has on this machine."""
    found: list[str] = []
    for minor in range(10, 16):
        if minor != sys.version_info.minor:
            places = sorted(Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python"))
            found.extend(str(place) for place in places[-1:])
    return found
