"""What a reader asks for, as SQL: filters on traces, and on the spans within them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tracekit.store.rows import Row
from tracekit.store.terms import NAME, wanted_terms
from tracekit.store.values import clean

__all__ = ["Clause", "SpanFilter", "TraceFilter"]


@dataclass(frozen=True)
class Clause:
    """A condition with its parameters."""

    sql: str
    parameters: tuple[Any, ...] = ()

    @classmethod
    def all_of(cls, clauses: list[Clause]) -> Clause:
        if not clauses:
            return cls("1")
        return cls(
            " AND ".join(clause.sql for clause in clauses),
            tuple(value for clause in clauses for value in clause.parameters),
        )


@dataclass(frozen=True)
class TraceFilter:
    """Conditions on a trace as a whole; None stands for any."""

    since_ns: int | None = None
    until_ns: int | None = None
    min_duration_ns: int | None = None
    max_duration_ns: int | None = None
    errors_only: bool = False

    def clause(self) -> Clause:
        length = "end_ns - start_ns"
        parts = (
            ("start_ns >= ?", self.since_ns),
            ("start_ns < ?", self.until_ns),
            (f"{length} >= ?", self.min_duration_ns),
            (f"{length} <= ?", self.max_duration_ns),
        )
        clauses = [Clause(sql, (value,)) for sql, value in parts if value is not None]
        if self.errors_only:
            clauses.append(Clause("error_count > 0"))
        return Clause.all_of(clauses)


@dataclass(frozen=True)
class SpanFilter:
    """Conditions that one and the same span must meet; None stands for any.

    Attributes are looked for on the span, then on its resource. Text that is wanted stands
    for a number or truth value written that way too; a wanted element for a sequence.
    """

    service: str | None = None
    name: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    min_duration_ns: int | None = None
    errors_only: bool = False

    def is_empty(self) -> bool:
        return self == SpanFilter()

    def segment_clause(self, db: sqlite3.Connection) -> Clause:
        """Return a condition on ``segments`` that all met by a matching span; and some more."""
        clauses = []
        if self.service is not None:
            clauses.append(
                Clause("resource IN (SELECT id FROM resources WHERE service = ?)", (self.service,))
            )
        if self.name is not None:
            clauses.append(_has_term(NAME, self.name))
        clauses += [self._attribute_clause(db, key) for key in self.attributes]
        if self.min_duration_ns is not None:
            clauses.append(Clause("max_duration_ns >= ?", (self.min_duration_ns,)))
        if self.errors_only:
            clauses.append(Clause("segments.error_count > 0"))
        return Clause.all_of(clauses)

    def _attribute_clause(self, db: sqlite3.Connection, key: str) -> Clause:
        wanted = self.attributes[key]
        clause = _has_term(key, wanted)
        resources = self._resources_with(db, key)
        if clause.sql == "1" or not resources:
            return clause
        numbers = ",".join(map(str, resources))
        return Clause(f"({clause.sql} OR resource IN ({numbers}))", clause.parameters)

    def _resources_with(self, db: sqlite3.Connection, key: str) -> list[int]:
        found = db.execute(
            "SELECT id, attributes FROM resources WHERE instr(attributes, ?)",
            (json.dumps(key) + ":",),
        )
        return [
            number
            for number, text in found
            if _equals(json.loads(text).get(key), self.attributes[key])
        ]

    def matches(self, row: Row, resource: Mapping[str, Any]) -> bool:
        """Say whether a stored row meets all conditions but the one on the service."""
        return (
            (self.name is None or row[3] == self.name)
            and (self.min_duration_ns is None or (row[6] or 0) >= self.min_duration_ns)
            and (not self.errors_only or row[7] == 2)
            and all(
                _equals(row[9][key] if key in row[9] else resource.get(key), wanted)
                for key, wanted in self.attributes.items()
            )
        )


def _has_term(key: str, value: Any) -> Clause:
    terms = wanted_terms(key, value)
    if not terms:
        return Clause("1")
    tests = " OR ".join(["instr(terms, ?)"] * len(terms))
    return Clause(f"({tests})", tuple(terms))


def _equals(stored: Any, wanted: Any) -> bool:
    """Compare a value as it is stored with one that is asked for."""
    if stored is None:
        return wanted is None
    if isinstance(wanted, str) and isinstance(stored, (bool, int, float)):
        return _written(stored, wanted)
    if isinstance(stored, list) and not isinstance(wanted, (list, tuple)):
        return any(_equals(item, wanted) for item in stored)
    return bool(stored == clean(wanted)) and isinstance(stored, bool) == isinstance(wanted, bool)


def _written(stored: float, wanted: str) -> bool:
    if isinstance(stored, bool):
        return wanted.lower() == str(stored).lower()
    try:
        return float(wanted) == stored
    except ValueError:
        return False
