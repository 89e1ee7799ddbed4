"""Record what other tracers write: run a shop of two services under each, keep the JSON.

    python tests/formats/recording/record.py [ddtrace] [ddtrace_log] [py_zipkin] [opentelemetry_js]

The tracers come from the package registries of Python and Node, into a temporary folder. What is
recorded is kept beside this file, and read by the tests.
"""

from __future__ import annotations

import getpass
import json
import logging
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from werkzeug import Request, Response
from werkzeug.serving import make_server

HERE = Path(__file__).resolve().parent
MACHINE = Path("/etc/machine-id")
sys.path.insert(0, str(HERE.parents[1]))

from backends.running import fetched, free_ports, running, until  # noqa: E402

logging.getLogger("werkzeug").setLevel(logging.WARNING)

SERVICES = 2
REQUESTS = 4
"""Of the front to the back; each has a span on both sides, and one more is the checkout's."""


class Received(list[Any]):
    """The documents that were posted to a receiver on loopback."""

    def __init__(self) -> None:
        super().__init__()
        self.url = ""


@contextmanager
def receiving() -> Iterator[Received]:
    received = Received()

    @Request.application
    def take(request: Request) -> Response:
        received.append(request.get_json())
        return Response("{}", content_type="application/json")

    server = make_server("127.0.0.1", 0, take, threaded=True)
    received.url = f"http://127.0.0.1:{server.server_port}/"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield received
    finally:
        server.shutdown()
        server.server_close()


def installed(folder: Path, *packages: str) -> Path:
    """Make an environment of Python with these packages; return the folder of its programs."""
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    pip = [folder / "venv/bin/pip", "install", "--quiet", "flask", "requests", *packages]
    subprocess.run(pip, check=True)
    return folder / "venv/bin"


def shop(
    folder: Path,
    command: Sequence[object],
    rest: Sequence[str] = (),
    variables: Mapping[str, str] | None = None,
    *,
    is_done: Callable[[], bool],
) -> None:
    """Run both services, check out once, and wait until all is written."""
    front, back = free_ports(SERVICES)
    with ExitStack() as stack:
        for role, port in (("back", back), ("front", front)):
            stack.enter_context(
                running(
                    [*command, role, port, back, *rest],
                    f"http://127.0.0.1:{port}/ready",
                    folder / f"{role}.log",
                    {"DD_SERVICE": role, **(variables or {})},
                )
            )
        assert fetched(f"http://127.0.0.1:{front}/checkout").status_code == 200
        assert until(is_done, 20), "not all spans came"
        time.sleep(1)


def ddtrace(folder: Path) -> Any:
    """Datadog's tracer through Datadog's test agent, which answers with what it got."""
    from backends import datadog

    programs = installed(folder, "ddtrace", "ddapm-test-agent")
    (folder / "version").touch()
    (folder / "ddapm-test-agent").symlink_to(programs / "ddapm-test-agent")
    datadog.program = lambda _name, file: folder / file
    with datadog.start(folder) as agent:

        def found() -> list[Any]:
            traces = fetched(f"{agent.url}/test/traces").json()
            return [trace for trace in traces if "/checkout" in json.dumps(trace)]

        command = [programs / "ddtrace-run", programs / "python", HERE / "shop_ddtrace.py"]
        variables = {"DD_TRACE_AGENT_URL": agent.url, **QUIET}
        shop(
            folder,
            command,
            variables=variables,
            is_done=lambda: (
                json.dumps(found()).count('"requests.request"') == REQUESTS
                and json.dumps(found()).count('"flask.request"') == REQUESTS + 1
            ),
        )
        return found()


QUIET = {"DD_INSTRUMENTATION_TELEMETRY_ENABLED": "0", "DD_REMOTE_CONFIGURATION_ENABLED": "0"}


def ddtrace_log(folder: Path) -> Any:
    """Datadog's tracer where no agent is: as on AWS Lambda it writes its spans to the log."""
    programs = installed(folder, "ddtrace")
    command = [programs / "ddtrace-run", programs / "python", HERE / "shop_ddtrace.py"]

    def written() -> list[str]:
        text = "".join((folder / f"{role}.log").read_text() for role in ("back", "front"))
        lines = [line for line in text.splitlines() if line.startswith('{"traces"')]
        return [line for line in lines if "/ready" not in line]

    variables = {"AWS_LAMBDA_FUNCTION_NAME": "shop", **QUIET}
    shop(folder, command, variables=variables, is_done=lambda: len(written()) == REQUESTS + 1)
    return "\n".join(written())


def py_zipkin(folder: Path) -> Any:
    """What py_zipkin posts to Zipkin, in the second version of its JSON."""
    programs = installed(folder, "py_zipkin")
    with receiving() as received:
        command = [programs / "python", HERE / "shop_py_zipkin.py"]
        shop(folder, command, [received.url], is_done=lambda: len(received) == REQUESTS + 1)
    return [span for spans in received for span in spans]


def opentelemetry_js(folder: Path) -> Any:
    """What OpenTelemetry's SDK for Node.js posts to a Collector: OTLP as JSON."""
    of = "@opentelemetry"
    packages = [f"{of}/sdk-node", f"{of}/exporter-trace-otlp-http", f"{of}/instrumentation-http"]
    npm = ["npm", "install", "--no-audit", "--no-fund", "--silent", "--prefix", folder]
    subprocess.run([*npm, *packages], check=True)
    with receiving() as received:
        command = ["node", HERE / "shop_opentelemetry_js.js"]
        shop(
            folder,
            command,
            [received.url],
            {"NODE_PATH": str(folder / "node_modules")},
            is_done=lambda: json.dumps(received).count('"spanId"') == 2 * REQUESTS + 1,
        )
    return {"resourceSpans": [item for each in received for item in each["resourceSpans"]]}


RECORDERS: dict[str, Callable[[Path], Any]] = {
    each.__name__: each for each in (ddtrace, ddtrace_log, py_zipkin, opentelemetry_js)
}


def without_this_machine(text: str, folder: Path) -> str:
    """Leave out what says where it was recorded: folders, host and user."""
    here = {
        str(folder): "/srv",
        str(HERE): "/srv",
        sys.base_prefix: "/usr",
        folder.name: "shop",
        f'"{socket.gethostname()}"': '"host"',
        f'"{getpass.getuser()}"': '"user"',
        MACHINE.read_text().strip() if MACHINE.exists() else "no machine id": "0" * 32,
    }
    for what, instead in here.items():
        text = text.replace(what, instead)
    return text


def main() -> None:
    for name in sys.argv[1:] or RECORDERS:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            recorded = RECORDERS[name](folder)
            text = recorded if isinstance(recorded, str) else json.dumps(recorded, indent=1)
            path = HERE / f"{name}.json"
            path.write_text(f"{without_this_machine(text, folder)}\n", "utf-8")
        print(path)


if __name__ == "__main__":
    main()
