"""A RabbitMQ of the operating system's, on a free port and in a folder of its own.

It runs as whoever runs the tests, root too: the program that Debian has on PATH insists on a user
of its own, so the script behind it is called. Erlang's own network between nodes is off: neither
the port for it is opened nor epmd started, which would be shared by all nodes and outlive them.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from servers import free_port, running, until

__all__ = ["PROGRAM", "needs_rabbitmq", "processes_of", "rabbit_server"]

_SCRIPT = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
PROGRAM = str(_SCRIPT) if _SCRIPT.exists() else shutil.which("rabbitmq-server")

needs_rabbitmq = pytest.mark.skipif(PROGRAM is None, reason="rabbitmq-server is not installed")

# What it has by default is for thousands of clients, and costs a second of the start.
_SMALL = (
    "+P 65536 +t 1048576 +S 1:1 +SDcpu 1:1 +SDio 1 +A 1 +sbwt none +sbwtdcpu none +sbwtdio none"
)
# RabbitMQ asks on which port its node listens, if only to show it; with one said, Erlang does not
# ask epmd. Any will do, since nothing listens. By the environment, so that the Erlang that RabbitMQ
# starts each minute, to have it start an epmd that has gone, hears of it as well.
# https://www.erlang.org/doc/apps/erts/erl_cmd.html
_ALONE = "-start_epmd false -dist_listen false -erl_epmd_port 1"


@contextlib.contextmanager
def rabbit_server(folder: Path) -> Iterator[str]:
    """Run a broker that nothing is in, and yield its URL; none of its processes stays behind."""
    port = free_port()
    log = folder / "rabbit.log"
    try:
        with running(
            [PROGRAM],
            lambda: _shakes_hands(port),
            log,
            _settings(folder, port),
            stop=signal.SIGKILL,  # nothing in it is worth a farewell, which takes two seconds
        ):
            yield f"amqp://guest:guest@127.0.0.1:{port}//"
    finally:
        if not until(lambda: not processes_of(folder), 10):
            raise RuntimeError(f"{processes_of(folder)} outlive RabbitMQ")


def processes_of(folder: Path) -> list[int]:
    """Return which processes have a server's folder in their environment, as it and its own have.

    Where there is no ``/proc``, none.
    """
    home = f"HOME={folder}\0".encode()
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # somebody else's, or gone
            if home in each.joinpath("environ").read_bytes():
                found.append(int(each.name))
    return found


def _settings(folder: Path, port: int) -> dict[str, str]:
    """Return the variables of https://www.rabbitmq.com/docs/configure#supported-environment-variables."""
    node = f"tests{port}@localhost"
    settings = {
        "NODENAME": node,
        "NODE_IP_ADDRESS": "127.0.0.1",
        "NODE_PORT": str(port),
        "MNESIA_BASE": str(folder / "mnesia"),
        "LOG_BASE": str(folder / "log"),
        "LOGS": "-",
        "PID_FILE": str(folder / "pid"),
        # Neither of the machine's settings is read: these files are not there.
        "CONF_ENV_FILE": str(folder / "none.conf"),
        "CONFIG_FILE": str(folder / "none"),
        "ADVANCED_CONFIG_FILE": str(folder / "none.config"),
        "ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "GENERATED_CONFIG_DIR": str(folder / "generated"),
        "SERVER_ERL_ARGS": _SMALL,
        # A node that has its name already does not start epmd to get one.
        "SERVER_ADDITIONAL_ERL_ARGS": f"-sname {node} -setcookie tests",
    }
    # The script is then replaced by the server: one process to end.
    service = {"HOME": str(folder), "RUNNING_UNDER_SYSTEMD": "true", "ERL_FLAGS": _ALONE}
    return service | {f"RABBITMQ_{name}": value for name, value in settings.items()}


def _shakes_hands(port: int) -> bool:
    """Say whether the broker opens a connection for a client: it listens before it knows any."""
    import amqp  # comes with celery

    try:
        with amqp.Connection(f"127.0.0.1:{port}", connect_timeout=5):
            return True
    except (OSError, amqp.AMQPError):
        return False
