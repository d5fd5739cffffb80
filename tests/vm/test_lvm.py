"""Pools on logical volumes: their life, what is refused, what a killed daemon and a power cut leave."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from crashing import contract
from mount.control import last_error, refused, request, value
from support.machine import is_mounted
from support.shell import run
from vm.preloaded import PreloadedDaemon
from vm.volume_groups import Group

MIB = 1 << 20
SIZE, LARGER = 320 * MIB, 480 * MIB
FORMATS = ("ext4", "xfs", "btrfs")


@pytest.fixture(scope="module")
def group() -> Group:
    return Group("vg-one", 1200 * MIB)


def define(
    daemon: PreloadedDaemon, group: str, name: str, format: str, *, size: int | None = SIZE, source: str = ""
) -> Path:
    capacity = f"<capacity>{size}</capacity>" if size is not None else ""
    source = source or f"<pool name='{group}' provider='lvm'/><volume name='{name}'/>"
    request(
        daemon.mount / "define",
        f"<fspool type='volume'><name>{name}</name>{capacity}<source>{source}<format type='{format}'/>"
        "</source><trash retention='none'/></fspool>",
    )
    return daemon.mount / "pools" / name


def is_active(group: Group, name: str) -> bool:
    return Path(f"/dev/{group.name}/{name}").exists()


@pytest.mark.parametrize("format", FORMATS)
def test_a_pool_on_a_logical_volume_lives_a_whole_life(
    daemon: PreloadedDaemon, group: Group, format: str
) -> None:
    pool = define(daemon, group.name, f"my-{format}", format)
    request(pool / "status", "start build")
    root = Path(os.readlink(pool / "root"))
    assert group.volumes() == {pool.name: SIZE}
    (pool / "items" / "web").mkdir()
    file = pool / "items" / "web" / "data" / "file"
    file.write_text("kept")
    before = os.statvfs(root).f_blocks
    with file.open():
        request(pool / "capacity", str(LARGER))
    assert group.volumes() == {pool.name: LARGER}
    assert os.statvfs(root).f_blocks > before * 1.3
    daemon.kill()
    daemon.start()
    contract.settle(daemon.mount)
    assert value(pool / "status") == "active"
    assert file.read_text() == "kept"
    if format == "btrfs":
        request(pool / "capacity", str(SIZE))
        assert group.volumes() == {pool.name: SIZE}
    request(pool / "status", "stop")
    assert not is_mounted(root)
    assert not is_active(group, pool.name)
    uuid = value(pool / "uuid")
    pool.rmdir()
    define(daemon, group.name, pool.name, format, size=None)
    assert value(pool / "uuid") == uuid, "the volume tells whose it is"
    request(pool / "status", "start")
    assert file.read_text() == "kept"
    (pool / "items" / "web").rmdir()
    request(pool / "status", "stop")
    request(pool / "status", "delete")
    assert group.volumes() == {}
    pool.rmdir()


def test_a_volume_that_somebody_has_made_is_used_and_kept(daemon: PreloadedDaemon, group: Group) -> None:
    run(
        "lvcreate",
        "--yes",
        "--quiet",
        "--wipesignatures",
        "n",
        "--size",
        f"{SIZE}b",
        "--name",
        "theirs",
        group.name,
    )
    run("mkfs.xfs", "-q", "-f", f"/dev/{group.name}/theirs")
    pool = define(daemon, group.name, "theirs", "ext4", size=None)
    with refused(errno.EEXIST):
        request(pool / "status", "build")
    assert "holds an xfs file system" in last_error(pool)
    with refused(errno.EEXIST):
        define(
            daemon, group.name, "twin", "ext4", source=f"<device path='/dev/{group.name}/theirs'/>", size=None
        )
    request(pool / "status", "build overwrite")
    request(pool / "status", "start")
    request(pool / "status", "stop")
    assert is_active(group, "theirs"), "as it was found"
    request(pool / "status", "delete")
    assert group.volumes() == {"theirs": SIZE}
    pool.rmdir()
    run("lvremove", "--yes", f"{group.name}/theirs")


def test_what_lvm_lacks_is_told(daemon: PreloadedDaemon, group: Group) -> None:
    pool = define(daemon, "vg-none", "lost", "ext4")
    with refused(errno.ENOENT):
        request(pool / "status", "build")
    assert "there is no volume group vg-none" in last_error(pool)
    pool.rmdir()
    pool = define(daemon, group.name, "huge", "ext4", size=100 << 30)
    with refused(errno.ENOSPC):
        request(pool / "status", "build")
    assert f"volume group {group.name} has" in last_error(pool)
    with refused(errno.ENOENT):
        request(pool / "status", "start")
    assert "build the pool first" in last_error(pool)
    assert group.volumes() == {}
    pool.rmdir()


def test_what_an_older_volume_has_left_is_no_content(daemon: PreloadedDaemon, group: Group) -> None:
    pool = define(daemon, group.name, "first", "xfs")
    request(pool / "status", "build")
    run("lvremove", "--yes", f"{group.name}/first")
    pool.rmdir()
    pool = define(daemon, group.name, "second", "ext4")
    request(pool / "status", "start build")
    request(pool / "status", "stop")
    request(pool / "status", "delete")
    pool.rmdir()


# Power cuts: what LVM and the file system have on the disk is all that there is afterwards.


def built(pool: Path) -> None:
    request(pool / "status", "build")


def grown(pool: Path) -> None:
    request(pool / "status", "start build")
    (pool / "items" / "web").mkdir()
    request(pool / "capacity", str(LARGER))


def deleted(pool: Path) -> None:
    built(pool)
    request(pool / "status", "delete")


@pytest.mark.parametrize(
    ("format", "operate"),
    [("ext4", built), ("xfs", deleted), *((format, grown) for format in FORMATS)],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_what_returned_success_outlives_a_power_cut(
    daemon: PreloadedDaemon, format: str, operate: Callable[[Path], None]
) -> None:
    group = Group(f"cut_{format}_{operate.__name__}", 600 * MIB)
    pool = define(daemon, group.name, group.name, format)
    operate(pool)
    root = Path(os.readlink(pool / "root"))
    group.cut()
    daemon.kill()
    group.return_after_cut([root])
    daemon.start()
    contract.settle(daemon.mount)
    if operate is deleted:
        assert group.volumes() == {}
        assert not root.exists()
    else:
        if operate is built:
            request(pool / "status", "start")
        assert value(pool / "status") == "active"
        assert os.listdir(pool / "items") == ([] if operate is built else ["web"])
        assert group.volumes() == {group.name: LARGER if operate is grown else SIZE}
        request(pool / "status", "stop")
    pool.rmdir()
