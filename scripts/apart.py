"""Environments for tools whose dependencies are at odds with ours: each has a lock and a folder of its own."""

import hashlib
import subprocess
import sys

from scripts.stack.folder import REPOSITORY


def python(name: str) -> str:
    """Returns the interpreter of `.venv-<name>`, after installing requirements-<name>.lock unless that was done."""
    environment, lock = REPOSITORY / f".venv-{name}", REPOSITORY / f"requirements-{name}.lock"
    interpreter, stamp = str(environment / "bin" / "python"), environment / "stamp"
    wanted = hashlib.sha256(sys.version.encode() + lock.read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", environment], check=True)
        pip = [interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--no-deps", "--only-binary=:all:", "--require-hashes", "-r", lock], check=True)
        stamp.write_text(wanted)
    return interpreter
