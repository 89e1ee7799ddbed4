"""Running a module in a fresh interpreter, and what that process measures of itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ["ROOT", "memory_mib", "run_code", "run_module"]

ROOT = Path(__file__).resolve().parent.parent


def run_module(name: str, *arguments: str) -> Any:
    """Run a module of ours and return the JSON that it printed."""
    return _run("-m", name, *arguments)


def run_code(code: str) -> Any:
    """Run a few lines and return the JSON that they printed."""
    return _run("-c", code)


def _run(*arguments: str) -> Any:
    # An installed package has its bytecode beside it. A checkout gets it from the first process,
    # unless the environment forbids that: each would compile all of tracekit, and measure it.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{arguments} failed: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout)


def memory_mib(name: str = "VmRSS") -> float:
    """Return this process's resident memory, or with ``VmHWM`` the most that it ever was."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise OSError(f"/proc/self/status does not say {name}")
