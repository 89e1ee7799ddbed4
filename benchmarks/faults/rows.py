"""The rows of the table: what fails, how the program ends, and which losses are somebody's will."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.faults.server import Fault, faults

__all__ = ["ROWS", "Row"]


@dataclass(frozen=True)
class Row:
    """One way to fail.

    Attributes:
        fault: What the server does with requests as long as the program runs.
        refuses: Nobody listens as long as the program runs.
        middle: The fault is over while the program still runs: it lasts this share of its time.
        tls: Requests go over TLS; "wrong" is with a certificate that nobody trusts.
        end: How the program ends.
        children: Where the spans are made: "fork", "pool" or "gunicorn"; else in the program.
        losses: Reasons for which spans may be lost; for any other, none may.
        only: Other settings of the program's plan.
        seconds: How long the program runs; of a quick run a third.
    """

    name: str
    fault: Fault | None = None
    refuses: bool = False
    middle: float = 0.0
    tls: str = ""
    end: str = "return"
    children: str = ""
    losses: frozenset[str] = frozenset()
    only: tuple[tuple[str, object], ...] = ()
    seconds: float = 6.0
    collector: bool = False


_REJECTED = frozenset({"rejected"})
_DOWN = faults.unavailable

ROWS = [
    Row("nothing fails"),
    Row("connection refused", refuses=True),
    Row("black hole: accepts, never answers", faults.black_hole),
    Row("slow drip: a byte every 0.3 s", faults.slow_drip),
    Row("429 with Retry-After: 1", faults.throttled),
    Row("503", faults.unavailable),
    Row("413 above 20 kB", faults.too_large),
    Row("400", faults.bad_request, losses=_REJECTED),
    Row("partial success: 5 spans of each request", faults.partial_success, losses=_REJECTED),
    Row("TLS: a certificate that nobody trusts", tls="wrong"),
    Row("reset in the middle of the answer", faults.reset),
    Row("an answer that is not HTTP", faults.garbage),
    Row("a name that does not resolve", only=(("loses_names", True),)),
    Row("redirect to somewhere else", faults.redirect, losses=_REJECTED),
    Row("a gigabyte of response", faults.gigabyte, losses=_REJECTED),
    Row("an answer after the client's timeout", faults.late, seconds=15),
    Row("slow: each answer takes 0.2 s, busy program", faults.slow, only=(("wait_s", 0.001),)),
    Row("outage under load, then back", _DOWN, middle=0.8, seconds=75),
    Row("refused under load, then back", refuses=True, middle=0.5, seconds=12),
    Row("a Collector killed and restarted", middle=0.5, seconds=12, collector=True),
    Row("503, and the clock is set forward an hour", _DOWN, only=(("step_s", 3600.0),)),
    Row("503, and the clock is set back an hour", _DOWN, only=(("step_s", -3600.0),)),
    Row("503, uncaught exception", _DOWN, end="exception"),
    Row("503, SIGTERM", _DOWN, end="sigterm"),
    Row("503, SIGTERM with a handler", _DOWN, end="sigterm with a handler"),
    Row("black hole, SIGTERM", faults.black_hole, end="sigterm"),
    Row("SIGTERM", end="sigterm"),
    Row("503, SIGKILL and restart", _DOWN, end="sigkill", losses=frozenset({"killed"})),
    Row("os._exit", end="os._exit"),
    Row("503, os._exit", _DOWN, end="os._exit"),
    Row("503, forked children that os._exit", _DOWN, children="fork"),
    Row("503, a pool of processes", _DOWN, children="pool"),
    Row("503, gunicorn's workers", _DOWN, children="gunicorn"),
    Row(
        "503, and the disk is full",
        _DOWN,
        only=(("disk_bytes", 50_000),),
        losses=frozenset({"spool_failed"}),
    ),
]
