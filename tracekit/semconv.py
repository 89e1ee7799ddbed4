"""Attribute names that tracekit writes, each found on the page that :func:`link` gives.

Stable names of the OpenTelemetry semantic conventions; the names they replaced are at the end,
written beside them only where ``OTEL_SEMCONV_STABILITY_OPT_IN`` asks for both.
"""

from __future__ import annotations

from typing import Final

__all__ = ["SCHEMA_URL", "link"]

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.37.0"

_REGISTRY: Final = "https://opentelemetry.io/docs/specs/semconv/registry/attributes"


def link(attribute: str) -> str:
    """Return the page, with anchor, of the registry that describes `attribute`.

    Header attributes end in the header's name; the registry has one entry for all of them.
    """
    name = attribute
    for prefix in (HTTP_REQUEST_HEADER, HTTP_RESPONSE_HEADER, DB_QUERY_PARAMETER):
        if attribute.startswith(prefix):
            name = prefix.rstrip(".")
    page = name.partition(".")[0].replace("_", "-")
    return f"{_REGISTRY}/{page}/#{name.replace('.', '-').replace('_', '-')}"


# https://opentelemetry.io/docs/specs/semconv/registry/attributes/http/
HTTP_REQUEST_METHOD: Final = "http.request.method"  # upper case, or METHOD_OTHER
HTTP_REQUEST_METHOD_ORIGINAL: Final = "http.request.method_original"  # only beside _OTHER
HTTP_REQUEST_RESEND_COUNT: Final = "http.request.resend_count"  # from 1, only on resends
HTTP_REQUEST_HEADER: Final = "http.request.header."  # + name in lower case, dashes kept
HTTP_REQUEST_BODY_SIZE: Final = "http.request.body.size"
HTTP_REQUEST_SIZE: Final = "http.request.size"
HTTP_RESPONSE_STATUS_CODE: Final = "http.response.status_code"
HTTP_RESPONSE_HEADER: Final = "http.response.header."  # + name in lower case, dashes kept
HTTP_RESPONSE_BODY_SIZE: Final = "http.response.body.size"
HTTP_RESPONSE_SIZE: Final = "http.response.size"
HTTP_ROUTE: Final = "http.route"  # the matched template, never the raw path

METHOD_OTHER: Final = "_OTHER"  # http.request.method of a method that is not known

# https://opentelemetry.io/docs/specs/semconv/registry/attributes/url/
URL_FULL: Final = "url.full"
URL_SCHEME: Final = "url.scheme"
URL_PATH: Final = "url.path"
URL_QUERY: Final = "url.query"
URL_FRAGMENT: Final = "url.fragment"
URL_TEMPLATE: Final = "url.template"

# https://opentelemetry.io/docs/specs/semconv/registry/attributes/network/
NETWORK_PEER_ADDRESS: Final = "network.peer.address"
NETWORK_PEER_PORT: Final = "network.peer.port"
NETWORK_LOCAL_ADDRESS: Final = "network.local.address"
NETWORK_LOCAL_PORT: Final = "network.local.port"
NETWORK_PROTOCOL_NAME: Final = "network.protocol.name"  # only when it is not http
NETWORK_PROTOCOL_VERSION: Final = "network.protocol.version"
NETWORK_TRANSPORT: Final = "network.transport"

# https://opentelemetry.io/docs/specs/semconv/registry/attributes/client/ and .../server/
CLIENT_ADDRESS: Final = "client.address"
CLIENT_PORT: Final = "client.port"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"

# https://opentelemetry.io/docs/specs/semconv/registry/attributes/user-agent/
USER_AGENT_ORIGINAL: Final = "user_agent.original"
USER_AGENT_SYNTHETIC_TYPE: Final = "user_agent.synthetic.type"

# https://opentelemetry.io/docs/specs/semconv/registry/attributes/error/
ERROR_TYPE: Final = "error.type"  # status code as text, or qualified class; never on success

# https://opentelemetry.io/docs/specs/semconv/registry/attributes/exception/
EXCEPTION_EVENT: Final = "exception"
EXCEPTION_TYPE: Final = "exception.type"
EXCEPTION_MESSAGE: Final = "exception.message"
EXCEPTION_STACKTRACE: Final = "exception.stacktrace"
EXCEPTION_ESCAPED: Final = "exception.escaped"  # deprecated, written on request only

# https://opentelemetry.io/docs/specs/semconv/registry/attributes/db/
DB_SYSTEM_NAME: Final = "db.system.name"
DB_NAMESPACE: Final = "db.namespace"
DB_OPERATION_BATCH_SIZE: Final = "db.operation.batch.size"  # never 1
DB_QUERY_TEXT: Final = "db.query.text"  # parameterised, or with its values replaced
DB_QUERY_SUMMARY: Final = "db.query.summary"  # at most 255 characters
DB_QUERY_PARAMETER: Final = "db.query.parameter."  # + name or index from 0; on request only
DB_RESPONSE_STATUS_CODE: Final = "db.response.status_code"  # SQLSTATE, or the library's number
DB_RESPONSE_RETURNED_ROWS: Final = "db.response.returned_rows"
DB_STORED_PROCEDURE_NAME: Final = "db.stored_procedure.name"
DB_COLLECTION_NAME: Final = "db.collection.name"
DB_OPERATION_NAME: Final = "db.operation.name"  # of an API; never read from a query

# https://opentelemetry.io/docs/specs/semconv/registry/attributes/rpc/
RPC_SYSTEM_NAME: Final = "rpc.system.name"
RPC_METHOD: Final = "rpc.method"  # package.Service/Method
RPC_METHOD_ORIGINAL: Final = "rpc.method_original"  # only beside _OTHER
RPC_STATUS_CODE: Final = "rpc.status_code"  # name of a gRPC status: OK, DEADLINE_EXCEEDED

# https://opentelemetry.io/docs/specs/semconv/registry/attributes/messaging/
MESSAGING_SYSTEM: Final = "messaging.system"
MESSAGING_OPERATION_NAME: Final = "messaging.operation.name"
MESSAGING_OPERATION_TYPE: Final = "messaging.operation.type"  # send, receive, process
MESSAGING_DESTINATION_NAME: Final = "messaging.destination.name"
MESSAGING_MESSAGE_ID: Final = "messaging.message.id"
MESSAGING_MESSAGE_CONVERSATION_ID: Final = "messaging.message.conversation_id"
MESSAGING_BATCH_MESSAGE_COUNT: Final = "messaging.batch.message_count"

# https://opentelemetry.io/docs/specs/semconv/registry/attributes/aws/ and .../cloud/
AWS_REQUEST_ID: Final = "aws.request_id"
AWS_EXTENDED_REQUEST_ID: Final = "aws.extended_request_id"
AWS_S3_BUCKET: Final = "aws.s3.bucket"
AWS_S3_KEY: Final = "aws.s3.key"
AWS_SQS_QUEUE_URL: Final = "aws.sqs.queue.url"
AWS_SNS_TOPIC_ARN: Final = "aws.sns.topic.arn"
AWS_DYNAMODB_TABLE_NAMES: Final = "aws.dynamodb.table_names"
CLOUD_REGION: Final = "cloud.region"
CLOUD_RESOURCE_ID: Final = "cloud.resource_id"
CLOUD_ACCOUNT_ID: Final = "cloud.account.id"

# https://opentelemetry.io/docs/specs/semconv/registry/attributes/faas/
FAAS_COLDSTART: Final = "faas.coldstart"
FAAS_TRIGGER: Final = "faas.trigger"  # http, pubsub, datasource, timer, other
FAAS_INVOCATION_ID: Final = "faas.invocation_id"
FAAS_INVOKED_NAME: Final = "faas.invoked_name"
FAAS_INVOKED_PROVIDER: Final = "faas.invoked_provider"
FAAS_INVOKED_REGION: Final = "faas.invoked_region"

# https://opentelemetry.io/docs/specs/semconv/registry/attributes/code/
CODE_FUNCTION_NAME: Final = "code.function.name"
CODE_FILE_PATH: Final = "code.file.path"
CODE_LINE_NUMBER: Final = "code.line.number"
CODE_STACKTRACE: Final = "code.stacktrace"

# https://opentelemetry.io/docs/specs/semconv/registry/attributes/opentracing/
OPENTRACING_REF_TYPE: Final = "opentracing.ref_type"  # of a link: child_of, follows_from

# https://opentelemetry.io/docs/specs/semconv/registry/attributes/service/
SERVICE_NAME: Final = "service.name"
SERVICE_NAMESPACE: Final = "service.namespace"
SERVICE_VERSION: Final = "service.version"
SERVICE_INSTANCE_ID: Final = "service.instance.id"

# https://opentelemetry.io/docs/specs/semconv/registry/attributes/telemetry/
TELEMETRY_SDK_NAME: Final = "telemetry.sdk.name"
TELEMETRY_SDK_LANGUAGE: Final = "telemetry.sdk.language"
TELEMETRY_SDK_VERSION: Final = "telemetry.sdk.version"
TELEMETRY_DISTRO_NAME: Final = "telemetry.distro.name"
TELEMETRY_DISTRO_VERSION: Final = "telemetry.distro.version"

# https://opentelemetry.io/docs/specs/semconv/registry/attributes/process/
PROCESS_PID: Final = "process.pid"
PROCESS_PARENT_PID: Final = "process.parent_pid"
PROCESS_EXECUTABLE_NAME: Final = "process.executable.name"
PROCESS_EXECUTABLE_PATH: Final = "process.executable.path"
PROCESS_EXIT_CODE: Final = "process.exit.code"
PROCESS_COMMAND: Final = "process.command"
PROCESS_COMMAND_ARGS: Final = "process.command_args"  # may hold secrets: on request only
PROCESS_OWNER: Final = "process.owner"
PROCESS_RUNTIME_NAME: Final = "process.runtime.name"
PROCESS_RUNTIME_VERSION: Final = "process.runtime.version"
PROCESS_RUNTIME_DESCRIPTION: Final = "process.runtime.description"

# https://opentelemetry.io/docs/specs/semconv/registry/attributes/thread/
THREAD_ID: Final = "thread.id"
THREAD_NAME: Final = "thread.name"

# https://opentelemetry.io/docs/specs/semconv/registry/attributes/host/ and .../os/
HOST_NAME: Final = "host.name"
HOST_ID: Final = "host.id"
HOST_ARCH: Final = "host.arch"
OS_TYPE: Final = "os.type"
OS_DESCRIPTION: Final = "os.description"

# Names of our own, described in docs/reference/attributes.md: what findings need and
# OpenTelemetry has no name for. Seconds; absent where no limit is configured.
TIMEOUT_CONNECT: Final = "tracekit.timeout.connect_s"
TIMEOUT_READ: Final = "tracekit.timeout.read_s"
TIMEOUT_WRITE: Final = "tracekit.timeout.write_s"
TIMEOUT_POOL: Final = "tracekit.timeout.pool_s"  # the longest wait for a free connection
TIMEOUT_TOTAL: Final = "tracekit.timeout.total_s"
POOL_WAIT: Final = "tracekit.pool.wait_s"  # what was waited for a free connection
QUERY_HASH: Final = "tracekit.db.query.hash"  # of the whole query without its values
PARAMETERS_HASH: Final = "tracekit.db.parameters.hash"  # keyed by the trace's id
PING: Final = "tracekit.db.ping"  # true: nothing is asked but whether the database is there
BODY_STARTED_EVENT: Final = "tracekit.body.started"  # response headers are read, body begins
BODY_ABANDONED_EVENT: Final = "tracekit.body.abandoned"  # closed before its end was read
MAIL_RECIPIENTS: Final = "tracekit.mail.recipients"  # how many people a mail is for
MAIL_REFUSED: Final = "tracekit.mail.refused"  # and of them, to whom the server lets none
MAIL_BODY_BYTES: Final = "tracekit.mail.body_bytes"  # with its headers
LOG_EVENT: Final = "log"  # a log record, with the three below and an exception's attributes
LOG_LEVEL: Final = "tracekit.log.level"
LOG_MESSAGE: Final = "tracekit.log.message"
LOG_LOGGER: Final = "tracekit.log.logger"
LOG_DROPPED: Final = "tracekit.log.dropped"  # on the span: records that were too many
LOOP_BLOCKED: Final = "tracekit.loop.blocked_ms"  # the longest time that a span held the loop up
LOOP_BLOCKED_EVENT: Final = "tracekit.loop.blocked"

# Names that OpenTelemetry's instrumentation of celery writes; the conventions have none.
CELERY_TASK_NAME: Final = "celery.task_name"
CELERY_STATE: Final = "celery.state"  # SUCCESS, FAILURE, RETRY, REVOKED, IGNORED, REJECTED
CELERY_RETRIES: Final = "celery.retries"  # how often it was tried before; absent the first time

# On a span that stands for several siblings which were alike; nanoseconds, so that sums are exact.
COMPRESSED_COUNT: Final = "tracekit.compressed.count"  # of all of them, at least 2
COMPRESSED_TOTAL: Final = "tracekit.compressed.total_ns"
COMPRESSED_MIN: Final = "tracekit.compressed.min_ns"
COMPRESSED_MAX: Final = "tracekit.compressed.max_ns"

REDACTED: Final = "tracekit.redacted"  # keys of attributes whose values were replaced

# Replaced names of the HTTP conventions, for OTEL_SEMCONV_STABILITY_OPT_IN=http/dup.
# https://opentelemetry.io/docs/specs/semconv/non-normative/http-migration/
OLD_HTTP_METHOD: Final = "http.method"
OLD_HTTP_URL: Final = "http.url"
OLD_HTTP_TARGET: Final = "http.target"
OLD_HTTP_SCHEME: Final = "http.scheme"
OLD_HTTP_HOST: Final = "http.host"
OLD_HTTP_STATUS_CODE: Final = "http.status_code"
OLD_HTTP_FLAVOR: Final = "http.flavor"
OLD_HTTP_USER_AGENT: Final = "http.user_agent"
OLD_HTTP_CLIENT_IP: Final = "http.client_ip"
OLD_HTTP_SERVER_NAME: Final = "http.server_name"
OLD_NET_PEER_NAME: Final = "net.peer.name"
OLD_NET_PEER_PORT: Final = "net.peer.port"
OLD_NET_PEER_IP: Final = "net.peer.ip"
OLD_NET_HOST_NAME: Final = "net.host.name"
OLD_NET_HOST_PORT: Final = "net.host.port"

# The same of the database conventions, for database/dup.
# https://opentelemetry.io/docs/specs/semconv/non-normative/db-migration/
OLD_DB_SYSTEM: Final = "db.system"
OLD_DB_NAME: Final = "db.name"
OLD_DB_STATEMENT: Final = "db.statement"
