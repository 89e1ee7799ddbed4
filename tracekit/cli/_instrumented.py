"""Which libraries are watched and why others are not: found out, and as rows of a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tracekit import contrib, settings
from tracekit.configure import instrumentations
from tracekit.exporters._terminal import Style

__all__ = ["library_rows", "watched"]


def watched() -> dict[str, list[dict[str, Any]]]:
    """Return what `instrument()` came to: of our instrumentations, and of other people's."""
    return {
        "instrumentations": list(_instrumentations()),
        "contrib": [vars(status) for status in contrib.active()],
    }


def _instrumentations() -> Iterator[dict[str, Any]]:
    disabled = settings.load({}).get("disabled_instrumentations")
    for instrumentor in instrumentations():
        status = instrumentor.status
        reason = status.reason
        if reason == "not instrumented" and disabled is not None:
            reason = f"disabled by {disabled.source}"
        yield {
            "name": status.name,
            "installed": status.installed,
            "supported": status.supported,
            "active": status.active or reason == "waiting for import",
            "reason": "" if status.active else reason,
        }


def library_rows(
    found: Mapping[str, Any], style: Style, good: str, everything: bool
) -> Iterator[Sequence[str]]:
    """Yield name, installed version, supported versions and why not, of what `watched` returned.

    Args:
        good: Marks what is watched.
        everything: Also what is not installed.
    """

    def row(name: str, version: str, one: Mapping[str, Any], supported: str) -> Sequence[str]:
        mark = style.paint("green", good) if one["active"] else " " * len(good)
        reason = "" if one["active"] else one["reason"]
        return f"{mark} {name}", version, style.paint("dim", supported), reason

    for one in found["instrumentations"]:
        if one["reason"] != "not installed" or everything:
            yield row(one["name"], one["installed"] or "", one, one["supported"])
    for one in found["contrib"]:
        if one["active"] or everything:
            yield row(one["name"], "", one, f"by {one['distribution']}")
