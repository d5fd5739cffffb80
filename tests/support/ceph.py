"""A whole Ceph cluster for tests: monitor, manager, object stores, metadata server, one file system.

Everything runs as children of this process, with a directory of their own, on an address of their own, and
ends with it. cephx is on. The regular cluster has one object store in memory; faults need three that
keep their data in files (`bluestore`).
"""

from __future__ import annotations

import base64
import os
import secrets
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from uuid import uuid4

import pytest

from support.leaks import mark
from support.shell import run
from support.wait import eventually

PROGRAMS = ("ceph", "ceph-mon", "ceph-mgr", "ceph-osd", "ceph-mds", "ceph-fuse", "monmaptool")
MARKS = [pytest.mark.root, pytest.mark.mount, pytest.mark.program(*PROGRAMS), pytest.mark.required]

Store = Literal["memstore", "bluestore"]

#: The variable that tells tests in a guest of a cluster outside: its address, and the directory of secrets.
KERNEL_CLIENT = "FSPOOLFS_CEPH"
#: The name of the file system.
VOLUME = "vol"

_CONF = """\
[global]
fsid = {fsid}
mon host = [v2:{address}:{port},v1:{address}:{old_port}]
public network = {address}/32
ms bind ipv6 = false
ms bind port min = {first_port}
ms bind port max = {last_port}
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
keyring = {base}/keyring
osd pool default size = {copies}
osd pool default min size = {least}
osd pool default pg num = 8
osd pool default pgp num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon warn on pool no redundancy = false
log file = {base}/log/$name.log
log to stderr = false
admin socket = {base}/run/$name.$pid.asok
pid file =
run dir = {base}/run
crash dir = {base}/run
mon cluster log file = {base}/log/cluster.log
mon data avail warn = 1
mon data avail crit = 1
[mon]
mon data = {base}/mon
mon initial members = a
auth allow insecure global id reclaim = false
mon allow pool delete = true
mon pg warn min per osd = 0
mon osd down out interval = 3600
mgr initial modules =
[mgr]
mgr data = {base}/mgr
mgr initial modules =
[mds]
mds data = {base}/mds
mds cache memory limit = 134217728
# Else requests of two clients for one file wait for the next tick of the journal, up to 5 s.
mds early reply = false
mds tick interval = 1
[osd]
osd data = {base}/osd$id
osd objectstore = {store}
memstore device bytes = 4G
bluestore block size = 4G
bluestore block create = true
bluestore fsck quick fix on mount = false
osd memory target = 939524096
osd memory cache min = 33554432
osd class update on start = false
osd max object name len = 256
osd max object namespace len = 64
osd fast fail on connection refused = true
osd mclock profile = high_client_ops
osd heartbeat grace = 6
osd heartbeat interval = 2
[client]
client quota = true
client mount timeout = 20
"""


def new_key() -> str:
    """A secret as ceph-authtool makes it: type 1, the time, 16 bytes."""
    return base64.b64encode(
        struct.pack("<HIIH", 1, int(time.time()), 0, 16) + secrets.token_bytes(16)
    ).decode()


@dataclass(slots=True)
class Server:
    """One process of the cluster, started as `argv`."""

    argv: tuple[str, ...]
    process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None, f"{self.argv} was not started"
        return self.process.pid

    def start(self) -> None:
        assert self.process is None
        self.process = subprocess.Popen(
            self.argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """At once, stopped or not."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@dataclass(slots=True)
class Cluster:
    """A cluster in `base`; `within` is put before every server's command line, such as `ip netns exec X`."""

    base: Path
    osds: int = 1
    store: Store = "memstore"
    address: str = "127.0.0.1"
    within: Sequence[str] = ()
    port: int = 0
    admin_key: str = field(default_factory=new_key)
    servers: dict[str, Server] = field(default_factory=dict)
    #: Where tests that want no mount of their own find one, and what is done before the servers end.
    mounted: Path | None = None
    at_end: list[Callable[[], None]] = field(default_factory=list)

    @property
    def conf(self) -> Path:
        return self.base / "ceph.conf"

    def start(self) -> None:
        """Returns when the file system can be mounted."""
        for name in ("mon", "mgr", "mds", "log", "run", *(f"osd{number}" for number in range(self.osds))):
            (self.base / name).mkdir(parents=True)
        self.port, old_port = (3300, 6789) if self.within else _free_ports()
        fsid = str(uuid4())
        # Ports that a cluster beside this one is not to be asked for after a restart of its own.
        first = 6800 if self.within else 7000 + 64 * secrets.randbelow(300)
        self.conf.write_text(
            _CONF.format(
                fsid=fsid, address=self.address, port=self.port, old_port=old_port, base=self.base,
                copies=self.osds, least=max(1, self.osds - 1), store=self.store,
                first_port=first, last_port=first + 63,
            )
        )  # fmt: skip
        self._write_keys()
        self.keep("admin", self.admin_key)
        addresses = f"[v2:{self.address}:{self.port},v1:{self.address}:{old_port}]"
        run(
            "monmaptool",
            "--create",
            "--clobber",
            "--fsid",
            fsid,
            "--addv",
            "a",
            addresses,
            self.base / "monmap",
        )
        self._tool(
            "ceph-mon", "--mkfs", "-i", "a", "--monmap", str(self.base / "monmap"),
            "--keyring", str(self.base / "keyring"),
        )  # fmt: skip
        self._serve("mon", "ceph-mon", "-i", "a")
        self._serve("mgr", "ceph-mgr", "-i", "x")
        self._serve("mds", "ceph-mds", "-i", "a")
        uuids = [str(uuid4()) for _ in range(self.osds)]
        self.admin(*(f"osd new {uuid}" for uuid in uuids))
        making = [
            subprocess.Popen(
                self._argv("ceph-osd", "-i", str(number), "--mkfs", "--osd-uuid", uuid, "--no-mon-config"),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for number, uuid in enumerate(uuids)
        ]
        for number, process in enumerate(making):
            assert process.wait(60) == 0, f"osd.{number} could not be made"
            self._serve(f"osd{number}", "ceph-osd", "-i", str(number))
        self.admin(
            "osd pool create meta 8 8", "osd pool create data 8 8", f"fs new {VOLUME} meta data",
            # A client that has died is let go of in time for a test to see it.
            f"fs set {VOLUME} session_timeout 30", f"fs set {VOLUME} session_autoclose 30",
        )  # fmt: skip
        eventually(lambda: "up:active" in self.ask("mds", "stat"), what="the metadata server is active")

    def _write_keys(self) -> None:
        allow = "allow *"
        capabilities = {
            "mon.": {"mon": allow},
            "client.admin": {"mon": allow, "osd": allow, "mds": allow, "mgr": allow},
            "mgr.x": {"mon": "allow profile mgr", "osd": allow, "mds": allow},
            "mds.a": {
                "mon": "allow profile mds",
                "osd": "allow rwx",
                "mds": allow,
                "mgr": "allow profile mds",
            },
            **{
                f"osd.{number}": {"mon": "allow profile osd", "osd": allow, "mgr": "allow profile osd"}
                for number in range(self.osds)
            },
        }
        lines: list[str] = []
        for name, granted in capabilities.items():
            key = self.admin_key if name == "client.admin" else new_key()
            lines += [
                f"[{name}]",
                f"key = {key}",
                *(f'caps {what} = "{how}"' for what, how in granted.items()),
            ]
        keyring = self.base / "keyring"
        keyring.touch(0o600)
        keyring.write_text("\n".join(lines) + "\n")

    def _argv(self, program: str, *arguments: str) -> tuple[str, ...]:
        return (*self.within, program, "--conf", str(self.conf), *arguments)

    def _tool(self, program: str, *arguments: str) -> str:
        return run(*self._argv(program, *arguments)).stdout

    def _serve(self, name: str, program: str, *arguments: str) -> None:
        self.servers[name] = Server(self._argv(program, "-f", *arguments))
        self.servers[name].start()

    def admin(self, *commands: str) -> str:
        """Have the monitor do `commands`, one after the other; they must not fail."""
        # One process for all: each takes half a second to start.
        answer = run(*self._argv("ceph", "--connect-timeout", "30"), input="\n".join(commands) + "\n")
        assert "Error" not in answer.stdout + answer.stderr, answer.stdout + answer.stderr
        return answer.stdout

    def ask(self, *words: str) -> str:
        return run(*self._argv("ceph", "--connect-timeout", "30", *words)).stdout

    def key_of(self, client: str, path: str = "/", granted: str = "rwps") -> str:
        """The secret of the new client `client`, which may do what is `granted` below `path`."""
        return (
            self.ask("fs", "authorize", VOLUME, f"client.{client}", path, granted)
            .partition("key = ")[2]
            .split()[0]
        )

    def source(self, path: str, *, client: str = "admin", more: str = "") -> str:
        """The <source> of a pool on a directory of the file system, for `client`, whose secret is at hand."""
        return (
            f"<source><host name='{self.address}' port='{self.port}'/><dir path='{path}'/>"
            f"<format type='cephfs'/>{more}<auth type='cephfs' username='{client}'>"
            f"<secret file='{self.secret(client)}'/></auth></source>"
        )

    def secret(self, client: str) -> Path:
        return self.base / f"secret-{client}"

    def keep(self, client: str, key: str) -> None:
        """Write a secret where only root can read it."""
        self.secret(client).touch(0o600)
        self.secret(client).write_text(key)

    def confine(self, client: str, path: str, granted: str = "rwps") -> None:
        """Make a directory and a client that may do what is `granted` there, and nothing elsewhere."""
        self.make_directory(path)
        self.keep(client, self.key_of(client, path, granted))

    def make_directory(self, path: str) -> None:
        """Make `path` and what lacks above it, as an administrator does before handing it out."""
        place = self.base / "run" / f"admin-{secrets.token_hex(4)}"
        with mounted(self, place):
            (place / path.strip("/")).mkdir(parents=True, exist_ok=True)

    def signal(self, number: signal.Signals) -> None:
        """To every server that runs: SIGSTOP is a cluster that answers nothing."""
        for server in self.servers.values():
            if server.process is not None:
                server.signal(number)

    def end(self) -> None:
        """End every server at once: nothing is to outlive the test."""
        for server in self.servers.values():
            server.kill()


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


@contextmanager
def mounted(cluster: Cluster, place: Path, path: str = "/", *, client: str = "admin") -> Iterator[Path]:
    """The directory `path` of the file system at `place`, by a ceph-fuse of its own."""
    place.mkdir(exist_ok=True)
    process = subprocess.Popen(
        (
            *("ceph-fuse", "-f", "--conf", str(cluster.conf), "--id", client),
            *("--client_mountpoint", path, "--fuse_disable_pagecache=true", str(place)),
        ),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        eventually(lambda: os.path.ismount(place), what=f"{path} is mounted")
        yield place
    finally:
        run("umount", "--lazy", place, check=False)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        place.rmdir()


@contextmanager
def running(base: Path, **wanted: object) -> Iterator[Cluster]:
    """A cluster whose servers end with the context, also when it does not come up."""
    cluster = Cluster(base, **wanted)  # type: ignore[arg-type]
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.end()
        run("rm", "-r", "-f", "--one-file-system", "--", base)


#: The cluster of the run while there is one.
_shared: list[Cluster] = []


def shared() -> Cluster:
    """The cluster that the fixture `ceph` gave to the test that runs."""
    return _shared[0]


@pytest.fixture(scope="session")
def _shared_cluster() -> Iterator[Cluster]:
    place = Path(tempfile.mkdtemp(prefix=mark()))
    with running(place / "ceph") as cluster:
        _shared.append(cluster)
        try:
            yield cluster
        finally:
            _shared.remove(cluster)
            for end in cluster.at_end:
                end()
    place.rmdir()


@pytest.fixture
def ceph(_shared_cluster: Cluster, network_places: None) -> Cluster:
    """A running cluster that tests share: its servers are not to be stopped."""
    return _shared_cluster
