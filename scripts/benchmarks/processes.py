"""Servers that a measurement starts: they end with their context, and with this program however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.errors import BenchError

#: Seconds between two looks at a server that starts; small against what is measured by it.
_TICK = 0.002
#: Seconds that a server has to end after SIGTERM, and the kernel after SIGKILL.
_PATIENCE = 60.0
_LOG_TAIL_LINES = 12


class Server:
    """One child process in a session of its own; what it says goes to `log`, `name` is for errors."""

    def __init__(
        self,
        argv: Sequence[str | Path],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        name: str | None = None,
    ) -> None:
        self._name = name or Path(argv[0]).name
        self._log = log
        # If this program is killed, no handler runs: the kernel ends the child (PR_SET_PDEATHSIG, prctl(2)).
        command = ["setpriv", "--pdeathsig", "KILL", "--", *(os.fspath(part) for part in argv)]
        with log.open("ab") as output:
            self.began = time.perf_counter()
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._child.pid

    def wait_until(self, ready: Callable[[], bool], *, what: str, seconds: float) -> None:
        """Return when `ready` says so; raises `BenchError` if the server ends or `seconds` pass before."""
        limit = time.monotonic() + seconds
        while not ready():
            if self._child.poll() is not None:
                raise BenchError(f"{self._name} ended before {what}:\n{self._tail()}")
            if time.monotonic() > limit:
                raise BenchError(f"{self._name}: not {what} after {seconds:.0f} s:\n{self._tail()}")
            time.sleep(_TICK)

    def signal(self, number: signal.Signals) -> None:
        self._child.send_signal(number)

    def terminate(self) -> None:
        """End it with SIGTERM; raises `BenchError` if it does not end."""
        self._child.terminate()
        try:
            self._child.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            raise BenchError(f"{self._name} ignores SIGTERM:\n{self._tail()}") from None

    def kill(self) -> None:
        """End it with SIGKILL, also when it is stopped; says so if even that does not work in time."""
        self._child.kill()
        try:
            self._child.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            print(f"bench: {self._name} ({self.pid}) cannot be killed", file=sys.stderr)

    def resident_bytes(self) -> int:
        """VmRSS of the process and its descendants, proc_pid_status(5)."""
        return sum(_resident_bytes(pid) for pid in (self.pid, *_descendants(self.pid)))

    def processes(self) -> list[Path]:
        """The directories in /proc of the process and of its descendants."""
        return [Path(f"/proc/{pid}") for pid in (self.pid, *_descendants(self.pid))]

    def own_resident_bytes(self) -> int:
        """VmRSS of the process alone."""
        return _resident_bytes(self.pid)

    def cpu_seconds(self) -> float:
        """What it has used of processors, in user and system mode, proc_pid_stat(5)."""
        fields = Path(f"/proc/{self.pid}/stat").read_bytes().rpartition(b")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _tail(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._child.poll() is not None:
            return
        if kind is None:
            try:
                self.terminate()
            finally:
                self.kill()
        else:
            # What failed is the news; a server that is part of it may not listen to SIGTERM.
            self.kill()


def _descendants(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            found += [child, *_descendants(child)]
    return found


def _resident_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def private_bytes(process: Path) -> int:
    """The memory that nobody shares with a process, whose directory in /proc this is: proc_pid_smaps(5)."""
    lines = (process / "smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))
