"""Free ports on loopback."""

import random
import socket
from collections.abc import Sequence

# Below where Linux takes the ports of outgoing connections from (32768), so that no connection occupies the
# port of a process while it is being restarted.
_RANGE = range(20000, 32768)


def problem(port: int) -> str:
    """Returns why a server could not listen there; empty when it could."""
    with socket.socket() as candidate:
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind(("127.0.0.1", port))
        except OSError as error:
            return error.strerror or str(error)
    return ""


def free(count: int, but: Sequence[int] = ()) -> list[int]:
    """Returns that many different free ports, none of those in `but`."""
    candidates = random.sample(_RANGE, len(_RANGE))
    found = (port for port in candidates if port not in but and not problem(port))
    return [next(found) for _ in range(count)]
