"""botocore, and boto3 on it: one CLIENT span for each call of a service, one for each attempt.

The span of the call, such as ``S3.GetObject``, is what the program asked for; the requests that
botocore makes for it, retries too, are HTTP spans below. Messages that a call sends carry the
context of the call.
https://opentelemetry.io/docs/specs/semconv/cloud-providers/aws-sdk/
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tracekit.instrumentation._aws_requests import PlainHeaders, answer_patches
from tracekit.instrumentation._botocore import CallSteps, complete
from tracekit.instrumentation._http_client import current_exchange
from tracekit.instrumentation._http_client_attributes import limits_of
from tracekit.instrumentation._patch import LibraryInstrumentor
from tracekit.instrumentation._replacing import Replacing, ReplacingInstrumentor
from tracekit.instrumentation._urllib3 import CONTRIB, loaded, version_of

__all__ = ["BotocoreInstrumentor"]

_Call = Callable[..., Any]


class BotocoreInstrumentor(ReplacingInstrumentor):
    """Watch botocore, and boto3. Options are those of :meth:`HttpClientSettings.read`, and one.

    ``inject`` says whether messages carry context (``TRACEKIT_BOTOCORE_INJECT``).
    """

    name = "botocore"
    distributions = ("botocore",)
    supported = ">=1.29,<2"
    contrib = ("botocore", "boto3sqs", "boto3")

    def configure(self, options: Mapping[str, Any]) -> None:
        self._steps = CallSteps(self.name, self.tracer, _timeouts_of, **options)

    def patches(self) -> Sequence[Replacing]:
        return (
            Replacing("botocore.client", "BaseClient._make_api_call", self._make_api_call),
            Replacing("botocore.httpsession", "URLLib3Session.send", self._send),
            *answer_patches(),
        )

    def _make_api_call(self, original: _Call, owners: Sequence[object]) -> _Call:
        begin = self._steps.begin

        def make_api_call(client: Any, operation_name: str, api_params: Any) -> Any:
            call = begin(client, operation_name, api_params) if owners else None
            if call is None:
                return original(client, operation_name, api_params)
            try:
                response = original(client, operation_name, call.params)
            except BaseException as error:
                call.fail(error)
                raise
            call.succeed(response)
            return response

        return make_api_call

    def _send(self, original: _Call, owners: Sequence[object]) -> _Call:
        steps, plain = self._steps, PlainHeaders(original)

        def send(session: Any, request: Any) -> Any:
            exchange: Any = current_exchange()
            if exchange is None or exchange.owner is not session or exchange.closed:
                return send_alone(session, request) if owners else original(session, request)
            headers = request.headers
            carrier = plain.of(headers)
            attempt = steps.begin_attempt(exchange, request, carrier)
            if attempt is None:
                return original(session, request)
            # hand_over(), without its clock: a pool of botocore's has no wait.
            if CONTRIB in loaded:
                attempt.silence()
            request.headers = carrier
            try:
                response = original(session, request)
            except BaseException as error:
                attempt.fail(error)
                raise
            finally:
                request.headers = headers
            if attempt.is_over:  # since its headers were read: nearly always
                attempt.noted = None
            else:
                complete(attempt, response, version_of(getattr(response, "raw", None)))
            return response

        def send_alone(session: Any, request: Any) -> Any:
            """Send what no call asked for, such as a request for credentials."""
            exchange = steps.sending(session)
            try:
                return send(session, request)
            finally:
                exchange.close()

        return send


def _timeouts_of(session: Any) -> Mapping[str, float]:
    return limits_of(getattr(session, "_timeout", None))


plugin: type[LibraryInstrumentor] = BotocoreInstrumentor
