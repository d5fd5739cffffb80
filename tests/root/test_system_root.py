"""Trees with mounts, devices and foreign owners in them, on file systems made for the test.

Each test that mounts runs in a thread with a mount namespace of its own, which the kernel takes
away, with all that is mounted in it, when the thread ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fspoolfs.errors import StorageError
from fspoolfs.progress import Progress
from fspoolfs.system import mounts, syscalls, transfer, walking
from fspoolfs.system.copying import copy_tree
from fspoolfs.system.measuring import measure
from fspoolfs.system.paths import HostRoot
from fspoolfs.system.removal import remove_tree

pytestmark = [pytest.mark.root]

_libc = ctypes.CDLL(None, use_errno=True)
# include/uapi/linux/sched.h, include/uapi/linux/mount.h
_CLONE_NEWNS = 0x20000
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000

_NOBODY = 65534
MIB = 1 << 20


def mount(source: str, target: Path, fs_type: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    arguments = (source.encode(), os.fsencode(target), fs_type.encode(), flags, data.encode())
    if _libc.mount(*arguments) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(target))


def in_private_namespace(work: Callable[[], None]) -> None:
    """Run `work` in a thread with its own mounts; what it raises is raised here."""
    raised: list[BaseException] = []

    def body() -> None:
        try:
            if _libc.unshare(_CLONE_NEWNS) != 0:
                raise OSError(ctypes.get_errno(), "unshare")
            mount("none", Path("/"), flags=_MS_REC | _MS_PRIVATE)
            work()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]


def as_another_user(work: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run `work` in a thread that has no rights of root over files (setfsuid(2))."""
    raised: list[BaseException] = []

    def body() -> None:
        try:
            _libc.setfsgid(_NOBODY)
            _libc.setfsuid(_NOBODY)
            work()
        except BaseException as error:
            raised.append(error)

    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: _NOBODY)
        thread = threading.Thread(target=body)
        thread.start()
        thread.join()
    if raised:
        raise raised[0]


@contextlib.contextmanager
def opened(path: Path) -> Iterator[int]:
    """A descriptor of a directory. One that was opened in another namespace leads to its mounts."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[int]:
    """The test's directory, for tests that mount nothing."""
    with opened(tmp_path) as fd:
        yield fd


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree, and beside it a victim on the same file system that is to be mounted into it."""
    for name in ("tree/a/point", "tree/b", "victim/sub"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "tree/a/file").write_bytes(b"x" * 5000)
    (tmp_path / "tree/b/point").touch()
    (tmp_path / "victim/precious").write_bytes(b"x" * MIB)
    return tmp_path / "tree"


def bind(source: Path, target: Path) -> None:
    mount(str(source), target, flags=_MS_BIND)


def test_removing_never_enters_a_bind_mount_of_the_same_file_system(tree: Path) -> None:
    victim = tree.parent / "victim"

    def work() -> None:
        with opened(tree.parent) as here:
            bind(victim, tree / "a/point")
            bind(victim / "precious", tree / "b/point")
            with pytest.raises(StorageError, match=r"it is a mount point, and 1 more") as caught:
                remove_tree(here, "tree", Progress())
            assert caught.value.errno == errno.EBUSY

    in_private_namespace(work)
    assert sorted(os.listdir(victim)) == ["precious", "sub"]
    left = sorted(str(path.relative_to(tree)) for path in tree.rglob("*"))
    assert left == ["a", "a/point", "b", "b/point"]
    with opened(tree.parent) as here:
        remove_tree(here, "tree", Progress())
    assert not tree.exists()


def test_a_tree_that_is_itself_mounted_over_is_not_touched(tree: Path) -> None:
    def work() -> None:
        with opened(tree.parent) as here:
            bind(tree.parent / "victim", tree)
            with pytest.raises(StorageError, match="tree could not be removed: it is a mount point"):
                remove_tree(here, "tree", Progress())
            for call in (measure, lambda fd, name, progress: copy_tree(fd, name, fd, "copy", progress)):
                with pytest.raises(OSError, match="cross-device"):
                    call(here, "tree", Progress())

    in_private_namespace(work)
    assert sorted(os.listdir(tree.parent / "victim")) == ["precious", "sub"]
    assert not (tree.parent / "copy").exists()


def test_old_kernels_do_not_enter_mounts_either(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> int:
        ctypes.set_errno(errno.ENOSYS)
        return -1

    monkeypatch.setattr(syscalls, "_openat2", missing)

    def work() -> None:
        with opened(tree.parent) as here:
            bind(tree.parent / "victim", tree / "a/point")
            with pytest.raises(StorageError, match="it is a mount point"):
                remove_tree(here, "tree", Progress())

    in_private_namespace(work)
    assert sorted(os.listdir(tree.parent / "victim")) == ["precious", "sub"]


def test_measuring_and_copying_leave_out_what_is_mounted(tree: Path) -> None:
    def work() -> None:
        with opened(tree.parent) as here:
            alone = measure(here, "tree", Progress())
            mount("tmpfs", tree / "a/point", "tmpfs")
            (tree / "a/point/other").write_bytes(b"x" * MIB)
            bind(tree / "a/point/other", tree / "b/point")
            mounted = measure(here, "tree", Progress())
            # The directory and the file that are covered cannot be seen.
            assert mounted.inodes == alone.inodes - 2
            assert mounted.allocation < MIB
            copy_tree(here, "tree", here, "copy", Progress())

    in_private_namespace(work)
    copy = tree.parent / "copy"
    assert sorted(str(path.relative_to(copy)) for path in copy.rglob("*")) == ["a", "a/file", "a/point", "b"]


def test_paths_may_lead_over_mounts_that_attach_items(tree: Path) -> None:
    def work() -> None:
        mount("tmpfs", tree / "a/point", "tmpfs")
        root = HostRoot.open(str(tree))
        root.make_directory("a/point/item", mode=0o750)
        assert (tree / "a/point/item").is_dir()
        assert root.still_there()
        mount("tmpfs", tree, "tmpfs")
        assert not root.still_there()
        assert "a" in root.names("")
        root.close()

    in_private_namespace(work)
    assert os.listdir(tree / "a/point") == []


@pytest.mark.program("chattr")
def test_immutable_files_are_named_and_the_rest_goes(tree: Path, here: int) -> None:
    subprocess.run(["chattr", "+i", str(tree / "a/file")], check=True)
    try:
        with pytest.raises(StorageError, match="tree/a/file could not be removed: Operation not permitted"):
            remove_tree(here, "tree", Progress())
        assert sorted(str(path.relative_to(tree)) for path in tree.rglob("*")) == ["a", "a/file"]
    finally:
        subprocess.run(["chattr", "-i", str(tree / "a/file")], check=True)


def test_directories_of_others_without_any_permission_are_removed(tree: Path, here: int) -> None:
    os.chown(tree / "a", 12345, 12345)
    os.chmod(tree / "a", 0)
    remove_tree(here, "tree", Progress())
    assert not tree.exists()


@pytest.mark.parametrize("mode", [0o000, 0o500, 0o600])
def test_users_remove_directories_of_their_own_that_they_locked(
    tmp_path: Path, here: int, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    inner = tmp_path / "tree/locked/inner"
    inner.mkdir(parents=True)
    (inner / "file").touch()
    os.chmod(tmp_path, 0o777)
    for directory in (inner, inner.parent, inner.parent.parent):
        os.chown(directory, _NOBODY, _NOBODY)
        os.chmod(directory, mode)
    as_another_user(lambda: remove_tree(here, "tree", Progress()), monkeypatch)
    assert os.listdir(tmp_path) == []


def test_users_copy_deep_trees_that_they_could_not_enter_as_their_owner(
    tmp_path: Path, here: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    depth = walking.OPEN_LEVELS + 10
    bottom = (tmp_path / "source").joinpath(*["d"] * depth)
    bottom.mkdir(parents=True)
    (bottom / "file").write_text("x")
    os.chmod(tmp_path, 0o777)
    for directory in (bottom, *bottom.parents[:depth]):
        os.chmod(directory, 0o055)
    as_another_user(lambda: copy_tree(here, "source", here, "copy", Progress()), monkeypatch)
    copied = (tmp_path / "copy").joinpath(*["d"] * depth)
    assert (copied / "file").read_text() == "x"
    assert stat.S_IMODE(copied.stat().st_mode) == 0o055
    assert copied.stat().st_uid == _NOBODY


def test_owners_devices_and_protected_attributes_are_copied(tree: Path, here: int) -> None:
    os.mknod(tree / "null", stat.S_IFCHR | 0o640, os.makedev(1, 3))
    os.mknod(tree / "block", stat.S_IFBLK | 0o600, os.makedev(7, 250))
    (tree / "tool").touch()
    for number, path in enumerate([tree, *sorted(tree.rglob("*"))]):
        os.chown(path, 30_000 + number, 40_000 + number)
    os.chmod(tree / "tool", 0o6755)
    (tree / "link").symlink_to("nowhere")
    os.chown(tree / "link", 1, 2, follow_symlinks=False)
    # cap_net_raw+ep, version 2; include/uapi/linux/capability.h
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    os.setxattr(tree / "tool", "security.capability", capability)
    os.setxattr(tree / "b", "trusted.note", b"of a directory")
    os.setxattr(tree / "link", "trusted.note", b"of a link", follow_symlinks=False)
    copy_tree(here, "tree", here, "copy", Progress())
    copy = tree.parent / "copy"
    for path in [tree, *tree.rglob("*")]:
        source, copied = path.lstat(), (copy / path.relative_to(tree)).lstat()
        for name in ("st_mode", "st_uid", "st_gid", "st_rdev", "st_mtime_ns"):
            assert getattr(copied, name) == getattr(source, name), (path, name)
    assert os.getxattr(copy / "tool", "security.capability") == capability
    assert os.getxattr(copy / "b", "trusted.note") == b"of a directory"
    assert os.getxattr(copy / "link", "trusted.note", follow_symlinks=False) == b"of a link"


def test_a_foreign_fifo_or_device_is_never_opened(tree: Path, here: int) -> None:
    """Opening a fifo waits for a writer, and opening a device can do anything."""
    os.mkfifo(tree / "fifo")
    os.mknod(tree / "absent", stat.S_IFCHR | 0o666, os.makedev(511, 7))
    copy_tree(here, "tree", here, "copy", Progress())
    assert measure(here, "copy", Progress()).inodes == measure(here, "tree", Progress()).inodes
    remove_tree(here, "copy", Progress())
    assert not (tree.parent / "copy").exists()


def make_file_system(image: Path, program: list[str]) -> None:
    with open(image, "wb") as file:
        file.truncate(400 * MIB)
    subprocess.run([*program, str(image)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(["mkfs.xfs", "-q"], marks=pytest.mark.program("mkfs.xfs")),
        pytest.param(["mkfs.btrfs", "-q"], marks=pytest.mark.program("mkfs.btrfs")),
    ],
    ids=["xfs", "btrfs"],
)
def test_contents_are_shared_where_the_storage_can(
    tmp_path: Path, program: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_file_system(tmp_path / "image", program)
    (tmp_path / "mnt").mkdir()

    def refuse(*_: object) -> int:
        raise AssertionError("copied")

    def work() -> None:
        subprocess.run(["mount", "-o", "loop", str(tmp_path / "image"), str(tmp_path / "mnt")], check=True)
        root = HostRoot.open(str(tmp_path / "mnt"))
        root.make_directory("item", mode=0o755)
        content = os.urandom(20 * MIB)
        (tmp_path / "mnt/item/file").write_bytes(content)
        root.sync()
        before = root.space().allocation
        progress = Progress()
        with monkeypatch.context() as patch:
            patch.setattr(transfer.Transfer, "_copy_piece", refuse)
            root.copy_tree("item", "copy", progress)
        root.sync()
        assert progress.done == 20 * MIB
        assert root.space().allocation - before < 5 * MIB
        assert (tmp_path / "mnt/copy/file").read_bytes() == content
        root.close()
        subprocess.run(["umount", str(tmp_path / "mnt")], check=True)

    in_private_namespace(work)


@pytest.mark.program("mkfs.btrfs", "btrfs")
def test_subvolumes_belong_to_the_tree_that_they_are_in(tmp_path: Path) -> None:
    make_file_system(tmp_path / "image", ["mkfs.btrfs", "-q"])
    (tmp_path / "mnt").mkdir()

    def work() -> None:
        subprocess.run(["mount", "-o", "loop", str(tmp_path / "image"), str(tmp_path / "mnt")], check=True)
        root = HostRoot.open(str(tmp_path / "mnt"))
        root.make_directory("item", mode=0o755)
        subvolume = tmp_path / "mnt/item/sub"
        subprocess.run(["btrfs", "-q", "subvolume", "create", str(subvolume)], check=True)
        (subvolume / "file").write_bytes(b"x" * 100_000)
        root.sync()
        assert root.measure("item", Progress()).inodes == 3
        root.copy_tree("item", "copy", Progress())
        assert (tmp_path / "mnt/copy/sub/file").read_bytes() == b"x" * 100_000
        root.remove_tree("item", Progress())
        assert root.names("") == ["copy"]
        root.close()
        subprocess.run(["umount", str(tmp_path / "mnt")], check=True)

    in_private_namespace(work)


def test_a_dead_fuse_server_is_stale_until_it_is_unmounted(tmp_path: Path) -> None:
    (tmp_path / "mnt").mkdir()

    def work() -> None:
        path = tmp_path / "mnt"
        device = os.open("/dev/fuse", os.O_RDWR)
        mount("dead", path, "fuse", data=f"fd={device},rootmode=40000,user_id=0,group_id=0")
        os.close(device)
        assert mounts.is_stale_fuse(str(path))
        table = mounts.mounts("thread-self")
        found = mounts.containing(table, str(path / "x"))
        assert found is not None
        assert (found.fs_type, found.source, found.target) == ("fuse", "dead", str(path))
        mounts.unmount_lazily(str(path))
        assert not mounts.is_stale_fuse(str(path))
        assert path.stat().st_dev == tmp_path.stat().st_dev

    in_private_namespace(work)


def test_what_is_in_use_is_unmounted_by_force_only(tmp_path: Path) -> None:
    (tmp_path / "mnt").mkdir()

    def work() -> None:
        mount("tmpfs", tmp_path / "mnt", "tmpfs")
        with opened(tmp_path / "mnt"):
            with pytest.raises(OSError, match="busy"):
                mounts.unmount(str(tmp_path / "mnt"))
            mounts.unmount_lazily(str(tmp_path / "mnt"))
        mount("tmpfs", tmp_path / "mnt", "tmpfs")
        mounts.unmount(str(tmp_path / "mnt"))
        assert (tmp_path / "mnt").stat().st_dev == tmp_path.stat().st_dev

    in_private_namespace(work)


def test_a_dead_fuse_server_in_a_tree_is_stepped_around(tree: Path) -> None:
    """Asking it anything fails or hangs; a tree that holds its mount is still copied and measured."""

    def work() -> None:
        with opened(tree.parent) as here:
            device = os.open("/dev/fuse", os.O_RDWR)
            point = tree / "a/point"
            mount("dead", point, "fuse", data=f"fd={device},rootmode=40000,user_id=0,group_id=0")
            os.close(device)
            assert measure(here, "tree", Progress()).inodes == 5
            copy_tree(here, "tree", here, "copy", Progress())
            with pytest.raises(StorageError, match="tree/a/point could not be removed: it is a mount point"):
                remove_tree(here, "tree", Progress())

    in_private_namespace(work)
    assert (tree.parent / "copy/a/file").exists()
