"""Where the store is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tracekit.store.location import default_path


@pytest.mark.parametrize(
    ("environ", "platform", "expected"),
    [
        ({"TRACEKIT_STORE": "/x/y.db", "XDG_STATE_HOME": "/s"}, "linux", Path("/x/y.db")),
        ({"TRACEKIT_STORE": "  "}, "linux", Path.home() / ".local/state/tracekit/traces.db"),
        ({"XDG_STATE_HOME": "/s"}, "linux", Path("/s/tracekit/traces.db")),
        ({"XDG_STATE_HOME": "relative"}, "linux", Path.home() / ".local/state/tracekit/traces.db"),
        ({"XDG_STATE_HOME": "/s"}, "darwin", Path("/s/tracekit/traces.db")),
        ({}, "darwin", Path.home() / "Library/Application Support/tracekit/traces.db"),
        ({"LOCALAPPDATA": "/local"}, "win32", Path("/local/tracekit/traces.db")),
        ({}, "win32", Path.home() / "AppData/Local/tracekit/traces.db"),
    ],
)
def test_the_default_store(environ: dict[str, str], platform: str, expected: Path) -> None:
    assert default_path(environ, platform) == expected


def test_a_store_in_the_home_folder() -> None:
    assert default_path({"TRACEKIT_STORE": "~/my.db"}) == Path.home() / "my.db"


def test_no_home_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Path:
        raise RuntimeError("no home")

    monkeypatch.setattr(Path, "home", fail)
    assert default_path({}, "linux").name == "traces.db"
