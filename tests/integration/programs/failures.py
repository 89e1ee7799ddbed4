"""Programs that fail, and what their spans say about it."""

from __future__ import annotations

import builtins
import sys

from opentelemetry.trace import Status, StatusCode

from integration.programs.catalogue import World, program


class OrderError(Exception):
    """An exception of the program's own, with a message of its own."""

    def __str__(self) -> str:
        return "order rejected"


@program()
def an_exception_that_escapes(world: World) -> str:
    scope = world.tracer.start_as_current_span
    try:
        with scope("outer"), scope("inner"):
            raise ValueError("wrong")
    except ValueError as error:
        return str(error)
    return "nothing raised"


@program()
def an_exception_that_escapes_a_started_span(world: World) -> None:
    try:
        with world.tracer.start_span("started"):
            raise OrderError
    except OrderError:
        pass


@program()
def exceptions_without_message(world: World) -> None:
    for error in (ValueError(), KeyError("key"), OSError(2, "gone"), OrderError("ignored")):
        try:
            with world.tracer.start_as_current_span(type(error).__name__):
                raise error
        except Exception:
            continue


@program()
def exceptions_recorded_by_hand(world: World) -> None:
    with world.tracer.start_as_current_span("by hand") as span:
        try:
            raise OrderError
        except OrderError as error:
            span.record_exception(error)
            span.record_exception(error, {"retry": 1}, timestamp=17, escaped=True)
            span.record_exception(error, {"exception.message": "replaced"})
        span.record_exception(ValueError("never raised"))


@program()
def exceptions_with_causes(world: World) -> None:
    try:
        with world.tracer.start_as_current_span("cause"):
            try:
                raise KeyError("first")
            except KeyError as error:
                raise ValueError("second") from error
    except ValueError:
        pass
    try:
        with world.tracer.start_as_current_span("context"):
            try:
                raise KeyError("first")
            except KeyError:
                raise ValueError("second")  # noqa: B904 -- the context is what is looked at
    except ValueError:
        pass


@program()
def exceptions_with_notes(world: World) -> None:
    try:
        with world.tracer.start_as_current_span("noted"):
            error = ValueError("wrong")
            if sys.version_info >= (3, 11):
                error.add_note("in order 42")
            raise error
    except ValueError:
        pass


@program()
def groups_of_exceptions(world: World) -> None:
    errors = [ValueError("one"), OrderError("two")]
    # The name is new in Python 3.11.
    kind = getattr(builtins, "ExceptionGroup", None)
    group = kind("several", errors) if kind else errors[0]
    try:
        with world.tracer.start_as_current_span("group"):
            raise group
    except Exception:
        pass


@program()
def exceptions_that_are_not_recorded(world: World) -> None:
    for record, status in ((False, True), (True, False), (False, False)):
        for start in (world.tracer.start_as_current_span, world.tracer.start_span):
            name = f"record={record} status={status}"
            try:
                with start(name, record_exception=record, set_status_on_exception=status):
                    raise ValueError("quiet")
            except ValueError:
                continue


@program()
def a_status_before_an_exception(world: World) -> None:
    for status in (Status(StatusCode.OK), Status(StatusCode.ERROR, "mine"), Status()):
        try:
            with world.tracer.start_as_current_span(status.status_code.name) as span:
                span.set_status(status)
                raise ValueError("later")
        except ValueError:
            continue


@program()
def an_exception_that_is_caught_inside(world: World) -> None:
    with world.tracer.start_as_current_span("outer"):
        try:
            with world.tracer.start_as_current_span("inner"):
                raise ValueError("inside")
        except ValueError:
            pass


@program()
def an_exception_after_the_end(world: World) -> None:
    try:
        with world.tracer.start_as_current_span("ended") as span:
            span.end()
            raise ValueError("too late")
    except ValueError:
        pass


@program()
def leaving_the_program(world: World) -> None:
    try:
        with world.tracer.start_as_current_span("exit"):
            raise SystemExit(3)
    except SystemExit:
        pass
    try:
        with world.tracer.start_as_current_span("interrupt"):
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
