"""What tracing adds to one query of a database: in this process, or of a server on this machine."""

from __future__ import annotations

from benchmarks.harness import Effort, Figures, row
from benchmarks.http import _added as _added_by


def _added(subject: str, effort: Effort) -> Figures:
    return _added_by(subject, effort, module="benchmarks.databases_worker")


@row("db.sqlite3", "added to a query: sqlite3", must=0.25, aim=0.12)
def sqlite3_query(effort: Effort) -> Figures:
    return _added("sqlite3", effort)
