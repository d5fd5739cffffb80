"""Hosts for tests: network namespaces of their own, joined by a bridge that nothing else is joined to.

A namespace lasts as long as the process that holds it, so that nothing is left of it on the machine.
Whoever enters one, with the programs that he starts there, is on that host.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from support.shell import run
from support.wait import eventually

#: include/uapi/linux/sched.h
_CLONE_NEWNET = 0x40000000
#: Seconds that a process may take to end that was told to, or whose mount was taken away.
_END = 5.0

_setns = ctypes.CDLL(None, use_errno=True).setns


class Host:
    """One network namespace, with an address on its loopback device or on a cable."""

    def __init__(self) -> None:
        self._holder = subprocess.Popen(
            ["unshare", "--net", "--", "sleep", "infinity"], stdin=subprocess.DEVNULL, start_new_session=True
        )
        self.namespace = Path(f"/proc/{self._holder.pid}/ns/net")
        outside = os.readlink("/proc/thread-self/ns/net")
        eventually(lambda: os.readlink(self.namespace) != outside, what="a network namespace is there")
        self.run("ip", "link", "set", "lo", "up")

    @property
    def pid(self) -> int:
        """Of the process that holds the namespace."""
        return self._holder.pid

    def run(self, *argv: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a program on this host to its end."""
        return run("nsenter", f"--net={self.namespace}", "--", *argv, check=check)

    def add(self, address: str) -> None:
        """Give it one more address, which only it reaches."""
        self.run("ip", "address", "add", f"{address}/32", "dev", "lo")

    @contextmanager
    def entered(self) -> Iterator[None]:
        """On this host: this thread, those that it starts meanwhile, and their programs."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(self.namespace)
            try:
                yield
            finally:
                _enter(Path(f"/proc/self/fd/{before}"))
        finally:
            os.close(before)

    def processes(self) -> dict[int, str]:
        """All that run on this host, with their command lines; without who holds it."""
        inside = os.readlink(self.namespace)
        found = {}
        for directory in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if os.readlink(directory / "ns" / "net") == inside:
                    line = (directory / "cmdline").read_bytes().replace(b"\0", b" ")
                    found[int(directory.name)] = line.decode(errors="replace").strip()
        return {pid: line for pid, line in found.items() if pid not in (self.pid, os.getpid())}

    def close(self, *, but: Collection[int] = ()) -> None:
        """End it, and all that runs there; `AssertionError` for what should have ended by itself."""
        with suppress(AssertionError):
            eventually(lambda: not self.processes().keys() - set(but), what="all has ended", timeout=_END)
        left = self.processes()
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._holder.kill()
        self._holder.wait()
        strays = [f"process {pid}: {line}" for pid, line in left.items() if pid not in but]
        assert not strays, f"left running on a host of the tests: {', '.join(strays)}"


class Network:
    """A bridge with hosts on it, 10.77.0.1 the first; each network is apart from all others."""

    def __init__(self, stack: ExitStack, hosts: int) -> None:
        self._switch = Host()
        stack.callback(self._switch.close)
        self._switch.run("ip", "link", "add", "bridge", "type", "bridge")
        self._switch.run("ip", "link", "set", "bridge", "up")
        self.hosts = [self._join(stack, number) for number in range(1, hosts + 1)]

    def _join(self, stack: ExitStack, number: int) -> Host:
        host = Host()
        stack.callback(host.close)
        port = f"port{number}"
        ends = ("name", "cable", "netns", str(host.pid), "type", "veth", "peer", "name", port)
        self._switch.run("ip", "link", "add", *ends)
        self._switch.run("ip", "link", "set", port, "master", "bridge", "up")
        host.run("ip", "address", "add", f"{address(number)}/24", "dev", "cable")
        host.run("ip", "link", "set", "cable", "up")
        return host

    def unplug(self, number: int) -> None:
        """Cut the host off whose address ends with `number`."""
        self._switch.run("ip", "link", "set", f"port{number}", "down")

    def plug(self, number: int) -> None:
        self._switch.run("ip", "link", "set", f"port{number}", "up")


def address(number: int) -> str:
    """What the first, second, ... host of a network is called."""
    return f"10.77.0.{number}"


@contextmanager
def network(hosts: int) -> Iterator[Network]:
    """A network that ends with the context."""
    with ExitStack() as stack:
        yield Network(stack, hosts)


def _enter(namespace: Path) -> None:
    fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _setns(fd, _CLONE_NEWNET):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(namespace))
    finally:
        os.close(fd)
