"""`tracekit import`."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from exporters.made import TRACE_ID, checkout
from formats.written import one_line, written
from store.records import told
from tracekit.formats._reading import format_names
from tracekit.store.reader import StoreReader


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "imported.db"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "traces.json"
    path.write_bytes(one_line(written("otlp_json")))
    return path


def stored(store: Path) -> dict[int, dict]:
    with StoreReader(store) as reader:
        return {span.context.span_id: told(span) for span in reader.trace(TRACE_ID)}


SENT = {span.context.span_id: told(span) for span in checkout()}


def test_a_file_is_in_the_store_afterwards(tracekit, file: Path, target: Path) -> None:
    result = tracekit("import", str(file), "--store", str(target))
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"{file}: {len(SENT)} spans (otlp_json)\n"
    assert stored(target) == SENT


@pytest.mark.parametrize("name", format_names())
def test_importing_twice_doubles_nothing(tracekit, tmp_path: Path, target: Path, name: str) -> None:
    path = tmp_path / "traces"
    path.write_bytes(one_line(written(name)))
    for _ in range(2):
        assert tracekit("import", str(path), "--store", str(target)).exit_code == 0
    with StoreReader(target) as reader:
        assert len(reader.trace(TRACE_ID)) == len(SENT)
        assert reader.stats().spans == len(SENT)


def test_standard_input_is_read_packed_or_not(tracekit, target: Path) -> None:
    packed = gzip.compress(one_line(written("jaeger_json")))
    result = tracekit("import", "-", "--store", str(target), input=packed)
    assert (result.exit_code, result.stdout) == (0, f"-: {len(SENT)} spans (jaeger_json)\n")


def test_of_a_broken_file_the_rest_is_imported_and_the_place_is_said(
    tracekit, tmp_path: Path, target: Path
) -> None:
    path = tmp_path / "traces.json"
    line = one_line(written("otlp_json"))
    path.write_bytes(line[:-400] + b"\n" + line)
    result = tracekit("import", str(path), "--store", str(target))
    assert result.exit_code == 1
    assert f"{path}:1:" in result.stderr
    assert "span lost)" in result.stderr
    assert stored(target) == SENT


def test_a_file_that_is_not_there_costs_no_other(tracekit, file: Path, target: Path) -> None:
    result = tracekit("import", "nowhere.json", str(file), "--store", str(target))
    assert result.exit_code == 1
    assert "nowhere.json: No such file" in result.stderr
    assert stored(target) == SENT


def test_a_file_without_a_span_is_no_success(tracekit, tmp_path: Path, target: Path) -> None:
    path = tmp_path / "empty"
    path.write_bytes(b"")
    assert tracekit("import", str(path), "--store", str(target)).exit_code == 1


def test_what_is_wrong_is_told_to_programs_too(tracekit, target: Path) -> None:
    content = b"nonsense\n" + one_line(written("zipkin_json"))
    result = tracekit("import", "-", "--json", "--store", str(target), input=content)
    (file,) = json.loads(result.stdout)["files"]
    assert (file["format"], file["spans"], file["unreadable_count"]) == ("zipkin_json", 22, 1)
    assert (file["unreadable"][0]["line"], file["unreadable"][0]["column"]) == (1, 1)


def test_thousands_of_faults_are_counted_and_the_first_are_shown(tracekit, target: Path) -> None:
    content = one_line(written("otlp_json")) + b"\n[1]" * 1000
    result = tracekit("import", "-", "--store", str(target), input=content)
    assert result.stderr.count("\n") == 21
    assert result.stderr.endswith("-: and 980 more\n")


def test_an_unknown_format_says_which_are_known(tracekit, file: Path) -> None:
    result = tracekit("import", "--format", "jaeger", str(file))
    assert result.exit_code == 1
    assert "Did you mean 'jaeger_json'?" in result.stderr
