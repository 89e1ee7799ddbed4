"""A function of AWS Lambda that traces itself, run by AWS's own runtime interface client."""

from __future__ import annotations

import tracekit

tracekit.configure("resize", exporters=["otlp_file"], schedule_delay_millis=60_000)
tracekit.instrument("aws_lambda")


def handler(event, context):
    with tracekit.span("inside"):
        if event.get("fail"):
            raise ArithmeticError("not today")
        return event.get("answer")
