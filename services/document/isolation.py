"""Isolation: what keeps the processes that open other people's files from the service, which has secrets.

Code that a file smuggles into one of them sees neither memory, nor environment, nor open files of the service, of the
decoder or of the others, writes no file, and, unless it is root, forks no process. What remains: it is the same user in
the same network. It can connect to whatever answers, signal the service, delete what this user may delete, and read
what it may read: the keys of TLS, and the files of an object store that is a folder.
"""

import ctypes
import os
import resource
import signal
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38


def keep_to_itself() -> None:
    """Hides memory, environment and open files of this process, and of those it forks, from others of the same user.

    To them /proc/<pid> is root's, and they cannot trace it (prctl(2)). A program that is started shows itself again.
    """
    _prctl(_PR_SET_DUMPABLE, 0)


def confine(parent: int, *descriptors: int) -> None:
    """Leaves this process, forked by `parent`, those descriptors, and nothing that it does not need to read a file."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it had ended before
        os._exit(0)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    for limit in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC):
        resource.setrlimit(limit, (0, 0))
    first = 0
    for one in sorted(descriptors):
        os.closerange(first, one)
        first = one + 1
    os.closerange(first, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def _prctl(option: int, argument: int) -> None:
    if sys.platform == "linux" and ctypes.CDLL(None, use_errno=True).prctl(
        option, *map(ctypes.c_ulong, (argument, 0, 0, 0))
    ):
        raise OSError(ctypes.get_errno(), "prctl")
