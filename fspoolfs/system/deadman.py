"""A dead man's switch: a process that ends this one's FUSE connection when it dies.

The thread that tells the kernel of a name that is gone waits, where no signal reaches it, for the lock of
a directory, and whoever has that lock may wait for an answer of this process. When this process is killed
just then, the thread keeps /dev/fuse open, so the kernel goes on waiting for an answer that nobody
gives: clients hang, and this process never ends. Only ending the connection from outside helps.
"""

from __future__ import annotations

import os
import signal

from fspoolfs.errors import StorageError
from fspoolfs.system import command, fusectl

#: Told of the main thread's end by a signal (prctl(2), PR_SET_PDEATHSIG), and of a usual end by that of its
#: input. It asks for its parent since that may have died before the signal was asked for.
_SCRIPT = """
trap 'echo 1 >&3; exit' TERM
[ "$PPID" = "$0" ] || kill "$$"
read -r line
"""
_ARGV = ("env", "--chdir=/", "setpriv", "--pdeathsig", "TERM", "--", "sh", "-c")
#: The descriptor by which the shell ends the connection.
_ABORT = 3


def arm(minor: int) -> None:
    """Start it for the connection with this number, the minor one of its mount's device.

    To be called by the main thread; it ends with this process. Raises `OSError` where the kernel's
    control of connections cannot be used, `StorageError` for programs that are not installed.
    """
    program = command.find(_ARGV[0])
    if program is None or command.find("setpriv") is None:
        raise StorageError("env (package coreutils) or setpriv (package util-linux) is not installed")
    abort = fusectl.open_abort(minor)
    try:
        # Its other end stays open for as long as this process lives.
        source, _ = os.pipe()
        try:
            os.posix_spawn(
                program,
                (*_ARGV, _SCRIPT, str(os.getpid())),
                {"PATH": ":".join(command.DIRECTORIES)},
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, source, 0),
                    (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 2, "/dev/null", os.O_WRONLY, 0),
                    (os.POSIX_SPAWN_DUP2, abort, _ABORT),
                ],
                setsid=True,
                setsigmask=(),
                setsigdef=(signal.SIGTERM,),
            )
        finally:
            os.close(source)
    finally:
        os.close(abort)
