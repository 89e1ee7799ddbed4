"""`tracekit show`."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from cli.conftest import FAST, SLOW


def test_the_last_trace_is_shown_by_default(tracekit, store: Path) -> None:
    assert f"{FAST:032x}" in tracekit("show", "--store", str(store)).stdout


@pytest.mark.parametrize("words", [["aa"], [f"{SLOW:032x}"], [f"0x{SLOW:032x}"], ["AA"]])
def test_the_beginning_of_an_id_is_enough(tracekit, store: Path, words: list[str]) -> None:
    assert f"{SLOW:032x}" in tracekit("show", *words, "--store", str(store)).stdout


def test_the_tree_says_who_called_whom_what_failed_and_how_long(tracekit, store: Path) -> None:
    lines = tracekit("show", "aa", "--store", str(store)).stdout.splitlines()
    root = next(line for line in lines if "POST /checkout" in line)
    child = next(line for line in lines if "POST /pay" in line)
    assert root.startswith("shop ▸ POST /checkout")
    assert "1.00 s" in root
    assert "20.0 ms" in root, "its self time"
    assert child.startswith("└─ payment ▸ POST /pay")
    assert any("✗ declined" in line for line in lines)


def test_it_says_where_the_time_went(tracekit, store: Path) -> None:
    text = tracekit("show", "aa", "--store", str(store)).stdout
    spent = text[text.index("where the time went") :]
    rows = [line.split() for line in spent.splitlines() if "%" in line]
    assert [(*row[:3], row[-1]) for row in rows[:2]] == [
        ("980", "ms", "98.0%", "payment"),
        ("20.0", "ms", "2.0%", "shop"),
    ]
    assert rows[2][-3:] == ["▸", "POST", "/pay"]


def test_a_pipe_gets_no_colours_and_options_decide(tracekit, store: Path) -> None:
    words = ["show", "--store", str(store)]
    assert "\x1b[" not in tracekit(*words).stdout
    assert "\x1b[" in tracekit(*words, "--color").stdout
    assert "\x1b[" not in tracekit(*words, "--no-color", env={"FORCE_COLOR": "1"}).stdout


@pytest.mark.parametrize("width", [40, 72, 140])
def test_no_line_is_wider_than_asked(tracekit, store: Path, width: int) -> None:
    text = tracekit("show", "aa", "--store", str(store), "--width", str(width)).stdout
    assert max(len(line) for line in text.splitlines()) <= width


def test_json_is_otlp(tracekit, store: Path) -> None:
    from tracekit.exporters._otlp_json import decode

    result = tracekit("show", "aa", "--json", "--store", str(store))
    spans = decode(json.loads(result.stdout))
    assert sorted(span.name for span in spans) == ["POST /checkout", "POST /pay"]
    assert {span.context.trace_id for span in spans} == {SLOW}


# What cannot be shown -----------------------------------------------------------------------


def refusal(result) -> str:
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.mark.parametrize("words", [["ls"], ["show"]])
def test_a_store_that_is_not_there_says_how_to_make_one(tracekit, words: list[str]) -> None:
    assert "tracekit run" in refusal(tracekit(*words))


@pytest.mark.parametrize("words", [["ls"], ["show"]])
def test_an_empty_store_says_how_to_fill_it(tracekit, tmp_path: Path, words: list[str]) -> None:
    from tracekit.store.connection import open_for_writing

    path = tmp_path / "empty.db"
    open_for_writing(path, 1.0).close()
    assert "tracekit run" in refusal(tracekit(*words, "--store", str(path)))


@pytest.mark.parametrize("words", [["ls"], ["show"]])
def test_a_corrupt_store_is_said_and_left_alone(tracekit, tmp_path: Path, words: list[str]) -> None:
    path = tmp_path / "corrupt.db"
    path.write_bytes(b"not a database at all" * 100)
    assert "not a database" in refusal(tracekit(*words, "--store", str(path)))
    assert path.read_bytes().startswith(b"not a database")


@pytest.mark.parametrize("words", [["ls"], ["show"]])
def test_a_newer_store_asks_for_a_newer_tracekit(tracekit, store: Path, words: list[str]) -> None:
    db = sqlite3.connect(store)
    db.execute("PRAGMA user_version = 99")
    db.close()
    assert "upgrade tracekit" in refusal(tracekit(*words, "--store", str(store)))


def test_an_id_that_nothing_has_says_where_to_look(tracekit, store: Path) -> None:
    assert "tracekit ls" in refusal(tracekit("show", "ff", "--store", str(store)))


def test_an_id_that_two_traces_begin_with_lists_both(tracekit, store: Path) -> None:
    message = refusal(tracekit("show", "a", "--store", str(store)))
    assert f"{SLOW:032x}"[:8] in message
    assert f"{FAST:032x}"[:8] in message


def test_what_is_no_id_is_said(tracekit, store: Path) -> None:
    assert "'zz'" in refusal(tracekit("show", "zz", "--store", str(store)))
