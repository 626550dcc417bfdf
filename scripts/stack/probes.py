"""Looks from outside whether a process is ready."""

import http.client

_SECONDS = 1.0


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
