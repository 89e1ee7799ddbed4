"""What a process holds: the memory that is its own, and how much of that is in use.

What is resident grows in a process that holds no more than before: allocators keep what was given
back to them, in pieces that the next request does not fit into. So what is in use is told beside
it. Python takes what is larger than 512 bytes, and C libraries take all, from ``malloc``.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from pathlib import Path

__all__ = ["held_memory"]


class _Mallinfo(ctypes.Structure):
    """``struct mallinfo2`` of glibc: https://man7.org/linux/man-pages/man3/mallinfo.3.html"""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
        ).split()
    ]


def held_memory() -> dict[str, int]:
    """Collect garbage, then return what the process holds.

    Returns:
        ``resident_kib``; ``blocks``, how many of up to 512 bytes Python has in use; and
        ``malloc_kib``, what ``malloc`` has given out, where glibc (2.33 or later) tells it.

    Cost: that of a garbage collection, a tenth of a second.
    """
    gc.collect()
    held = {"resident_kib": _resident_kib(), "blocks": sys.getallocatedblocks()}
    malloc = _malloc_kib()
    return held if malloc is None else held | {"malloc_kib": malloc}


def _resident_kib() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def _malloc_kib() -> int | None:
    try:
        mallinfo = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError):
        return None
    mallinfo.restype = _Mallinfo
    told = mallinfo()
    return int(told.uordblks + told.hblkhd) // 1024
