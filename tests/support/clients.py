"""Hosts with a daemon each: a network namespace, and mounts under /run that only they have."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from support.daemon import Daemon
from support.leftovers import beneath, take_away
from support.logs import complaints
from support.network import Host
from support.shell import run

#: include/uapi/linux/sched.h
_CLONE_NEWNS, _CLONE_NEWNET = 0x20000, 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)


class Client(Daemon):
    """A daemon on a host of its own. What it mounts below its directory is seen by the test, too."""

    def __init__(self, base: Path, host: Host, *options: str) -> None:
        super().__init__(base, options=options, env={}, user=None)
        self.host = host
        run("mount", "--bind", base, base)
        run("mount", "--make-shared", base)

    def _instead_of(self, argv: Sequence[str]) -> Callable[[], None]:
        namespace = os.open(self.host.namespace, os.O_RDONLY | os.O_CLOEXEC)

        def enter() -> None:
            # Two daemons of one machine would meet there, as those of two never do.
            if (
                _libc.setns(namespace, _CLONE_NEWNET)
                or _libc.unshare(_CLONE_NEWNS)
                or _libc.mount(b"tmpfs", b"/run", b"tmpfs", 0, b"mode=0755")
            ):
                os._exit(99)

        return enter

    def die(self) -> None:
        """End all that runs on the host at once, as a power cut does; its pools' mounts go as well."""
        for pid in self.host.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self.clear()

    def _let_go(self) -> None:
        """Have the pools' clients take leave of their servers: a lost one is waited for by the others."""
        for pool in (self.mount / "pools").iterdir():
            with suppress(OSError):  # inactive, failed
                (pool / "status").write_text("destroy\n")

    def clear(self) -> None:
        """Take away what is mounted below its directory, which nobody serves any more."""
        take_away(leftover for leftover in beneath(self.base) if leftover.remedy[-1] != str(self.base))

    def close(self) -> None:
        # What it says from now on has to do with hosts that ended before it, and that servers wait for.
        found, self._is_log_told = complaints(self.log, self._announced), True
        try:
            if self.is_running:
                self._let_go()
                self.stop()
        finally:
            if self.is_running:
                self.kill(unmount=False)
            for pid in self.host.processes():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.clear()
            run("umount", "--lazy", self.base)
        super().close()
        if found:
            pytest.fail("the daemon's log:\n" + "\n".join(found), pytrace=False)


@contextmanager
def clients(directory: Path, hosts: Sequence[Host], *options: str) -> Iterator[list[Client]]:
    """A running daemon on each host; they end with the context."""
    made: list[Client] = []
    try:
        for number, host in enumerate(hosts):
            made.append(Client(directory / f"client{number}", host, *options))
            made[-1].start()
        yield made
    finally:
        _close_all(made)


def _close_all(made: list[Client]) -> None:
    if made:
        try:
            made.pop().close()
        finally:
            _close_all(made)
