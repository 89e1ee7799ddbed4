"""botocore, and boto3 on it: one CLIENT span for each call of a service, one for each attempt.

The span of the call, such as ``S3.GetObject``, is what the program asked for; the requests that
botocore makes for it, retries too, are HTTP spans below. Messages that a call sends carry the
context of the call.
https://opentelemetry.io/docs/specs/semconv/cloud-providers/aws-sdk/
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from tracekit import semconv
from tracekit.instrumentation._aws_services import (
    carries,
    carrying,
    links_from,
    told_by,
    wanting_context,
)
from tracekit.instrumentation._caller import caller_from
from tracekit.instrumentation._http import Headers
from tracekit.instrumentation._http_client import (
    Attempt,
    Exchange,
    HttpClientSteps,
    current_exchange,
)
from tracekit.instrumentation._http_client_attributes import HttpClientSettings, destination_of
from tracekit.instrumentation._messages import headers_for
from tracekit.instrumentation._operation import Operation, begin
from tracekit.instrumentation._patch import LibraryInstrumentor, quiet, report
from tracekit.instrumentation._replacing import Replacing, ReplacingInstrumentor
from tracekit.instrumentation._urllib3 import attempt_patches, hand_over, version_of

__all__ = ["BotocoreInstrumentor"]

_Call = Callable[..., Any]


class BotocoreInstrumentor(ReplacingInstrumentor):
    """Watch botocore and boto3. Options are those of :meth:`HttpClientSettings.read`, and two more.

    ``inject`` says whether messages carry context (``TRACEKIT_BOTOCORE_INJECT``); ``code_location``
    whether the program's line is recorded.
    """

    name = "botocore"
    distributions = ("botocore",)
    supported = ">=1.29,<2"
    contrib = ("botocore", "boto3sqs", "boto3")

    def configure(self, options: Mapping[str, Any]) -> None:
        self._read(**options)

    def _read(
        self, *, inject: bool | None = None, code_location: bool | None = None, **options: Any
    ) -> None:
        self._injects = inject
        if inject is None:
            text = os.environ.get("TRACEKIT_BOTOCORE_INJECT", "").strip().lower()
            self._injects = text != "false"
        self._caller = caller_from(os.environ, code_location)
        settings = HttpClientSettings.read(self.name, os.environ, **options)
        self._steps = HttpClientSteps(self.tracer, settings, _headers_of)

    def patches(self) -> Sequence[Replacing]:
        return (
            Replacing("botocore.client", "BaseClient._make_api_call", self._make_api_call),
            Replacing("botocore.httpsession", "URLLib3Session.send", self._send),
            *attempt_patches(),
        )

    def _make_api_call(self, original: _Call, owners: Sequence[object]) -> _Call:
        def make_api_call(client: Any, operation_name: str, api_params: Any) -> Any:
            operation = self._begin(client, operation_name, api_params) if owners else None
            if operation is None:
                return original(client, operation_name, api_params)
            service = client._service_model.service_id
            params = self._prepared(operation, service, operation_name, api_params)
            # All requests that the client's own session makes meanwhile are attempts of this call.
            exchange = Exchange(_session_of(client))
            try:
                response = original(client, operation_name, params)
            except BaseException as error:
                exchange.close()
                _fail(operation, error)
                raise
            exchange.close()
            _succeed(operation, service, operation_name, response)
            return response

        return make_api_call

    def _begin(self, client: Any, operation_name: str, params: Any) -> Operation | None:
        try:
            service = client._service_model.service_id
            attributes = {
                **_attributes(
                    service, operation_name, client.meta.region_name, client.meta.endpoint_url
                ),
                **told_by(service, operation_name, params if isinstance(params, dict) else {}),
            }
            if self._caller is not None:
                attributes.update(self._caller.attributes())
        except Exception:
            report("what is known of a call")
            return None
        name = f"{service}.{operation_name}"
        return begin(self.tracer.start_span, "botocore", name, attributes)

    def _prepared(
        self, operation: Operation, service: str, operation_name: str, params: Any
    ) -> Any:
        """Return the parameters with the context of the call, for what it sends."""
        if not (self._injects and carries(service, operation_name) and isinstance(params, dict)):
            return params
        try:
            headers = headers_for(operation.context)
            return wanting_context(
                service, operation_name, carrying(service, operation_name, params, headers)
            )
        except Exception:
            report("the injection of trace headers")
            return params

    def _send(self, original: _Call, owners: Sequence[object]) -> _Call:
        def send(session: Any, request: Any) -> Any:
            if not owners:
                return original(session, request)
            exchange = current_exchange()
            if exchange is not None and not exchange.closed and exchange.owner is session:
                return self._attempt(exchange, original, session, request)
            exchange = Exchange(session)
            try:
                return self._attempt(exchange, original, session, request)
            finally:
                exchange.close()

        return send

    def _attempt(self, exchange: Exchange, original: _Call, session: Any, request: Any) -> Any:
        attempt = self._begin_attempt(exchange, session, request)
        if attempt is None:
            return original(session, request)
        hand_over(attempt)
        try:
            response = original(session, request)
        except BaseException as error:
            attempt.noted = None  # what goes on to the program came of it
            attempt.fail(error)
            raise
        _complete(attempt, response)
        return response

    def _begin_attempt(self, exchange: Exchange, session: Any, request: Any) -> Attempt | None:
        try:
            url = request.url
            return self._steps.begin(
                exchange,
                request,
                request.method,
                url,
                destination_of(url),
                request.headers,
                _timeouts(session),
            )
        except Exception:
            report("what is known of a request")
            return None


def _session_of(client: Any) -> Any:
    return getattr(getattr(client, "_endpoint", None), "http_session", client)


def _headers_of(message: Any) -> Headers:
    return message.headers.items()  # type: ignore[no-any-return]


def _complete(attempt: Attempt, response: Any) -> None:
    """Record the response of one attempt, whose body is read unless it is streamed."""
    try:
        status, version = response.status_code, version_of(response.raw)
    except Exception:
        report("the reading of a response")
        attempt.leave()
        attempt.end()
        return
    attempt.succeed(response, status, version)
    attempt.end()


def _timeouts(session: Any) -> Mapping[str, float]:
    timeout = getattr(session, "_timeout", None)
    connect, read = getattr(timeout, "_connect", None), getattr(timeout, "_read", None)
    limits: dict[str, float] = {}
    if isinstance(connect, (int, float)):
        limits[semconv.TIMEOUT_CONNECT] = connect
    if isinstance(read, (int, float)):
        limits[semconv.TIMEOUT_READ] = read
    return limits


@functools.lru_cache(maxsize=1024)
def _attributes(
    service: str, operation: str, region: str | None, endpoint: str | None
) -> Mapping[str, Any]:
    attributes: dict[str, Any] = {
        semconv.RPC_SYSTEM_NAME: "aws-api",
        semconv.RPC_METHOD: f"{service}/{operation}",
    }
    if region:
        attributes[semconv.CLOUD_REGION] = region
    parts = urlsplit(endpoint or "")
    if parts.hostname:
        attributes[semconv.SERVER_ADDRESS] = parts.hostname
        attributes[semconv.SERVER_PORT] = parts.port or (80 if parts.scheme == "http" else 443)
    if service == "Lambda" and operation == "Invoke" and region:
        attributes[semconv.FAAS_INVOKED_REGION] = region
    return attributes


def _answered(response: Any) -> dict[str, Any]:
    """Return what the metadata of a response tell."""
    metadata = response.get("ResponseMetadata") if isinstance(response, dict) else None
    if not isinstance(metadata, dict):
        return {}
    told = {
        semconv.AWS_REQUEST_ID: metadata.get("RequestId"),
        semconv.AWS_EXTENDED_REQUEST_ID: metadata.get("HostId"),
        semconv.HTTP_RESPONSE_STATUS_CODE: metadata.get("HTTPStatusCode"),
        semconv.HTTP_REQUEST_RESEND_COUNT: metadata.get("RetryAttempts"),
        semconv.MESSAGING_MESSAGE_ID: response.get("MessageId"),
    }
    if "Messages" in response:
        told[semconv.MESSAGING_BATCH_MESSAGE_COUNT] = len(response["Messages"])
    return {name: value for name, value in told.items() if value}


def _succeed(operation: Operation, service: str, name: str, response: Any) -> None:
    try:
        told = _answered(response)
        for link in links_from(service, name, response):
            operation.span.add_link(link.context)
    except Exception:
        report("the reading of a response")
        told = {}
    operation.succeed(told)


def _fail(operation: Operation, error: BaseException) -> None:
    operation.fail(error, _told_by_error(error))


@quiet
def _told_by_error(error: BaseException) -> dict[str, Any]:
    response = getattr(error, "response", None)
    told = _answered(response)
    code = response.get("Error", {}).get("Code") if isinstance(response, dict) else None
    if isinstance(code, str) and code:
        told[semconv.ERROR_TYPE] = code
    return told


plugin: type[LibraryInstrumentor] = BotocoreInstrumentor
