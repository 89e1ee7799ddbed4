"""The classes that users of opentelemetry-sdk know, under one name: moving over is an import.

``from opentelemetry.sdk.trace import TracerProvider`` becomes
``from tracekit.sdk import TracerProvider``.
"""

from __future__ import annotations

from tracekit.configure import TracerProvider
from tracekit.core.ids import RandomIdGenerator
from tracekit.core.limits import SpanLimits
from tracekit.core.resource import Resource
from tracekit.core.span import Span
from tracekit.core.tracer import Tracer
from tracekit.exporters.console import ConsoleSpanExporter
from tracekit.exporters.memory import InMemorySpanExporter
from tracekit.interfaces import (
    IdGenerator,
    ReadableSpan,
    Sampler,
    SpanExporter,
    SpanExportResult,
    SpanProcessor,
)
from tracekit.model import Decision, Event, InstrumentationScope, SamplingResult
from tracekit.processors.batch import BatchSpanProcessor
from tracekit.processors.compress import CompressionProcessor
from tracekit.processors.drop import DropProcessor
from tracekit.processors.redact import RedactionProcessor
from tracekit.processors.simple import SimpleSpanProcessor
from tracekit.processors.tail import TailSampler, TailSettings
from tracekit.samplers._composable import (
    ComposableAlwaysOff,
    ComposableAlwaysOn,
    ComposableAnnotating,
    ComposableParentThreshold,
    ComposableProbability,
    ComposableRuleBased,
    CompositeSampler,
)
from tracekit.samplers.adaptive import AdaptiveSampler
from tracekit.samplers.always_off import AlwaysOffSampler
from tracekit.samplers.always_on import AlwaysOnSampler
from tracekit.samplers.alwaysrecord import AlwaysRecordSampler
from tracekit.samplers.parentbased import ParentBased, ParentBasedTraceIdRatio
from tracekit.samplers.ratelimiting import RateLimitingSampler
from tracekit.samplers.rules import RuleSampler
from tracekit.samplers.traceidratio import TraceIdRatioBased

__all__ = [
    "ALWAYS_OFF",
    "ALWAYS_ON",
    "DEFAULT_OFF",
    "DEFAULT_ON",
    "AdaptiveSampler",
    "AlwaysOffSampler",
    "AlwaysOnSampler",
    "AlwaysRecordSampler",
    "BatchSpanProcessor",
    "ComposableAlwaysOff",
    "ComposableAlwaysOn",
    "ComposableAnnotating",
    "ComposableParentThreshold",
    "ComposableProbability",
    "ComposableRuleBased",
    "CompositeSampler",
    "CompressionProcessor",
    "ConsoleSpanExporter",
    "Decision",
    "DropProcessor",
    "Event",
    "IdGenerator",
    "InMemorySpanExporter",
    "InstrumentationScope",
    "ParentBased",
    "ParentBasedTraceIdRatio",
    "RandomIdGenerator",
    "RateLimitingSampler",
    "ReadableSpan",
    "RedactionProcessor",
    "Resource",
    "RuleSampler",
    "Sampler",
    "SamplingResult",
    "SimpleSpanProcessor",
    "Span",
    "SpanExportResult",
    "SpanExporter",
    "SpanLimits",
    "SpanProcessor",
    "TailSampler",
    "TailSettings",
    "TraceIdRatioBased",
    "Tracer",
    "TracerProvider",
]

ALWAYS_ON: Sampler = AlwaysOnSampler()
ALWAYS_OFF: Sampler = AlwaysOffSampler()
DEFAULT_ON: Sampler = ParentBased(ALWAYS_ON)
DEFAULT_OFF: Sampler = ParentBased(ALWAYS_OFF)
