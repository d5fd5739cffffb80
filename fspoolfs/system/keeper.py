"""Processes that do nothing but keep a file open, for as long as they are let live.

A lock on that file then outlives this process, as mounts do, and goes when the host dies or somebody
ends the keeper. Whoever starts later finds it again by a note with its number and the time at which
it began.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from fspoolfs.errors import StorageError
from fspoolfs.system import atomic, command

#: What becomes `sleep`, away from our working directory, and ends by a signal only.
_ARGV = ("env", "--chdir=/", "sleep", "infinity")
#: The descriptor of the file in the keeper.
_KEPT = 3
#: Seconds that a killed keeper may take to close its file, which the storage may keep it from.
_PATIENCE = 5.0
_NOTE_LIMIT = 64


class Keeper:
    """Starts, finds and ends keepers; keeps `fspoolfs.backends.root.LockKeeper`."""

    def keep(self, lock: HasDescriptor, note: Path) -> None:
        """Start a process that has the file of `lock` open, and say in the file `note` which one it is."""
        _start(lock.fd, note)

    def is_kept(self, note: Path) -> bool:
        """Whether the process of `note` still lives."""
        return _noted(note) is not None

    def let_go(self, note: Path) -> None:
        """End the process of `note`, if it lives, and forget it.

        One that cannot end, since its storage does not answer, is left behind: it is killed already.
        """
        _end(note)


class HasDescriptor(Protocol):
    """An open file."""

    fd: int


def _start(fd: int, note: Path) -> None:
    program = command.find(_ARGV[0])
    if program is None:
        raise StorageError(f"{_ARGV[0]} is not installed")
    null = ((os.POSIX_SPAWN_OPEN, stream, "/dev/null", os.O_RDWR, 0) for stream in range(3))
    pid = os.posix_spawn(
        program,
        _ARGV,
        {"PATH": ":".join(command.DIRECTORIES)},
        file_actions=[(os.POSIX_SPAWN_DUP2, fd, _KEPT), *null],
        setsid=True,
    )
    try:
        note.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        atomic.write_file(str(note), f"{pid} {_began(pid)}\n".encode(), durable=False)
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


def _end(note: Path) -> None:
    pid = _noted(note)
    if pid is not None:
        with suppress(ProcessLookupError):
            pidfd = os.pidfd_open(pid)
            try:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                command.wait_for(pidfd, _PATIENCE)
            finally:
                os.close(pidfd)
        with suppress(ChildProcessError):  # of a daemon before this one
            os.waitpid(pid, os.WNOHANG)
    note.unlink(missing_ok=True)


def _noted(note: Path) -> int | None:
    """The process that `note` names, if that one still lives."""
    try:
        pid, began = (int(word) for word in atomic.read_file(str(note), _NOTE_LIMIT).split())
    except (FileNotFoundError, ValueError):
        return None
    return pid if _began(pid) == began else None


def _began(pid: int) -> int:
    """When a process began, in clock ticks since the boot (proc_pid_stat(5)); 0 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])
