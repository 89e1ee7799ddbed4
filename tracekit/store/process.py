"""Which process is writing, in words that another process can check later."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["is_lost", "this_process"]


def this_process() -> str:
    """Return ``pid:start:boot:namespace``; a pid alone is given to another process in time."""
    pid = os.getpid()
    return f"{pid}:{_start_of(pid) or ''}:{_boot_id()}:{_pid_namespace()}"


def is_lost(process: str) -> bool:
    """Say whether the process has surely ended. What cannot be known counts as running."""
    try:
        pid, start, boot, namespace = process.split(":", 3)
        number = int(pid)
    except ValueError:
        return False
    if boot != _boot_id():
        return True
    if namespace != _pid_namespace():
        return False  # in another container: its pids mean nothing here
    found = _start_of(number)
    return found is None if not start else found != start


def _start_of(pid: int) -> str | None:
    """Return when a process started, in the system's own words; None when there is none."""
    ways = {"linux": _start_on_linux, "win32": _start_on_windows}
    return ways.get(sys.platform, _start_by_ps)(pid)


def _start_on_linux(pid: int) -> str | None:
    # The name, in parentheses, may hold spaces and parentheses of its own.
    # Source: proc_pid_stat(5); field 3 is the state, field 22 the start in ticks since boot.
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def _start_by_ps(pid: int) -> str | None:
    try:
        found = subprocess.run(
            ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, timeout=2, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.decode("ascii", "replace").strip().replace(":", ".") or None


def _start_on_windows(pid: int) -> str | None:
    import ctypes

    kernel = ctypes.WinDLL("kernel32")  # type: ignore[attr-defined,unused-ignore]
    process = kernel.OpenProcess(0x1000, False, pid)  # PROCESS_QUERY_LIMITED_INFORMATION
    if not process:
        return None
    times = [ctypes.c_ulonglong() for _ in range(4)]
    found = kernel.GetProcessTimes(process, *[ctypes.byref(moment) for moment in times])
    kernel.CloseHandle(process)
    ended = times[1].value != 0
    return str(times[0].value) if found and not ended else None


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def _pid_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid").replace(":", "")
    except OSError:
        return ""
