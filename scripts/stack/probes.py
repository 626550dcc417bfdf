"""Looks from outside whether a process is ready."""

import http.client
import socket

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_SECONDS = 1.0


def serving(address: str) -> bool:
    """Asks grpc.health.v1 at host:port whether the server takes requests."""
    if not _listening(address):
        return False  # a channel would wait a second before it tried again
    with grpc.insecure_channel(address) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=_SECONDS)
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def answers(port: int) -> bool:
    """Tells whether an HTTP server on loopback answers, whatever it says."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_SECONDS)
    try:
        connection.request("GET", "/")
        connection.getresponse()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return True


def _listening(address: str) -> bool:
    host, port = address.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), timeout=_SECONDS).close()
    except OSError:
        return False
    return True
