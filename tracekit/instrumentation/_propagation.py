"""Which hosts are sent trace headers, and which baggage as well.

Trace headers are random numbers and go everywhere, as long as no list says where else. Baggage is
what the program says about its users: other companies are not sent it without being listed.
"""

from __future__ import annotations

import fnmatch
import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from opentelemetry import baggage
from opentelemetry.context import Context

from tracekit._otel_baggage import BAGGAGE_KEY
from tracekit._otel_context import OnlySpan
from tracekit.errors import InvalidValueError

__all__ = ["ANY_HOST", "PropagationHosts", "hosts_of", "is_inside"]

INSIDE = "inside"
_VARIABLE = "TRACEKIT_PROPAGATION_HOSTS"
_EXPECTED = "hosts such as api.example.com, *.internal, 10.*, or inside"

# Names that no public DNS answers: reserved for it (RFC 6761, 6762, 8375, and ICANN for .internal),
# or so common that RFC 6762 warns of them: https://www.rfc-editor.org/rfc/rfc6762#appendix-G
_INSIDE_ENDINGS = (
    *(".localhost", ".local", ".internal", ".home.arpa", ".test"),
    *(".intranet", ".private", ".corp", ".home", ".lan"),
    ".svc",  # Kubernetes: https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/
)
# `http://134744072/` leads to 8.8.8.8: https://url.spec.whatwg.org/#ends-in-a-number-checker
_NUMBER = re.compile(r"\d+|0x[0-9a-f]*").fullmatch
_MOST_KNOWN = 1024


def hosts_of(option: str | Sequence[str] | None, environ: Mapping[str, str]) -> PropagationHosts:
    """Read the list of an option, or else of ``TRACEKIT_PROPAGATION_HOSTS``.

    Raises:
        InvalidValueError: an entry that no host can match.
    """
    hosts = environ.get(_VARIABLE) or None if option is None else option
    if hosts is None:
        return ANY_HOST
    listed = hosts.split(",") if isinstance(hosts, str) else hosts
    globs = [host.strip().lower() for host in listed if host.strip()]
    for glob in globs:
        if re.search(r"[/@\s]|^[^:]*:\d+$", glob):
            raise InvalidValueError(_VARIABLE, glob, f"{_EXPECTED}, without scheme, port or path")
    return PropagationHosts(globs)


class PropagationHosts:
    """Where headers may go.

    Concurrency: from any thread; answers are kept for the hosts seen first.
    """

    def __init__(self, globs: Sequence[str] | None) -> None:
        """Allow the hosts that are listed; trace headers everywhere where None is."""
        self.lists_hosts = globs is not None
        self._lists = is_inside if globs is None else _matching(globs)
        self._known: dict[str, bool] = {}

    def context_for(self, host: str, context: Context) -> Context | None:
        """Return what of a context a host may be told; None for nothing.

        It is the same context where the host may be told all of it.
        """
        if not self.lists_hosts and (type(context) is OnlySpan or BAGGAGE_KEY not in context):
            return context
        if self._allows(host):
            return context
        return None if self.lists_hosts else baggage.clear(context)

    def _allows(self, host: str) -> bool:
        known = self._known.get(host)
        if known is None:
            known = self._lists(host.lower())
            if len(self._known) < _MOST_KNOWN:
                self._known[host] = known
        return known


def _matching(globs: Sequence[str]) -> Callable[[str], bool]:
    written = [fnmatch.translate(glob) for glob in globs if glob != INSIDE]
    match = re.compile("|".join(written)).match if written else lambda _: None
    takes_inside = INSIDE in globs
    return lambda host: match(host) is not None or (takes_inside and is_inside(host))


def is_inside(host: str) -> bool:
    """Tell whether a host, in lower case, can only be one of the program's own surroundings.

    Names without a dot, names that are not of the public DNS, loopback and private addresses. A
    public name may be one's own as well; nobody can tell, so it is not.
    """
    try:
        address: Any = ipaddress.ip_address(host.partition("%")[0])
        return not (getattr(address, "ipv4_mapped", None) or address).is_global
    except ValueError:
        pass
    name = host.rstrip(".")
    if "." in name:
        return name.endswith(_INSIDE_ENDINGS)
    return bool(name) and _NUMBER(name) is None


ANY_HOST = PropagationHosts(None)
"""Where no list says otherwise."""
