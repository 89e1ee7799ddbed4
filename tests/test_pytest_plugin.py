"""The pytest plugin, as projects meet it: in a pytest of their own."""

from __future__ import annotations

import pytest

from tracekit.store.reader import StoreReader

pytest_plugins = ["pytester"]

SHOP = """
import tracekit

@tracekit.traced
def charge(amount):
    with tracekit.span("card", amount=amount):
        return "paid"
"""

QUIET = ("-p", "no:randomly", "-p", "no:xdist", "-p", "no:cacheprovider")


@pytest.fixture
def run(pytester: pytest.Pytester):
    """Run tests with a module `shop` beside them, in this process."""
    pytester.makepyfile(shop=SHOP)
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")

    def run(source: str, *options: str) -> pytest.RunResult:
        pytester.makepyfile(test_shop=source)
        return pytester.runpytest_inprocess(*QUIET, *options)

    return run


def text(result: pytest.RunResult) -> str:
    return "\n".join(result.outlines)


def test_a_test_reads_the_spans_that_it_made(run) -> None:
    result = run(
        """
        import shop

        def test_charging(spans):
            shop.charge(12.5)
            card = spans.one("card", amount=12.5)
            assert spans.parent_of(card).name == "charge"
            spans.assert_tree('''
                charge
                  card
            ''')
        """
    )
    result.assert_outcomes(passed=1)


def test_each_test_has_spans_of_its_own_and_nothing_is_left(run) -> None:
    result = run(
        """
        import shop, threading
        import tracekit

        before = threading.enumerate()

        def test_first(spans):
            shop.charge(1)
            assert len(spans) == 2

        def test_second(spans):
            assert len(spans) == 0
            shop.charge(2)
            assert spans.one("card").attributes == {"amount": 2}

        def test_without():
            with tracekit.span("x") as span:
                assert not span.is_recording()
            new = [thread.name for thread in threading.enumerate() if thread not in before]
            assert [name for name in new if "tracekit" in name] == []
        """,
    )
    result.assert_outcomes(passed=3)


def test_the_trace_of_a_failing_test_is_printed(run) -> None:
    result = run(
        """
        import shop

        def test_charging(spans):
            shop.charge(12.5)
            assert 0
        """
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*trace of this test*", "*charge*", "*card*"])


def test_a_passing_test_prints_nothing(run) -> None:
    result = run("import shop\ndef test_charging(spans):\n    shop.charge(1)\n", "-rA")
    assert "trace of this test" not in text(result)


def test_a_failed_assertion_says_what_is_there(run) -> None:
    result = run(
        """
        import shop

        def test_charging(spans):
            shop.charge(12.5)
            spans.one("card", amount=5)
        """
    )
    result.stdout.fnmatch_lines(
        [
            "E *expected one span with name='card', amount=5, found none",
            "E *closest: 'card' has amount=12.5",
            "E *captured 2 spans:",
            "E *  charge*",
            "E *    card*amount=12.5",
        ]
    )
    assert "def one(" not in text(result), "the plugin's own code is not part of the traceback"


def test_the_programs_own_configuration_goes_on(run, pytester: pytest.Pytester) -> None:
    """Its exporters get the spans as well, and stay when a test that looked at them is over."""
    result = run(
        """
        import tracekit
        from tracekit.exporters.memory import InMemorySpanExporter

        exporter = InMemorySpanExporter()
        tracekit.configure("shop", exporters=[exporter])

        def test_looking(spans):
            with tracekit.span("a"):
                pass
            assert spans.one("a").resource.attributes["service.name"] == "shop"

        def test_afterwards():
            with tracekit.span("b"):
                pass
            tracekit.flush()
            assert [span.name for span in exporter.get_finished_spans()] == ["a", "b"]
        """
    )
    result.assert_outcomes(passed=2)


# --- a trace for each test


@pytest.fixture
def stored(tmp_path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "traces.db"
    monkeypatch.setenv("TRACEKIT_STORE", str(path))

    def read() -> dict[str, list]:
        with StoreReader(path) as reader:
            found = [reader.trace(each.trace_id) for each in reader.traces(100)]
        return {trace[0].name: trace for trace in found}

    return read


TWO = """
import shop

def test_one():
    shop.charge(1)

def test_two():
    assert shop.charge(2) == "free"
"""


def test_with_the_option_each_test_has_a_trace_in_the_store(run, stored) -> None:
    result = run(TWO, "--tracekit-tests")
    result.assert_outcomes(passed=1, failed=1)
    traces = stored()
    assert set(traces) == {"test_shop.py::test_one", "test_shop.py::test_two"}
    one, two = traces["test_shop.py::test_one"], traces["test_shop.py::test_two"]
    assert [span.name for span in one[1:]] == ["charge", "card"]
    assert one[1].parent.span_id == one[0].context.span_id
    assert one[0].attributes["test.case.result.status"] == "pass"
    assert one[0].attributes["code.line.number"] == 3
    assert one[0].resource.attributes["service.name"] == "pytest"
    assert two[0].attributes["test.case.result.status"] == "fail"
    assert two[0].events[0].attributes["exception.type"] == "AssertionError"


def test_with_the_option_a_failing_test_prints_its_trace(run, stored) -> None:
    result = run(TWO, "--tracekit-tests")
    result.stdout.fnmatch_lines(["*trace of this test*", "*test_two*", "*charge*"])
    assert "test_shop.py::test_one  " not in text(result).partition("FAILURES")[2]


def test_the_setting_does_what_the_option_does(run, stored) -> None:
    run(TWO, "-o", "tracekit_tests=true")
    assert len(stored()) == 2


def test_a_marker_asks_for_one_test(run, stored) -> None:
    source = TWO.replace("def test_one", "@pytest.mark.tracekit_trace\ndef test_one")
    run(f"import pytest\n{source}", "--strict-markers")
    assert set(stored()) == {"test_shop.py::test_one"}


def test_the_fixture_leaves_the_span_of_the_test_out(run, stored) -> None:
    result = run(
        """
        import shop

        def test_charging(spans):
            shop.charge(1)
            assert [span.name for span in spans.roots()] == ["charge"]
            assert spans.one("charge", parent=None)
            assert len(spans) == 2
        """,
        "--tracekit-tests",
    )
    result.assert_outcomes(passed=1)
    assert len(stored()["test_shop.py::test_charging"]) == 3


def test_a_failing_fixture_is_printed_with_what_led_to_it(run, stored) -> None:
    result = run(
        """
        import pytest, shop

        @pytest.fixture
        def paid():
            shop.charge(1)
            raise OSError("no network")

        def test_it(paid):
            pass
        """,
        "--tracekit-tests",
    )
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*trace of this test*", "*charge*"])
    assert stored()["test_shop.py::test_it"][0].attributes["test.case.result.status"] == "fail"


ASYNC = """
import asyncio, pytest, shop

async def work():
    await asyncio.sleep(0)
    shop.charge(1)
"""


def test_asynchronous_tests_of_pytest_asyncio_are_in_their_trace(run, stored) -> None:
    """With one loop for all, made long before the second test."""
    tests = "".join(
        f"\n@pytest.mark.asyncio(loop_scope='module')\nasync def test_{name}():\n    await work()\n"
        for name in ("a", "b")
    )
    result = run(ASYNC + tests, "--tracekit-tests")
    result.assert_outcomes(passed=2)
    assert {name: len(trace) for name, trace in stored().items()} == {
        "test_shop.py::test_a": 3,
        "test_shop.py::test_b": 3,
    }


def test_asynchronous_tests_of_anyio_are_in_their_trace(run, stored) -> None:
    tests = """
@pytest.fixture(scope="module")
def anyio_backend():
    return "asyncio"

@pytest.fixture(scope="module", autouse=True)
async def loop_that_lives_for_the_module(anyio_backend):
    yield

@pytest.mark.anyio
async def test_a():
    await work()

@pytest.mark.anyio
async def test_b():
    await work()
"""
    result = run(ASYNC + tests, "--tracekit-tests", "-p", "no:asyncio")
    result.assert_outcomes(passed=2)
    assert {len(trace) for trace in stored().values()} == {3}


@pytest.mark.slow
def test_under_xdist_every_test_has_its_trace_and_failures_are_printed(
    pytester: pytest.Pytester, stored
) -> None:
    pytester.makepyfile(shop=SHOP, test_shop=TWO)
    result = pytester.runpytest_subprocess("-p", "no:randomly", "-n", "2", "--tracekit-tests")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*trace of this test*", "*charge*"])
    assert len(stored()) == 2


# --- not used


def test_a_run_that_does_not_use_it_imports_nothing_of_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_nothing():
            names = [n for n in sys.modules if n.partition(".")[0] in ("tracekit", "opentelemetry")]
            assert names == []
        """
    )
    result = pytester.runpytest_subprocess(*QUIET)
    result.assert_outcomes(passed=1)


def test_the_option_and_the_fixture_are_explained(run) -> None:
    assert "--tracekit-tests" in text(run("", "--help"))
    assert "The spans that this test makes" in text(run("", "--fixtures"))
