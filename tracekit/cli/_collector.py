"""A configuration of the OpenTelemetry Collector, as plain data.

Sources: https://opentelemetry.io/docs/collector/configuration/ and the pages of the processors:
https://github.com/open-telemetry/opentelemetry-collector-contrib/tree/main/processor/tailsamplingprocessor
https://github.com/open-telemetry/opentelemetry-collector-contrib/tree/main/exporter/loadbalancingexporter
https://github.com/open-telemetry/opentelemetry-collector/tree/main/processor/memorylimiterprocessor
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tracekit.errors import InvalidValueError, UnknownNameError
from tracekit.exporters._otlp_settings import GRPC, PATH, OtlpSettings
from tracekit.exporters._presets import PRESETS, Header, canonical

__all__ = ["LAYERS", "CollectorPlan", "Comments", "collector_tree"]

LAYERS = ("single", "balancing", "sampling")

SPAN_BYTES = 2048
"""Memory of a Collector for a span that waits for its trace's end. With five attributes it grew by
1.1 KB a span (version 0.161, 100,000 spans); Go lets garbage take as much again."""

_LEAST_MIB = 512
_VARIABLE = re.compile(r"\{(\w+)(?::-([^}]*))?\}")
_LOCAL = ("localhost", "127.0.0.1", "::1")

Tree = dict[str, Any]
Comments = dict[str, str]


@dataclass(frozen=True)
class CollectorPlan:
    """What is to be written.

    Attributes:
        layer: ``single`` for one Collector that does everything; with several, ``balancing`` for
            those that programs send to and ``sampling`` for those behind them.
        samplers: Where the sampling layer is: ``host:port`` of each, or one name that DNS
            resolves to all of them.
        to: A preset's name or a URL.
        keep_percent: Share of the traces that are neither slow nor failed.
        memory_mib: 0 for what the traffic needs.
    """

    layer: str
    samplers: Sequence[str]
    to: str
    tail_sampling: bool
    keep_percent: float
    slow_ms: int
    decision_wait_s: int
    traces_per_second: int
    spans_per_trace: int
    memory_mib: int

    @property
    def waiting_traces(self) -> int:
        """Traces that wait for their decision at once; half as many again for bursts."""
        return max(1000, self.traces_per_second * self.decision_wait_s * 3 // 2)

    @property
    def waiting_mib(self) -> int:
        return self.waiting_traces * self.spans_per_trace * SPAN_BYTES >> 20

    @property
    def limit_mib(self) -> int:
        """Memory that the process may take: what waits, and as much for batches and the queue."""
        if self.memory_mib:
            return self.memory_mib
        waits = self.waiting_mib if self.samples else 0
        return max(_LEAST_MIB, 2 * waits)

    @property
    def samples(self) -> bool:
        return self.tail_sampling and self.layer != "balancing"


def collector_tree(plan: CollectorPlan, receiving: OtlpSettings) -> tuple[Tree, Comments]:
    """Return the configuration and its comments by path.

    Raises:
        ConfigurationError: Something in the plan cannot be used.
    """
    comments: Comments = {}
    exporter = _balancing(plan) if plan.layer == "balancing" else _destination(plan.to)
    processors = _processors(plan, comments)
    tree: Tree = {
        "receivers": {"otlp": {"protocols": _protocols(receiving)}},
        "processors": processors,
        "exporters": exporter,
        "service": {
            "pipelines": {
                "traces": {
                    "receivers": ["otlp"],
                    "processors": [*processors],
                    "exporters": [*exporter],
                }
            }
        },
    }
    comments["service.pipelines.traces.processors"] = (
        "The limiter first, so that what is refused has cost nothing; the batch last, so that it "
        "holds what is sent."
    )
    return tree, comments


def _protocols(receiving: OtlpSettings) -> Tree:
    """Return both protocols; the one that programs use where they expect it."""
    ports = {"grpc": 4317, "http": 4318}
    used = "grpc" if receiving.protocol == GRPC else "http"
    ports[used] = _port(receiving.endpoint) or ports[used]
    protocols: Tree = {name: {"endpoint": f"0.0.0.0:{port}"} for name, port in ports.items()}
    if receiving.is_secure:
        for name in protocols:
            protocols[name]["tls"] = {
                "cert_file": "${env:COLLECTOR_TLS_CERT}",
                "key_file": "${env:COLLECTOR_TLS_KEY}",
            }
    return protocols


def _port(endpoint: str) -> int | None:
    try:
        return urlsplit(endpoint if "://" in endpoint else f"//{endpoint}").port
    except ValueError:
        return None


def _processors(plan: CollectorPlan, comments: Comments) -> Tree:
    found: Tree = {
        "memory_limiter": {
            "check_interval": "1s",
            "limit_mib": plan.limit_mib,
            "spike_limit_mib": plan.limit_mib // 5,
        }
    }
    comments["processors.memory_limiter"] = (
        "Beyond it the Collector refuses what comes, and programs try again. Give the container "
        f"a quarter more: {plan.limit_mib * 5 // 4} MiB."
    )
    if plan.samples:
        found["tail_sampling"] = _tail_sampling(plan)
        comments["processors.tail_sampling"] = (
            f"{plan.traces_per_second} traces a second wait {plan.decision_wait_s} s each, and "
            f"half as many again in a burst: {plan.waiting_traces} traces of "
            f"{plan.spans_per_trace} spans, some {plan.waiting_mib} MiB."
        )
        comments["processors.tail_sampling.decision_cache"] = (
            "Spans that come after the decision follow it."
        )
        comments["processors.tail_sampling.policies"] = "A trace that any of these keeps is kept."
    if plan.layer != "balancing":
        found["batch"] = {"timeout": "1s", "send_batch_size": 8192, "send_batch_max_size": 16384}
    return found


def _tail_sampling(plan: CollectorPlan) -> Tree:
    policies: list[Tree] = [
        {"name": "failed", "type": "status_code", "status_code": {"status_codes": ["ERROR"]}},
        {"name": "slow", "type": "latency", "latency": {"threshold_ms": plan.slow_ms}},
    ]
    if plan.keep_percent:
        share = {"sampling_percentage": plan.keep_percent}
        policies.append({"name": "others", "type": "probabilistic", "probabilistic": share})
    return {
        "decision_wait": f"{plan.decision_wait_s}s",
        "num_traces": plan.waiting_traces,
        "expected_new_traces_per_sec": plan.traces_per_second,
        "decision_cache": {
            "sampled_cache_size": 8 * plan.waiting_traces,
            "non_sampled_cache_size": 8 * plan.waiting_traces,
        },
        "policies": policies,
    }


def _balancing(plan: CollectorPlan) -> Tree:
    if not plan.samplers:
        raise InvalidValueError("--sampler", "", "the sampling Collectors: host:port of each")
    for sampler in plan.samplers:
        if not re.fullmatch(r"[\w.-]+(:\d{1,5})?|\[[0-9a-fA-F:]+\](:\d{1,5})?", sampler):
            raise InvalidValueError("--sampler", sampler, "a host such as sampler-1:4317")
    if len(plan.samplers) == 1:
        host, _, port = plan.samplers[0].rpartition(":")
        host, port = (host, port) if host else (port, "4317")
        resolver: Tree = {"dns": {"hostname": host, "port": port}}
    else:
        resolver = {"static": {"hostnames": list(plan.samplers)}}
    inner = {"timeout": "1s", "tls": {"insecure": True}}
    return {
        "loadbalancing": {
            "routing_key": "traceID",
            "protocol": {"otlp": inner},
            "resolver": resolver,
        }
    }


# Collectors since 0.144 say otlp_grpc and otlp_http, and know the older names too.


def _destination(to: str) -> Tree:
    if "://" not in to:
        return _preset(to)
    try:
        parts = urlsplit(to)
        port = parts.port
    except ValueError:
        raise InvalidValueError("--to", to, "a URL or a destination's name") from None
    if not parts.hostname or parts.scheme not in ("http", "https", "grpc", "clickhouse"):
        expected = "a destination's name or a URL: http://, https://, grpc:// or clickhouse://"
        raise InvalidValueError("--to", to, expected)
    if parts.scheme == "clickhouse":
        return {
            "clickhouse": {
                "endpoint": f"tcp://{parts.hostname}:{port or 9000}?dial_timeout=10s",
                "database": parts.path.strip("/") or "otel",
                "username": "${env:CLICKHOUSE_USER}",
                "password": "${env:CLICKHOUSE_PASSWORD}",
                "ttl": "168h",
            }
        }
    if parts.scheme == "grpc" or port == 4317:
        insecure = parts.scheme != "https"
        return {"otlp": {"endpoint": parts.netloc, **_patience(), "tls": {"insecure": insecure}}}
    path = parts.path if parts.path.strip("/") else PATH
    return {"otlphttp": {"traces_endpoint": parts._replace(path=path).geturl(), **_patience()}}


def _patience() -> Tree:
    return {
        "retry_on_failure": {"enabled": True, "max_elapsed_time": "300s"},
        "sending_queue": {"enabled": True, "num_consumers": 10, "queue_size": 1000},
    }


def _preset(name: str) -> Tree:
    known = canonical(name)
    if known is None:
        raise UnknownNameError("destination", name, PRESETS)
    preset = PRESETS[known]
    if preset.url_variable:
        raise InvalidValueError("--to", name, f"the URL that {preset.page} shows for OTLP")
    headers = {key: _header(known, header) for key, header in preset.headers.items()}
    exporter: Tree = {"traces_endpoint": _of_collector(preset.endpoint, is_local_replaced=known)}
    needed = {key: value for key, value in headers.items() if preset.headers[key].when is None}
    return {"otlphttp": {**exporter, **({"headers": needed} if needed else {}), **_patience()}}


def _header(name: str, header: Header) -> str:
    if header.base64:
        return f"Basic ${{env:{name.upper()}_BASIC_AUTH}}"
    return _of_collector(header.value)


def _of_collector(template: str, is_local_replaced: str = "") -> str:
    """Write a preset's variables as the Collector reads them.

    A destination on this machine would be the Collector itself, which has its ports: it gets the
    host name that it has in a network of containers.
    """
    text = _VARIABLE.sub(
        lambda match: f"${{env:{match[1]}{'' if match[2] is None else f':-{match[2]}'}}}", template
    )
    parts = urlsplit(text)
    if is_local_replaced and parts.hostname in _LOCAL:
        return parts._replace(netloc=f"{is_local_replaced}:{parts.port}").geturl()
    return text
