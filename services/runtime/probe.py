"""Asks a server, from beside it, whether it takes requests: the health check of an image that has no other client.

Usage: python -m services.runtime.probe, with HEALTH_ADDRESS in the environment. Ends with 0 when it does.
"""

import os
import socket
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_SECONDS = 1.0


def serving(address: str) -> bool:
    """Asks grpc.health.v1 at host:port whether the server is ready."""
    if not _listening(address):
        return False  # a channel would wait a second before it tried again
    with grpc.insecure_channel(address) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=_SECONDS)
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _listening(address: str) -> bool:
    host, port = address.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), timeout=_SECONDS).close()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(0 if serving(os.environ["HEALTH_ADDRESS"]) else "It is not ready.")
