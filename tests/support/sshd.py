"""An sshd of the test's own, on loopback, with keys that it made: what network pools are mounted from."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from support.leaks import mark
from support.machine import in_own_mount_namespace
from support.requirements import is_proof
from support.shell import run
from support.wait import eventually

NEEDS = ("sshd", "ssh", "ssh-keygen", "sshfs")
MARKS = [pytest.mark.root, pytest.mark.mount, pytest.mark.program(*NEEDS), pytest.mark.required]
#: Where sshd, as its package builds it, separates privileges; it starts without one only as another user.
_RUN = Path("/run/sshd")


class Sshd:
    """One server; `key` and `known_hosts` are for whoever connects, all below `place`."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.key = place / "key"
        self.known_hosts = place / "known_hosts"
        self.config = place / "sshd_config"
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in ("host", "key"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", place / name)
        (place / "authorized_keys").write_text((place / "key.pub").read_text())
        self.port = self._free_port()
        host_key = " ".join((place / "host.pub").read_text().split()[:2])
        self.known_hosts.write_text(
            f"[127.0.0.1]:{self.port} {host_key}\n[localhost]:{self.port} {host_key}\n"
        )
        self.config.write_text(
            f'ListenAddress 127.0.0.1\nPort {self.port}\nHostKey "{place / "host"}"\n'
            f'AuthorizedKeysFile "{place / "authorized_keys"}"\nPidFile none\nUsePAM no\nStrictModes no\n'
            "PermitRootLogin prohibit-password\nPasswordAuthentication no\nAllowUsers root\n"
            "Subsystem sftp internal-sftp\nUseDNS no\n"
        )
        self._process: subprocess.Popen[bytes] | None = None
        #: Where an export of it is mounted for the tests to share, and what ends that.
        self.mounted: Path | None = None
        self.at_end: list[Callable[[], None]] = []

    @staticmethod
    def _free_port() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
            return port

    def start(self) -> None:
        program = shutil.which("sshd", path="/usr/sbin:/sbin")
        assert program is not None, "the mark sees to it"
        _RUN.mkdir(mode=0o755, exist_ok=True)
        with (self.place / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [program, "-D", "-e", "-f", str(self.config)], stdout=log, stderr=log, start_new_session=True
            )
        eventually(self.answers, what="sshd answers")

    def answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
            return connection.recv(16).startswith(b"SSH-")
        return False

    def pids(self) -> list[int]:
        """The server and what it has started for each connection; sessions are groups of their own."""
        assert self._process is not None
        found = [self._process.pid]
        for pid in found:
            for task in Path(f"/proc/{pid}/task").glob("*/children"):
                with suppress(OSError):
                    found += [int(child) for child in task.read_text().split()]
        return found

    def hang(self) -> None:
        """Stop all of it: connections stay, and nothing is answered."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """As a machine's end; `start` brings it back at the same port."""
        if self._process is None:
            return
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._process = None

    def _signal(self, number: int) -> None:
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def source(self, directory: Path | str, *, host: str = "127.0.0.1", more: str = "") -> str:
        """The <source> of a pool on one of its directories."""
        return (
            f"<source><host name='{host}' port='{self.port}'/><dir path='{directory}'/>"
            f"<format type='sshfs'/>{more}<auth type='sshfs' username='root'><secret file='{self.key}'/>"
            f"<hosts file='{self.known_hosts}'/></auth></source>"
        )


def clients(port: int) -> list[int]:
    """The processes of sshfs that mounted something of the server at `port` for fspoolfs."""
    found: list[int] = []
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = line.read_bytes().split(b"\0")
            if words[0].endswith(b"/sshfs") and f"Port={port}".encode() in words:
                found.append(int(line.parent.name))
    return found


@contextmanager
def own_places() -> Iterator[None]:
    """Directories with fixed names that network pools are mounted by way of, the test's own."""
    if not in_own_mount_namespace():
        reason = "network pools need a mount namespace of the tests' own, which scripts/test makes"
        if is_proof():
            pytest.fail(reason)
        pytest.skip(reason)
    place = Path("/run/fspoolfs")
    place.mkdir(exist_ok=True)
    run("mount", "-t", "tmpfs", "fspoolfs-test", place)
    try:
        yield
    finally:
        run("umount", "--lazy", place)


@pytest.fixture
def network_places() -> Iterator[None]:
    with own_places():
        yield


#: The server of the run while there is one.
_shared: list[Sshd] = []


def shared() -> Sshd:
    """The server that the fixture `sshd` gave to the test that runs."""
    return _shared[0]


@pytest.fixture(scope="session")
def _shared_sshd() -> Iterator[Sshd]:
    with tempfile.TemporaryDirectory(prefix=mark()) as place:
        server = Sshd(Path(place) / "ssh")
        server.start()
        _shared.append(server)
        try:
            yield server
        finally:
            _shared.remove(server)
            for end in server.at_end:
                end()
            server.kill()


@pytest.fixture
def sshd(_shared_sshd: Sshd, network_places: None) -> Sshd:
    """A running server that tests share: it is not to be stopped."""
    return _shared_sshd


@pytest.fixture
def own_sshd(tmp_path: Path, network_places: None) -> Iterator[Sshd]:
    """A running server that the test may stop and kill."""
    server = Sshd(tmp_path / "ssh")
    server.start()
    try:
        yield server
    finally:
        server.resume()
        server.kill()
        eventually(lambda: clients(server.port) == [], what="no sshfs is left")
