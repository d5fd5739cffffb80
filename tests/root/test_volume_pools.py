"""Pools on volumes through a real daemon: built, started, used, grown, carried elsewhere, deleted."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from mount.control import last_error, refused, request, value
from root.volume_pools import (
    ALL_FORMATS,
    FORMATS,
    MARKS,
    SIZE,
    define,
    document,
    image_of,
    loops_of,
    options_at,
    root_of,
)
from support.daemon import Daemon, MakeDaemon
from support.machine import is_mounted
from support.shell import run
from support.wait import eventually

pytestmark = MARKS


# The whole life.


@pytest.mark.parametrize("format", ALL_FORMATS)
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


@pytest.mark.parametrize("format", ALL_FORMATS)
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


@pytest.mark.parametrize("format", ALL_FORMATS)
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


def test_a_refused_stop_leaves_the_pool_as_it_was(daemon: Daemon) -> None:
    pool = define(daemon, "tank", "ext4")
    request(pool / "status", "start build")
    item = pool / "items" / "web"
    item.mkdir()
    number = item.stat().st_ino
    with subprocess.Popen(["sleep", "60"], cwd=root_of(pool) / "web") as process:
        for _ in range(2):
            with refused(errno.EBUSY):
                request(pool / "status", "stop")
            assert value(pool / "status") == "active"
            assert item.stat().st_ino == number
            (item / "snapshots" / f"s{len(os.listdir(item / 'snapshots'))}").mkdir()
        process.kill()
    request(pool / "status", "stop")
    assert loops_of(daemon) == []


def test_a_stop_names_what_is_mounted_in_an_item(daemon: Daemon) -> None:
    pool = define(daemon, "tank", "ext4")
    request(pool / "status", "start build")
    (pool / "items" / "web").mkdir()
    place = root_of(pool) / "web"
    run("mount", "-t", "tmpfs", "fspoolfs-test", place)
    with refused(errno.EBUSY):
        request(pool / "status", "stop")
    assert f"a mount at {place}" in last_error(pool)
    assert value(pool / "status") == "active"
    run("umount", place)
    request(pool / "status", "stop")
    assert loops_of(daemon) == []


@pytest.mark.parametrize("verb", ["stop", "destroy"])
def test_a_volume_that_another_mount_covers_is_not_taken_for_unmounted(daemon: Daemon, verb: str) -> None:
    pool = define(daemon, "tank", "ext4")
    request(pool / "status", "start build")
    (pool / "items" / "web").mkdir()
    root = root_of(pool)
    run("mount", "-t", "tmpfs", "fspoolfs-test", root)
    with refused(errno.EBUSY):
        request(pool / "status", verb)
    assert "fspoolfs-test" in last_error(pool)
    assert "is mounted at" in last_error(pool)
    assert value(pool / "status") != "inactive"
    run("umount", root)
    assert is_mounted(root)
    request(pool / "status", verb)
    assert value(pool / "status") == "inactive"
    assert loops_of(daemon) == []


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    "use",
    [
        # Of the whole pool, as a namespace that was made from the daemon's has it.
        'cd "$0/web" && exec sleep 60',
        # Of an item alone, which nobody stands in.
        'mkdir "$1/here" && mount --bind "$0/web" "$1/here" && umount "$0" && exec sleep 60',
    ],
    ids=["a process in a copy", "an item mounted"],
)
def test_a_pool_is_not_stopped_while_it_is_used_in_another_mount_namespace(
    daemon: Daemon, tmp_path: Path, format: str, use: str
) -> None:
    pool = define(daemon, "tank", format)
    request(pool / "status", "start build")
    (pool / "items" / "web").mkdir()
    root = root_of(pool)
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", use, root, tmp_path]
    with subprocess.Popen(argv) as process:
        comm = Path(f"/proc/{process.pid}/comm")
        eventually(lambda: comm.read_text() == "sleep\n", what="the pool is used")
        with refused(errno.EBUSY):
            request(pool / "status", "stop")
        assert f"process {process.pid} (sleep)" in last_error(pool)
        assert value(pool / "status") == "active"
        assert is_mounted(root)
        assert os.listdir(pool / "items") == ["web"]
        process.kill()
    eventually(lambda: not comm.exists(), what="it has ended")
    request(pool / "status", "stop")
    eventually(lambda: loops_of(daemon) == [], what="the device has gone")


def test_two_pools_do_not_share_a_volume(daemon: Daemon, disk: str) -> None:
    define(daemon, "one", "ext4", source="<pool name='p'/><volume name='v'/>")
    with refused(errno.EEXIST):
        define(daemon, "two", "xfs", source="<pool name='p' provider='images'/><volume name='v'/>")
    assert "pool one" in last_error(daemon.mount)
    define(daemon, "three", "ext4", size=None, source=f"<device path='{disk}'/>")
    with refused(errno.EEXIST):
        define(daemon, "four", "ext4", size=None, source=f"<device path='{disk}'/>")
