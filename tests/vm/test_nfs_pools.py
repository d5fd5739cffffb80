"""Network pools on the kernel's NFS server by the kernel's client: a pool's life, and a server that fails."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

from mount.control import last_error, refused, request, value
from support.machine import mounts
from support.shell import run
from support.wait import eventually
from vm.disks import volume
from vm.network_life import live
from vm.nfs_server import NfsServer, server
from vm.preloaded import PreloadedDaemon

MIB = 1 << 20
_names = count(1)


@pytest.fixture(scope="module")
def nfs() -> NfsServer:
    return server()


def define(daemon: PreloadedDaemon, nfs: NfsServer, directory: Path, options: str) -> Path:
    name = f"pool{next(_names)}"
    request(
        daemon.mount / "define",
        f"<fspool type='network'><name>{name}</name>{nfs.source(directory, options)}"
        "<trash retention='none'/></fspool>",
    )
    return daemon.mount / "pools" / name


def active(daemon: PreloadedDaemon, nfs: NfsServer, options: str) -> Path:
    pool = define(daemon, nfs, nfs.new_directory(), options)
    request(pool / "status", "start build")
    return pool


def types_at(place: Path) -> set[str]:
    return {mount.fstype for mount in mounts() if mount.point == str(place)}


def root_of(pool: Path) -> Path:
    return Path(os.readlink(pool / "root"))


@pytest.mark.parametrize(("version", "fs_type"), [("3", "nfs"), ("4.2", "nfs4")])
def test_a_pool_lives_on_each_version(
    daemon: PreloadedDaemon, nfs: NfsServer, version: str, fs_type: str
) -> None:
    exported = nfs.new_directory() / "new" / "tank"
    pool = define(daemon, nfs, exported, f"vers={version}")
    request(pool / "status", "start build")
    root = root_of(pool)
    assert types_at(root) == {fs_type, "tmpfs"}
    live(daemon, pool, exported)
    assert types_at(root) == set()
    request(pool / "status", "delete")
    assert os.listdir(exported) == []
    pool.rmdir()


def test_an_export_for_reading_alone_is_no_pool(daemon: PreloadedDaemon, nfs: NfsServer) -> None:
    exported = volume("ext4", "defaults").place
    nfs.export(exported, "ro,sync,no_subtree_check,no_root_squash")
    pool = define(daemon, nfs, exported, "vers=3")
    with refused(errno.EROFS):
        request(pool / "status", "start build")
    assert "cannot be written" in last_error(pool)
    assert types_at(root_of(pool)) == set()


def test_a_full_export_says_so_and_goes_on(daemon: PreloadedDaemon, nfs: NfsServer) -> None:
    pool = active(daemon, nfs, "vers=4.2")
    item = pool / "items" / "web"
    item.mkdir()
    ballast = nfs.place / "ballast"
    try:
        with ballast.open("wb") as file:
            # Blocks of the file system are set aside, and for the ballast's own list of them.
            os.posix_fallocate(file.fileno(), 0, nfs.free() - 6 * MIB)
        argv = ("dd", "if=/dev/zero", f"of={item}/data/full", "bs=256k", "count=80", "conv=fsync")
        assert "No space left" in run(*argv, check=False).stderr
        assert value(pool / "status") == "active"
        (item / "data" / "full").unlink()
        # What another user's file did not get is no failure of what is made now.
        (pool / "items" / "shop").mkdir()
        (pool / "items" / "shop").rename(pool / "items" / "store")
    finally:
        ballast.unlink()
    assert value(pool / "items" / "store" / "status") == "ready"
    request(pool / "status", "stop")


def test_a_server_that_is_restarted_while_things_are_made_loses_nothing(
    daemon: PreloadedDaemon, nfs: NfsServer
) -> None:
    pool = active(daemon, nfs, "vers=4.2,hard,timeo=20")
    script = 'for i in 1 2 3 4 5 6 7 8; do mkdir "$1/items/i$i" || exit; echo $i >"$1/items/i$i/data/n"; done'
    with subprocess.Popen(["sh", "-c", script, "sh", pool]) as process:
        eventually(lambda: (pool / "items" / "i2").exists(), what="something is being made")
        nfs.stop()
        nfs.start()
        assert process.wait(100) == 0
    for number in range(1, 9):
        assert (pool / "items" / f"i{number}" / "data" / "n").read_text() == f"{number}\n"
    request(pool / "status", "stop")


def started(pool: Path) -> bool:
    if value(pool / "status") in ("inactive", "failed"):
        with suppress(TimeoutError):
            request(pool / "status", "start")
    return value(pool / "status") == "active"


@pytest.mark.long
def test_an_export_that_is_taken_away_and_comes_back_is_found_again(
    daemon: PreloadedDaemon, nfs: NfsServer
) -> None:
    daemon.expect_log("journal|storage of pool")
    exported = nfs.new_directory()
    pool = define(daemon, nfs, exported, "vers=4.2")
    request(pool / "status", "start build")
    (pool / "items" / "web").mkdir()
    root, away = root_of(pool), exported.with_name("away")
    exported.rename(away)
    shutil.copytree(away, exported)
    shutil.rmtree(away)
    with pytest.raises(OSError, match="Stale file handle"):
        eventually(lambda: not (root / "web").exists() and not os.listdir(root), what="the root is stale")
    with suppress(OSError):  # as forced as it has to be
        request(pool / "status", "destroy")
    eventually(lambda: value(pool / "status") == "inactive", what="the pool is let go")
    assert types_at(root) == set()
    eventually(lambda: started(pool), what="the pool can be started again", timeout=60)
    assert os.listdir(pool / "items") == ["web"]
    request(pool / "status", "stop")


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("options", ["vers=4.2,soft,timeo=10,retrans=1", "vers=4.2,hard"])
def test_a_server_that_is_gone_is_told_in_time_and_its_pool_is_let_go(
    daemon: PreloadedDaemon, nfs: NfsServer, options: str
) -> None:
    if "hard" in options:
        daemon.expect_log("does not answer; it is let go as it is")
    pool, other = active(daemon, nfs, options), daemon.mount / "pools" / f"pool{next(_names)}"
    other.mkdir()
    request(other / "status", "start build")
    (pool / "items" / "web").mkdir()
    root = root_of(pool)
    nfs.stop()
    try:
        with subprocess.Popen(["touch", root / "web" / "new"], stderr=subprocess.DEVNULL) as hung:
            (other / "items" / "web").mkdir()
            with suppress(OSError):  # what becomes of it, it is to be answered
                request(pool / "status", "destroy")
            eventually(lambda: value(pool / "status") == "inactive", what="the pool is let go", timeout=60)
            assert types_at(root) == set()
            if "hard" in options:
                hung.kill()  # it waits for the server, as it was told to
            assert hung.wait(60) != 0
        with refused(errno.ETIMEDOUT):
            request(pool / "status", "start")
        assert "cannot be reached" in last_error(pool)
    finally:
        nfs.start()
    eventually(lambda: started(pool), what="the pool can be started again", timeout=60)
    assert "web" in os.listdir(pool / "items")
    request(pool / "status", "stop")
    request(other / "status", "stop")
