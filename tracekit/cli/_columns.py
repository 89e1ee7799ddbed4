"""Rows of text as a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import click

__all__ = ["columns"]


def columns(rows: Iterable[Sequence[str]]) -> list[str]:
    """Align all columns but the last; colour codes take no room."""
    table = [list(row) for row in rows]
    if not table:
        return []
    widths = [max(len(click.unstyle(row[i])) for row in table) for i in range(len(table[0]))]
    return [
        "  ".join(
            cell + " " * (width - len(click.unstyle(cell)))
            for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in table
    ]
