"""The ledger of each process as a file."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from tracekit import ledger_file
from tracekit.ledger_file import KEPT, LedgerFile, folder, read_all


class Provider:
    """Something with a ledger."""

    span_processors: tuple[Any, ...] = ()
    resource = type("", (), {"attributes": {"service.name": "shop"}})

    def __init__(self) -> None:
        self.counts = {"started": 0, "sampled_out": 0}
        self.is_shut_down = False

    def stats(self) -> dict[str, Any]:
        return dict(self.counts)

    def shutdown(self, timeout_s: float | None = None) -> None:
        self.is_shut_down = True


@pytest.fixture
def provider() -> Provider:
    return Provider()


def files() -> list[Path]:
    return sorted(folder().glob("*"))


def test_a_process_that_traced_nothing_leaves_no_file(provider: Provider) -> None:
    LedgerFile(provider).save()
    assert files() == []


def test_a_ledger_is_read_back_with_whether_its_process_runs(provider: Provider) -> None:
    provider.counts["started"] = 7
    LedgerFile(provider).save()
    (found,) = read_all()
    assert (found["pid"], found["service"], found["running"]) == (os.getpid(), "shop", True)
    assert found["stats"]["started"] == 7


def test_a_process_has_one_file_and_the_newest_counts(provider: Provider) -> None:
    written = LedgerFile(provider)
    for provider.counts["started"] in (1, 2, 3):
        written.save()
    assert [item["stats"]["started"] for item in read_all()] == [3]
    assert len(files()) == 1


def test_what_has_not_changed_is_not_written_again(provider: Provider) -> None:
    written = LedgerFile(provider)
    provider.counts["started"] = 1
    written.save()
    os.unlink(written.path)
    written.save()
    assert files() == []


def test_it_is_written_at_most_every_few_seconds_while_running(provider: Provider) -> None:
    written = LedgerFile(provider)
    for provider.counts["started"] in range(1, 100):
        written.save_if_due()
    assert [item["stats"]["started"] for item in read_all()] == [1]


def test_the_oldest_files_go(provider: Provider) -> None:
    folder().mkdir(parents=True)
    for number in range(KEPT + 10):
        path = folder() / f"{number}-1.json"
        path.write_text("{}")
        os.utime(path, (time.time() - 1000 + number,) * 2)
    provider.counts["started"] = 1
    LedgerFile(provider).save()
    assert len(files()) == KEPT
    assert not (folder() / "0-1.json").exists()
    assert (folder() / f"{KEPT + 9}-1.json").exists()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "1", "{}", '{"stats": 3}', '{"stats": {"started": 1}}', "\xff"]
)
def test_what_is_no_ledger_is_passed_over(text: str) -> None:
    folder().mkdir(parents=True)
    (folder() / "1-1.json").write_text(text, "latin-1")
    assert read_all() == []


def test_a_place_that_cannot_be_written_harms_nobody(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/dev/null/nowhere")
    provider.counts["started"] = 1
    LedgerFile(provider).save()
    assert read_all() == []


def test_a_provider_that_raises_harms_nobody(provider: Provider) -> None:
    written = LedgerFile(provider)
    provider.counts = {}
    written.save()
    assert files() == []


def test_a_forked_child_has_a_file_of_its_own(provider: Provider) -> None:
    provider.counts["started"] = 1
    written = LedgerFile(provider)
    written.save()
    child = os.fork()
    if not child:
        written.save()
        os._exit(0)
    os.waitpid(child, 0)
    found = {item["pid"]: item["running"] for item in read_all()}
    assert found == {os.getpid(): True, child: False}


def test_at_exit_the_provider_is_shut_down_first(provider: Provider) -> None:
    hooks: list[Any] = []
    ledger_file.start(provider, hooks.append)
    provider.counts["started"] = 1
    hooks[0]()
    assert provider.is_shut_down
    assert [item["stats"]["started"] for item in read_all()] == [1]
    ledger_file.stop(hooks.remove)
    assert hooks == []


def test_it_can_be_switched_off(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEKIT_LEDGER", "0")
    hooks: list[Any] = []
    ledger_file.start(provider, hooks.append)
    assert hooks == []


def test_no_temporary_file_stays(provider: Provider) -> None:
    provider.counts["started"] = 1
    LedgerFile(provider).save()
    assert [path.suffix for path in files()] == [".json"]
    assert json.loads(files()[0].read_text())["service"] == "shop"


def test_started_again_it_follows_the_new_processors(provider: Provider) -> None:
    class Processor:
        after_hand_out = None

    hooks: list[Any] = []
    ledger_file.start(provider, hooks.append)
    provider.span_processors = (Processor(),)
    ledger_file.start(provider, hooks.append)
    provider.counts["started"] = 1
    provider.span_processors[0].after_hand_out()
    assert len(read_all()) == 1
    assert len(hooks) == 1
    ledger_file.stop(hooks.remove)
