"""A trace as text, read as a person reads it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporters.made import (
    EPOCH,
    HOSTILE_SPANS,
    MS,
    UNREADABLE_SPANS,
    checkout,
    made,
)
from tracekit.exporters._terminal import Terminal, columns
from tracekit.exporters._tree import render_tree
from tracekit.model import Event
from tracekit.trace import format_duration

CHECKOUT = """\
trace 4bf92f3577b34da6a3ce929d0e0e4736  3.02 s · 22 spans · 4 services · 1 error
                                                              total     self
gateway ▸ POST /checkout  200                                3.02 s  9.00 ms  ▕░░░░░░░░░░░░░░░░░░░░▏
├─ POST  auth:8001/verify  200                              31.0 ms  4.00 ms  ▕░                   ▏
│  └─ auth ▸ POST /verify  200                              27.0 ms  2.00 ms  ▕░                   ▏
│     └─ check password  user.id=42                         25.0 ms           ▕█                   ▏
└─ POST  orders:8002/orders  200                             2.98 s  5.00 ms  ▕░░░░░░░░░░░░░░░░░░░░▏
   └─ orders ▸ POST /orders  200                             2.98 s  21.0 ms  ▕░░░░░░░░░░░░░░░░░░░░▏
      ├─ 12× SELECT items  mean 2.00 ms, max 2.00 ms        24.0 ms           ▕█                   ▏
      └─ POST  payment:8003/pay  402                         2.93 s  5.00 ms  ▕░░░░░░░░░░░░░░░░░░░░▏
         └─ payment ▸ POST /pay  402                         2.92 s  25.0 ms  ▕░░░░░░░░░░░░░░░░░░░░▏
            ├─ charge card  amount=12.5  currency=EUR       50.0 ms           ▕█                   ▏
            └─ POST  fraud:8004/score                        2.85 s   2.85 s  ▕████████████████████▏
                  ✗ requests.exceptions.ReadTimeout: HTTPConnectionPool(host='fraud', port=8004): R…
most time in payment ▸ POST  fraud:8004/score  2.85 s (94 %)
"""


def test_the_slow_step_of_a_checkout_is_plain_to_see() -> None:
    assert render_tree(checkout()) == CHECKOUT


def names(text: str) -> list[str]:
    """Return the labels of the spans, without the columns to their right."""
    _, headings, *rows = text.splitlines()
    width = headings.index("total") + len("total") - 9
    return [row[:width].rstrip() for row in rows if "▕" in row]


def labels(*spans: Any, **options: Any) -> list[str]:
    return names(render_tree(spans, **options))


# --- who is below whom


def test_siblings_are_in_order_of_their_start() -> None:
    found = labels(made(1, "root"), made(3, "second", 1, 2), made(2, "first", 1, 1))
    assert found == ["shop ▸ root", "├─ first", "└─ second"]


def test_the_service_is_said_where_it_changes() -> None:
    found = labels(
        made(1, "a", service="x"), made(2, "b", 1, service="x"), made(3, "c", 2, service="y")
    )
    assert found == ["x ▸ a", "└─ b", "   └─ y ▸ c"]


def test_spans_of_an_absent_parent_are_below_a_stand_in_for_it() -> None:
    found = labels(
        made(1, "root"), made(2, "orphan", 9, 1), made(3, "twin", 9, 2), made(4, "other", 8, 3)
    )
    assert found == [
        "shop ▸ root",
        "(missing parent 0000000000000009)",
        "├─ shop ▸ orphan",
        "└─ shop ▸ twin",
        "(missing parent 0000000000000008)",
        "└─ shop ▸ other",
    ]


def test_where_a_trace_comes_in_is_no_orphan() -> None:
    found = render_tree([made(2, "served", 9, parent_is_remote=True)])
    assert "missing" not in found
    assert "served  remote parent 0000000000000009" in found


def test_spans_that_are_each_others_parents_are_all_shown() -> None:
    found = labels(made(1, "a", 3), made(2, "b", 1), made(3, "c", 2), made(4, "self", 4, 1))
    assert found == [
        "shop ▸ a  its own ancestor",
        "└─ b",
        "   └─ c",
        "shop ▸ self  its own ancestor",
    ]


def test_spans_of_equal_ids_are_all_shown() -> None:
    found = labels(made(1, "root"), made(2, "one", 1), made(2, "two", 1, 1), made(3, "x", 2))
    assert found == ["shop ▸ root", "├─ one", "│  └─ x", "└─ two"]


def test_each_trace_is_by_itself() -> None:
    text = render_tree([made(1, "a"), made(1, "b", trace_id=7), made(2, "c", 1)])
    first, second = text.split("\n\n")
    assert "2 spans" in first
    assert second.startswith(f"trace {7:032x}")


def test_no_spans_are_no_text() -> None:
    assert render_tree([]) == ""


@given(
    st.lists(
        st.tuples(st.integers(1, 9), st.integers(0, 12), st.integers(0, 20), st.integers(-5, 20)),
        max_size=25,
    )
)
def test_every_span_is_on_a_line_of_its_own_whoever_its_parent_is(rows: Any) -> None:
    spans = [made(own, f"n{i}", up or None, at, of) for i, (own, up, at, of) in enumerate(rows)]
    found = re.findall(r"\bn\d+\b", render_tree(spans, collapse=False, width=200))
    if found and len(found) > len(spans):
        found.pop()  # the last line names the slowest once more
    assert sorted(found) == sorted(span.name for span in spans)


# --- times


def self_time(spans: Any, name: str) -> str:
    (line,) = [line for line in render_tree(spans).splitlines() if name in line and "▕" in line]
    return re.findall(r"[\d.]+ [nµm]?s", line)[1]


def test_self_time_is_what_no_child_covers() -> None:
    spans = [
        made(1, "root", None, 0, 100),
        made(2, "a", 1, 10, 30),
        made(3, "overlaps a", 1, 20, 30),
        made(4, "outlives it", 1, 90, 50),
    ]
    assert self_time(spans, "root") == "50.0 ms"


def test_a_bar_shows_when_a_span_ran_and_when_it_waited() -> None:
    text = render_tree([made(1, "root", None, 0, 100), made(2, "half", 1, 50, 50)], width=100)
    assert "▕██████████░░░░░░░░░░▏" in text
    assert "▕          ██████████▏" in text


def test_a_span_that_never_ended_is_said_so_and_lasts_to_the_end() -> None:
    text = render_tree([made(1, "root", None, 0, 100), made(2, "open", 1, 50, None)])
    (line,) = [line for line in text.splitlines() if "open" in line and "▕" in line]
    assert "open  unfinished" in line
    assert "50.0 ms" in line


@pytest.mark.parametrize(
    ("duration_ns", "text"),
    [
        (0, "0 ns"),
        (999, "999 ns"),
        (1_000, "1.00 µs"),
        (12_345, "12.3 µs"),
        (999_499, "999 µs"),
        (999_999, "1.00 ms"),
        (9_999_999, "10.0 ms"),
        (2_850_000_000, "2.85 s"),
        (99_940_000_000, "99.9 s"),
        (100_000_000_000, "1m 40s"),
        (3_599_600_000_000, "1h 00m"),
        (90_061_000_000_000, "25h 01m"),
    ],
)
def test_durations_have_three_digits_and_a_unit(duration_ns: int, text: str) -> None:
    assert format_duration(duration_ns) == text


# --- errors and facts


def test_an_error_tells_its_exception() -> None:
    event = Event("exception", {"exception.type": "ValueError", "exception.message": "no\ncart"})
    text = render_tree([made(1, "root", events=(event,), error="ignored")])
    assert "   ✗ ValueError: no cart" in text.splitlines()


def test_an_error_without_an_exception_tells_its_description() -> None:
    assert "   ✗ card declined" in render_tree([made(1, error="card declined")]).splitlines()


def test_an_error_line_keeps_the_tree_joined() -> None:
    spans = [
        made(1, "root"),
        made(2, "a", 1, 1, error="no"),
        made(3, "b", 2, 2),
        made(4, "c", 1, 3),
    ]
    assert "│  │  ✗ no" in render_tree(spans).splitlines()


@pytest.mark.parametrize(
    ("attributes", "facts"),
    [
        ({"cart": 42, "url.path": "/x", "http.response.status_code": 500}, "/x  500  cart=42"),
        ({"http.route": "/c/{id}", "url.path": "/c/1"}, ""),
        ({"url.full": "http://user:pw@host:1/p?token=x"}, "host:1/p"),
        ({"http.request.resend_count": 2}, "resend 2"),
        ({"db.query.text": "SELECT\n  1"}, "SELECT 1"),
        ({"messaging.destination.name": "orders"}, "orders"),
        ({"thread.id": 1, "code.function.name": "f", "server.port": 80}, ""),
        ({"a": 1, "b": True, "c": "x", "d": 4}, "a=1  b=True  c=x"),
    ],
)
def test_key_attributes_stand_beside_the_name(attributes: dict[str, Any], facts: str) -> None:
    (label,) = labels(made(1, "work", attributes=attributes), width=160)
    assert label == f"shop ▸ work  {facts}".rstrip()


# --- repeats


def test_four_equal_siblings_are_one_line_with_their_sum() -> None:
    spans = [made(1, "root", None, 0, 100)]
    spans += [made(2 + n, "query", 1, 10 * n, 5 + n) for n in range(4)]
    text = render_tree(spans)
    assert "└─ 4× query  mean 6.50 ms, max 8.00 ms" in text
    assert "26.0 ms" in text
    assert "5 spans" in text


def test_three_equal_siblings_are_three_lines() -> None:
    spans = [made(1, "root")] + [made(2 + n, "query", 1) for n in range(3)]
    assert labels(*spans)[1:] == ["├─ query", "├─ query", "└─ query"]


def test_repeats_stand_where_the_first_of_them_was() -> None:
    spans = [made(1, "root"), made(9, "other", 1, 2)]
    spans += [made(2 + n, "query", 1, 1 + 2 * n) for n in range(5)]
    found = labels(*spans)
    assert found[1].startswith("├─ 5× query")
    assert found[2] == "└─ other"


def test_what_is_below_equal_siblings_is_gathered_as_well() -> None:
    spans = [made(1, "root")]
    for n in range(4):
        spans += [made(10 + n, "call", 1, n), made(20 + n, "served", 10 + n, n, service="stock")]
    found = labels(*spans)
    assert found[1].startswith("└─ 4× call")
    assert found[2].startswith("   └─ 4× stock ▸ served")


def test_a_failed_sibling_is_not_hidden_among_the_others() -> None:
    spans = [made(1, "root"), made(9, "query", 1, 9, error="locked")]
    spans += [made(2 + n, "query", 1, n) for n in range(4)]
    text = render_tree(spans)
    assert "4× query" in text
    assert "✗ locked" in text


def test_repeats_are_written_out_on_request() -> None:
    spans = [made(1, "root")] + [made(2 + n, "query", 1) for n in range(9)]
    assert len(labels(*spans, collapse=False)) == 10


# --- large traces


def test_a_trace_ten_thousand_deep_is_shown_with_its_depth() -> None:
    spans = [made(n, f"call {n}", n - 1 or None) for n in range(1, 10_001)]
    text = render_tree(spans)
    assert "┆9999 call 10000" in text
    assert max(columns(line) for line in text.splitlines()) <= 100


def test_a_trace_fifty_thousand_wide_is_cut_where_asked_and_the_rest_counted() -> None:
    spans = [made(1, "root")] + [made(n, f"job {n}", 1) for n in range(2, 50_001)]
    lines = render_tree(spans, max_lines=10).splitlines()
    assert "… 49,990 more spans" in lines
    assert len(lines) <= 14


# --- where it is shown


@pytest.mark.parametrize("width", [40, 60, 72, 100, 200])
@pytest.mark.parametrize("unicode", [True, False])
def test_no_line_is_wider_than_the_terminal(width: int, unicode: bool) -> None:
    spans = [*checkout(), made(99, "日本語の名前" * 20, 1, attributes={"長い": "値" * 50})]
    text = render_tree(spans, width=width, unicode=unicode)
    assert max(columns(line) for line in text.splitlines()) <= width


def test_ascii_is_all_there_is_where_nothing_else_can_be_shown() -> None:
    assert render_tree(checkout(), unicode=False).isascii()


def test_colour_changes_no_character() -> None:
    plain = render_tree(checkout())
    painted = render_tree(checkout(), color=True)
    assert "\x1b[" in painted
    assert re.sub(r"\x1b\[[\d;]*m", "", painted) == plain


def test_names_from_outside_cannot_drive_the_terminal() -> None:
    spans = [
        made(1, "a\x1b[2J\r\nb", service="s\x07", attributes={"k\x1b": "\x9b31m"}),
        made(2, "b", 1, error="\x1b]0;title\x07"),
    ]
    text = render_tree(spans)
    assert "a\\x1b[2J\\r\\nb" in text
    assert all(char.isprintable() or char == "\n" for char in text)


@pytest.mark.parametrize("name", HOSTILE_SPANS)
def test_a_hostile_span_has_its_line(name: str) -> None:
    text = render_tree([made(5, "root", start_ms=0), HOSTILE_SPANS[name]])
    assert "2 spans" in text


def test_spans_that_cannot_be_read_are_left_out() -> None:
    unreadable = [UNREADABLE_SPANS[name] for name in ("context raises", "no context")]
    assert "1 span" in render_tree([made(1), *unreadable, object()])  # type: ignore[list-item]


def test_a_given_service_name_wins() -> None:
    assert labels(made(1, "work"), service_name="mine") == ["mine ▸ work"]


# --- what a stream can show


class Stream:
    def __init__(self, encoding: str | None = "utf-8", is_terminal: bool = False) -> None:
        self.encoding, self._is_terminal = encoding, is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "TERM"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_colour_is_for_terminals(environment: pytest.MonkeyPatch) -> None:
    assert Terminal.of(Stream(is_terminal=True)).color
    assert not Terminal.of(Stream()).color


@pytest.mark.parametrize(
    ("variables", "color"),
    [
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
        ({"NO_COLOR": "", "FORCE_COLOR": "1"}, True),
        ({"FORCE_COLOR": "0"}, False),
        ({"TERM": "dumb"}, False),
    ],
)
def test_the_environment_decides_about_colour(
    environment: pytest.MonkeyPatch, variables: dict[str, str], color: bool
) -> None:
    for name, value in variables.items():
        environment.setenv(name, value)
    assert Terminal.of(Stream(is_terminal=True)).color is color


def test_columns_are_those_of_the_environment(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("COLUMNS", "132")
    assert Terminal.of(Stream()).width == 132


@pytest.mark.parametrize(
    ("encoding", "unicode"), [("utf-8", True), ("ascii", False), ("latin-1", False), (None, True)]
)
def test_signs_are_those_that_the_encoding_has(encoding: str | None, unicode: bool) -> None:
    assert Terminal.of(Stream(encoding)).unicode is unicode


def test_a_stream_that_answers_nothing_is_plain(environment: pytest.MonkeyPatch) -> None:
    assert Terminal.of(object()) == Terminal(width=100, color=False, unicode=True)


def test_times_are_of_the_trace_not_of_the_clock() -> None:
    early = render_tree([made(1, start_ms=0), made(2, "x", 1, 1, 5)])
    late = render_tree(
        [
            made(1, start_ms=10**9),
            made(2, "x", 1, start_time=EPOCH + (10**9 + 1) * MS, end_time=EPOCH + (10**9 + 6) * MS),
        ]
    )
    assert early == late
