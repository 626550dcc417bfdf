"""The run folder: where one stack keeps its data, certificates, configuration and logs."""

import hashlib
import os
import stat
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
CONTRACT = REPOSITORY / "gen" / "contract.binpb"
# A unix socket's path is limited to 104 bytes on macOS, 108 on Linux; the longest name in there has 26.
_LONGEST_SOCKET_FOLDER = 75


class StackError(Exception):
    """Something a person has to mend. The message says what to do."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The paths of one stack. Two stacks with two run folders run side by side."""

    path: Path

    @property
    def data(self) -> Path:
        """What stays between runs."""
        return self.path / "data"

    @property
    def certificates(self) -> Path:
        """What certificates.issue() writes."""
        return self.path / "certs"

    @property
    def logs(self) -> Path:
        """One log per process."""
        return self.path / "log"

    @property
    def env(self) -> Path:
        """How to reach the stack, as shell assignments."""
        return self.path / "env"

    @property
    def lock(self) -> Path:
        """Held by the command at work; also what tells a run folder from any other."""
        return self.path / "lock"

    @property
    def sockets(self) -> Path:
        """Where the unix sockets are: in the run folder, unless its path is too long for one."""
        folder = self.path / "sockets"
        if len(os.fsencode(folder)) <= _LONGEST_SOCKET_FOLDER:
            return folder
        return Path(tempfile.gettempdir(), f"drawbridge-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]}")


def run_folder(path: Path) -> RunFolder:
    """Makes the run folder at `path` where there is none. Raises StackError where there is something else."""
    folder = RunFolder(path.resolve())
    if not folder.lock.exists() and path.exists() and any(path.iterdir()):
        raise StackError(f"{path} has other things in it. Let RUN_DIR name a folder of its own.")
    for part in (folder.data, folder.logs):
        part.mkdir(parents=True, exist_ok=True)
    folder.lock.touch()
    make_private(folder.sockets)
    return folder


def make_private(path: Path) -> None:
    """Makes a folder that only its owner can enter."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o700)


def let_through(path: Path) -> None:
    """Lets everybody pass, not read, the folders above `path`."""
    for parent in path.parents:
        mode = parent.stat().st_mode
        if not mode & stat.S_IXOTH:
            parent.chmod(mode | stat.S_IXOTH)


def program(name: str) -> str:
    """Returns the path of a program that a wheel brought. Raises StackError when it did not."""
    path = Path(sys.executable).parent / name
    if not path.exists():
        raise missing(name)
    return str(path)


def package(name: str) -> Path:
    """Returns the folder of an installed package. Raises StackError when it is missing."""
    spec = find_spec(name)
    if spec is None or not spec.origin:
        raise missing(name)
    return Path(spec.origin).parent


def missing(name: str) -> StackError:
    """Says that a wheel is not installed."""
    return StackError(f"{name} is missing in {sys.prefix}. Install everything anew: rm -rf .venv && scripts/setup")
