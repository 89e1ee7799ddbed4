"""`tracekit findings`, `tracekit top`, `tracekit diff`, and what `tracekit show` flags."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest
from opentelemetry.trace import SpanKind

from findings.made import EPOCH, FAULTS, MS, NOISES, Scene, faulty, healthy
from tracekit.exporters._otlp_json import encode
from tracekit.store.writer import StoreWriter
from tracekit.testing import build_span


def written(path: Path, *traces) -> Path:
    writer = StoreWriter(path, max_age_s=1e12)
    for spans in traces:
        writer.write(spans)
    writer.close()
    return path


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A store with three healthy traces, and as the latest one that reads the same row."""
    return written(
        tmp_path / "traces.db",
        *(healthy(seed) for seed in range(3)),
        faulty("same_row_by_three", 2, NOISES["none"], 4),
    )


def test_the_latest_trace_is_told_with_cost_and_advice(tracekit, tmp_path) -> None:
    store = written(tmp_path / "t.db", faulty("same_row_by_three", 2, NOISES["none"], 4))
    told = tracekit("findings", "--store", str(store), color=False).stdout
    assert told.startswith("orders ▸ POST /orders  ")
    assert "1. redundant_calls" in told
    assert "was asked 3 times by auth, cart and profile" in " ".join(told.split())
    assert "do  Pass the answer on with the request" in told


def test_json_has_everything(tracekit, shop) -> None:
    found = json.loads(tracekit("findings", "--json", "--store", str(shop)).stdout)
    first = next(item for item in found if item["kind"] == "redundant_calls")
    assert first["severity"] in ("high", "medium")
    assert 0 < first["share"] < 1
    assert len(first["spans"]) == 3
    assert len(first["trace_id"]) == 32


def test_nothing_wrong_is_said_too(tracekit, tmp_path) -> None:
    store = written(tmp_path / "t.db", healthy(1))
    assert "Nothing is wrong with it." in tracekit("findings", "--store", str(store)).stdout


def test_many_traces_are_told_by_the_time_they_waste(tracekit, tmp_path) -> None:
    faults = ["slow_query", "slow_query", "same_row_by_one", "fails_itself"]
    store = written(
        tmp_path / "t.db",
        *(faulty(name, 1, NOISES["none"], seed) for seed, name in enumerate(faults)),
    )
    words = ("findings", "--service", "orders", "--store", str(store))
    told = tracekit(*words, color=False).stdout
    lines = [line.split() for line in told.splitlines() if "trace" in line and "▸" in line]
    assert [line[4] for line in lines] == ["slow_step", "redundant_calls", "first_failure"]
    assert told.startswith("3 findings in 4 traces")
    found = json.loads(tracekit(*words, "--json").stdout)
    assert found[0]["traces"] == 2
    assert found[0]["endpoints"] == {"orders ▸ POST /orders": 2}


@pytest.mark.parametrize(
    ("unwanted", "code"),
    [
        ("redundant_calls", 1),
        ("retries, redundant_calls", 1),
        ("any", 1),
        ("retries", 0),
    ],
)
def test_a_pipeline_can_fail_on_findings(tracekit, shop, unwanted: str, code: int) -> None:
    words = ("findings", "--endpoint", "POST /orders", "--fail-on", unwanted)
    assert tracekit(*words, "--store", str(shop)).exit_code == code


def test_an_unknown_kind_is_refused_with_the_near_one(tracekit, shop) -> None:
    done = tracekit("findings", "--fail-on", "retry", "--store", str(shop))
    assert done.exit_code == 1
    assert "Did you mean 'retries'?" in done.stderr


def test_a_trace_and_a_filter_exclude_each_other(tracekit, shop) -> None:
    done = tracekit("findings", "last", "--since", "1h", "--store", str(shop))
    assert done.exit_code == 2
    assert "not both" in done.stderr


def test_findings_of_a_file_need_no_store(tracekit, tmp_path) -> None:
    path = tmp_path / "trace.json"
    path.write_text(json.dumps(encode(faulty("retried_in_vain", 1, NOISES["none"], 5))))
    found = json.loads(tracekit("findings", "--file", str(path), "--json").stdout)
    assert found[0]["kind"] in ("retries", "first_failure")


def test_of_half_a_file_what_can_be_read_is_told_to_be_a_part(tracekit, tmp_path) -> None:
    path = tmp_path / "trace.jsonl"
    whole = json.dumps(encode(faulty("retried_in_vain", 1, NOISES["none"], 5)))
    path.write_text(f"{whole}\n{whole[: len(whole) // 2]}")
    done = tracekit("findings", "--file", str(path), "--json")
    assert "retries" in {item["kind"] for item in json.loads(done.stdout)}
    assert f"{path}: partial: " in done.stderr


@pytest.mark.parametrize("content", ["", "no traces", '{"a": 1}'])
def test_a_file_of_something_else_is_refused(tracekit, tmp_path, content: str) -> None:
    path = tmp_path / "other"
    path.write_text(content)
    done = tracekit("findings", "--file", str(path))
    assert done.exit_code == 1
    assert f"there is no trace in {path}" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_store_that_is_not_there_is_said(tracekit, tmp_path) -> None:
    done = tracekit("findings", "--store", str(tmp_path / "none.db"))
    assert done.exit_code == 1
    assert "there is no span store" in done.stderr


def test_show_flags_the_spans_that_prove_it(tracekit, shop) -> None:
    trace = json.loads(tracekit("findings", "--json", "--store", str(shop)).stdout)[0]
    words = ("show", trace["trace_id"], "--store", str(shop))
    told = tracekit(*words, color=False).stdout
    assert told.count("⚑1") == 1 + len(trace["spans"])
    assert "what is wrong" in told
    assert "⚑" not in tracekit(*words, "--no-findings", color=False).stdout


def test_top_lists_endpoints_with_percentiles_and_findings(tracekit, shop) -> None:
    (row,) = json.loads(tracekit("top", "--json", "--store", str(shop)).stdout)
    assert (row["service"], row["name"], row["traces"]) == ("orders", "POST /orders", 4)
    assert row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"]
    assert row["findings"]["redundant_calls"] == 1
    table = tracekit("top", "--store", str(shop), color=False).stdout
    assert "orders ▸ POST /orders" in table


def test_diff_of_two_traces_says_what_came(tracekit, tmp_path) -> None:
    fine, slow = healthy(1), faulty("slow_query", 1, NOISES["none"], 2)
    store = written(tmp_path / "t.db", fine, slow)
    ids = [f"{spans[0].context.trace_id:032x}" for spans in (slow, fine)]
    told = json.loads(tracekit("diff", *ids, "--json", "--store", str(store)).stdout)
    assert told["steps"][0]["name"] == "SELECT reports"
    assert told["steps"][0]["usual_spans"] == 0


def test_diff_of_slow_and_other_traces_says_what_is_common(tracekit, tmp_path) -> None:
    store = written(
        tmp_path / "t.db",
        *(healthy(seed) for seed in range(6)),
        *(faulty("slow_outside", 1, NOISES["none"], seed) for seed in range(100, 103)),
    )
    words = ("diff", "--slower-than", "500ms", "--store", str(store))
    told = json.loads(tracekit(*words, "--json").stdout)
    assert told["traces"] == [3, 6]
    assert {"key": "server.address", "value": "tax.example", "share": 1.0, "usual_share": 0.0} in [
        *told["attributes"]
    ]
    assert "tax.example" in tracekit(*words, color=False).stdout


@pytest.mark.parametrize(
    "words", [["one"], [], ["a", "b", "--failed"], ["--failed", "--slower-than", "1s"]]
)
def test_diff_wants_one_way_to_part_traces(tracekit, shop, words) -> None:
    done = tracekit("diff", *words, "--store", str(shop))
    assert done.exit_code == 2
    assert "two traces" in done.stderr


def test_diff_of_an_empty_set_is_said(tracekit, shop) -> None:
    done = tracekit("diff", "--slower-than", "1h", "--store", str(shop))
    assert done.exit_code == 1
    assert "the first of the two sets holds no trace" in done.stderr


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_told_without_trouble(tracekit, tmp_path, name: str) -> None:
    store = written(tmp_path / "t.db", faulty(name, 1, NOISES["none"], 1))
    done = tracekit("findings", "--store", str(store), color=False)
    assert done.exit_code == 0
    assert "1. " in done.stdout


# Places --------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of OTLP JSON, a trace a line: six healthy ones and then three that are slow."""
    path = tmp_path / "traces.jsonl"
    slow = [faulty("slow_outside", 1, NOISES["none"], seed) for seed in range(100, 103)]
    made = [*(healthy(seed) for seed in range(6)), *slow]
    path.write_text("".join(f"{json.dumps(encode(spans))}\n" for spans in made))
    return path


def test_top_of_a_file_needs_no_store(tracekit, file) -> None:
    (row,) = json.loads(tracekit("top", "--file", str(file), "--json").stdout)
    assert (row["service"], row["traces"], row["per_minute"]) == ("orders", 9, 9.0)
    assert row["findings"] == {"slow_step": 3}
    assert len(row["worst"]) == 3


def test_diff_of_a_file_needs_no_store(tracekit, file) -> None:
    words = ("diff", "--slower-than", "500ms", "--file", str(file))
    told = json.loads(tracekit(*words, "--json").stdout)
    assert told["traces"] == [3, 6]
    assert told["steps"][0]["name"] == "POST /v1"
    ids = json.loads(tracekit("top", "--file", str(file), "--json").stdout)[0]["worst"][:2]
    assert "mean duration" in tracekit("diff", *ids, "--file", str(file), color=False).stdout


def test_show_of_a_file_needs_no_store(tracekit, file) -> None:
    row = json.loads(tracekit("top", "--file", str(file), "--json").stdout)[0]
    told = tracekit("show", row["worst"][0], "--file", str(file), color=False).stdout
    assert told.startswith(f"trace {row['worst'][0]}")
    assert "⚑1 slow_step" in told
    assert tracekit("show", "--file", str(file)).exit_code == 0


def test_more_digits_are_asked_for_where_two_traces_begin_alike(tracekit, tmp_path) -> None:
    path = tmp_path / "traces.jsonl"
    made = (build_span("x", trace_id=0xABC << 116 | number) for number in (1, 2))
    path.write_text("".join(f"{json.dumps(encode([span]))}\n" for span in made))
    done = tracekit("show", "abc", "--file", str(path))
    assert done.exit_code == 1
    assert f"2 traces in {path} begin with abc: give more digits" in done.stderr


@pytest.mark.parametrize("command", ["findings", "top", "diff", "show"])
def test_one_place_is_asked_at_a_time(tracekit, shop, command: str) -> None:
    words = ("--store", str(shop), "--from", "jaeger:http://localhost:1")
    done = tracekit(command, *(["--failed"] if command == "diff" else []), *words)
    assert done.exit_code == 2
    assert "give one of --from, --file and --store" in done.stderr


@pytest.mark.parametrize("command", ["findings", "top", "diff", "show"])
def test_a_server_that_is_down_is_one_message(tracekit, command: str) -> None:
    words = [command, "--from", "jaeger:http://127.0.0.1:1"]
    done = tracekit(*words, *(["--failed"] if command == "diff" else []))
    assert done.exit_code == 1
    assert done.stderr == "Error: http://127.0.0.1:1 cannot be asked: Connection refused\n"


def test_diff_parts_traces_at_a_deploy(tracekit, tmp_path) -> None:
    store = written(
        tmp_path / "t.db",
        *(moved(healthy(seed), -3600) for seed in range(4)),
        *(moved(faulty("slow_query", 1, NOISES["none"], seed), 60) for seed in range(10, 13)),
    )
    moment = datetime.fromtimestamp(EPOCH / 1e9, timezone.utc).isoformat()
    words = ("diff", "--deploy", moment, "--store", str(store), "--json")
    told = json.loads(tracekit(*words).stdout)
    assert told["traces"] == [3, 4]
    assert told["steps"][0]["name"] == "SELECT reports"


def moved(spans, by_s: int):
    shift = by_s * 1_000_000_000
    return [
        replace(span, start_time=span.start_time + shift, end_time=span.end_time + shift)
        for span in spans
    ]


def test_a_method_alone_has_no_history(tracekit, tmp_path) -> None:
    """Calls to somebody fast say nothing about a call of the same name to somebody slow."""

    def visit(number: int, ms: int, host: str):
        scene = Scene(number)
        with scene.span("shop", "GET /", SpanKind.SERVER):
            scene.outside("shop", host, ms, "GET")
        return scene.records()

    fast = [visit(number, 2, "cache.example") for number in range(30)]
    store = written(tmp_path / "t.db", *fast, moved(visit(99, 200, "bank.example"), 60))
    found = json.loads(tracekit("findings", "--json", "--store", str(store)).stdout)
    assert "GET /v1" not in {item["operation"] for item in found}


def test_top_says_how_long_was_waited_and_not_how_long_the_trace_went_on(
    tracekit, tmp_path
) -> None:
    answer = build_span("GET /", trace_id=1, span_id=1, start_time=EPOCH, duration_ns=100 * MS)
    after = build_span("mail", trace_id=1, span_id=2, parent_id=1, start_time=EPOCH + 50 * MS)
    store = written(tmp_path / "t.db", [answer, replace(after, end_time=EPOCH + 900 * MS)])
    (row,) = json.loads(tracekit("top", "--store", str(store), "--json").stdout)
    assert row["p50_ms"] == 100


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("words", [["findings"], ["findings", "--since", "2020-01-01"], ["top"]])
def test_no_line_is_wider_than_the_terminal(tracekit, shop, width: int, words: list[str]) -> None:
    told = tracekit(*words, "--store", str(shop), env={"COLUMNS": str(width)}).stdout
    assert max(map(len, told.splitlines())) <= width


def test_what_is_usual_is_taken_from_the_newest_spans_of_a_large_store(tmp_path) -> None:
    from tracekit.store.reader import StoreReader

    store = written(tmp_path / "t.db", *(healthy(seed) for seed in range(30)))
    with StoreReader(store) as reader:
        all_spans = sum(found.count for found in reader.operations())
        newest = sum(found.count for found in reader.operations(most_spans=50))
    assert 50 <= newest < all_spans


def test_that_no_trace_is_as_wanted_is_said(tracekit, shop, file) -> None:
    for place in (("--store", str(shop)), ("--file", str(file))):
        done = tracekit("findings", "--service", "nobody", *place)
        assert done.exit_code == 1
        assert "no such trace" in done.stderr or "no trace of the store" in done.stderr
        assert "No trace is like that" in tracekit("top", "--service", "nobody", *place).stderr
