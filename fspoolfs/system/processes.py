"""Processes as those who ask number them: found across pid namespaces, with whose they are."""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from fspoolfs.errors import AccessError, InvalidError, NotFoundError


@dataclass(frozen=True, slots=True)
class Process:
    """A process by our number, and whose it is: its real and its saved user."""

    pid: int
    real: int
    saved: int
    pidfd: int

    def is_alive(self) -> bool:
        """Whether the number is still this process's."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return not poll.poll(0)


@contextmanager
def named(number: int, asker: int) -> Iterator[Process]:
    """The process that the process `asker` calls `number`; 0 is `asker` itself.

    Raises `InvalidError` where it cannot be told which process that is, `NotFoundError` (ESRCH) where
    there is none.
    """
    pid = _translated(number, asker)
    try:
        pidfd = os.pidfd_open(pid)
    except OSError as error:
        raise no_process(number) from error
    try:
        status = _status(pid)
        if not status:
            raise no_process(number)
        real, _, saved, _ = map(int, status["Uid"].split())
        yield Process(pid, real, saved, pidfd)
    finally:
        os.close(pidfd)


def check_may_move(process: Process, uid: int) -> None:
    """Raise `AccessError` unless `uid` may move the process: root may, and whose it is.

    As kill(2) has it, and the kernel for groups (cgroup_procs_write_permission of version 1).
    """
    if uid not in (0, process.real, process.saved):
        raise AccessError(f"user {uid} may not move process {process.pid}, which is user {process.real}'s")


def _translated(number: int, asker: int) -> int:
    if not asker:
        raise InvalidError(
            "who wrote this is in a pid namespace that is not seen from here, so that it cannot be told "
            "which process is meant; write from the host"
        )
    namespace = _namespace(asker)
    if not namespace:
        raise InvalidError("who opened this file has ended, so that it cannot be told which process is meant")
    if number == 0:
        return int(_status(asker).get("Tgid", asker))
    if namespace == _namespace(os.getpid()):
        return number
    depth = len(_status(asker).get("NSpid", "").split())
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            numbers = _status(int(entry.name)).get("NSpid", "").split()
            found = len(numbers) == depth and numbers[-1] == str(number)
            if found and _namespace(int(entry.name)) == namespace:
                return int(entry.name)
    raise NotFoundError(
        f"there is no process {number} in the pid namespace of who wrote it; those of namespaces inside that "
        "one have to be named from the host",
        errno=errno.ESRCH,
    )


def _namespace(pid: int) -> str:
    """The pid namespace of a process; "" where it is gone or cannot be looked at."""
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return ""


def _status(pid: int) -> dict[str, str]:
    """/proc/PID/status (proc_pid_status(5)), empty where the process is gone."""
    with suppress(OSError):
        lines = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
        return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return {}


def no_process(number: int) -> NotFoundError:
    """ESRCH, as kill(2) says it."""
    return NotFoundError(f"there is no process {number}", errno=errno.ESRCH)
