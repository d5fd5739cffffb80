"""Volume pools that grow and shrink, through a real daemon."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from mount.control import last_error, refused, request, value
from root.volume_pools import (
    FORMATS,
    LARGER,
    MARKS,
    MIB,
    SIZE,
    define,
    document,
    image_of,
    loops_of,
    may_grow_online,
    root_of,
)
from support.daemon import Daemon, MakeDaemon
from support.machine import loop_devices
from support.shell import run
from support.wait import eventually

pytestmark = MARKS

SMALLER = 256 * MIB


# Growth.


@pytest.mark.parametrize("how", ["capacity", "document"])
@pytest.mark.parametrize("format", FORMATS)
def test_a_pool_grows_while_its_items_are_used(daemon: Daemon, format: str, how: str) -> None:
    if not may_grow_online(format):
        pytest.xfail("the kernel wants CAP_SYS_RESOURCE, which root lacks here")
    pool = define(daemon, "tank", format)
    request(pool / "status", "start build")
    (pool / "items" / "web").mkdir()
    before = os.statvfs(root_of(pool)).f_blocks
    with (pool / "items" / "web" / "data" / "file").open("w") as file:
        if how == "capacity":
            request(pool / "capacity", str(LARGER))
        else:
            request(pool / "config.xml", document("tank", format, size=LARGER))
        file.write("while it grows")
    assert value(pool / "capacity") == str(LARGER)
    assert f"<capacity>{LARGER}</capacity>" in (pool / "config.xml").read_text().replace(" unit='bytes'", "")
    assert not (pool / "pending.xml").exists()
    assert os.statvfs(root_of(pool)).f_blocks > before * 1.4
    request(pool / "capacity", value(pool / "capacity"))
    request(pool / "status", "stop")


def test_a_file_system_follows_a_device_that_has_grown(
    daemon: Daemon, disk: str, run_directory: Path
) -> None:
    pool = define(daemon, "tank", "xfs", size=None, source=f"<device path='{disk}'/>")
    request(pool / "status", "start build")
    before = os.statvfs(root_of(pool)).f_blocks
    with refused(errno.EOPNOTSUPP):
        request(pool / "capacity", str(LARGER))
    assert f"has {SIZE} bytes" in last_error(pool)
    os.truncate(run_directory / "disk" / "image", LARGER)
    run("losetup", "--set-capacity", disk)
    request(pool / "capacity", str(LARGER))
    assert os.statvfs(root_of(pool)).f_blocks > before * 1.4
    request(pool / "status", "stop")
    assert disk in [loop.device for loop in loop_devices()], "the device is not fspoolfs' to detach"


@pytest.mark.parametrize("format", FORMATS)
def test_a_pool_that_is_stopped_grows_with_its_next_start(daemon: Daemon, format: str) -> None:
    pool = define(daemon, "tank", format)
    request(pool / "status", "start build")
    (pool / "items" / "web").mkdir()
    before = os.statvfs(root_of(pool)).f_blocks
    request(pool / "status", "stop")
    request(pool / "capacity", str(LARGER))
    assert image_of(daemon, "tank").stat().st_size == SIZE
    request(pool / "status", "start")
    assert image_of(daemon, "tank").stat().st_size == LARGER
    assert os.statvfs(root_of(pool)).f_blocks > before * 1.4
    assert os.listdir(pool / "items") == ["web"]
    request(pool / "status", "stop")


@pytest.mark.skipif(may_grow_online("ext4"), reason="root may")
def test_growth_that_the_kernel_would_refuse_changes_nothing(daemon: Daemon) -> None:
    pool = define(daemon, "tank", "ext4")
    request(pool / "status", "start build")
    with refused(errno.EOPNOTSUPP):
        request(pool / "capacity", str(LARGER))
    assert "CAP_SYS_RESOURCE" in last_error(pool)
    assert value(pool / "capacity") == str(SIZE)
    assert image_of(daemon, "tank").stat().st_size == SIZE
    request(pool / "status", "stop")


# Shrinking.


def info(pool: Path, key: str) -> str:
    """What the line `key` of the pool's info says."""
    lines = (pool / "info").read_text().splitlines()
    return next(line.partition(":")[2].strip() for line in lines if line.startswith(f"{key}:"))


def fill_item(pool: Path, size: int) -> Path:
    """A new item's file of `size` bytes that no file system can compress or leave out."""
    (pool / "items" / "web").mkdir()
    file = pool / "items" / "web" / "data" / "file"
    file.write_bytes(os.urandom(MIB) * (size // MIB))
    return file


def test_btrfs_shrinks_while_its_items_are_used(daemon: Daemon) -> None:
    pool = define(daemon, "tank", "btrfs")
    request(pool / "status", "start build")
    file = fill_item(pool, 64 * MIB)
    held, before = file.read_bytes(), os.statvfs(root_of(pool)).f_blocks
    with file.open("rb") as opened:
        assert info(pool, "Capacity") == "320.00 MiB"
        request(pool / "capacity", str(SMALLER))
        assert info(pool, "Capacity") == "256.00 MiB"
        assert opened.read() == held
    assert value(pool / "capacity") == str(SMALLER)
    assert image_of(daemon, "tank").stat().st_size == SMALLER
    assert os.statvfs(root_of(pool)).f_blocks < before
    request(pool / "status", "stop")
    with refused(errno.EOPNOTSUPP):
        request(pool / "capacity", str(SMALLER - MIB))
    assert "while it is mounted" in last_error(pool)
    request(pool / "status", "start")
    assert file.read_bytes() == held
    request(pool / "config.xml", document("tank", "btrfs", size=SIZE))
    assert os.statvfs(root_of(pool)).f_blocks == before
    request(pool / "status", "stop")


def test_ext4_shrinks_while_its_pool_is_stopped(daemon: Daemon) -> None:
    pool = define(daemon, "tank", "ext4")
    request(pool / "status", "start build")
    file = fill_item(pool, 64 * MIB)
    held, before = file.read_bytes(), os.statvfs(root_of(pool)).f_blocks
    with refused(errno.EOPNOTSUPP):
        request(pool / "capacity", str(SMALLER))
    assert "not mounted; stop the pool" in last_error(pool)
    request(pool / "status", "stop")
    request(pool / "config.xml", document("tank", "ext4", size=SMALLER))
    assert value(pool / "capacity") == str(SMALLER)
    assert image_of(daemon, "tank").stat().st_size == SMALLER
    assert sorted(os.listdir(image_of(daemon, "tank").parent)) == ["tank.img", "tank.img.made"]
    assert loops_of(daemon) == []
    request(pool / "status", "start")
    assert file.read_bytes() == held
    assert os.statvfs(root_of(pool)).f_blocks < before
    request(pool / "config.xml", document("tank", "ext4", size=SMALLER, more="<trash retention='none'/>"))
    (pool / "items" / "web").rmdir()
    request(pool / "status", "stop")
    request(pool / "status", "delete")
    assert not image_of(daemon, "tank").exists(), "the smaller one counts as made here, too"


@pytest.mark.parametrize("format", ["btrfs", "ext4"])
def test_what_does_not_fit_keeps_its_size(daemon: Daemon, format: str) -> None:
    pool = define(daemon, "tank", format)
    request(pool / "status", "start build")
    file = fill_item(pool, 128 * MIB)
    os.sync()
    before = os.statvfs(root_of(pool)).f_blocks
    if format == "ext4":
        request(pool / "status", "stop")
    with refused(errno.ENOSPC):
        request(pool / "capacity", str(120 * MIB))
    assert "does not fit" in last_error(pool)
    assert value(pool / "capacity") == str(SIZE)
    assert image_of(daemon, "tank").stat().st_size == SIZE
    assert sorted(os.listdir(image_of(daemon, "tank").parent)) == ["tank.img", "tank.img.made"]
    if format == "ext4":
        request(pool / "status", "start")
    assert file.stat().st_size == 128 * MIB
    assert os.statvfs(root_of(pool)).f_blocks == before
    request(pool / "status", "stop")


@pytest.mark.parametrize("state", ["active", "inactive"])
def test_xfs_does_not_shrink(daemon: Daemon, state: str) -> None:
    pool = define(daemon, "tank", "xfs", size=LARGER)
    request(pool / "status", "start build")
    if state == "inactive":
        request(pool / "status", "stop")
    for write in (
        lambda: request(pool / "capacity", str(SIZE)),
        lambda: request(pool / "config.xml", document("tank", "xfs", size=SIZE)),
    ):
        with refused(errno.EOPNOTSUPP):
            write()
        assert "xfs never does" in last_error(pool)
    assert value(pool / "capacity") == str(LARGER)
    if state == "active":
        request(pool / "status", "stop")


def test_a_document_that_shrinks_changes_nothing_else(daemon: Daemon) -> None:
    pool = define(daemon, "tank", "btrfs")
    request(pool / "status", "start build")
    with refused(errno.EINVAL):
        request(pool / "config.xml", document("tank", "btrfs", size=SMALLER, more="<trash retention='1h'/>"))
    assert "may change nothing else" in last_error(pool)
    assert value(pool / "capacity") == str(SIZE)
    request(pool / "status", "stop")


def test_a_device_is_as_large_as_it_is(daemon: Daemon, disk: str) -> None:
    source = f"<device path='{disk}'/>"
    pool = define(daemon, "tank", "btrfs", size=None, source=source)
    with refused(errno.EOPNOTSUPP):
        request(pool / "capacity", str(LARGER))
    assert f"has {SIZE} bytes" in last_error(pool)
    request(pool / "status", "start build")
    for size in (LARGER, SMALLER):
        with refused(errno.EOPNOTSUPP):
            request(pool / "capacity", str(size))
    assert "do not" in last_error(pool)
    request(pool / "status", "stop")
    with refused(errno.EOPNOTSUPP):
        define(daemon, "other", "btrfs", size=LARGER, source=source)


# More promised than there is.


def test_images_that_may_outgrow_their_disk_are_warned_of(make_daemon: MakeDaemon) -> None:
    def small(daemon: Daemon) -> None:
        run("mount", "-t", "tmpfs", "-o", "size=64M", "fspoolfs-test", daemon.storage)

    daemon = make_daemon(prepare=small)
    daemon.expect_log("promised more")
    pool = define(daemon, "tank", "ext4")
    request(pool / "status", "start build")
    events = daemon.mount / "events"
    eventually(lambda: '"storage-overcommitted"' in events.read_text(), what="it is warned of")
    assert f'"store": "{daemon.storage}"' in events.read_text()
    assert f"of 320.00 MiB taken on {daemon.storage}, where" in (pool / "info").read_text()
    run("mount", "-o", "remount,size=1G", daemon.storage)
    (pool / "autostart").write_text("1\n")
    request(pool / "config.xml", document("tank", "ext4", more="<trash retention='1h'/>"))
    eventually(lambda: '"storage-sufficient"' in events.read_text(), what="it is over")
    request(pool / "status", "stop")
