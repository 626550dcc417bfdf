"""Asks the edge whether it is ready."""

import http.client

_SECONDS = 1.0


def ready(port: int) -> bool:
    """Tells whether an edge says so, whose probes listener has this port of loopback."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_SECONDS)
    try:
        connection.request("GET", "/ready")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
