"""What `make deadletters` does: services/runtime/deadletters.py in the environment of a service of the stack."""

import os
import subprocess
import sys

from scripts.stack import supervision
from scripts.stack.folder import REPOSITORY, RunFolder, StackError
from scripts.stack.processes import services
from scripts.stack.settings import load


def deadletters(folder: RunFolder) -> None:
    """Lists the dead letters, or replays those that REPLAY names: all, or ids. Raises StackError."""
    if not supervision.running(folder):
        raise StackError("The stack is down. Start it: make up")
    environment = next(one.environment for one in services(load(folder)) if one.name == "notification")
    wanted = os.environ.get("REPLAY", "").replace(",", " ").split()
    done = subprocess.run(
        [sys.executable, "-m", "services.runtime.deadletters", *(["replay", *wanted] if wanted else ["list"])],
        env={**os.environ, **environment},
        cwd=REPOSITORY,
        check=False,
    )
    sys.exit(done.returncode)
