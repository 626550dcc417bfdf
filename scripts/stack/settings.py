"""What tells one stack from another: its run folder, its ports and its secrets."""

import json
import secrets
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from scripts.stack import ports
from scripts.stack.folder import RunFolder, StackError

SERVICES = ("user", "payment", "compliance", "document", "notification")
SERVERS = ("authz", *SERVICES)
INTERNAL_PORTS = ("admin", "keys", "probes", "nats", *SERVERS, *(f"{server}_health" for server in SERVERS))


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one stack."""

    folder: RunFolder
    ports: Mapping[str, int]
    """`edge`, `edge_tls` and INTERNAL_PORTS."""
    secrets: Mapping[str, str]
    """ADMIN_EMAIL, ADMIN_PASSWORD and SIGNING_KEY_SECRET."""
    wishes: Mapping[str, str] = field(default_factory=dict)
    """Variables that whoever starts the stack set for its processes: see processes.WISHES; and LIMITS, for all."""

    def address(self, server: str) -> str:
        """Returns where a server listens."""
        return f"127.0.0.1:{self.ports[server]}"

    def reach(self) -> dict[str, str]:
        """Returns what a client needs to know, by the names of environment variables."""
        return {
            "EDGE_URL": f"http://127.0.0.1:{self.ports['edge']}",
            "EDGE_TLS_URL": f"https://127.0.0.1:{self.ports['edge_tls']}",
            "EDGE_CA": str(self.folder.certificates / "edge-ca.pem"),
            "ADMIN_EMAIL": self.secrets["ADMIN_EMAIL"],
            "ADMIN_PASSWORD": self.secrets["ADMIN_PASSWORD"],
        }

    def save(self) -> None:
        """Remembers the ports, and writes what a client needs to know as shell assignments."""
        _ports_file(self.folder).write_text(json.dumps(self.ports, indent=2))
        assignments = (f"{name}={shlex.quote(value)}\n" for name, value in self.reach().items())
        _write_private(self.folder.env, "".join(assignments))


def load(folder: RunFolder) -> Settings:
    """Returns the settings that were saved last."""
    return Settings(folder, json.loads(_ports_file(folder).read_text()), _secrets(folder))


def choose(folder: RunFolder, edge_port: int, edge_tls_port: int, wishes: Mapping[str, str] | None = None) -> Settings:
    """Picks the ports; 0 is any free one. Raises StackError when one that was asked for cannot be used."""
    wanted = {"edge": edge_port, "edge_tls": edge_tls_port}
    fixed = {name: port for name, port in wanted.items() if port}
    for name, port in fixed.items():
        if problem := ports.problem(port):
            variable = f"{name.upper()}_PORT"
            raise StackError(
                f"Port {port} cannot be used: {problem}. End what listens there, or choose another: "
                f"{variable}=0 make up takes any free one"
            )
    if len(set(fixed.values())) < len(fixed):
        raise StackError(f"EDGE_PORT and EDGE_TLS_PORT are both {edge_port}. Choose two")
    open_names = [name for name in (*wanted, *INTERNAL_PORTS) if name not in fixed]
    found = dict(zip(open_names, ports.free(len(open_names), but=list(fixed.values())), strict=True))
    return Settings(folder, {**fixed, **found}, _secrets(folder), wishes or {})


def _secrets(folder: RunFolder) -> dict[str, str]:
    """Returns the secrets of this run folder. They live as long as its data, which they protect."""
    path = folder.data / "secrets.json"
    if not path.exists():
        made = {
            "ADMIN_EMAIL": "admin@drawbridge.example",
            "ADMIN_PASSWORD": secrets.token_urlsafe(18),
            "SIGNING_KEY_SECRET": secrets.token_urlsafe(32),
        }
        _write_private(path, json.dumps(made))
    found: dict[str, str] = json.loads(path.read_text())
    return found


def _ports_file(folder: RunFolder) -> Path:
    return folder.path / "ports.json"


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)
