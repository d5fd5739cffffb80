"""Follows a daemon and its programs, notes each of their changes to storage and kills it at one of them.

Only the daemon is killed: what becomes of a program in the midst of its work is up to the two.

In a process of its own, because a tracer has to wait for the threads that it follows. strace(1) can
inject a signal as well, but it counts the calls of each thread apart: what a second thread does has no
number of its own there.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

from crashing import orphans, ptrace
from crashing.calls import Call, Judge
from crashing.errors import CrashtestError

#: Seconds for attaching, and for the end of a process that was killed.
_PATIENCE = 30.0
# A forked tracer need not load anything.
_FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True, slots=True)
class Kill:
    """Which change to kill at, counted from 1: before it is made, or `after`."""

    number: int
    after: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """The changes that a daemon made or was about to make, and whether the tracer killed it.

    `unguarded` is a program that was left in the midst of a change, with nothing to keep others away.
    """

    calls: tuple[Call, ...]
    killed: bool
    unguarded: str = ""


class Tracer:
    """Follows one daemon from its construction to the daemon's end."""

    def __init__(
        self, pid: int, *, names: Mapping[int, str], directories: Sequence[str], kill: Kill | None
    ) -> None:
        self._pipe, child = _FORK.Pipe(duplex=False)
        self._process = _FORK.Process(
            target=_follow, args=(child, pid, Judge(names, directories), kill), daemon=True
        )
        self._process.start()
        child.close()
        self._receive("attach")

    def report(self) -> Report:
        """Wait for the end of the daemon, which somebody has to bring about."""
        report = self._receive("report")
        assert isinstance(report, Report)
        self.close()
        return report

    def close(self) -> None:
        """Stop following, whatever the daemon does. Repeating it changes nothing."""
        self._process.kill()
        self._process.join()
        self._pipe.close()

    def _receive(self, what: str) -> object:
        try:
            if self._pipe.poll(_PATIENCE):
                return self._pipe.recv()
            failure = f"not done in {_PATIENCE:g} s"
        except EOFError:
            failure = "it ended"
        self.close()
        raise CrashtestError(f"the tracer could not {what}: {failure}")


def _follow(pipe: Connection, pid: int, judge: Judge, kill: Kill | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the program that made us ends us
    ptrace.attach(pid)
    pipe.send("attached")
    calls: list[Call] = []
    killed = False
    unguarded = ""
    making_it = 0  # the thread inside the call after which to kill
    for stop in ptrace.stops(pid):
        if not stop.entry:
            if stop.tid == making_it:
                os.kill(pid, signal.SIGKILL)
                killed = True
            continue
        if killed:
            continue
        call = judge.judge(stop.tid, stop.number, stop.arguments)
        if call is None:
            continue
        calls.append(call)
        if kill is not None and len(calls) == kill.number:
            if kill.after:
                making_it = stop.tid
            else:
                of_program = orphans.is_program(stop.tid, pid)
                os.kill(pid, signal.SIGKILL)
                killed = True
                unguarded = orphans.unguarded(stop.tid, pid) if of_program else ""
    pipe.send(Report(tuple(calls), killed, unguarded))
