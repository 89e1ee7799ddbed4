"""`tracekit ls`."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest

from cli.conftest import FAST, SLOW, START


def ids(result) -> list[str]:
    assert result.exit_code == 0, result.output
    return [trace["trace_id"] for trace in json.loads(result.stdout)]


HEX = [f"{FAST:032x}", f"{SLOW:032x}"]


def test_the_newest_trace_is_first(tracekit, store: Path) -> None:
    lines = tracekit("ls", "--store", str(store)).stdout.splitlines()
    assert [line[:8] for line in lines[1:]] == [text[:8] for text in HEX]


def test_a_line_says_when_how_long_how_much_and_through_which_services(
    tracekit, store: Path
) -> None:
    line = tracekit("ls", "--store", str(store)).stdout.splitlines()[2]
    assert line.split()[2:] == "1.00 s 2 1 shop ▸ POST /checkout + payment".split()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], HEX),
        (["--limit", "1"], HEX[:1]),
        (["--errors"], HEX[1:]),
        (["--min-duration", "0.5s"], HEX[1:]),
        (["--min-duration", "2s"], []),
        (["--service", "payment"], HEX),
        (["--service", "nobody"], []),
        (["--name", "POST /pay"], HEX),
        (["--since", "5m"], []),
        (["--slowest"], HEX[::-1]),
    ],
)
def test_options_choose_what_is_listed(
    tracekit, store: Path, options: list[str], expected: list[str]
) -> None:
    assert ids(tracekit("ls", "--json", "--store", str(store), *options)) == expected


def test_since_takes_a_moment(tracekit, store: Path) -> None:
    between = datetime.fromtimestamp(START / 1e9 + 5).isoformat()
    assert ids(tracekit("ls", "--json", "--store", str(store), "--since", between)) == HEX[:1]


def test_the_path_of_the_store_comes_from_the_environment(tracekit, store: Path) -> None:
    assert ids(tracekit("ls", "--json", env={"TRACEKIT_STORE": str(store)})) == HEX


@pytest.mark.parametrize("words", [["--since", "soon"], ["--min-duration", "5"], ["--limit", "0"]])
def test_a_value_that_cannot_be_read_is_a_usage_error(tracekit, words: list[str]) -> None:
    assert tracekit("ls", *words).exit_code == 2


def test_nothing_that_matches_is_no_error_but_said(tracekit, store: Path) -> None:
    result = tracekit("ls", "--store", str(store), "--service", "nobody")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.count("\n") == 1
