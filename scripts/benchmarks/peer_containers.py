"""Peers: the volumes of docker and podman, over their own REST interfaces on a unix socket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

from benchmarks.packages import install
from benchmarks.rest import UnixConnection, serving
from benchmarks.scratch import Scratch
from benchmarks.storage import fill

_PACKAGES = ("docker.io", "podman", "runc")

#: Answers as soon as an engine serves.
_PING = "/_ping"


class _Volumes:
    """One engine's volumes; `place` is the address of the collection."""

    #: Both keep their volumes in a bolt database, which syncs every transaction.
    synced = True

    def __init__(self, name: str, *, place: str, connection: UnixConnection) -> None:
        self.name = name
        self._place = place
        self._connection = connection
        self._created: dict[str, bytes] = {}

    def create(self, volume: str) -> None:
        self._created[volume] = self._connection.ask(
            "POST", f"{self._place}/create", HTTPStatus.CREATED, {"Name": volume}
        )

    def fill(self, volume: str) -> None:
        fill(json.loads(self._created.pop(volume))["Mountpoint"])

    def delete(self, volume: str) -> None:
        self._connection.ask("DELETE", f"{self._place}/{volume}", HTTPStatus.NO_CONTENT)


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
    with serving(argv, place, ping=_PING) as connection:
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
    with serving(argv, place, ping=_PING, environment=environment) as connection:
        yield _Volumes("podman volume, REST", place="/v4.0.0/libpod/volumes", connection=connection)
