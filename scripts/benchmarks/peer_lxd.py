"""Peer: custom volumes of LXD in a storage pool of type btrfs, over its REST interface on a unix socket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

from benchmarks.packages import install
from benchmarks.rest import UnixConnection, serving
from benchmarks.scratch import Scratch

_PACKAGES = ("lxd", "btrfs-progs")
#: LXD makes the image of its pool itself, in its own directory.
_POOL_SIZE = "8GiB"
_POOLS = "/1.0/storage-pools"
_VOLUMES = f"{_POOLS}/bench/volumes/custom"


class _Volumes:
    """Volumes with a size, which LXD enforces by btrfs' qgroups."""

    name = "LXD volume on btrfs, REST"

    def __init__(self, connection: UnixConnection) -> None:
        self._connection = connection

    def create(self, volume: str) -> None:
        self._connection.ask("POST", _VOLUMES, HTTPStatus.OK, {"name": volume, "config": {"size": "1GiB"}})

    def snapshot(self, volume: str, name: str) -> None:
        """Answered before it is done: whoever wants the snapshot waits for the operation."""
        answer = self._connection.ask(
            "POST", f"{_VOLUMES}/{volume}/snapshots", HTTPStatus.ACCEPTED, {"name": name}
        )
        self._connection.ask("GET", f"{json.loads(answer)['operation']}/wait", HTTPStatus.OK)


def install_lxd() -> None:
    """The daemon and what it calls; raises `BenchError`."""
    install(_PACKAGES)


@contextmanager
def start_lxd(scratch: Scratch) -> Iterator[_Volumes]:
    """An LXD with one pool on a loop device of its own, which goes with its mount namespace."""
    place = scratch.beside_images("lxd")
    environment = {"LXD_DIR": str(place), "LXD_SOCKET": str(place / "unix.socket")}
    argv = ("lxd", "--group", "root")
    with serving(argv, place, ping="/1.0", socket_name="unix.socket", environment=environment) as connection:
        config = {"size": _POOL_SIZE}
        body = {"name": "bench", "driver": "btrfs", "config": config}
        connection.ask("POST", _POOLS, HTTPStatus.CREATED, body)
        yield _Volumes(connection)
