"""gRPC: one CLIENT span for each call that is made, one SERVER span for each that is served."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from tracekit.instrumentation._grpc import GrpcSettings
from tracekit.instrumentation._grpc_client import client_patches
from tracekit.instrumentation._grpc_server import server_patches
from tracekit.instrumentation._patch import LibraryInstrumentor
from tracekit.instrumentation._replacing import Replacing, ReplacingInstrumentor

__all__ = ["GrpcInstrumentor"]


class GrpcInstrumentor(ReplacingInstrumentor):
    """Watch grpc and grpc.aio. Options are those of :meth:`GrpcSettings.read`."""

    name = "grpc"
    distributions = ("grpcio",)
    supported = ">=1.48,<2"
    contrib = ("grpc_client", "grpc_server", "grpc_aio_client", "grpc_aio_server", "grpc")

    def configure(self, options: Mapping[str, Any]) -> None:
        self._settings = GrpcSettings.read(self.tracer, os.environ, **options)

    def patches(self) -> Sequence[Replacing]:
        return (*client_patches(self._settings), *server_patches(self._settings))


plugin: type[LibraryInstrumentor] = GrpcInstrumentor
