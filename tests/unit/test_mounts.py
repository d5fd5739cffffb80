"""What mountinfo says, and which mount a path is really on."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from fspoolfs.system import command, mounts, syscalls
from fspoolfs.system.mounts import Mount
from support.daemon import PROJECT
from support.needs import needs_root
from support.shell import run

TEXT = rb"""27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
22 27 0:21 / /proc rw,nosuid shared:5 master:1 - proc proc rw
30 27 8:1 /export\040of\011all\134it /srv/my\040files\012\043 ro - xfs /dev/disk\040one ro,attr2
31 30 0:40 / /srv/my\040files\012\043/inner rw - tmpfs \377 rw
"""


def test_every_field_is_read_and_unescaped() -> None:
    table = mounts.parse(TEXT)
    assert table[2] == Mount(
        mount_id=30,
        parent_id=27,
        device="8:1",
        root="/export of\tall\\it",
        target="/srv/my files\n#",
        options="ro",
        fs_type="xfs",
        source="/dev/disk one",
    )
    assert table[1].source == "proc"
    assert table[3].source == "\udcff"


@pytest.mark.parametrize(
    ("path", "mount_id"),
    [
        ("/", 27),
        ("/etc/passwd", 27),
        ("/proc", 22),
        ("/proc/1", 22),
        ("/process", 27),
        ("/srv", 27),
        ("/srv/my files\n#", 30),
        ("/srv/my files\n#/inner/deep", 31),
        ("/srv/my files\n#/../x", 27),
    ],
)
def test_a_path_lies_on_the_deepest_mount_above_it(path: str, mount_id: int) -> None:
    found = mounts.containing(mounts.parse(TEXT), path)
    assert found is not None
    assert found.mount_id == mount_id


def test_a_mount_on_a_mount_hides_it() -> None:
    table = mounts.parse(TEXT + b"40 30 0:50 / /srv/my\\040files\\012\\043 rw - tmpfs over rw\n")
    for path in ("/srv/my files\n#", "/srv/my files\n#/x"):
        found = mounts.containing(table, path)
        assert found is not None
        assert found.source == "over"


def test_a_mount_further_up_hides_what_was_mounted_below_before() -> None:
    table = mounts.parse(TEXT + b"40 27 0:50 / /srv rw - tmpfs over rw\n")
    found = mounts.containing(table, "/srv/my files\n#/inner")
    assert found is not None
    assert found.source == "over"


def test_a_stacked_root_is_walked_from_its_top() -> None:
    table = mounts.parse(b"1 1 0:2 / / rw - rootfs none rw\n" + TEXT)
    found = mounts.containing(table, "/proc/1")
    assert found is not None
    assert found.mount_id == 22


def test_without_a_root_mount_nothing_is_claimed() -> None:
    assert mounts.containing(mounts.parse(TEXT.split(b"\n", 1)[1]), "/proc") is None
    assert mounts.containing((), "/") is None


def test_the_machine_itself_is_read() -> None:
    found = mounts.mount_at("/proc")
    assert found is not None
    assert found.fs_type == "proc"
    assert mounts.containing(mounts.mounts(), "/proc/self/status") == found
    assert mounts.mount_at("/proc/self") is None

    assert found in mounts.mounts(os.getpid())


def test_the_last_mount_on_a_path_is_found_among_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    # One more on the same place, and one that shows the same words of another file system there.
    table.write_bytes(
        TEXT + rb"32 22 0:50 / /proc rw - tmpfs over rw" + b"\n" + rb"33 27 0:51 /proc /p rw - x y rw" + b"\n"
    )
    real = open
    monkeypatch.setattr(
        "builtins.open", lambda path, *how: real(table if "mountinfo" in str(path) else path, *how)
    )
    found = {path: mounts.last_on(path) for path in ("/proc", "/srv/my files\n#", "/srv", "/p", "/none")}
    assert {path: mount and mount.mount_id for path, mount in found.items()} == {
        "/proc": 32,
        "/srv/my files\n#": 30,
        "/srv": None,
        "/p": 33,
        "/none": None,
    }
    numbers = (30, 32, 33, 3, 0)
    assert [mount and mount.mount_id for mount in map(mounts.with_id, numbers)] == [30, 32, 33, None, None]


@pytest.mark.parametrize("path", ["/", "/dev/shm", "/proc/sys"])
def test_the_kernel_agrees(path: str) -> None:
    fd = os.open(path, os.O_PATH)
    try:
        found = mounts.containing(mounts.mounts(), path)
        assert found is not None
        assert found.mount_id == syscalls.mount_id(fd)
    finally:
        os.close(fd)


def test_a_process_that_is_gone_has_no_mounts_to_tell() -> None:
    with pytest.raises(FileNotFoundError):
        mounts.mounts(2**30)


def test_only_a_dead_server_is_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not mounts.is_stale_fuse(str(tmp_path))
    assert not mounts.is_stale_fuse(str(tmp_path / "absent"))

    def dead(path: str) -> os.statvfs_result:
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN), path)

    monkeypatch.setattr(mounts, "os", SimpleNamespace(statvfs=dead))
    assert mounts.is_stale_fuse(str(tmp_path))


def test_other_users_than_root_ask_fusermount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(command, "run", lambda argv, *, timeout: ran.append(argv))
    mounts.unmount(str(tmp_path))
    mounts.unmount_lazily(str(tmp_path))
    assert ran == [
        ["fusermount3", "-u", "--", str(tmp_path)],
        ["fusermount3", "-u", "-z", "--", str(tmp_path)],
    ]


def test_root_asks_the_kernel_and_follows_no_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(syscalls, "unmount", lambda path, flags: asked.append((path, flags)))
    mounts.unmount(str(tmp_path))
    mounts.unmount_lazily(str(tmp_path))
    assert asked == [(str(tmp_path), 0x8), (str(tmp_path), 0x2 | 0x8)]


@needs_root
def test_a_recent_reading_is_kept_until_something_is_mounted(tmp_path: Path) -> None:
    script = """
import subprocess, sys
from fspoolfs.system import mounts
mounts.KEPT = 1000.0
first = mounts.recent()
assert mounts.recent() is first
subprocess.run(["mount", "-t", "tmpfs", "none", sys.argv[1]], check=True)
found = mounts.mount_at(sys.argv[1], mounts.recent())
assert found is not None and found.fs_type == "tmpfs", found
assert mounts.mount_at(sys.argv[1], first) is None
subprocess.run(["umount", sys.argv[1]], check=True)
assert mounts.mount_at(sys.argv[1], mounts.recent()) is None
"""
    argv = ("unshare", "--mount", "--propagation", "private", "--", sys.executable, "-c", script)
    run(*argv, tmp_path, cwd=PROJECT)


def test_a_recent_reading_is_read_anew_when_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "KEPT", 0.0)
    first = mounts.recent()
    assert mounts.recent() is not first
