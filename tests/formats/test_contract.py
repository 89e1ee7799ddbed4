"""What holds for every format of trace files: whole files, half-broken ones, and any bytes."""

from __future__ import annotations

import gzip
import io
import json
import random
import re
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from exporters.made import checkout
from formats.written import one_line, read, spans_in, written
from store.records import told
from tracekit.errors import UnknownNameError
from tracekit.formats._reading import TraceFile, format_names

every_format = pytest.mark.parametrize("name", format_names())


def compared(spans: list[Any]) -> dict[int, dict[str, Any]]:
    """Return what every format keeps.

    Zipkin writes names in small letters, and of attributes the text. Datadog has the type of an
    error from its exception, and no name for a query beside its text.
    """
    return {span.context.span_id: told(span) | _kept_by_all(span) for span in spans}


def _kept_by_all(span: Any) -> dict[str, Any]:
    texts = {key: str(value) for key, value in span.attributes.items()}
    if "error.type" in texts:
        texts["error.type"] = texts["error.type"].rpartition(".")[2]
    return {"name": span.name.lower(), "attributes": texts}


SENT = compared(checkout())


@every_format
def test_a_trace_is_read_as_it_was_sent_to_the_server_that_wrote_the_file(name: str) -> None:
    file, spans = read(one_line(written(name)))
    assert compared(spans) == SENT
    assert (file.format, file.spans, file.unreadable) == (name, len(SENT), [])


@every_format
def test_it_does_not_matter_how_the_text_is_laid_out_or_packed(name: str) -> None:
    document = written(name)
    pretty = json.dumps(document, indent=2)
    layouts = [
        pretty.encode(),
        gzip.compress(pretty.encode()),
        b"\xef\xbb\xbf" + pretty.replace("\n", "\r\n").encode(),
        pretty.encode("utf-16"),
        json.dumps(document, ensure_ascii=True).encode(),
    ]
    for content in layouts:
        file, spans = read(content)
        assert compared(spans) == SENT
        assert file.unreadable == []


@every_format
def test_a_file_of_lines_is_read_line_by_line(name: str) -> None:
    file, spans = read(one_line(written(name)) + b"\n\n" + one_line(written(name)) + b"\n")
    assert (len(spans), file.unreadable) == (2 * len(SENT), [])


@every_format
def test_the_format_can_be_named(name: str) -> None:
    assert len(read(one_line(written(name)), name)[1]) == len(SENT)


@every_format
def test_of_another_format_nothing_is_read_and_that_is_said(name: str) -> None:
    other = next(each for each in format_names() if each != name)
    file, spans = read(one_line(written(other)), name)
    assert spans == []
    assert file.unreadable_count > 0


def test_an_unknown_format_is_an_error_that_says_which_there_are() -> None:
    with pytest.raises(UnknownNameError, match=r"Did you mean 'otlp_json'.*jaeger_json"):
        TraceFile(io.BytesIO(b""), "otlp")


# --- broken files


@every_format
def test_a_file_that_is_cut_off_gives_the_spans_before_the_cut_and_only_whole_ones(
    name: str,
) -> None:
    for content in (one_line(written(name)), json.dumps(written(name), indent=1).encode()):
        seen = 0
        for cut in sorted(random.sample(range(1, len(content) - 1), 60)):
            file, spans = read(content[:cut])
            assert file.unreadable, cut
            for span in compared(spans).values():
                # Who sent it stands behind the spans, in Jaeger's files.
                whole = SENT[span["context"].span_id] | {"resource": span["resource"]}
                assert span == whole
            assert len(spans) >= seen
            seen = len(spans)
        assert seen > 10


@every_format
def test_one_broken_span_costs_no_other(name: str) -> None:
    document = written(name)
    spans_in(document)[3]["x"] = "HERE"
    content = one_line(document).replace(b'"HERE"', b"nonsense, [}")
    file, spans = read(content)
    lost = set(SENT) - set(compared(spans))
    assert len(lost) <= 1 or file.lost_spans == 0
    content = one_line(document).replace(b'"HERE"', b"nonsense")
    file, spans = read(content)
    assert len(set(SENT) - set(compared(spans))) == 1
    assert file.unreadable_count == 1
    (said,) = file.unreadable
    assert said.column == content.index(b"nonsense") + 1


@every_format
@pytest.mark.parametrize("broken", [None, 5, "span", [], {}, {"traceId": "xyz", "id": 1}])
def test_what_is_no_span_among_spans_is_left_out(name: str, broken: Any) -> None:
    document = written(name)
    target = _list_of_spans(document)
    target.insert(1, broken)
    file, spans = read(one_line(document))
    assert compared(spans) == SENT
    # A writer that could not write a span leaves null, which is nobody's loss any more; and a list
    # in Zipkin's is a trace, here one without spans.
    is_nothing = broken is None or (name == "zipkin_json" and broken == [])
    assert file.lost_spans == (not is_nothing)


def _list_of_spans(document: Any) -> list[Any]:
    if isinstance(document, list):
        return spans_in(document)
    if "data" in document:
        spans: list[Any] = document["data"][0]["spans"]
        return spans
    found: list[Any] = document["resourceSpans"][0]["scopeSpans"][0]["spans"]
    return found


@every_format
def test_a_broken_line_costs_no_other_line(name: str) -> None:
    line = one_line(written(name))
    content = line + b"\n" + line[: len(line) // 2] + b"\nnonsense\n" + line + b"\n"
    file, spans = read(content)
    assert len(spans) >= 2 * len(SENT)
    assert {item.line for item in file.unreadable} & {2, 3}


@every_format
def test_damage_to_a_packed_file_is_said(name: str) -> None:
    content = gzip.compress(
        one_line(written(name)) + b"\n" + random.randbytes(100_000).hex().encode()
    )
    file, spans = read(content[:-20])
    assert len(spans) == len(SENT)
    assert file.unreadable_count


@every_format
def test_any_damage_is_survived(name: str) -> None:
    content = bytearray(one_line(written(name)))
    for _ in range(100):
        damaged = bytearray(content)
        for _ in range(random.randint(1, 5)):
            at = random.randrange(len(damaged))
            damaged[at : at + random.randint(0, 3)] = random.randbytes(random.randint(0, 3))
        read(bytes(damaged))
        read(bytes(damaged), name)


_HOLDS_NOTHING = re.compile(rb"[ \t\r\n\x1e]*(\[[ \t\r\n]*\][ \t\r\n\x1e]*)*").fullmatch
"""Empty lists: what a query for traces answers that found none."""


@given(st.binary(max_size=200) | st.text(alphabet='{}[]",:\\ntrue1e', max_size=60).map(str.encode))
@example(b"[]")
@example(b" []\n\x1e[ ]")
def test_any_bytes_are_survived(content: bytes) -> None:
    file, spans = read(content)
    assert spans == []
    assert (file.unreadable_count == 0) == bool(_HOLDS_NOTHING(content)) or file.format


@pytest.mark.parametrize("content", [b"[]", b'{"data": []}', b'{"resourceSpans": []}', b""])
def test_an_answer_without_a_trace_is_empty_and_not_broken(content: bytes) -> None:
    file, spans = read(content)
    assert (spans, file.unreadable) == ([], [])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@every_format
@given(data=st.data())
def test_a_field_that_makes_no_sense_costs_no_span(name: str, data: st.DataObject) -> None:
    document = written(name)
    span = spans_in(document)[0]
    identity = {"traceId", "traceID", "spanId", "spanID", "id", "timestamp"}
    identity |= {"trace_id", "span_id", "start"}
    field = data.draw(st.sampled_from(sorted(set(span) - identity)))
    span[field] = data.draw(json_values)
    file, spans = read(json.dumps(document, allow_nan=True).encode())
    assert set(compared(spans)) == set(SENT)
    assert file.unreadable == []


@pytest.mark.parametrize(
    "content",
    [b"[" * 300_000, b'{"a":' * 300_000, b"1" * 10_000, b'{"resourceSpans":[' + b"[" * 300_000],
)
def test_text_that_is_beyond_reason_is_said_and_over_quickly(content: bytes) -> None:
    file, spans = read(content)
    assert spans == []
    assert file.unreadable_count


# --- large files


@pytest.mark.slow
@every_format
def test_a_large_file_takes_little_memory(name: str) -> None:
    document = written(name)
    source = _Endless(document, name, 6_000_000)
    tracemalloc.start()
    try:
        spans = sum(1 for _ in TraceFile(source))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert spans >= 8000
    assert peak < 4_000_000


class _Endless(io.RawIOBase):
    """One document, whose array goes on with the same items."""

    def __init__(self, document: Any, name: str, size: int) -> None:
        self._parts = self._written(document, name, size)
        self._rest = b""

    def _written(self, document: Any, name: str, size: int) -> Iterator[bytes]:
        key = {"otlp_json": "resourceSpans", "jaeger_json": "data"}.get(name)
        items = document if key is None else document[key]
        inside = json.dumps(items)[1:-1].encode()
        yield b"[" if key is None else f'{{"{key}": ['.encode()
        for number in range(size // len(inside)):
            yield (b", " if number else b"") + inside
        yield b"]" if key is None else b"]}"

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._rest = self._rest or next(self._parts, b"")
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size
