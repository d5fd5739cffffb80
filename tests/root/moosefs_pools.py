"""What tests of pools on MooseFS share: a pool, and what is to be seen of its mount."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mount.control import request, value
from support.daemon import Daemon
from support.machine import mounts
from support.moosefs import MooseFs
from support.network import Host
from support.wait import eventually

MIB = 1 << 20


def define(daemon: Daemon, servers: MooseFs, directory: str, *, name: str = "tank", more: str = "") -> Path:
    """A pool on `directory`; `more` follows the format in its source."""
    source = servers.source(directory, more)
    request(
        daemon.mount / "define",
        f"<fspool type='network'><name>{name}</name>{source}<trash retention='none'/></fspool>",
    )
    return daemon.mount / "pools" / name


@contextmanager
def active(daemon: Daemon, servers: MooseFs, directory: str = "", **more: str) -> Iterator[Path]:
    """A running pool in a new directory, given up in the end as when all else fails."""
    pool = define(daemon, servers, directory or servers.directory(), **more)
    request(pool / "status", "start build")
    try:
        yield pool
    finally:
        if daemon.is_running and value(pool / "status") != "inactive":
            request(pool / "status", "destroy")


def start(daemon: Daemon, pool: Path) -> None:
    """A new daemon for one that is gone, and the pool taken up."""
    daemon.start()
    eventually(lambda: value(pool / "status") == "active", what="the pool is taken up")


def root_of(pool: Path) -> Path:
    return Path(os.readlink(pool / "root"))


def types_at(place: Path) -> list[str]:
    """The types of the file systems that are mounted at `place`."""
    return [mount.fstype for mount in mounts() if mount.point == str(place)]


def features_of(pool: Path) -> dict[str, str]:
    """Each feature of a pool, and what is said of it."""
    lines = (pool / "features").read_text().splitlines()
    return {name: text.strip() for name, _, text in (line.partition(":") for line in lines)}


def clients_of(host: Host) -> set[int]:
    """The programs that keep a mount of MooseFS on a host."""
    return {pid for pid, line in host.processes().items() if line.startswith("mfsmount")}
