"""Pools on volumes through a real daemon: built, started, used, grown, carried elsewhere, deleted."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mount.control import last_error, refused, request, value
from support.daemon import Daemon, MakeDaemon
from support.leftovers import attached, take_away
from support.machine import is_mounted, loop_devices
from support.needs import needs_fuse, needs_program, needs_root
from support.shell import run
from support.wait import eventually

FORMATS = ("ext4", "xfs", "btrfs")
NEEDS = ("blkid", "wipefs", *(f"mkfs.{name}" for name in FORMATS))
pytestmark = [needs_root, needs_fuse, needs_program(*NEEDS), pytest.mark.required]

MIB = 1 << 20
#: Bytes of a volume; xfs needs 300 MiB.
SIZE, LARGER = 320 * MIB, 512 * MIB
#: include/uapi/linux/capability.h
CAP_SYS_RESOURCE = 24


def document(name: str, format: str, *, size: int | None = SIZE, source: str = "", more: str = "") -> str:
    capacity = f"<capacity>{size}</capacity>" if size is not None else ""
    source = source or f"<pool name='images'/><volume name='{name}'/>"
    return (
        f"<fspool type='volume'><name>{name}</name>{capacity}<source>{source}"
        f"<format type='{format}'/></source>{more}</fspool>"
    )


def define(daemon: Daemon, name: str, format: str, **more: object) -> Path:
    request(daemon.mount / "define", document(name, format, **more))  # type: ignore[arg-type]
    return daemon.mount / "pools" / name


def image_of(daemon: Daemon, name: str) -> Path:
    return daemon.storage / "volumes" / "images" / f"{name}.img"


def loops_of(daemon: Daemon) -> list[str]:
    return [loop.device for loop in loop_devices() if loop.file.startswith(f"{daemon.base}/")]


def root_of(pool: Path) -> Path:
    return Path(os.readlink(pool / "root"))


def may_grow_online(format: str) -> bool:
    """The kernel wants a capability for ext4 that root in a container may lack."""
    status = Path("/proc/self/status").read_text()
    capabilities = int(status.partition("CapEff:")[2].split()[0], 16)
    return format != "ext4" or bool(capabilities >> CAP_SYS_RESOURCE & 1)


@pytest.fixture
def disk(run_directory: Path) -> Iterator[str]:
    """A loop device of the test's own, empty."""
    directory = run_directory / "disk"
    directory.mkdir()
    with (directory / "image").open("wb") as file:
        file.truncate(SIZE)
    device = run("losetup", "--find", "--show", directory / "image").stdout.strip()
    yield device
    take_away(leftover for leftover in attached() if f"{device} " in leftover.sentence)
    shutil.rmtree(directory)


# The whole life.


@pytest.mark.parametrize("format", FORMATS)
def test_a_volume_pool_lives_a_whole_life(daemon: Daemon, format: str) -> None:
    pool = define(daemon, "tank", format)
    with refused(errno.ENOENT):
        request(pool / "status", "start")
    assert "build the pool first" in last_error(pool)
    request(pool / "status", "build")
    assert loops_of(daemon) == [], "what is built is not attached"
    made = image_of(daemon, "tank").stat()
    assert made.st_size == SIZE
    assert made.st_blocks * 512 < SIZE // 2, "the image is sparse"
    request(pool / "status", "build")
    request(pool / "status", "start")
    root = root_of(pool)
    assert is_mounted(root)
    assert {"nosuid", "nodev"} <= set(options_at(root))
    assert value(pool / "capacity") == str(SIZE)
    (pool / "items" / "web").mkdir()
    (pool / "items" / "web" / "data" / "file").write_text("kept")
    with refused(errno.EBUSY):
        request(pool / "status", "build")
    request(pool / "status", "stop")
    assert not is_mounted(root)
    assert loops_of(daemon) == []
    with refused(errno.ENOTEMPTY):
        request(pool / "status", "delete")
    request(pool / "status", "start build")
    assert (pool / "items" / "web" / "data" / "file").read_text() == "kept"
    request(pool / "config.xml", document("tank", format, more="<trash retention='none'/>"))
    (pool / "items" / "web").rmdir()
    request(pool / "status", "stop")
    request(pool / "status", "delete")
    assert not image_of(daemon, "tank").parent.exists(), "nothing is left of the volume"
    assert not root.exists()
    assert loops_of(daemon) == []
    pool.rmdir()


def options_at(place: Path) -> list[str]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split(" ")
        if fields[4] == str(place):
            return fields[5].split(",")
    return []


def test_items_on_btrfs_have_capacities(daemon: Daemon) -> None:
    pool = define(daemon, "tank", "btrfs", more="<defaults><capacity unit='MiB'>8</capacity></defaults>")
    request(pool / "status", "start build")
    assert "quota: yes" in (pool / "features").read_text()
    item = pool / "items" / "web"
    item.mkdir()
    result = run("dd", "if=/dev/zero", f"of={item}/data/file", "bs=1M", "count=32", "oflag=sync", check=False)
    assert "quota exceeded" in result.stderr
    (item / "snapshots" / "full").mkdir()
    request(pool / "status", "stop")
    assert loops_of(daemon) == []


@pytest.mark.parametrize("format", FORMATS)
def test_a_pool_is_whole_on_another_host(make_daemon: MakeDaemon, format: str) -> None:
    one, other = make_daemon(), make_daemon()
    pool = define(one, "tank", format)
    request(pool / "status", "start build")
    uuid = value(pool / "uuid")
    for number in range(3):
        (pool / "items" / f"i{number}").mkdir()
        (pool / "items" / f"i{number}" / "data" / "file").write_text(f"{number}")
    request(pool / "status", "stop")
    image_of(other, "tank").parent.mkdir(parents=True)
    shutil.move(image_of(one, "tank"), image_of(other, "tank"))
    pool = define(other, "tank", format, size=None)
    assert value(pool / "uuid") == uuid
    request(pool / "status", "start build")
    assert {name: (pool / "items" / name / "data" / "file").read_text() for name in ("i0", "i1", "i2")} == {
        "i0": "0",
        "i1": "1",
        "i2": "2",
    }
    assert value(pool / "uuid") == uuid
    request(pool / "status", "stop")


@pytest.mark.parametrize("format", FORMATS)
def test_a_killed_daemon_s_mount_and_loop_device_are_found_again(daemon: Daemon, format: str) -> None:
    pool = define(daemon, "tank", format)
    request(pool / "status", "start build")
    (pool / "items" / "web").mkdir()
    devices, root = loops_of(daemon), root_of(pool)
    with (root / "web" / "file").open("w") as file:
        daemon.kill()
        file.write("written on")
        file.flush()
        daemon.start()
        eventually(lambda: value(pool / "status") == "active", what="the pool is active again")
        assert loops_of(daemon) == devices
        assert mounted_times(root) == 1
    assert (pool / "items" / "web" / "data" / "file").read_text() == "written on"
    request(pool / "status", "stop")
    assert loops_of(daemon) == []


def mounted_times(place: Path) -> int:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return sum(line.split(" ")[4] == str(place) for line in lines)


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


@pytest.mark.parametrize("state", ["active", "inactive"])
def test_a_pool_does_not_shrink(daemon: Daemon, state: str) -> None:
    pool = define(daemon, "tank", "btrfs")
    request(pool / "status", "start build")
    if state == "inactive":
        request(pool / "status", "stop")
    for write in (
        lambda: request(pool / "capacity", str(SIZE - MIB)),
        lambda: request(pool / "config.xml", document("tank", "btrfs", size=SIZE - MIB)),
    ):
        with refused(errno.EOPNOTSUPP):
            write()
        assert "shrink" in last_error(pool)
    assert value(pool / "capacity") == str(SIZE)
    if state == "active":
        request(pool / "status", "stop")


# In use.


def test_a_pool_is_not_stopped_while_a_process_stands_in_it_but_destroyed(daemon: Daemon) -> None:
    pool = define(daemon, "tank", "xfs")
    request(pool / "status", "start build")
    (pool / "items" / "web").mkdir()
    root = root_of(pool)
    with subprocess.Popen(["sleep", "60"], cwd=root / "web") as process:
        with refused(errno.EBUSY):
            request(pool / "status", "stop")
        assert f"process {process.pid} (sleep)" in last_error(pool)
        assert value(pool / "status") == "active"
        request(pool / "status", "destroy")
        assert value(pool / "status") == "inactive"
        assert not is_mounted(root)
        # Another start finds the device that is still in use.
        request(pool / "status", "start")
        assert len(loops_of(daemon)) == 1
        assert os.listdir(pool / "items") == ["web"]
        request(pool / "status", "destroy")
        process.kill()
    eventually(lambda: loops_of(daemon) == [], what="the device goes with its last user")
    request(pool / "status", "start")
    request(pool / "status", "stop")


def test_two_pools_do_not_share_a_volume(daemon: Daemon, disk: str) -> None:
    define(daemon, "one", "ext4", source="<pool name='p'/><volume name='v'/>")
    with refused(errno.EEXIST):
        define(daemon, "two", "xfs", source="<pool name='p' provider='images'/><volume name='v'/>")
    assert "pool one" in last_error(daemon.mount)
    define(daemon, "three", "ext4", size=None, source=f"<device path='{disk}'/>")
    with refused(errno.EEXIST):
        define(daemon, "four", "ext4", size=None, source=f"<device path='{disk}'/>")


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


@pytest.mark.parametrize(
    ("format", "offset", "check"),
    # The descriptors of ext4's groups, the roots of xfs' first trees, the pointers to btrfs' roots.
    [("ext4", 4096, "e2fsck -f"), ("xfs", 2 * 4096, "xfs_repair"), ("btrfs", 65536 + 0x50, "btrfs check")],
)
def test_a_damaged_file_system_lets_its_pool_fail_with_what_helps(
    daemon: Daemon, format: str, offset: int, check: str
) -> None:
    pool, image = define(daemon, "tank", format), image_of(daemon, "tank")
    request(pool / "status", "start build")
    request(pool / "status", "stop")
    with image.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * (16 if format == "btrfs" else 8 * 4096))
    for verb in ("start", "start build"):
        with refused(errno.EUCLEAN, errno.EINVAL, errno.EIO):
            request(pool / "status", verb)
        assert "cannot be mounted" in last_error(pool)
        assert f"{check} {image}" in last_error(pool)
        assert "the check says: " in last_error(pool)
        assert value(pool / "status") == "failed"
    assert "cannot be mounted" in (pool / "info").read_text()
    assert loops_of(daemon) == []


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


def test_what_has_no_backend_says_so(daemon: Daemon) -> None:
    features = (daemon.mount / "features").read_text()
    assert "provider images: yes" in features
    assert "format xfs: yes" in features
    assert "provider lvm: no (no backend in this version)" in features
    pool = define(daemon, "tank", "zfs")
    for verb in ("build", "start"):
        with refused(errno.EOPNOTSUPP):
            request(pool / "status", verb)
    assert "'zfs'" in last_error(pool)
