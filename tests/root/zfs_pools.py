"""What tests of zfs pools share: a pool, and what zfs says of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mount.control import request, value
from root.volume_pools import define
from support import zfs
from support.daemon import Daemon
from support.needs import needs_fuse, needs_root
from support.shell import run

MARKS = [needs_root, needs_fuse, *zfs.MARKS, pytest.mark.usefixtures("usable_zfs")]


@pytest.fixture(name="pool")
def zfs_pool(daemon: Daemon) -> Iterator[Path]:
    made = define(daemon, "tank", "zfs", more="<trash retention='none'/>")
    request(made / "status", "start build")
    yield made
    if value(made / "status") != "inactive":
        request(made / "status", "destroy")


def datasets(pool: Path) -> set[str]:
    """The names of the pool's datasets and their snapshots, without the zpool's own."""
    name = zpool_of(pool)
    lines = run("zfs", "list", "-H", "-o", "name", "-t", "all", "-r", name).stdout.split()
    return {line.removeprefix(f"{name}/") for line in lines} - {name, "root"}


def zpool_of(pool: Path) -> str:
    return f"tank-{value(pool / 'uuid')}"
