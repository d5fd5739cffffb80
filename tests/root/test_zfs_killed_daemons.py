"""Pools of format zfs whose daemon or zfs-fuse is killed: a few moments; `scripts/crashtest` has them all."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from mount.control import last_error, refused, request, value
from root.volume_pools import define, image_of, loops_of, root_of
from root.zfs_pools import MARKS, datasets, zfs_pool, zpool_of  # noqa: F401
from support.daemon import Daemon
from support.machine import is_mounted
from support.shell import run
from support.wait import eventually
from support.zfs import ZfsFuse

pytestmark = MARKS


def test_what_was_acknowledged_outlives_zfs_fuse(pool: Path, daemon: Daemon, zfs_fuse: ZfsFuse) -> None:
    item = pool / "items" / "web"
    item.mkdir()
    with (item / "data" / "file").open("w") as file:
        file.write("kept")
        file.flush()
        os.fsync(file.fileno())
    (item / "snapshots" / "one").mkdir()
    request(item / "status", "clone clone one")
    daemon.expect_log("pool tank.*(not connected|Input/output error)")
    zfs_fuse.kill()
    eventually(lambda: value(pool / "status") == "failed", what="it is noticed")
    # Its storage does not answer, and is let go after a while.
    with suppress(BlockingIOError):
        request(pool / "status", "destroy")
    eventually(lambda: value(pool / "status") == "inactive", what="the pool is let go")
    assert not is_mounted(daemon.storage / "pools" / "tank")
    with refused(errno.EOPNOTSUPP):
        request(pool / "status", "start")
    assert "start zfs-fuse" in last_error(pool)
    zfs_fuse.start()
    request(pool / "status", "start")
    assert (item / "data" / "file").read_text() == "kept"
    assert (item / "snapshots" / "one" / "data" / "file").read_text() == "kept"
    assert (pool / "items" / "clone" / "data" / "file").read_text() == "kept"


#: What a daemon is killed in the midst of, and what the items may hold afterwards.
OPERATIONS = {
    "create": ("mkdir {items}/new", [{"web": "2"}, {"web": "2", "new": ""}]),
    "snapshot": ("mkdir {items}/web/snapshots/new", [{"web": "2"}]),
    "rollback": ("echo rollback one > {items}/web/status", [{"web": "2"}, {"web": "1"}]),
    "clone": ("echo clone new one > {items}/web/status", [{"web": "2"}, {"web": "2", "new": "1"}]),
    "rename": ("mv {items}/web {items}/new", [{"web": "2"}, {"new": "2"}]),
    "delete": ("rmdir {items}/web", [{"web": "2"}, {}]),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_has_happened_or_not_when_its_daemon_is_killed(
    pool: Path, daemon: Daemon, operation: str
) -> None:
    line, outcomes = OPERATIONS[operation]
    for moment in (0.01, 0.04):
        item = pool / "items" / "web"
        item.mkdir()
        for text in ("1", "2"):
            (item / "data" / "file").write_text(text)
            if text == "1":
                (item / "snapshots" / "one").mkdir()
        with subprocess.Popen(["sh", "-c", line.format(items=pool / "items")], stderr=subprocess.DEVNULL):
            time.sleep(moment)
            daemon.kill()
        daemon.start()
        eventually(lambda: value(pool / "status") == "active", what="the pool is active again")
        assert held(pool) in outcomes
        for one in (pool / "items").iterdir():
            assert value(one / "status") == "ready"
            for snapshot in (one / "snapshots").iterdir():
                assert (snapshot / "data").is_dir()
            one.rmdir()
        eventually(lambda: datasets(pool) == set(), what="no dataset is left without an owner")
        assert sorted(name for name in os.listdir(root_of(pool)) if name != ".fspool") == []


@pytest.mark.parametrize("verb", ["build", "start", "stop", "delete"])
def test_a_verb_of_a_pool_can_be_repeated_when_its_daemon_was_killed(daemon: Daemon, verb: str) -> None:
    pool = daemon.mount / "pools" / "tank"
    for moment in (0.02, 0.08):
        define(daemon, "tank", "zfs", more="<trash retention='none'/>")
        if verb != "build":
            request(pool / "status", "build")
        if verb == "stop":
            request(pool / "status", "start")
        line = f"echo {verb} > {pool / 'status'}"
        with subprocess.Popen(["sh", "-c", line], stderr=subprocess.DEVNULL):
            time.sleep(moment)
            daemon.kill()
        daemon.start()
        eventually(
            lambda: value(pool / "status") in {"active", "inactive"}, what="nothing is under way any more"
        )
        name = zpool_of(pool)
        if value(pool / "status") == "inactive":
            request(pool / "status", "start build")
        (pool / "items" / "web").mkdir()
        (pool / "items" / "web").rmdir()
        request(pool / "status", "stop")
        request(pool / "status", "delete")
        assert loops_of(daemon) == []
        assert not image_of(daemon, "tank").exists()
        assert name not in run("zpool", "list", "-H", "-o", "name").stdout
        pool.rmdir()


def held(pool: Path) -> dict[str, str]:
    """What the file in each item holds."""
    files = {one.name: one / "data" / "file" for one in (pool / "items").iterdir()}
    return {name: file.read_text() if file.exists() else "" for name, file in files.items()}
