"""Asking other people's functions about traces, without harm when they raise or take long."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from tracekit._own_work import in_empty_context, suppressed_context

__all__ = ["RAISED", "SLOW", "Question", "Questions"]

_logger = logging.getLogger("tracekit")

LONGEST_S = 1.0
"""For one question about one trace."""
LONGEST_ROUND_S = 2.0
"""For all traces that are asked about at once: meanwhile nothing is exported."""
MAX_LEFT_BEHIND = 4
"""Threads that may hang in a question at the same time; then none is asked until one returns."""

RAISED, SLOW = "predicate_raised", "predicate_slow"

Question = Callable[[Sequence[Any]], str]
"""Takes the spans of a trace; returns why it is kept, or nothing."""


class Questions:
    """Ask of each trace whether it is kept; one that cannot be answered about is kept.

    The functions run in a thread that is left behind if they do not come back.
    """

    def __init__(self, questions: Sequence[Question]) -> None:
        self._questions = tuple(questions)
        self._left_behind: list[threading.Thread] = []
        self._said: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._questions)

    def ask(self, traces: Sequence[Sequence[Any]]) -> list[str]:
        """Return for each trace why it is kept, or an empty text.

        Raises:
            Nothing.
        """
        answers: list[str] = []
        deadline = time.monotonic() + LONGEST_ROUND_S
        while len(answers) < len(traces):
            if time.monotonic() >= deadline or self._is_stuck():
                self._say(SLOW)
                answers += [SLOW] * (len(traces) - len(answers))
            else:
                answers += self._ask_while_answered(traces[len(answers) :], deadline)
        return answers

    def _ask_while_answered(self, traces: Sequence[Sequence[Any]], deadline: float) -> list[str]:
        """Ask in a thread until it is done or one question takes too long."""
        asking = _Round(self._answer, traces)
        thread = threading.Thread(
            target=in_empty_context(asking.run), name="tracekit-predicate", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # the interpreter exits: no thread can be started any more
            asking.run()
        while not asking.done.wait(max(0.01, min(asking.until, deadline) - time.monotonic())):
            if time.monotonic() >= min(asking.until, deadline):
                self._left_behind.append(thread)
                self._say(SLOW)
                return [*asking.give_up(), SLOW]
        return asking.answers

    def _is_stuck(self) -> bool:
        self._left_behind = [thread for thread in self._left_behind if thread.is_alive()]
        return len(self._left_behind) >= MAX_LEFT_BEHIND

    def _answer(self, spans: Sequence[Any]) -> str:
        for question in self._questions:
            try:
                answer = question(spans)
            except (Exception, SystemExit):
                self._say(RAISED)
                return RAISED
            if answer:
                return answer
        return ""

    def _say(self, what: str) -> None:
        if what in self._said:
            return
        self._said.add(what)
        if what == RAISED:
            _logger.warning(
                "a predicate of the tail sampler raised; the trace was kept; told once",
                exc_info=True,
            )
        else:
            _logger.warning(
                "a predicate of the tail sampler took more than %.0f s, or all took %.0f s; "
                "the traces were kept; told once",
                LONGEST_S,
                LONGEST_ROUND_S,
            )


class _Round:
    """Traces that are asked about one after another, in a thread that may be left behind."""

    def __init__(self, answer: Question, traces: Sequence[Sequence[Any]]) -> None:
        self._answer, self._traces = answer, traces
        self.answers: list[str] = []
        self.until = time.monotonic() + LONGEST_S
        self.done = threading.Event()

    def run(self) -> None:
        from opentelemetry import context as context_api

        token = context_api.attach(suppressed_context())
        answers = self.answers
        try:
            for spans in self._traces:
                self.until = time.monotonic() + LONGEST_S
                answer = self._answer(spans)
                if answers is not self.answers:
                    return
                answers.append(answer)
        finally:
            context_api.detach(token)
            self.done.set()

    def give_up(self) -> list[str]:
        """Return the answers that there are; later ones go nowhere."""
        answers, self.answers = self.answers, []
        # All but the last are answered: that one may come while it is given up.
        return answers[: len(self._traces) - 1]
