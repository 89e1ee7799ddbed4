"""Sampling is changed while the program runs, and nothing is lost by it."""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

import tracekit
from tracekit import sampling as sampling_module
from tracekit.configure import _state, current_provider
from tracekit.errors import ConfigurationError
from tracekit.sdk import (
    ALWAYS_OFF,
    AdaptiveSampler,
    InMemorySpanExporter,
    ParentBased,
    SimpleSpanProcessor,
    TracerProvider,
)

WAIT_S = 10.0


@pytest.fixture
def exporter():
    return InMemorySpanExporter()


@pytest.fixture
def quick(monkeypatch):
    """Look ten times as often."""
    monkeypatch.setattr(sampling_module, "EVERY_S", 0.05)


@pytest.fixture
def watched(tmp_path, monkeypatch, quick):
    path = tmp_path / "tracekit.toml"
    monkeypatch.setenv("TRACEKIT_CONFIG", str(path))
    return path


def configured(exporter, **more):
    return tracekit.configure(exporters=exporter, schedule_delay_millis=20, **more)


def is_kept(name="n", **attributes):
    with tracekit.span(name, **attributes) as span:
        return span.is_recording()


def in_force():
    return tracekit.stats()["sampling"]


def eventually(condition):
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def written(path: Path, text: str) -> None:
    """Write the file at once, as editors and Kubernetes do."""
    new = path.with_suffix(".new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)


# By the program ----------------------------------------------------------------------------


def test_it_is_changed_and_changed_back(exporter):
    configured(exporter, sampler=0.0)
    assert not is_kept()
    tracekit.set_sampling(1.0)
    assert is_kept()
    tracekit.set_sampling()
    assert not is_kept()


def test_a_block_ends_it(exporter):
    configured(exporter, sampler=0.0)
    with tracekit.set_sampling(1.0) as change:
        assert is_kept()
    assert not is_kept()
    change.undo()
    assert not is_kept()


def test_blocks_nest_and_end_in_any_order(exporter):
    configured(exporter, sampler=0.0)
    one = tracekit.set_sampling("always_on")
    two = tracekit.set_sampling("always_off")
    three = tracekit.set_sampling("always_on")
    two.undo()
    assert is_kept()
    three.undo()
    assert is_kept()
    assert "AlwaysOn" in in_force()["sampler"]
    one.undo()
    assert not is_kept()


def test_calls_without_a_way_back_do_not_pile_up(exporter):
    configured(exporter)
    for _ in range(100):
        change = tracekit.set_sampling(0.5)
    depth = 0
    while change is not None:
        change, depth = change.before, depth + 1
    assert depth <= sampling_module.MAX_NESTING + 1


def test_it_ends_after_some_time(exporter, quick):
    configured(exporter, sampler=0.0)
    tracekit.set_sampling(1.0, for_s=0.3)
    assert is_kept()
    assert in_force()["until"] == pytest.approx(time.time() + 0.3, abs=0.3)
    eventually(lambda: not is_kept())
    assert in_force()["by"] == "configuration"


def test_it_ends_in_time_where_no_worker_looks(quick):
    tracekit.configure(exporters="none", processors=[SimpleSpanProcessor(InMemorySpanExporter())])
    tracekit.set_sampling(0.0, for_s=0.2)
    assert not is_kept()
    eventually(is_kept)


def test_an_end_that_was_slept_through_is_noticed_by_the_first_root(exporter):
    configured(exporter, sampler=0.0)
    tracekit.set_sampling(1.0, for_s=0.01)
    time.sleep(0.02)
    is_kept()
    assert not is_kept()


def test_rules_are_changed_and_leave_the_sampler_alone(exporter):
    configured(exporter, sampler=0.0)
    tracekit.set_sampling(rules="keep name=pay")
    assert is_kept("pay")
    assert not is_kept("other")


def test_a_sampler_is_said_together_with_its_rules(exporter):
    configured(exporter, sampler=1.0, rules="drop")
    assert not is_kept()
    tracekit.set_sampling(1.0)
    assert is_kept()
    tracekit.set_sampling(1.0, rules="drop name=health")
    assert (is_kept("health"), is_kept("other")) == (False, True)


def test_what_is_not_said_stays_as_it_was_set(exporter):
    configured(exporter, sampler=1.0)
    tracekit.set_sampling(0.0)
    with tracekit.set_sampling(rules="keep name=pay"):
        assert (is_kept("pay"), is_kept("other")) == (True, False)
    assert (is_kept("pay"), is_kept("other")) == (False, False)


def test_the_argument_that_was_for_another_sampler_is_not_used(exporter, monkeypatch):
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.25")
    configured(exporter)
    tracekit.set_sampling("parentbased_adaptive")
    assert "AdaptiveSampler{20/s}" in in_force()["sampler"]


def test_what_cannot_be_used_is_refused_and_changes_nothing(exporter):
    configured(exporter, sampler=0.0)
    for wrong in (
        {"sampler": "alwayson"},
        {"sampler": 7.0},
        {"sampler": 1.0, "rules": "sometimes"},
        {"sampler": 1.0, "for_s": 0},
        {"sampler": 1.0, "for_s": float("nan")},
        {"sampler": 1.0, "for_s": True},
    ):
        with pytest.raises(ConfigurationError):
            tracekit.set_sampling(**wrong)
        assert not is_kept()
    assert in_force()["by"] == "configuration"


def test_before_tracing_is_configured_it_says_what_to_do():
    with pytest.raises(ConfigurationError, match=r"call tracekit\.configure\(\) first"):
        tracekit.set_sampling(1.0)


def test_a_provider_that_was_made_by_hand_is_changed_too(monkeypatch):
    provider = TracerProvider(ALWAYS_OFF, shutdown_on_exit=False)
    monkeypatch.setattr(sys.modules["tracekit.configure"], "current_provider", lambda: provider)
    tracer = provider.get_tracer("t")
    with tracekit.set_sampling("always_on"):
        assert tracer.start_span("a").is_recording()
    assert not tracer.start_span("a").is_recording()
    assert provider.sampler is ALWAYS_OFF


def test_a_span_under_way_keeps_what_was_decided_and_its_children_follow(exporter):
    configured(exporter, sampler=1.0)
    with tracekit.span("root"):
        tracekit.set_sampling(0.0)
        assert is_kept("child")
    tracekit.set_sampling(1.0)
    tracekit.set_sampling(0.0)
    with tracekit.span("dropped"):
        tracekit.set_sampling(1.0)
        assert not is_kept("child")


def test_a_sampler_that_stays_the_same_keeps_its_state(exporter, watched):
    written(watched, "[[rules]]\nkeep = 0\nname = 'health'\n")
    configured(exporter, sampler=ParentBased(AdaptiveSampler(5)))
    before = _state.sampling._sampler
    # The same, said otherwise.
    written(watched, "\n# a comment\n[[rules]]\nkeep = 0\nname = 'health'\n")
    time.sleep(0.3)
    is_kept()
    time.sleep(0.3)
    assert _state.sampling._sampler is before


def test_no_span_is_lost_while_threads_make_them_and_sampling_changes(exporter):
    configured(exporter, sampler=1.0)

    enough, made = threading.Event(), []

    def work():
        number = 0
        while not enough.is_set() and number < 12_000:  # what the exporter holds
            with tracekit.span("root"), tracekit.span("child"):
                number += 1
                if number % 20 == 0:
                    time.sleep(0.001)
        made.append(number)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for changes in range(20):
        tracekit.set_sampling((0.0, 0.5, "adaptive", 1.0)[changes % 4])
        time.sleep(0.002)
    enough.set()
    for thread in threads:
        thread.join()
    assert tracekit.flush()
    stats = tracekit.stats()
    assert stats["started"] + stats["sampled_out"] == 2 * sum(made)
    assert stats["sampled_out"] > 0
    assert len(exporter.get_finished_spans()) == stats["started"] == stats["ended"]
    roots = [span for span in exporter.get_finished_spans() if span.parent is None]
    assert 2 * len(roots) == stats["started"]


def test_configuring_again_forgets_what_was_set(exporter):
    configured(exporter, sampler=0.0)
    change = tracekit.set_sampling(1.0)
    configured(exporter, sampler=0.0)
    assert not is_kept()
    change.undo()
    assert not is_kept()


def test_after_shutdown_it_wakes_nothing_up(exporter):
    configured(exporter)
    change = tracekit.set_sampling(0.5)
    tracekit.shutdown()
    change.undo()
    assert current_provider().is_shut_down
    assert not is_kept()


# Stages ------------------------------------------------------------------------------------


def test_the_tail_sampler_is_changed_and_what_it_holds_is_decided_by_the_new_settings(exporter):
    configured(exporter, tail={"share": 0.0, "linger_s": 0.0})
    with tracekit.span("before"):
        pass
    assert tracekit.flush()
    with tracekit.set_sampling(tail=False), tracekit.span("during"):
        pass
    with tracekit.set_sampling(tail=1.0):
        with tracekit.span("kept"):
            pass
        assert tracekit.flush()
    with tracekit.span("after"):
        pass
    assert tracekit.flush()
    assert "kept" in [span.name for span in exporter.get_finished_spans()]
    assert not {"before", "after"} & {span.name for span in exporter.get_finished_spans()}
    stats = tracekit.stats()
    assert stats["started"] == 4


def test_a_file_changes_the_tail_sampler(exporter, watched):
    written(watched, "[tail]\nshare = 0.0\nlinger_s = 0.0\n")
    configured(exporter)
    is_kept()
    written(watched, "[tail]\nshare = 1.0\nlinger_s = 0.0\n")
    eventually(lambda: is_kept() and exporter.get_finished_spans())
    assert "'share': 1.0" in in_force()["tail"]


def test_a_tail_sampler_that_is_not_there_cannot_be_changed(exporter):
    configured(exporter, sampler=0.0)
    with pytest.raises(ConfigurationError, match=r"no tail sampler.*TRACEKIT_TAIL"):
        tracekit.set_sampling(1.0, tail=0.1)
    assert not is_kept()
    tracekit.set_sampling(1.0, tail=False)
    assert is_kept()


def test_a_setting_of_the_tail_sampler_that_is_wrong_changes_nothing(exporter):
    configured(exporter, sampler=0.0, tail=1.0)
    with pytest.raises(ConfigurationError, match=r"set_sampling\(\).*share"):
        tracekit.set_sampling(1.0, tail=2.0)
    assert not is_kept()


def test_other_spans_are_dropped(exporter):
    configured(exporter, drop="drop name=chatty")
    assert (is_kept("chatty"), is_kept("/health")) == (False, True)
    with tracekit.set_sampling(drop=False):
        assert is_kept("chatty")
    with tracekit.set_sampling(drop="drop name=other"):
        assert (is_kept("chatty"), is_kept("other")) == (True, False)
    assert (is_kept("chatty"), is_kept("other")) == (False, True)
    with pytest.raises(ConfigurationError):
        tracekit.set_sampling(0.0, drop="drop name=/(/")
    assert is_kept("other")


def test_a_file_changes_what_is_dropped(exporter, watched):
    written(watched, "drop = 'drop name=chatty'\n")
    configured(exporter)
    assert (is_kept("chatty"), is_kept("other")) == (False, True)
    written(watched, "drop = 'drop name=other'\n")
    eventually(lambda: is_kept("chatty"))
    assert not is_kept("other")


# By a file ---------------------------------------------------------------------------------


def test_a_file_is_followed_with_nothing_sampled_before(exporter, watched):
    written(watched, "sampler = 0.0\n")
    configured(exporter)
    assert not is_kept()
    written(watched, "sampler = 1.0\n")
    eventually(is_kept)
    assert in_force()["by"] == str(watched)
    written(watched, "")
    eventually(lambda: in_force()["by"] == "configuration")


def test_the_file_comes_before_code_and_environment(exporter, watched, monkeypatch):
    monkeypatch.setenv("TRACEKIT_RULES", "drop")
    written(watched, "sampler = 'always_on'\nservice_name = 'from file'\n")
    provider = configured(exporter, sampler=0.0, service_name="from code")
    assert is_kept()
    assert provider.resource.attributes["service.name"] == "from file"


def test_only_the_first_root_is_asked_about_specially(exporter, watched):
    written(watched, "sampler = 0.5\n")
    provider = configured(exporter)
    telling = provider.sampler
    assert telling.get_description().startswith("ParentBased{root:TraceIdRatioBased{0.5")
    is_kept()
    eventually(lambda: provider.sampler is not telling)
    assert provider.sampler.root_sampler.threshold == 1 << 55


def test_a_file_may_come_later(exporter, watched, caplog):
    configured(exporter, sampler=0.0)
    assert "is not there yet" in caplog.text
    assert not is_kept()
    written(watched, "sampler = 1.0\n")
    eventually(is_kept)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sampler = 1.0\nrules = [", r"line 2"),
        ("\n\nsampler == 1.0", r"line 3: .*line 3"),
        ("# a comment\nsampler = 7.0", r"line 2: sampling rate=7\.0.*from 0\.0 to 1\.0"),
        ("sampler = true", r"line 1: sampler: True is neither a name"),
        ("\nsampler = 'alwayson'", r"alwayson.*line 2.*Did you mean 'always_on'"),
        ("sampler = 1.0\nsampel = 1.0", r"unknown setting 'sampel' \(from .*line 2\).*'sampler'"),
        ("\n\n[[rules]]\nkeep = 'sometimes'", r"line 3: sampling rules, rule 1: .*no share"),
        ("rules = '''\ndrop name=a\nkeep name=a\n'''", r"line 1: .*rule 2.*already matches"),
        ("\n[tail]\nshare = 7", r"line 2: .*share=7"),
        ("tail = true", r"line 1: there is no tail sampler"),
        ("sampler = 'parentbased_adaptive'\nsampler_argument = 0", r"line 2: sampler argument=0"),
        (b"sampler = 1.0\n# \xff", r"line 2: not UTF-8"),
        (b"#" * (1024 * 1024 + 1), r"too large"),
    ],
)
def test_a_file_that_is_wrong_changes_nothing_and_is_told_once_with_line_and_cause(
    exporter, watched, caplog, text, said
):
    written(watched, "sampler = 0.0\n")
    configured(exporter)
    assert not is_kept()
    if isinstance(text, bytes):
        watched.write_bytes(text)
    else:
        written(watched, text)
    eventually(lambda: "problem" in in_force())
    time.sleep(0.2)
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert str(watched) in record.getMessage()
    assert "sampling stays as it was" in record.getMessage()
    assert re.search(said, record.getMessage()), record.getMessage()
    assert not is_kept()
    written(watched, "sampler = 1.0\n")
    eventually(is_kept)
    assert "problem" not in in_force()


def test_a_file_that_goes_changes_nothing_and_is_told_once(exporter, watched, caplog):
    written(watched, "sampler = 0.0\n")
    configured(exporter)
    is_kept()
    watched.unlink()
    eventually(lambda: "is not there" in in_force().get("problem", ""))
    time.sleep(0.2)
    assert caplog.text.count("is not there; sampling stays as it was") == 1
    assert not is_kept()


def test_a_file_that_cannot_be_read_changes_nothing(exporter, watched):
    written(watched, "sampler = 0.0\n")
    configured(exporter)
    is_kept()
    watched.unlink()
    watched.mkdir()
    eventually(lambda: "cannot be read" in in_force().get("problem", ""))
    assert not is_kept()


def test_what_is_half_written_is_not_read(exporter, watched, monkeypatch, caplog):
    """A valid beginning of a file must not be in force for the time that writing takes."""
    written(watched, "sampler = 0.0\nrules = 'drop'\n")
    configured(exporter)
    sampling = _state.sampling
    monkeypatch.setattr(sampling, "tick", lambda: None)
    watched.write_text("sampler = 1.0\n")
    sampling.look()
    with watched.open("a") as file:
        file.write("rules = 'drop'\n")
    sampling.look()
    assert "1.0" not in in_force()["sampler"]
    sampling.look()
    assert in_force()["sampler"].startswith("ParentBased{root:RuleSampler")
    assert "problem" not in in_force()


def test_what_the_program_says_is_over_the_file_until_it_is_taken_back(exporter, watched):
    written(watched, "sampler = 0.0\n")
    configured(exporter)
    with tracekit.set_sampling("always_on"):
        is_kept()
        written(watched, "sampler = 0.0\nrules = 'keep name=a'\n")
        eventually(lambda: _state.sampling._from_file.get("rules"))
        assert is_kept("b")
        assert in_force()["by"] == "set_sampling()"
    assert (is_kept("a"), is_kept("b")) == (True, False)


def test_other_settings_of_the_file_wait_for_the_next_start(exporter, watched, caplog):
    written(watched, "sampler = 0.0\n")
    configured(exporter)
    written(watched, "sampler = 1.0\nservice_name = 'other'\nexporters = 'none'\n")
    eventually(is_kept)
    eventually(lambda: "exporters, service_name takes effect at the next start" in caplog.text)


def test_a_file_that_is_wrong_at_the_start_is_an_error(exporter, watched):
    written(watched, "sampler = [\n")
    with pytest.raises(ConfigurationError, match="line 2"):
        configured(exporter)


def test_a_forked_child_follows_the_file_by_itself(exporter, watched):
    written(watched, "sampler = 0.0\n")
    configured(exporter)
    is_kept()
    child = os.fork()
    if child == 0:
        deadline = time.monotonic() + WAIT_S
        while not is_kept() and time.monotonic() < deadline:
            time.sleep(0.01)
        os._exit(20 if is_kept() else 21)
    written(watched, "sampler = 1.0\n")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 20


def test_a_forked_child_ends_what_was_set_for_some_time(exporter, quick):
    configured(exporter, sampler=0.0)
    tracekit.set_sampling(1.0, for_s=0.5)
    assert is_kept()
    child = os.fork()
    if child == 0:
        kept_first = is_kept()
        deadline = time.monotonic() + WAIT_S
        while is_kept() and time.monotonic() < deadline:
            time.sleep(0.01)
        os._exit(20 if kept_first and not is_kept() else 21)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 20


# By a signal -------------------------------------------------------------------------------


@pytest.fixture
def hup():
    before = signal.getsignal(signal.SIGHUP)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def test_a_signal_has_the_file_read_again_changed_or_not(exporter, watched, hup):
    written(watched, "sampler = 'always_off'\n")
    configured(exporter)
    assert not is_kept()
    before = watched.stat()
    watched.write_text("sampler = 'always_on' \n")
    os.utime(watched, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.kill(os.getpid(), signal.SIGHUP)
    eventually(is_kept)


def test_the_programs_own_handler_is_called_as_before(exporter, watched, hup):
    seen = []
    signal.signal(signal.SIGHUP, lambda number, frame: seen.append(number))
    written(watched, "sampler = 0.0\n")
    configured(exporter)
    configured(exporter)
    os.kill(os.getpid(), signal.SIGHUP)
    assert seen == [signal.SIGHUP]


def test_a_program_that_ignores_the_signal_goes_on_ignoring_it(exporter, watched, hup):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    configured(exporter)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def test_without_a_file_the_signal_is_left_alone(exporter, hup):
    configured(exporter)
    tracekit.set_sampling(0.5)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL


def test_only_the_main_thread_can_take_the_signal_and_others_do_without(exporter, watched, hup):
    thread = threading.Thread(target=configured, args=(exporter,))
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL


def test_resetting_gives_the_signal_back(exporter, watched, hup):
    configured(exporter)
    assert signal.getsignal(signal.SIGHUP) is not signal.SIG_DFL
    from tracekit.testing import reset

    reset()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
