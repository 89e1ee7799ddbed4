"""Flask: SERVER spans named for the matched rule, with the exceptions that Flask answers itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MethodType
from typing import Any

from tracekit.instrumentation._http_server import (
    REQUEST_KEY,
    ServerRequest,
    ServerSettings,
    current_request,
)
from tracekit.instrumentation._patch import LibraryInstrumentor, report
from tracekit.instrumentation._replacing import Replacing, ReplacingInstrumentor
from tracekit.instrumentation.wsgi import WsgiServer

__all__ = ["FlaskInstrumentor"]


class FlaskInstrumentor(ReplacingInstrumentor):
    """Patch the class, so that applications made before are traced too.

    Options: ``excluded_urls``, ``server_request_hook``, ``server_response_hook``,
    ``capture_request_headers``, ``capture_response_headers``, ``sanitize_headers``,
    ``known_methods``, ``links``, ``traceresponse``, ``trust``.
    """

    name = "flask"
    distributions = ("flask",)
    supported = ">=2.2,<4"
    contrib = ("flask",)

    def configure(self, options: Mapping[str, Any]) -> None:
        self._server = WsgiServer(self.tracer, ServerSettings.read(self.name, options))

    def patches(self) -> Sequence[Replacing]:
        return (
            # Around middleware that users put into `app.wsgi_app`.
            Replacing("flask.app", "Flask.__call__", self._call),
            # Called without the other by DispatcherMiddleware and by `gunicorn app:app.wsgi_app`.
            Replacing("flask.app", "Flask.wsgi_app", self._call_inner),
            Replacing("flask.app", "Flask.handle_user_exception", _note_exception),
            Replacing("flask.app", "Flask.handle_exception", _note_exception),
            Replacing("flask.ctx", "RequestContext.match_request", _match, optional=True),
        )

    def _call(self, original: Callable[..., Any], owners: Sequence[object]) -> Callable[..., Any]:
        run = self._server.run

        def call(app: Any, environ: Any, start_response: Any) -> Any:
            if not owners:
                return original(app, environ, start_response)
            return run(MethodType(original, app), environ, start_response)

        return call

    def _call_inner(
        self, original: Callable[..., Any], owners: Sequence[object]
    ) -> Callable[..., Any]:
        outer = self._call(original, owners)

        # The usual way through is another than that of `_call`: the interpreter learns one call
        # for each place in the code, and would unlearn it at every other.
        def call(app: Any, environ: Any, start_response: Any) -> Any:
            if REQUEST_KEY in environ:
                return original(app, environ, start_response)
            return outer(app, environ, start_response)

        return call


def _match(original: Callable[..., Any], _owners: Sequence[object]) -> Callable[..., Any]:
    def match_request(context: Any) -> Any:
        result = original(context)
        try:
            flask_request = context.request
            environ, rule = flask_request.environ, flask_request.url_rule
            request: ServerRequest | None = environ.get(REQUEST_KEY)
            if request is not None and rule is not None:
                # Where a dispatcher or a proxy has mounted the application belongs to the route.
                request.matched(environ.get("SCRIPT_NAME", "") + rule.rule)
        except Exception:
            report("the name of a route")
        return result

    return match_request


def _note_exception(original: Callable[..., Any], _owners: Sequence[object]) -> Callable[..., Any]:
    def handle(app: Any, e: Any) -> Any:
        request = current_request()
        if request is not None:
            # By the time that start_response is called it is not being handled any more.
            request.suspect = e
        return original(app, e)

    return handle


plugin: type[LibraryInstrumentor] = FlaskInstrumentor
