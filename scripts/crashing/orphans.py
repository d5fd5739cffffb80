"""What becomes of a program when the daemon that has run it is killed in the midst of its work.

The program is held still meanwhile, so that it does not matter how fast it would have been.
"""

from __future__ import annotations

import os
from pathlib import Path

from support.wait import eventually

_DEAD = frozenset("ZX")
_KILL = 1 << 8  # SIGKILL in a mask of signals, proc(5)


def is_program(tid: int, daemon: int) -> bool:
    """Whether `tid` is no thread of the daemon, but a process that it has started."""
    return not Path(f"/proc/{daemon}/task/{tid}").exists()


def unguarded(pid: int, daemon: int) -> str:
    """The name of the program `pid` if it goes on after its daemon, and nothing keeps others away.

    The daemon has been killed, and the program is held. What ends with the daemon is guarded, and so
    is what has a lock (flock(2)) for as long as it works; of a volume nothing else can be.
    """
    eventually(lambda: _all_dead(daemon), what="the daemon has ended")
    if _state(f"/proc/{pid}") in _DEAD or _is_killed(pid) or _has_lock(pid):
        return ""
    return Path(f"/proc/{pid}/comm").read_text().strip()


def _all_dead(daemon: int) -> bool:
    return all(_state(f"/proc/{daemon}/task/{tid}") in _DEAD for tid in _names(f"/proc/{daemon}/task"))


def _state(place: str) -> str:
    """The letter of proc_pid_stat(5), of one that is gone as well."""
    try:
        return Path(place, "stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


def _is_killed(pid: int) -> bool:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return True
    masks = (int(line.split()[1], 16) for line in lines if line.startswith(("SigPnd:", "ShdPnd:")))
    return any(mask & _KILL for mask in masks)


def _has_lock(pid: int) -> bool:
    place = f"/proc/{pid}/fdinfo"
    return any("FLOCK" in _read(f"{place}/{fd}") for fd in _names(place))


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except (FileNotFoundError, ProcessLookupError):
        return []
