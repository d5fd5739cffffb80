"""ptrace(2): attach to a process with all its threads and programs and be told of their system calls.

Mechanism only: what calls mean and what is done about them is decided in `crashing.tracer`. Numbers
are those of include/uapi/linux/ptrace.h and the same on every architecture.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_SYSCALL = 24
_SEIZE = 0x4206
_INTERRUPT = 0x4207
_LISTEN = 0x4208
_GET_SYSCALL_INFO = 0x420E

_O_TRACESYSGOOD = 0x01
_O_TRACEFORK = 0x02
_O_TRACEVFORK = 0x04
_O_TRACECLONE = 0x08
_OPTIONS = _O_TRACESYSGOOD | _O_TRACEFORK | _O_TRACEVFORK | _O_TRACECLONE

#: The event of a stop by _INTERRUPT, by a stopping signal, and of a new thread's first stop.
_EVENT_STOP = 128
#: What _O_TRACESYSGOOD makes of the SIGTRAP of a system call.
_SYSCALL_STOP = signal.SIGTRAP | 0x80
_STOPPING = frozenset((signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU))
_ENTRY = 1

#: Wait for threads as well as processes, include/uapi/linux/wait.h.
_WALL = 0x40000000


class _SyscallInfo(ctypes.Structure):
    """struct ptrace_syscall_info, with the union as it is at the entry of a call."""

    _fields_ = (
        ("op", ctypes.c_uint8),
        ("pad", ctypes.c_uint8 * 3),
        ("arch", ctypes.c_uint32),
        ("instruction_pointer", ctypes.c_uint64),
        ("stack_pointer", ctypes.c_uint64),
        ("nr", ctypes.c_uint64),
        ("args", ctypes.c_uint64 * 6),
        # The variants for seccomp are longer.
        ("rest", ctypes.c_uint64 * 2),
    )


_ptrace = ctypes.CDLL(None, use_errno=True).ptrace
_ptrace.restype = ctypes.c_long
_ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)


@dataclass(frozen=True, slots=True)
class Stop:
    """A thread held at a system call: about to make it (`entry`), or just having made it."""

    tid: int
    entry: bool
    number: int
    arguments: tuple[int, ...]


def attach(pid: int) -> None:
    """Follow all threads of `pid`, also those and the processes that it will make. Raises `OSError`.

    When it returns no thread can make a call unseen.
    """
    seen: set[int] = set()
    # Threads may begin while others are being attached to.
    while new := _threads(pid) - seen:
        seen |= new
        for tid in new:
            try:
                _call(_SEIZE, tid, data=_OPTIONS)
            except (ProcessLookupError, PermissionError):
                # Ended meanwhile, or followed already as the child of one that is.
                if tid == pid:
                    raise
                continue
            _call(_INTERRUPT, tid)
            _, status = os.waitpid(tid, _WALL)
            _go_on_from(tid, status)


def stops(pid: int) -> Iterator[Stop]:
    """Every stop at a system call; asking for the next one lets the thread go on.

    Ends when the process `pid` has ended; what it has left running is let go with the end of this one.
    """
    while True:
        try:
            tid, status = os.waitpid(-1, _WALL)
        except ChildProcessError:
            return
        if tid == pid and not os.WIFSTOPPED(status):
            return
        if os.WIFSTOPPED(status) and os.WSTOPSIG(status) == _SYSCALL_STOP:
            stop = _stop(tid)
            if stop is not None:
                yield stop
        _go_on_from(tid, status)


def _stop(tid: int) -> Stop | None:
    info = _SyscallInfo()
    try:
        _call(_GET_SYSCALL_INFO, tid, address=ctypes.sizeof(info), data=ctypes.addressof(info))
    except ProcessLookupError:
        return None  # killed from elsewhere
    return Stop(tid, info.op == _ENTRY, info.nr, tuple(info.args))


def _go_on_from(tid: int, status: int) -> None:
    """Let a thread go on to its next system call; `status` is what waitpid(2) told."""
    if not os.WIFSTOPPED(status):
        return
    number, event = os.WSTOPSIG(status), status >> 16
    if event == _EVENT_STOP and number in _STOPPING:
        _go_on(tid, _LISTEN)
    elif event or number == _SYSCALL_STOP:
        _go_on(tid)
    else:
        _go_on(tid, deliver=number)


def _go_on(tid: int, request: int = _SYSCALL, *, deliver: int = 0) -> None:
    try:
        _call(request, tid, data=deliver)
    except ProcessLookupError:
        return  # killed while it was held


def _threads(pid: int) -> set[int]:
    return {int(entry.name) for entry in Path(f"/proc/{pid}/task").iterdir()}


def _call(request: int, tid: int, *, address: int = 0, data: int = 0) -> None:
    if _ptrace(request, tid, address, data) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
