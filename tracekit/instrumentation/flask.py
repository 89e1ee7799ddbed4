"""Flask: SERVER spans named for the matched rule, with the exceptions that Flask answers itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tracekit.instrumentation._http_server import (
    REQUEST_KEY,
    ServerRequest,
    ServerSettings,
    current_request,
)
from tracekit.instrumentation._patch import LibraryInstrumentor, Patch, quiet
from tracekit.instrumentation.wsgi import WsgiServer

__all__ = ["FlaskInstrumentor"]


class FlaskInstrumentor(LibraryInstrumentor):
    """Patch the class, so that applications made before are traced too.

    Options: ``excluded_urls``, ``server_request_hook``, ``server_response_hook``,
    ``capture_request_headers``, ``capture_response_headers``, ``sanitize_headers``,
    ``known_methods``, ``links``.
    """

    name = "flask"
    distributions = ("flask",)
    supported = ">=2.2,<4"
    contrib = ("flask",)

    def configure(self, options: Mapping[str, Any]) -> None:
        self._server = WsgiServer(self.tracer, ServerSettings.read(self.name, options))

    def patches(self) -> Sequence[Patch]:
        return (
            # Around middleware that users put into `app.wsgi_app`.
            Patch("flask.app", "Flask.__call__", self._call),
            # Called without the other by DispatcherMiddleware and by `gunicorn app:app.wsgi_app`.
            Patch("flask.app", "Flask.wsgi_app", self._call),
            Patch("flask.app", "Flask.handle_user_exception", _note_exception),
            Patch("flask.app", "Flask.handle_exception", _note_exception),
            Patch("flask.ctx", "RequestContext.match_request", _match, optional=True),
        )

    def _call(
        self, wrapped: Callable[..., Any], _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        return self._server.run(wrapped, *args, **kwargs)


def _match(
    wrapped: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    result = wrapped(*args, **kwargs)
    _name(instance.request)
    return result


@quiet
def _name(flask_request: Any) -> None:
    environ = flask_request.environ
    request: ServerRequest | None = environ.get(REQUEST_KEY)
    rule = flask_request.url_rule
    if request is not None and rule is not None:
        # Where the application is mounted, by a dispatcher or a proxy, belongs to the route.
        request.matched(environ.get("SCRIPT_NAME", "") + rule.rule)


def _note_exception(
    wrapped: Callable[..., Any], _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    request = current_request()
    if request is not None and args:
        # By the time that start_response is called it is not being handled any more.
        request.suspect = args[-1]
    return wrapped(*args, **kwargs)


plugin: type[LibraryInstrumentor] = FlaskInstrumentor
