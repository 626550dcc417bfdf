"""The native stack from the command line: python -m scripts.stack up|down|status|logs|deadletters|clean.

EDGE_PORT (8080) and EDGE_TLS_PORT (8443) say where the edge listens, 0 being any free port; LIMITS (generous,
production) how much a client may ask for; RUN_DIR (.run) is the folder of everything the stack writes; REPLAY (all, or
ids) says which dead letters to replay rather than list.
"""

import sys

from scripts.stack.folder import StackError, missing

try:
    from scripts.stack import commands
    from scripts.stack.deadletters import deadletters
except ModuleNotFoundError as error:
    sys.exit(str(missing(error.name or str(error))))

COMMANDS = {
    "up": commands.up,
    "down": commands.down,
    "status": commands.status,
    "logs": commands.logs,
    "deadletters": deadletters,
    "clean": commands.clean,
}


def main() -> None:
    """Runs the command that the arguments name."""
    if len(sys.argv) != 2 or sys.argv[1] not in COMMANDS:
        sys.exit(__doc__)
    try:
        COMMANDS[sys.argv[1]](commands.chosen_folder())
    except StackError as error:
        sys.exit(f"{sys.argv[1]}: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
