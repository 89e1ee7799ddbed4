"""A library is patched once it is there, once only, and is as before when the patches go."""

from __future__ import annotations

import copy
import functools
import gc
import importlib
import inspect
import logging
import pickle
import sys
import threading
import types
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import wrapt

from tracekit.instrumentation import _patch
from tracekit.instrumentation._patch import LibraryInstrumentor, Patch, quiet

SOURCE = """
class Base:
    def inherited(self, x): return ("inherited", x)
    def own(self): return "base"
class Client(Base):
    limit = 3
    def send(self, x, *, y=1): return ("sent", x, y)
    @classmethod
    def make(cls): return cls
    @staticmethod
    def add(a, b): return a + b
    async def wait(self): return "waited"
def call(x): return ("called", x)
"""


class Calls:
    def __init__(self) -> None:
        self.seen: list[Any] = []

    def wrapper(self, wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        self.seen.append((instance, args, kwargs))
        return wrapped(*args, **kwargs)


class Watching(LibraryInstrumentor):
    name = "watching"
    attributes: tuple[str, ...] = ("Client.send",)
    modules: tuple[str, ...] = ("patched_library",)

    def __init__(self) -> None:
        super().__init__()
        self.calls = Calls()

    def patches(self) -> Sequence[Patch]:
        return [
            Patch(module, attribute, self.calls.wrapper)
            for module in self.modules
            for attribute in self.attributes
        ]


def watching(**attributes: Any) -> Watching:
    return type("Watching", (Watching,), attributes)()


@pytest.fixture(autouse=True)
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make modules that can be imported, and forget them afterwards."""
    for name in ("patched_library", "patched_plugin"):
        (tmp_path / f"{name}.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in ("patched_library", "patched_plugin"):
        sys.modules.pop(name, None)
        _patch._waiting.pop(name, None)
        wrapt.importer._post_import_hooks.pop(name, None)  # type: ignore[attr-defined]


def load(name: str = "patched_library") -> Any:
    return importlib.import_module(name)


@pytest.mark.parametrize("order", ["import first", "import last"])
def test_library_is_patched_whenever_it_is_imported(order: str) -> None:
    instrumentor = watching()
    if order == "import first":
        load()
    instrumentor.instrument()
    client = load().Client()
    assert client.send(1, y=2) == ("sent", 1, 2)
    assert instrumentor.calls.seen == [(client, (1,), {"y": 2})]


def test_instrumenting_does_not_import() -> None:
    watching().instrument()
    assert "patched_library" not in sys.modules


def test_object_made_before_is_patched_too() -> None:
    client = load().Client()
    instrumentor = watching()
    instrumentor.instrument()
    client.send(1)
    assert len(instrumentor.calls.seen) == 1


@pytest.mark.parametrize(
    ("attribute", "call", "result"),
    [
        ("Client.send", lambda m: m.Client().send(1), ("sent", 1, 1)),
        ("Client.send", lambda m: m.Client.send(m.Client(), 1), ("sent", 1, 1)),
        ("Client.inherited", lambda m: m.Client().inherited(1), ("inherited", 1)),
        ("Client.make", lambda m: m.Client.make().__name__, "Client"),
        ("Client.add", lambda m: m.Client.add(1, 2), 3),
        ("call", lambda m: m.call(1), ("called", 1)),
    ],
)
def test_every_kind_of_function_works_as_before_and_is_restored(
    attribute: str, call: Any, result: Any
) -> None:
    module = load()
    before = [dict(vars(holder)) for holder in (module, module.Base, module.Client)]
    instrumentor = watching(attributes=(attribute,))
    instrumentor.instrument()
    assert call(module) == result
    assert len(instrumentor.calls.seen) == 1
    instrumentor.uninstrument()
    after = [dict(vars(holder)) for holder in (module, module.Base, module.Client)]
    for was, now in zip(before, after, strict=True):
        assert list(was) == list(now)
        assert all(was[name] is now[name] for name in was)
    assert call(module) == result
    assert len(instrumentor.calls.seen) == 1


def test_inherited_function_is_patched_on_the_named_class_alone() -> None:
    module = load()
    instrumentor = watching(attributes=("Client.inherited",))
    instrumentor.instrument()
    module.Base().inherited(1)
    assert instrumentor.calls.seen == []


def test_patched_function_looks_as_before() -> None:
    module = load()
    signature = inspect.signature(module.Client.send)
    watching(attributes=("Client.send", "Client.wait")).instrument()
    assert inspect.signature(module.Client.send) == signature
    assert module.Client.send.__qualname__ == "Client.send"
    assert inspect.iscoroutinefunction(module.Client.wait)
    assert inspect.isfunction(module.Client.send)


@pytest.mark.parametrize("attribute", ["Client.send", "call"])
def test_patched_functions_can_be_copied_and_pickled(attribute: str) -> None:
    module = load()
    instrumentor = watching(attributes=(attribute,))
    instrumentor.instrument()
    client = module.Client()
    functions = [module.call, module.Client.send, client.send]
    for function in functions:
        for twin in (
            copy.copy(function),
            copy.deepcopy(function),
            pickle.loads(pickle.dumps(function)),
        ):
            assert twin.__qualname__ == function.__qualname__
            args = (client, 1) if function is functions[1] else (1,)
            assert twin(*args) == function(*args)


def test_second_call_changes_nothing() -> None:
    module = load()
    instrumentor = watching()
    instrumentor.instrument()
    patched = vars(module.Client)["send"]
    instrumentor.instrument()
    assert vars(module.Client)["send"] is patched


def test_two_instances_wrap_once_and_the_last_one_restores() -> None:
    module = load()
    original = vars(module.Client)["send"]
    first, second = Watching(), Watching()
    first.instrument()
    second.instrument()
    module.Client().send(1)
    assert len(first.calls.seen) + len(second.calls.seen) == 1
    first.uninstrument()
    assert vars(module.Client)["send"] is not original
    second.uninstrument()
    assert vars(module.Client)["send"] is original


def test_two_instrumentations_may_patch_the_same_function() -> None:
    class Other(Watching):
        name = "other"

        def patches(self) -> Sequence[Patch]:
            def other(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
                self.calls.seen.append(instance)
                return wrapped(*args, **kwargs)

            return [Patch("patched_library", "Client.send", other)]

    module = load()
    original = vars(module.Client)["send"]
    first, second = Watching(), Other()
    first.instrument()
    second.instrument()
    module.Client().send(1)
    assert (len(first.calls.seen), len(second.calls.seen)) == (1, 1)
    first.uninstrument()
    module.Client().send(1)
    assert (len(first.calls.seen), len(second.calls.seen)) == (1, 2)
    second.uninstrument()
    module.Client().send(1)
    assert (len(first.calls.seen), len(second.calls.seen)) == (1, 2)
    assert inspect.unwrap(vars(module.Client)["send"]) is original


def test_wrapper_underneath_somebody_elses_becomes_inert() -> None:
    module = load()
    instrumentor = watching()
    instrumentor.instrument()
    ours = module.Client.send

    def on_top(self: Any, x: Any) -> Any:
        return ours(self, x)

    module.Client.send = on_top
    instrumentor.uninstrument()
    assert module.Client().send(1) == ("sent", 1, 1)
    assert vars(module.Client)["send"] is on_top
    assert instrumentor.calls.seen == []


def test_uninstrumented_before_the_import_nothing_is_patched() -> None:
    instrumentor = watching()
    instrumentor.instrument()
    instrumentor.uninstrument()
    module = load()
    module.Client().send(1)
    assert instrumentor.calls.seen == []
    assert isinstance(vars(module.Client)["send"], types.FunctionType)


def test_hook_is_registered_once_however_often_it_is_asked_for() -> None:
    instrumentor = watching()
    for _ in range(3):
        instrumentor.instrument()
        instrumentor.uninstrument()
    instrumentor.instrument()
    assert len(wrapt.importer._post_import_hooks["patched_library"]) == 1  # type: ignore[attr-defined]
    load().Client().send(1)
    assert len(instrumentor.calls.seen) == 1


def test_each_module_is_patched_when_it_comes() -> None:
    instrumentor = watching(modules=("patched_library", "patched_plugin"))
    instrumentor.instrument()
    load().Client().send(1)
    assert len(instrumentor.calls.seen) == 1
    load("patched_plugin").Client().send(1)
    assert len(instrumentor.calls.seen) == 2


def test_missing_attribute_leaves_the_whole_library_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    module = load()
    before = dict(vars(module.Client))
    instrumentor = watching(attributes=("Client.send", "Client.vanished"))
    instrumentor.instrument()
    assert instrumentor.status.reason == "patched_library has no Client.vanished"
    assert not instrumentor.status.active
    assert all(vars(module.Client)[name] is before[name] for name in before)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_missing_class_is_a_missing_attribute() -> None:
    load()
    instrumentor = watching(attributes=("Vanished.send",))
    instrumentor.instrument()
    assert instrumentor.status.reason == "patched_library has no Vanished.send"


def test_optional_attribute_may_be_missing() -> None:
    class Optional(Watching):
        def patches(self) -> Sequence[Patch]:
            gone = Patch("patched_library", "vanished", self.calls.wrapper, optional=True)
            return [*super().patches(), gone]

    load()
    instrumentor = Optional()
    instrumentor.instrument()
    assert instrumentor.status.reason == "active"


def test_class_that_cannot_be_changed_is_left_alone() -> None:
    load("datetime")
    instrumentor = watching(modules=("datetime",), attributes=("date.today",))
    instrumentor.instrument()
    assert instrumentor.status.reason == "date.today cannot be patched"


def test_refused_in_one_module_is_refused_in_all() -> None:
    class Half(Watching):
        def patches(self) -> Sequence[Patch]:
            return [
                Patch("patched_library", "Client.send", self.calls.wrapper),
                Patch("patched_plugin", "vanished", self.calls.wrapper),
            ]

    module = load()
    original = vars(module.Client)["send"]
    instrumentor = Half()
    instrumentor.instrument()
    load("patched_plugin")
    assert vars(module.Client)["send"] is original
    assert not instrumentor.status.active


# Versions


@pytest.mark.parametrize(
    ("version", "specifier", "supported"),
    [
        ("2.34.2", ">=2.22,<3", True),
        ("3.0", ">=2.22,<3", False),
        ("2.21.9", ">=2.22,<3", False),
        ("2.22", ">=2.22.0", True),
        ("2.32.0rc1", ">=2.32", True),
        ("2.5.dev3+local", ">=2.5", True),
        ("1.4", "!=1.4,>=1", False),
        ("1.4.1", "!=1.4, >=1", True),
        ("1.4", "==1.4.0", True),
        ("1", "", True),
        ("10.0", "<9", False),
    ],
)
def test_versions_are_compared_by_number(version: str, specifier: str, supported: bool) -> None:
    assert _patch._is_supported(version, specifier) is supported


def test_specifier_that_is_none_is_an_error() -> None:
    with pytest.raises(ValueError, match="version clause"):
        _patch._is_supported("1", "~=1.0")


def test_unsupported_version_is_left_alone_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    module = load()
    instrumentor = watching(distributions=("wrapt",), supported="<1")
    instrumentor.instrument()
    instrumentor.instrument()
    reason = f"version {wrapt.__version__} is not supported (<1)"
    assert instrumentor.status.reason == reason
    assert isinstance(vars(module.Client)["send"], types.FunctionType)
    assert [record.getMessage() for record in caplog.records] == [
        f"tracekit does not instrument watching: {reason}"
    ]


# Status


def test_status_says_how_it_is() -> None:
    instrumentor = watching(distributions=("no-such-distribution", "wrapt"), supported=">=1")
    before = instrumentor.status
    instrumentor.instrument()
    waiting = instrumentor.status
    load()
    active = instrumentor.status
    instrumentor.uninstrument()
    assert [s.reason for s in (before, waiting, active, instrumentor.status)] == [
        "not instrumented",
        "waiting for import",
        "active",
        "not instrumented",
    ]
    assert (active.name, active.installed, active.supported) == (
        "watching",
        wrapt.__version__,
        ">=1",
    )
    assert [before.active, waiting.active, active.active] == [False, False, True]


def test_library_that_is_not_installed_is_said_to_be() -> None:
    instrumentor = watching(distributions=("no-such-distribution",))
    instrumentor.instrument()
    assert instrumentor.status.reason == "not installed"


# Others


def test_function_that_another_tracer_wrapped_is_left_alone() -> None:
    module = load()
    theirs: dict[str, Any] = {"__name__": "sentry_sdk.integrations.x", "functools": functools}
    exec(
        "def wrap(function):\n"
        "    @functools.wraps(function)\n"
        "    def patched(*args, **kwargs): return function(*args, **kwargs)\n"
        "    return patched\n",
        theirs,
    )
    module.Client.send = theirs["wrap"](module.Client.send)
    instrumentor = watching()
    instrumentor.instrument()
    assert instrumentor.status.reason == "already instrumented by sentry-sdk"


@pytest.mark.parametrize("wrap", ["function", "partial", "method"])
def test_wrapt_wrapper_of_another_tracer_is_seen_below_others(wrap: str) -> None:
    module = load()
    theirs: dict[str, Any] = {"__name__": "ddtrace.contrib.x"}
    exec("def traced(wrapped, instance, args, kwargs): return wrapped(*args, **kwargs)", theirs)
    traced = theirs["traced"]
    if wrap == "partial":
        traced = functools.partial(traced)
    wrapt.wrap_function_wrapper(module, "Client.send", traced)

    @functools.wraps(module.Client.send)
    def outermost(*args: Any) -> Any:
        return None

    module.Client.send = outermost
    instrumentor = watching()
    instrumentor.instrument()
    assert instrumentor.status.reason == "already instrumented by ddtrace"


def test_programs_own_wrapper_is_no_tracer() -> None:
    module = load()
    inner = module.Client.send

    @functools.wraps(inner)
    def own(*args: Any) -> Any:
        return inner(*args)

    module.Client.send = own
    instrumentor = watching()
    instrumentor.instrument()
    assert instrumentor.status.reason == "active"


def test_endless_chain_of_wrappers_is_survived() -> None:
    module = load()

    def send(self: Any, x: Any) -> Any:
        return ("own", x)

    send.__wrapped__ = send  # type: ignore[attr-defined]
    module.Client.send = send
    watching().instrument()
    assert module.Client().send(1) == ("own", 1)


# Threads


def test_many_threads_instrument_and_uninstrument_at_once() -> None:
    module = load()
    original = vars(module.Client)["send"]
    instrumentors = [Watching() for _ in range(8)]

    def toggle(instrumentor: Watching) -> None:
        for _ in range(50):
            instrumentor.instrument()
            assert module.Client().send(1) == ("sent", 1, 1)
            instrumentor.uninstrument()

    threads = [threading.Thread(target=toggle, args=(each,)) for each in instrumentors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert vars(module.Client)["send"] is original


def test_module_that_another_thread_is_importing_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "slowly_imported.py").write_text(
        "import threading, sys\n"
        "events = sys.modules['instrumentation_events']\n"
        "events.began.set(); events.go.wait(5)\n" + SOURCE
    )
    events: Any = types.ModuleType("instrumentation_events")
    events.began, events.go = threading.Event(), threading.Event()
    sys.modules["instrumentation_events"] = events
    importing = threading.Thread(target=importlib.import_module, args=("slowly_imported",))
    importing.start()
    events.began.wait(5)
    instrumentor = watching(modules=("slowly_imported",))
    instrumenting = threading.Thread(target=instrumentor.instrument)
    instrumenting.start()
    instrumenting.join(0.02)
    events.go.set()
    instrumenting.join()
    importing.join()
    assert instrumentor.status.reason == "active"
    del sys.modules["instrumentation_events"], sys.modules["slowly_imported"]


def test_import_survives_an_instrumentation_that_fails(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise ArithmeticError("broken")

    monkeypatch.setattr(_patch, "put_on", fail)
    instrumentor = watching()
    instrumentor.instrument()
    assert load().Client().send(1) == ("sent", 1, 1)
    assert "could not instrument watching" in caplog.text


# Steps


def test_quiet_step_returns_none_instead_of_raising_and_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @quiet
    def broken_step(x: int) -> int:
        raise ArithmeticError(x)

    with caplog.at_level(logging.DEBUG):
        assert broken_step(1) is None
        assert broken_step(2) is None
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.DEBUG]


def test_quiet_step_returns_its_result() -> None:
    assert quiet(lambda x: x + 1)(1) == 2


def test_quiet_step_lets_control_flow_through() -> None:
    @quiet
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()


def test_uninstrumented_library_is_not_kept_alive() -> None:
    instrumentor = watching()
    instrumentor.instrument()
    client = weakref.ref(load().Client)
    instrumentor.uninstrument()
    sys.modules.pop("patched_library")
    gc.collect()
    assert client() is None


@pytest.mark.parametrize("options", [{"limt": 1}, {"limit": 1, "other": 2}])
def test_an_option_that_there_is_not_names_the_instrumentation(options: dict[str, Any]) -> None:
    class Limited(Watching):
        def configure(self, options: Any) -> None:
            self._read(**options)

        def _read(self, limit: int = 0) -> None:
            self.limit = limit

    with pytest.raises(
        TypeError, match=f"^instrumentation 'watching' has no option '{[*options][-1]}'"
    ):
        Limited().instrument(**options)


def test_a_type_error_of_an_options_value_stays_what_it_is() -> None:
    class Failing(Watching):
        def configure(self, options: Any) -> None:
            len(options["limit"])

    with pytest.raises(TypeError, match="has no len"):
        Failing().instrument(limit=1)
