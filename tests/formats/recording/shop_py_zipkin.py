"""The shop, with py_zipkin's spans by hand, as its own documentation has them.

``front`` asks ``back`` for the same user three times, and for a score that takes too long.
"""

from __future__ import annotations

import contextlib
import sys
import time

import flask
import requests
from py_zipkin import Encoding, Kind  # pyright: ignore[reportMissingImports]
from py_zipkin.request_helpers import create_http_headers, extract_zipkin_attrs_from_headers  # pyright: ignore[reportMissingImports]
from py_zipkin.zipkin import zipkin_span  # pyright: ignore[reportMissingImports]

SCORE_S, PATIENCE_S = 0.8, 0.5

app = flask.Flask(__name__)
role, port, back_port, receiver = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
back = f"http://127.0.0.1:{back_port}"


def send(encoded: bytes) -> None:
    requests.post(receiver, data=encoded, headers={"Content-Type": "application/json"}, timeout=5)


def asked(path: str) -> zipkin_span:
    return zipkin_span(
        service_name=role,
        span_name=f"GET {path}",
        transport_handler=send,
        port=port,
        zipkin_attrs=extract_zipkin_attrs_from_headers(flask.request.headers),
        sample_rate=100.0,
        kind=Kind.SERVER,
        encoding=Encoding.V2_JSON,
        binary_annotations={"http.method": "GET", "http.path": flask.request.path},
        use_128bit_trace_id=True,
    )


def get(path: str, patience_s: float = 5) -> None:
    with zipkin_span(service_name=role, span_name="GET", kind=Kind.CLIENT) as span:
        url = f"{back}{path}"
        span.update_binary_annotations({"http.method": "GET", "http.url": url})
        answer = requests.get(url, headers=create_http_headers(), timeout=patience_s)
        span.update_binary_annotations({"http.status_code": str(answer.status_code)})


@app.get("/ready")
def ready() -> str:
    return "yes"


@app.get("/checkout")
def checkout() -> str:
    with asked("/checkout"):
        for _ in range(3):
            get("/users/7")
        with contextlib.suppress(requests.Timeout):
            get("/score", PATIENCE_S)
    return "paid"


@app.get("/users/<int:user>")
def find_user(user: int) -> dict[str, str]:
    with asked("/users/{user}"):
        time.sleep(0.04)
    return {"name": f"user {user}"}


@app.get("/score")
def score() -> str:
    with asked("/score"):
        time.sleep(SCORE_S)
    return "fine"


app.run("127.0.0.1", port, threaded=True)
