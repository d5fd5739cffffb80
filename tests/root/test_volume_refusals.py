"""Volumes that pools leave alone, and faults of those that they have: what is refused, and why."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

import pytest

from mount.control import last_error, refused, request, value
from root.volume_pools import (
    FORMATS,
    MARKS,
    SIZE,
    define,
    image_of,
    loops_of,
    options_at,
    root_of,
)
from support.daemon import Daemon, MakeDaemon
from support.machine import is_mounted
from support.needs import needs_program
from support.shell import run
from support.wait import eventually

pytestmark = MARKS


# Volumes that are not to be touched.


def test_what_a_device_holds_is_erased_only_when_asked(daemon: Daemon, disk: str) -> None:
    run("mkfs.xfs", "-q", "-L", "precious", disk)
    pool = define(daemon, "tank", "ext4", size=None, source=f"<device path='{disk}'/>")
    for verb in ("build", "start build"):
        with refused(errno.EEXIST):
            request(pool / "status", verb)
        assert "holds an xfs file system, label 'precious'" in last_error(pool)
        assert "build overwrite" in last_error(pool)
    with refused(errno.EEXIST):
        request(pool / "status", "start")
    with refused(errno.EEXIST):
        request(pool / "status", "delete")
    assert run("blkid", "-p", "-s", "TYPE", "-o", "value", disk).stdout.strip() == "xfs"
    request(pool / "status", "build overwrite")
    request(pool / "status", "start")
    assert options_at(root_of(pool))
    request(pool / "status", "stop")
    request(pool / "status", "delete")
    assert run("blkid", "-p", disk, check=False).returncode == 2, "a device is left as empty as it was"


def test_a_partition_table_counts_as_content(daemon: Daemon, disk: str) -> None:
    # One partition of Linux, from sector 2048 on, in a table of the old kind.
    entry = bytes((0, 0, 2, 0, 0x83, 0, 0, 0)) + (2048).to_bytes(4, "little") + (65536).to_bytes(4, "little")
    with open(disk, "r+b") as file:
        file.write(bytes(446) + entry + bytes(48) + b"\x55\xaa")
    pool = define(daemon, "tank", "ext4", size=None, source=f"<device path='{disk}'/>")
    with refused(errno.EEXIST):
        request(pool / "status", "build")
    assert "a partition table (dos)" in last_error(pool)


@needs_program("mkswap")
def test_a_signature_that_is_no_file_system_counts_as_content(daemon: Daemon, disk: str) -> None:
    run("mkswap", "-L", "pages", disk)
    pool = define(daemon, "tank", "ext4", size=None, source=f"<device path='{disk}'/>")
    with refused(errno.EEXIST):
        request(pool / "status", "build")
    assert "a swap signature, label 'pages'" in last_error(pool)


def test_a_device_that_is_mounted_elsewhere_is_left_alone(
    daemon: Daemon, disk: str, run_directory: Path
) -> None:
    run("mkfs.ext4", "-q", disk)
    place = run_directory / "elsewhere"
    place.mkdir()
    pool = define(daemon, "tank", "ext4", size=None, source=f"<device path='{disk}'/>")
    run("mount", disk, place)
    try:
        for verb in ("build", "build overwrite"):
            with refused(errno.EBUSY):
                request(pool / "status", verb)
            assert f"is mounted at {place}" in last_error(pool)
    finally:
        run("umount", place)
        place.rmdir()


@needs_program("addpart")
def test_a_disk_with_a_partition_in_use_is_left_alone(daemon: Daemon, run_directory: Path) -> None:
    """As the disk is that the host runs from."""
    image, place = run_directory / "parted", run_directory / "elsewhere"
    with image.open("wb") as file:
        file.truncate(SIZE)
        # One partition of Linux, from sector 2048 on, of 256 MiB.
        entry = bytes((0, 0, 2, 0, 0x83, 0, 0, 0)) + (2048).to_bytes(4, "little")
        file.write(bytes(446) + entry + (524288).to_bytes(4, "little") + bytes(48) + b"\x55\xaa")
    place.mkdir()
    whole = run("losetup", "--find", "--show", "--partscan", image).stdout.strip()
    part = f"{whole}p1"
    try:
        # A kernel may not know the tables; the partition is what matters.
        if not Path("/sys/class/block", os.path.basename(part)).exists():
            run("addpart", whole, "1", "2048", "524288")
        make_node(part)
        run("mkfs.ext4", "-q", part)
        run("mount", part, place)
        for name, device in (("disk", whole), ("part", part)):
            source = f"<device path='{device}'/>"
            pool = define(daemon, name, "ext4", size=None, source=source)
            for verb in ("build", "build overwrite"):
                with refused(errno.EBUSY):
                    request(pool / "status", verb)
            assert f"{device} is " in last_error(pool)
        assert is_mounted(place)
        run("umount", place)
        run("e2fsck", "-f", "-n", part)
    finally:
        run("umount", place, check=False)
        run("losetup", "--detach", whole)
        Path(part).unlink(missing_ok=True)
        place.rmdir()
        image.unlink()


def make_node(device: str) -> None:
    """Make the node of a partition where no devtmpfs or udev does."""
    number = Path("/sys/class/block", os.path.basename(device), "dev").read_text().split(":")
    if not os.path.exists(device):
        os.mknod(device, stat.S_IFBLK | 0o600, os.makedev(int(number[0]), int(number[1])))


def test_an_image_that_somebody_has_put_there_is_used_and_kept(daemon: Daemon) -> None:
    image = image_of(daemon, "tank")
    image.parent.mkdir(parents=True)
    with image.open("wb") as file:
        file.truncate(SIZE)
    pool = define(daemon, "tank", "ext4", size=None)
    request(pool / "status", "start build")
    request(pool / "status", "stop")
    request(pool / "status", "delete")
    assert image.stat().st_size == SIZE
    assert os.listdir(image.parent) == ["tank.img"]


def test_an_image_that_was_made_for_a_pool_is_removed_with_it_on_another_host(
    make_daemon: MakeDaemon,
) -> None:
    first, second = make_daemon(), make_daemon()
    request(define(first, "tank", "ext4") / "status", "start build")
    request(first.mount / "pools" / "tank" / "status", "stop")
    image = image_of(second, "tank")
    for name in ("tank", "copy"):
        image_of(second, name).parent.mkdir(parents=True, exist_ok=True)
        run("cp", "-a", image_of(first, "tank"), image_of(second, name))
    if not os.listxattr(image):
        pytest.skip("the storage has no extended attributes")
    pool = define(second, "tank", "ext4", size=None)
    request(pool / "status", "start")
    request(pool / "status", "stop")
    request(pool / "status", "delete")
    assert not image.exists()
    # A copy that serves another pool was not made for that one.
    # Only what was checked since it was last mounted gets another UUID.
    checked = run("e2fsck", "-f", "-p", image_of(second, "copy"), check=False)
    assert checked.returncode in (0, 1), checked.stderr  # clean, or made so
    run("tune2fs", "-U", "random", image_of(second, "copy"))
    other = define(second, "copy", "ext4", size=None)
    request(other / "status", "build overwrite")
    request(other / "status", "delete")
    assert image_of(second, "copy").exists()


def test_overwriting_begins_with_an_empty_pool(daemon: Daemon) -> None:
    for format in FORMATS:
        pool = define(daemon, format, format)
        request(pool / "status", "start build")
        (pool / "items" / "web").mkdir()
        with refused(errno.EBUSY):
            request(pool / "status", "build overwrite")
        request(pool / "status", "stop")
        request(pool / "status", "build overwrite")
        request(pool / "status", "start")
        assert os.listdir(pool / "items") == []
        request(pool / "status", "stop")


# Faults.


def test_a_format_that_nobody_knows_is_not_defined(daemon: Daemon) -> None:
    with refused(errno.EINVAL):
        define(daemon, "tank", "ntfs")
    assert "one of ext4, xfs, btrfs, zfs" in value(daemon.mount / "last_error")
    assert not (daemon.mount / "pools" / "tank").exists()


def test_a_build_without_a_capacity_is_refused(daemon: Daemon) -> None:
    pool = define(daemon, "tank", "ext4", size=None)
    with refused(errno.EINVAL):
        request(pool / "status", "build")
    assert "<capacity>" in last_error(pool)


@pytest.mark.parametrize("fault", ["vanished", "truncated", "link", "another file system"])
def test_an_image_that_is_not_what_it_was_is_refused(daemon: Daemon, fault: str) -> None:
    pool, image = define(daemon, "tank", "ext4"), image_of(daemon, "tank")
    request(pool / "status", "start build")
    request(pool / "status", "stop")
    aside = image.with_name("aside")
    if fault == "truncated":
        os.truncate(image, SIZE // 2)
    else:
        image.rename(aside)
    if fault == "link":
        image.symlink_to(aside)
    elif fault == "another file system":
        with image.open("wb") as file:
            file.truncate(SIZE)
        run("mkfs.ext4", "-q", "-F", image)
    number, words = {
        "vanished": (errno.ENOENT, "does not exist"),
        "truncated": (errno.EIO, "was cut off"),
        "link": (errno.EINVAL, "is a symbolic link"),
        "another file system": (errno.EEXIST, "not the pool's ext4 file system"),
    }[fault]
    with refused(number):
        request(pool / "status", "start")
    assert words in last_error(pool)
    assert loops_of(daemon) == []
    assert not is_mounted(root_of(pool))


@pytest.mark.parametrize("fault", ["vanished", "emptied"])
@pytest.mark.parametrize("verb", ["stop", "destroy"])
def test_a_pool_whose_image_is_gone_can_be_let_go(daemon: Daemon, fault: str, verb: str) -> None:
    pool, image = define(daemon, "tank", "ext4"), image_of(daemon, "tank")
    request(pool / "status", "start build")
    root = root_of(pool)
    if fault == "vanished":
        image.unlink()
    else:
        os.truncate(image, 0)
        # Writing back fails, which the kernel and the daemon may say.
        daemon.expect_log("tank")
    with contextlib.suppress(OSError):
        request(pool / "status", verb)
    eventually(lambda: not is_mounted(root), what="it is not mounted any more")
    eventually(lambda: loops_of(daemon) == [], what="the device is gone")
    eventually(lambda: value(pool / "status") in ("inactive", "failed"), what="it has come to an end")


def test_a_full_disk_leaves_nothing_half_made(make_daemon: MakeDaemon) -> None:
    def small(daemon: Daemon) -> None:
        run("mount", "-t", "tmpfs", "-o", "size=4M", "fspoolfs-test", daemon.storage)

    daemon = make_daemon(prepare=small)
    pool = define(daemon, "tank", "xfs")
    with refused(errno.ENOSPC):
        request(pool / "status", "build")
    assert "has no room" in last_error(pool)
    assert not image_of(daemon, "tank").exists()
    assert loops_of(daemon) == []


def test_a_target_that_holds_files_is_not_covered(daemon: Daemon) -> None:
    pool = define(daemon, "tank", "ext4")
    request(pool / "status", "build")
    (root_of(pool) / "file").touch()
    with refused(errno.ENOTEMPTY):
        request(pool / "status", "start")
    assert "would hide" in last_error(pool)
    assert (root_of(pool) / "file").exists()


def test_formatting_that_was_interrupted_is_done_again(daemon: Daemon) -> None:
    """As a crash in the midst of mkfs leaves it: the pool's UUID is there, and the marker stands."""
    pool = define(daemon, "tank", "btrfs")
    request(pool / "status", "build")
    marker = daemon.storage / "volumes" / ".formatting" / value(pool / "uuid")
    assert not marker.exists()
    marker.touch()
    with refused(errno.ENOENT):
        request(pool / "status", "start")
    assert "was interrupted" in last_error(pool)
    request(pool / "status", "start build")
    assert not marker.exists()
    request(pool / "status", "stop")


def test_features_tell_of_what_volumes_need(daemon: Daemon) -> None:
    features = (daemon.mount / "features").read_text()
    assert "provider images: yes" in features
    assert "format xfs: yes" in features
    assert "provider libvirt: no (no daemon of libvirt listens" in features
