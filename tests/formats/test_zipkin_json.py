"""What only Zipkin's files have."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.trace import SpanKind, StatusCode

from formats.written import one_line, read
from tracekit.model import SpanRecord


def made(span_id: str = "1", service: str = "shop", **fields: Any) -> dict[str, Any]:
    return {
        "traceId": "abc",
        "id": span_id,
        "name": "get",
        "timestamp": 5,
        "duration": 2,
        "localEndpoint": {"serviceName": service},
        **fields,
    }


def span(**fields: Any) -> SpanRecord:
    (found,) = read(one_line([made(**fields)]))[1]
    return found


@pytest.mark.parametrize("layout", [lambda s: [s], lambda s: [[s]], lambda s: s])
def test_spans_traces_and_lines_are_read(layout: Any) -> None:
    file, (found,) = read(one_line(layout(made())))
    assert file.format == "zipkin_json"
    assert (found.name, found.start_time, found.end_time) == ("get", 5000, 7000)


def test_tags_of_the_resource_go_to_the_resource() -> None:
    found = span(tags={"host.name": "h", "http.route": "/x"})
    assert found.resource.attributes == {"service.name": "shop", "host.name": "h"}
    assert found.attributes == {"http.route": "/x"}


def test_numbers_by_the_conventions_are_numbers_again() -> None:
    tags = {
        "http.response.status_code": "503",
        "server.port": "80",
        "order.id": "17",
        "x.port": "a",
    }
    assert span(tags=tags).attributes == {
        "http.response.status_code": 503,
        "server.port": 80,
        "order.id": "17",
        "x.port": "a",
    }


def test_the_tag_error_is_the_status_and_its_text_the_description() -> None:
    found = span(tags={"error": "declined"}, kind="CLIENT")
    assert found.kind is SpanKind.CLIENT
    assert (found.status.status_code, found.status.description) == (StatusCode.ERROR, "declined")
    assert span(tags={"error": "false"}).status.status_code is StatusCode.UNSET


def test_the_other_side_is_told_once() -> None:
    remote = {"serviceName": "payment", "ipv4": "10.0.0.1", "port": 8080}
    assert span(remoteEndpoint=remote).attributes == {
        "peer.service": "payment",
        "network.peer.address": "10.0.0.1",
        "network.peer.port": 8080,
    }
    told = span(remoteEndpoint={"serviceName": "pay"}, tags={"server.address": "pay"})
    assert told.attributes == {"server.address": "pay"}


def test_annotations_become_events_with_attributes_where_opentelemetry_wrote_them() -> None:
    values = ["sent", '"retry": {"n": 2}', '"broken": {n}']
    annotations = [{"timestamp": 6, "value": value} for value in values]
    assert [(event.name, event.attributes) for event in span(annotations=annotations).events] == [
        ("sent", {}),
        ("retry", {"n": 2}),
        ('"broken": {n}', {}),
    ]


def test_links_come_back_from_their_tags() -> None:
    found = span(tags={"otlp.link.0": '0f|0a|a=1|{"k": [1]}|0', "otlp.link.1": "nonsense"})
    (link,) = found.links
    assert (link.context.trace_id, link.context.span_id) == (15, 10)
    assert link.context.trace_state == {"a": "1"}
    assert link.attributes == {"k": [1]}
    assert found.attributes == {"otlp.link.1": "nonsense"}


def test_a_shared_span_becomes_two_and_the_servers_children_stay_with_the_server() -> None:
    spans = read(
        one_line(
            [
                made("1", "shop", kind="CLIENT"),
                made("1", "payment", kind="SERVER", shared=True),
                made("2", "payment", parentId="1"),
                made("3", "shop", parentId="1"),
            ]
        )
    )[1]
    client, server, below_server, below_client = spans
    assert client.context.span_id == 1
    assert server.context.span_id not in (0, 1)
    assert server.parent is not None
    assert (server.parent.span_id, server.parent.is_remote) == (1, True)
    assert below_server.parent is not None
    assert below_server.parent.span_id == server.context.span_id
    assert below_client.parent is not None
    assert below_client.parent.span_id == 1


def test_the_servers_id_is_the_same_each_time() -> None:
    content = one_line([made("1", shared=True)])
    assert read(content)[1][0].context == read(content)[1][0].context


def test_a_span_without_a_time_takes_that_of_its_first_annotation() -> None:
    annotations = [{"timestamp": 9, "value": "b"}, {"timestamp": 8, "value": "a"}]
    assert span(timestamp=None, annotations=annotations).start_time == 8000
    file, spans = read(one_line([made(timestamp=None)]))
    assert (spans, file.lost_spans) == ([], 1)


def test_zipkins_first_format_is_refused_with_what_to_do() -> None:
    file, spans = read(one_line([made(binaryAnnotations=[])]))
    assert spans == []
    assert "ask its API for V2" in file.unreadable[0].reason
