"""Volumes that libvirt's own daemon provides, for pools of a real daemon of ours; virsh sees the same."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.libvirtd import Libvirtd, running_libvirtd
from mount.control import last_error, refused, request, value
from root.containers import Place, bwrap, make_root
from root.volume_pools import FORMATS, LARGER, MARKS, MIB, SIZE, define, image_of, may_grow_online, root_of
from support.daemon import Daemon, MakeDaemon
from support.machine import is_mounted, loop_devices
from support.needs import needs_program
from support.shell import run
from support.wait import eventually

pytestmark = [*MARKS, needs_program("libvirtd", "virsh")]


class Host:
    """A libvirtd with the pool "default", and the directory of its volumes."""

    def __init__(self, server: Libvirtd, images: Path) -> None:
        self.server = server
        self.images = images
        images.mkdir(exist_ok=True)
        self.virsh("pool-create-as", "default", "dir", "--target", str(images))

    def virsh(self, *arguments: str, check: bool = True) -> str:
        return run("virsh", "--quiet", "--connect", self.server.uri, *arguments, check=check).stdout

    def volumes(self) -> list[str]:
        return [line.split()[0] for line in self.virsh("vol-list", "default").splitlines() if line.strip()]

    def capacity(self, volume: str) -> int:
        lines = self.virsh("vol-info", volume, "--pool", "default", "--bytes").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("Capacity:"))

    def loops(self) -> list[str]:
        return [loop.device for loop in loop_devices() if loop.file.startswith(f"{self.images}/")]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    place = tmp_path / "libvirt"
    place.mkdir()
    with running_libvirtd(place) as server:
        yield Host(server, tmp_path / "images")


@pytest.fixture
def daemon(make_daemon: MakeDaemon, host: Host) -> Daemon:
    return make_daemon("--libvirt-uri", host.server.uri)


def source(volume: str = "vol1", pool: str = "default") -> str:
    return f"<pool name='{pool}' provider='libvirt'/><volume name='{volume}'/>"


@pytest.mark.parametrize("format", FORMATS)
def test_a_pool_on_libvirts_volume_lives_a_whole_life(daemon: Daemon, host: Host, format: str) -> None:
    assert "provider libvirt: yes" in (daemon.mount / "features").read_text()
    more = "<trash retention='none'/>"
    pool = define(daemon, "tank", format, source=source(), more=more)
    request(pool / "status", "build")
    assert host.volumes() == ["vol1"]
    assert host.capacity("vol1") == SIZE
    assert host.loops() == []
    request(pool / "status", "start")
    root = root_of(pool)
    (pool / "items" / "web").mkdir()
    file = pool / "items" / "web" / "data" / "file"
    file.write_text("kept")
    if may_grow_online(format):
        with file.open():
            request(pool / "capacity", str(LARGER))
        assert host.capacity("vol1") == LARGER
        assert os.statvfs(root).f_blocks * os.statvfs(root).f_frsize > SIZE
    if format == "btrfs":
        request(pool / "capacity", str(SIZE))
        assert host.capacity("vol1") == SIZE
    assert f"taken on {host.images}" not in (pool / "info").read_text()
    assert "Volume: " in (pool / "info").read_text()
    request(pool / "status", "stop")
    assert not is_mounted(root)
    assert host.loops() == []
    request(pool / "status", "start")
    assert file.read_text() == "kept"
    (pool / "items" / "web").rmdir()
    request(pool / "status", "stop")
    request(pool / "status", "delete")
    assert host.volumes() == []
    assert os.listdir(host.images) == []


@needs_program("bwrap", "busybox")
def test_a_container_works_on_it_while_both_daemons_end(daemon: Daemon, host: Host, tmp_path: Path) -> None:
    pool = define(daemon, "tank", "xfs", source=source())
    request(pool / "status", "start build")
    (pool / "items" / "web").mkdir()
    data = (pool / "items" / "web" / "data").resolve()
    place = Place(tmp_path, make_root(tmp_path / "root"))
    launch = bwrap(place, data, "echo one >/data/file; read line; echo two >>/data/file")
    with subprocess.Popen(launch.argv, stdin=subprocess.PIPE, text=True) as container:
        eventually((data / "file").exists, what="the container works")
        host.server.terminate()
        daemon.kill()
        container.communicate("go on\n")
    assert container.returncode == 0
    daemon.start()
    eventually(lambda: value(pool / "status") == "active", what="it is active again, without libvirt")
    file = pool / "items" / "web" / "data" / "file"
    assert file.read_text() == "one\ntwo\n"
    request(pool / "status", "stop")
    with running_libvirtd(tmp_path / "libvirt") as server:
        again = Host(server, host.images)
        request(pool / "status", "start")
        assert file.read_text() == "one\ntwo\n"
        request(pool / "status", "stop")
        assert again.volumes() == ["vol1"]


def test_a_hung_libvirt_holds_no_other_pool(make_daemon: MakeDaemon, host: Host) -> None:
    daemon = make_daemon("--libvirt-uri", host.server.uri, "--grace", "0.5")
    other = daemon.mount / "pools" / "other"
    other.mkdir()
    request(other / "status", "start build")
    pool = define(daemon, "tank", "ext4", source=source())
    host.server.signal(signal.SIGSTOP)
    try:
        with refused(errno.EINPROGRESS):
            request(pool / "status", "build")
        (other / "items" / "web").mkdir()
        assert value(other / "items" / "web" / "status") == "ready"
        assert value(pool / "status").startswith("building")
    finally:
        host.server.signal(signal.SIGCONT)
    eventually(lambda: value(pool / "status") == "inactive", what="it was built at last")
    assert host.volumes() == ["vol1"]
    request(other / "status", "stop")


def test_a_volume_that_was_not_made_here_is_used_and_kept(daemon: Daemon, host: Host) -> None:
    host.virsh("vol-create-as", "default", "theirs", str(SIZE))
    run("mkfs.xfs", "-q", host.images / "theirs")
    pool = define(daemon, "tank", "ext4", size=None, source=source("theirs"))
    with refused(errno.EEXIST):
        request(pool / "status", "build")
    assert "holds an xfs file system" in last_error(pool)
    request(pool / "status", "build overwrite")
    request(pool / "status", "start")
    request(pool / "status", "stop")
    request(pool / "status", "delete")
    assert host.volumes() == ["theirs"]
    assert host.loops() == []


def test_a_volume_that_took_the_place_of_ours_is_kept(daemon: Daemon, host: Host, tmp_path: Path) -> None:
    pool = define(daemon, "tank", "ext4", source=source())
    request(pool / "status", "build")
    # What tells them apart is the inode number, which the new one must not get.
    os.link(host.images / "vol1", tmp_path / "old")
    host.virsh("vol-delete", "vol1", "--pool", "default")
    host.virsh("vol-create-as", "default", "vol1", str(SIZE))
    with refused(errno.EEXIST):
        request(pool / "status", "delete")
    assert "is not the volume that was made here" in last_error(pool)
    assert host.volumes() == ["vol1"]


def test_what_libvirt_lacks_is_told(daemon: Daemon, host: Host, tmp_path: Path) -> None:
    cases = {
        "unknown": (source(pool="nowhere"), errno.ENOENT, "libvirt has no storage pool nowhere"),
        "inactive": (source(pool="asleep"), errno.ENOMEDIUM, "virsh pool-start asleep"),
        "qcow": (source("image.qcow2"), errno.EINVAL, "format 'qcow2'"),
    }
    host.virsh("pool-define-as", "asleep", "dir", "--target", str(tmp_path / "asleep"))
    # What libvirt knows a qcow2 image by: its magic, version 3, and a size.
    header = (
        b"QFI\xfb" + (3).to_bytes(4, "big") + bytes(8 + 4) + (16).to_bytes(4, "big") + SIZE.to_bytes(8, "big")
    )
    (host.images / "image.qcow2").write_bytes(header.ljust(4096, b"\0"))
    for name, (where, number, words) in cases.items():
        pool = define(daemon, name, "ext4", source=where)
        for verb in ("build", "start"):
            with refused(number):
                request(pool / "status", verb)
            assert words in last_error(pool)
    pool = define(daemon, "tank", "ext4", source=source("gone"))
    with refused(errno.ENOENT):
        request(pool / "status", "start")
    assert "has no volume gone; build the pool first" in last_error(pool)
    pool = define(daemon, "small", "xfs", size=MIB, source=source())
    with refused(errno.EIO, errno.ENOSPC):
        request(pool / "status", "build")
    assert host.volumes() == ["image.qcow2"], "what could not be formatted is removed again"


def test_a_volume_whose_file_somebody_has_removed_is_made_anew(daemon: Daemon, host: Host) -> None:
    pool = define(daemon, "tank", "ext4", source=source())
    request(pool / "status", "build")
    (host.images / "vol1").unlink()
    with refused(errno.ENOENT):
        request(pool / "status", "start")
    assert "has no volume vol1; build the pool first" in last_error(pool)
    request(pool / "status", "build")
    request(pool / "status", "start")
    request(pool / "status", "stop")
    request(pool / "status", "delete")
    assert host.volumes() == []


def is_taken(daemon: Daemon, source: str) -> None:
    with refused(errno.EEXIST):
        define(daemon, "twin", "ext4", size=None, source=source)
    assert "its source is pool tank's already" in last_error(daemon.mount)


@pytest.mark.parametrize("built", [False, True])
def test_an_image_that_libvirt_has_as_well_is_one_volume(daemon: Daemon, host: Host, built: bool) -> None:
    images = image_of(daemon, "tank").parent
    images.mkdir(parents=True)
    (images / "other").touch()  # an empty directory goes with the last image in it
    host.virsh("pool-create-as", "shared", "dir", "--target", str(images))
    first = define(daemon, "tank", "ext4")
    if built:
        request(first / "status", "build")
    is_taken(daemon, source("tank.img", "shared"))
    request(first / "status", "delete")
    first.rmdir()
    first = define(daemon, "tank", "ext4", source=source("tank.img", "shared"))
    if built:
        request(first / "status", "build")
    is_taken(daemon, "<pool name='images'/><volume name='tank'/>")


@pytest.mark.parametrize("built", [False, True])
def test_a_volume_is_one_volume_while_libvirt_is_away(daemon: Daemon, host: Host, built: bool) -> None:
    pool = define(daemon, "tank", "ext4", source=source())
    if built:
        request(pool / "status", "build")
    host.server.terminate()
    is_taken(daemon, source())


def test_libvirts_volume_is_one_with_its_device_and_in_another_of_its_pools(
    daemon: Daemon, host: Host, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(host.images)  # libvirt refuses the path itself
    host.virsh("pool-create-as", "again", "dir", "--target", str(tmp_path / "link"))
    request(define(daemon, "tank", "ext4", source=source()) / "status", "build")
    is_taken(daemon, source(pool="again"))
    device = run("losetup", "--find", "--show", host.images / "vol1").stdout.strip()
    try:
        is_taken(daemon, f"<device path='{device}'/>")
    finally:
        run("losetup", "--detach", device)


def test_a_pool_of_a_type_that_has_no_files_is_refused(daemon: Daemon, host: Host, tmp_path: Path) -> None:
    host.virsh("pool-define-as", "remote", "netfs", "nowhere.invalid", "/x", "--target", str(tmp_path))
    pool = define(daemon, "tank", "ext4", source=source(pool="remote"))
    for verb in ("build", "build overwrite", "start"):
        with refused(errno.EOPNOTSUPP):
            request(pool / "status", verb)
        assert "is of type 'netfs'; volumes of pools of type dir, fs and logical" in last_error(pool)


@pytest.mark.parametrize("name", ["a/b", "..", "a&#10;b"])
def test_names_that_lead_elsewhere_are_refused(daemon: Daemon, host: Host, name: str) -> None:
    for where in (source(name), source(pool=name)):
        with refused(errno.EINVAL):
            define(daemon, "tank", "ext4", source=where)
    assert host.volumes() == []
