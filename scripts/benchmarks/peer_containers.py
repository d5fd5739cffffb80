"""Peers: the volumes of docker and podman, over their own REST interfaces on a unix socket."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from http import HTTPStatus
from pathlib import Path

from benchmarks.errors import BenchError
from benchmarks.packages import install
from benchmarks.private import private
from benchmarks.processes import Server
from benchmarks.scratch import Scratch
from benchmarks.storage import fill

_PACKAGES = ("docker.io", "podman", "runc")

_START_LIMIT = 60.0
#: A unix socket's path has to be shorter than this: unix(7), with its final zero byte.
_SOCKET_PATH_BYTES = 108


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket, kept open between requests."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))


class _Volumes:
    """One engine's volumes; `place` is the address of the collection."""

    #: Both keep their volumes in a bolt database, which syncs every transaction.
    synced = True

    def __init__(self, name: str, *, place: str, connection: _UnixConnection) -> None:
        self.name = name
        self._place = place
        self._connection = connection
        self._created: dict[str, bytes] = {}

    def create(self, volume: str) -> None:
        self._created[volume] = self._ask(
            "POST", f"{self._place}/create", HTTPStatus.CREATED, {"Name": volume}
        )

    def fill(self, volume: str) -> None:
        fill(json.loads(self._created.pop(volume))["Mountpoint"])

    def delete(self, volume: str) -> None:
        self._ask("DELETE", f"{self._place}/{volume}", HTTPStatus.NO_CONTENT)

    def _ask(
        self, method: str, address: str, expected: HTTPStatus, body: Mapping[str, str] | None = None
    ) -> bytes:
        text = None if body is None else json.dumps(body)
        self._connection.request(method, address, text, {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        answer = response.read()
        if response.status != expected:
            raise BenchError(f"{self.name}: {method} {address}: {answer.decode(errors='replace')}")
        return answer


def install_engines() -> None:
    """Docker and podman; raises `BenchError`."""
    install(_PACKAGES)


@contextmanager
def start_docker(scratch: Scratch) -> Iterator[_Volumes]:
    """A dockerd without networks."""
    place = scratch.directory("docker")
    (place / "daemon.json").write_text("{}\n")
    options = {
        "config-file": place / "daemon.json",
        "data-root": place / "data",
        "exec-root": place / "exec",
        "pidfile": place / "pid",
        "host": f"unix://{place / 'socket'}",
        "bridge": "none",
        "iptables": "false",
        "ip6tables": "false",
        "ip-forward": "false",
        "ip-masq": "false",
        "storage-driver": "overlay2",
    }
    argv = ["dockerd", *(f"--{name}={value}" for name, value in options.items())]
    with _serving(argv, place) as connection:
        yield _Volumes("docker volume, REST", place="/v1.40/volumes", connection=connection)


#: In its own private /run: podman refuses a path of more than 50 characters.
_PODMAN_RUNROOT = "/run/containers"
_PODMAN_CONFIGURATION = """[containers]
default_ulimits = ["nofile=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
[network]
network_backend = "netavark"
"""


@contextmanager
def start_podman(scratch: Scratch) -> Iterator[_Volumes]:
    """A `podman system service` with storage of its own."""
    place = scratch.directory("podman")
    configuration = place / "containers.conf"
    configuration.write_text(_PODMAN_CONFIGURATION)
    storage = ("--root", place / "root", "--runroot", _PODMAN_RUNROOT, "--storage-driver", "overlay")
    service = ("system", "service", "--time", "0", f"unix://{place / 'socket'}")
    argv: list[str | Path] = ["podman", *storage, "--tmpdir", place / "tmp", *service]
    environment = {"CONTAINERS_CONF": str(configuration), "HOME": str(place)}
    with _serving(argv, place, environment) as connection:
        yield _Volumes("podman volume, REST", place="/v4.0.0/libpod/volumes", connection=connection)


@contextmanager
def _serving(
    argv: Sequence[str | Path], place: Path, environment: Mapping[str, str] | None = None
) -> Iterator[_UnixConnection]:
    """Run an engine whose socket is `place`/socket; a connection once it answers."""
    path = place / "socket"
    if len(str(path)) >= _SOCKET_PATH_BYTES:
        raise BenchError(f"{path} is too long for a unix socket; name a shorter place with --dir")
    with Server(private(argv), log=place / "log", env=environment, name=str(argv[0])) as server:
        server.wait_until(lambda: _answers(path), what="its socket answers", seconds=_START_LIMIT)
        with closing(_UnixConnection(path)) as connection:
            yield connection


def _answers(path: Path) -> bool:
    with closing(_UnixConnection(path)) as connection:
        try:
            connection.request("GET", "/_ping")
            return connection.getresponse().status == HTTPStatus.OK
        except (FileNotFoundError, ConnectionError):
            return False
