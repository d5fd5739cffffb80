"""Copying trees: all that makes up a file is kept, nothing outside is touched."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import stat
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fspoolfs.errors import StorageError
from fspoolfs.progress import Progress
from fspoolfs.system import copying, transfer, walking
from fspoolfs.system.copying import copy_tree
from fspoolfs.system.transfer import Transfer
from support.needs import needs_root
from support.trees import make_chain

MIB = 1 << 20
#: A user who owns nothing else here.
STRANGER = 54321


def describe(top: Path) -> dict[str, tuple[object, ...]]:
    """Everything that a copy must keep, by path; hard links as the first path of their inode."""
    first: dict[int, str] = {}
    found: dict[str, tuple[object, ...]] = {}
    for path in [top, *sorted(top.rglob("*"))]:
        info = path.lstat()
        name = str(path.relative_to(top))
        content: object = ""
        if stat.S_ISREG(info.st_mode):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        elif stat.S_ISLNK(info.st_mode):
            content = os.readlink(path)
        xattrs = {key: os.getxattr(path, key, follow_symlinks=False) for key in _xattrs(path)}
        found[name] = (
            info.st_mode,
            info.st_uid,
            info.st_gid,
            info.st_mtime_ns,
            info.st_rdev,
            content,
            xattrs,
            first.setdefault(info.st_ino, name),
        )
    return found


def _xattrs(path: Path) -> list[str]:
    return os.listxattr(path, follow_symlinks=False)


def acl(*, group: int) -> bytes:
    """A POSIX access control list: one more group may read; include/uapi/linux/posix_acl_xattr.h."""
    entries = [(0x01, 7, -1), (0x04, 5, -1), (0x08, 4, group), (0x10, 5, -1), (0x20, 0, -1)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)


def make_tree(top: Path) -> None:
    """One of everything that a user can make."""
    (top / "sub/empty").mkdir(parents=True)
    (top / "sub/file").write_bytes(os.urandom(100_000))
    (top / "nothing").touch()
    (top / "nothing").chmod(0o4711)
    (top / "read-only").write_text("x")
    os.setxattr(top / "read-only", "user.comment", b"of a file that its owner may not write")
    (top / "read-only").chmod(0o444)
    (top / "\udcff name").write_text("x")
    os.link(top / "sub/file", top / "again")
    os.link(top / "sub/file", top / "sub/empty/once more")
    (top / "dangling").symlink_to("/nowhere/at/all")
    os.link(top / "dangling", top / "dangling too", follow_symlinks=False)
    os.mkfifo(top / "fifo", 0o620)
    with socket.socket(socket.AF_UNIX) as server:
        directory = os.open(top, os.O_PATH)
        server.bind(f"/proc/self/fd/{directory}/socket")
        os.close(directory)
    os.setxattr(top / "sub/file", "user.comment", b"\0binary")
    os.setxattr(top / "sub", "user.comment", b"of a directory")
    os.setxattr(top / "sub/file", "system.posix_acl_access", acl(group=12345))
    os.setxattr(top / "sub", "system.posix_acl_default", acl(group=54321))
    (top / "sub/empty").chmod(0o1770)
    for path in sorted(top.rglob("*"), reverse=True):
        os.utime(path, ns=(1_000_000_001, 1_234_567_890_123_456_789), follow_symlinks=False)
    os.utime(top, ns=(1, 2))


def test_a_copy_is_like_its_source(tmp_path: Path, here: int, there: tuple[int, Path]) -> None:
    make_tree(tmp_path / "source")
    before = describe(tmp_path / "source")
    copy_tree(here, "source", there[0], "copy", Progress())
    assert describe(there[1] / "copy") == before
    assert describe(tmp_path / "source") == before


def test_access_times_are_copied(tmp_path: Path, here: int) -> None:
    make_tree(tmp_path / "source")
    expected = {path.name: path.lstat().st_atime_ns for path in (tmp_path / "source").iterdir()}
    copy_tree(here, "source", here, "copy", Progress())
    copied = {path.name: path.lstat().st_atime_ns for path in (tmp_path / "copy").iterdir()}
    assert copied == expected
    # Reading them for the copy does not count as an access.
    assert (tmp_path / "source/read-only").stat().st_atime_ns == expected["read-only"]


def test_a_copy_inherits_nothing_from_where_it_is_made(tmp_path: Path, here: int) -> None:
    (tmp_path / "source/sub").mkdir(parents=True)
    (tmp_path / "source/sub/file").touch()
    parent = tmp_path / "parent"
    parent.mkdir()
    os.setxattr(parent, "system.posix_acl_default", acl(group=777))
    os.chmod(parent, 0o2755)
    target = os.open(parent, os.O_RDONLY)
    try:
        copy_tree(here, "source", target, "copy", Progress())
    finally:
        os.close(target)
    assert describe(parent / "copy") == describe(tmp_path / "source")


def test_links_are_copied_as_links_and_nothing_outside_is_read(tmp_path: Path, here: int) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim/secret").write_text("secret")
    (tmp_path / "source").mkdir()
    (tmp_path / "source/directory").symlink_to("../victim")
    (tmp_path / "source/file").symlink_to(tmp_path / "victim/secret")
    copy_tree(here, "source", here, "copy", Progress())
    assert os.readlink(tmp_path / "copy/directory") == "../victim"
    assert os.readlink(tmp_path / "copy/file") == str(tmp_path / "victim/secret")


def test_a_directory_swapped_for_a_link_again_and_again_shows_nothing_outside(
    tmp_path: Path, here: int
) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim/secret").write_text("secret")
    (tmp_path / "source/sub").mkdir(parents=True)
    (tmp_path / "source/file").touch()
    (tmp_path / "evil").symlink_to(tmp_path / "victim")
    (tmp_path / "evil file").symlink_to(tmp_path / "victim/secret")
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            for name, evil in (("sub", "evil"), ("file", "evil file")):
                os.rename(tmp_path / "source" / name, tmp_path / "aside")
                os.rename(tmp_path / evil, tmp_path / "source" / name)
                os.rename(tmp_path / "source" / name, tmp_path / evil)
                os.rename(tmp_path / "aside", tmp_path / "source" / name)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for number in range(200):
            copy_tree(here, "source", here, f"copy{number}", Progress())
    finally:
        done.set()
        thread.join()
    for entry in tmp_path.glob("copy*/*"):
        if entry.is_symlink():
            continue
        assert (os.listdir(entry) if entry.is_dir() else entry.read_bytes()) in ([], b"")


def test_a_link_is_no_tree_to_copy(tmp_path: Path, here: int) -> None:
    (tmp_path / "link").symlink_to("/etc")
    with pytest.raises(OSError, match="link"):
        copy_tree(here, "link", here, "copy", Progress())
    assert os.listdir(tmp_path) == ["link"]


def test_an_existing_target_is_left_alone(tmp_path: Path, here: int) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "copy").mkdir()
    with pytest.raises(FileExistsError):
        copy_tree(here, "source", here, "copy", Progress())


def test_depth_costs_no_descriptors(memory: tuple[int, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    here, path = memory
    depth = 5000
    fd = make_chain(path / "source", depth, mode=0o751)
    # Far beyond what a path can name.
    os.close(os.open("one", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.link("one", "two", src_dir_fd=fd, dst_dir_fd=fd)
    os.close(fd)
    opened: list[int] = []
    real = walking.Place.__init__

    def counting(self: walking.Place, name: str, fd: int) -> None:
        real(self, name, fd)
        opened.append(fd)

    monkeypatch.setattr(walking.Place, "__init__", counting)
    before = os.listdir("/proc/self/fd")
    copy_tree(here, "source", here, "copy", Progress())
    # Source and target, and a third chain that counts when the copy takes long.
    assert max(opened) <= max(map(int, before)) + 3 * walking.OPEN_LEVELS + 5
    assert os.listdir("/proc/self/fd") == before
    fd = os.open(path / "copy", os.O_RDONLY)
    for _ in range(depth):
        deeper = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = deeper
    assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o751
    assert os.stat("one", dir_fd=fd).st_ino == os.stat("two", dir_fd=fd).st_ino
    os.close(fd)


def test_hard_links_need_no_memory_and_leave_no_trace(tmp_path: Path, here: int) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/one").write_text("x")
    os.link(tmp_path / "source/one", tmp_path / "source/two")
    os.link(tmp_path / "source/one", tmp_path / "outside")
    copy_tree(here, "source", here, "copy", Progress())
    assert sorted(os.listdir(tmp_path / "copy")) == ["one", "two"]
    assert (tmp_path / "copy/one").stat().st_nlink == 2


@pytest.mark.parametrize("refused", [{3}, {3, 4}, {1, 2, 3}])
def test_where_links_are_refused_files_are_copied_anew(
    tmp_path: Path, here: int, monkeypatch: pytest.MonkeyPatch, refused: set[int]
) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/0").write_text("x")
    for number in range(1, 6):
        os.link(tmp_path / "source/0", tmp_path / f"source/{number}")
    real = os.link
    made = []

    def limited(*names: str, **options: object) -> None:
        made.append(names)
        if len(made) in refused:
            raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))
        real(*names, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "link", limited)
    copy_tree(here, "source", here, "copy", Progress())
    assert {path.read_text() for path in (tmp_path / "copy").iterdir()} == {"x"}
    assert len(os.listdir(tmp_path / "copy")) == 6


def test_files_that_vanish_or_change_their_kind_meanwhile_are_no_error(
    tmp_path: Path, here: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    for name in ("file", "other"):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text("x")
    for name in ("gone", "turns", "stays"):
        (source / name).mkdir()
    real = walking.split

    def changing(place: walking.Place) -> Iterator[str]:
        names = list(real(place))
        if place.name == "source" and "file" in names:
            (source / "file").unlink()
            (source / "other").unlink()
            (source / "other").mkdir()
            (source / "gone").rmdir()
            (source / "turns").rmdir()
            (source / "turns").symlink_to("/etc")
        yield from names

    monkeypatch.setattr(walking, "split", changing)
    copy_tree(here, "source", here, "copy", Progress())
    assert sorted(os.listdir(tmp_path / "copy")) == ["other", "stays", "turns"]
    assert (tmp_path / "copy/turns").is_symlink()
    assert (tmp_path / "copy/other").is_dir()


def test_a_failure_tells_the_place_and_the_reason(
    tmp_path: Path, here: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "source/sub").mkdir(parents=True)
    (tmp_path / "source/sub/file").write_text("x")

    def full(self: Transfer, source: int, target: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Transfer, "copy", full)
    with pytest.raises(StorageError, match="copy source/sub/file: No space left") as caught:
        copy_tree(here, "source", here, "copy", Progress())
    assert caught.value.errno == errno.ENOSPC


def test_directories_moved_away_under_the_walk_end_it(
    tmp_path: Path, here: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "source").joinpath(*["d"] * (walking.OPEN_LEVELS + 10)).mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/secret").touch()
    real = walking.Descent.leave
    moved: list[str] = []
    progress = Progress()

    def leave(self: walking.Descent) -> walking.Place:
        if not moved and progress.phase == "copying":
            moved.append("d")
            os.rename(tmp_path / "source/d/d/d", tmp_path / "elsewhere/d")
        return real(self)

    monkeypatch.setattr(walking.Descent, "leave", leave)
    with pytest.raises(StorageError, match="it was moved meanwhile") as caught:
        copy_tree(here, "source", here, "copy", progress)
    assert caught.value.errno == errno.EBUSY
    assert not list((tmp_path / "copy").rglob("secret"))


def test_an_attribute_of_the_user_that_cannot_be_kept_is_an_error(
    tmp_path: Path, here: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/file").write_text("x")
    os.setxattr(tmp_path / "source/file", "user.comment", b"x")

    def refuse(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "setxattr", refuse)
    with pytest.raises(StorageError, match="copy source/file"):
        copy_tree(here, "source", here, "copy", Progress())


@needs_root
def test_other_users_keep_what_they_may(tmp_path: Path, here: int, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "source").mkdir()
    for name, owner in (("mine", os.geteuid()), ("foreign", STRANGER)):
        (tmp_path / "source" / name).touch()
        os.chown(tmp_path / "source" / name, owner, -1)
        (tmp_path / "source" / name).chmod(0o6755)
    refuse_chown(monkeypatch)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    copy_tree(here, "source", here, "copy", Progress())
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "copy").iterdir()}
    assert modes == {"mine": 0o6755, "foreign": 0o755}


@needs_root
def test_root_keeps_every_owner_or_fails(tmp_path: Path, here: int, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "source").mkdir()
    os.chown(tmp_path / "source", STRANGER, -1)
    refuse_chown(monkeypatch)
    with pytest.raises(StorageError, match="copy source: Operation not permitted"):
        copy_tree(here, "source", here, "copy", Progress())


def refuse_chown(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "chown", refuse)


def test_a_short_copy_does_not_count_first(
    tmp_path: Path, here: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/file").write_bytes(b"x" * 5000)
    monkeypatch.setattr(copying, "_LONG", 60.0)
    progress = Progress()
    copy_tree(here, "source", here, "copy", progress)
    assert (progress.phase, progress.total, progress.done) == ("copying", None, 5000)


def test_a_long_copy_tells_its_part_before_its_first_file_ends(
    tmp_path: Path, here: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/file").write_bytes(b"x" * MIB)
    monkeypatch.setattr(copying, "_LONG", 0.0)
    monkeypatch.setattr(transfer, "PIECE", MIB // 4)
    monkeypatch.setattr(transfer.Transfer, "_clone", lambda *_: False)
    progress = Told()
    copy_tree(here, "source", here, "copy", progress)
    (first, second, *_) = [line for line in progress.lines if line[0] == "copying" and line[1]]
    # The directory takes some space too.
    assert first[1] in (24, 25)
    assert second[1] in (49, 50)
    assert progress.done == MIB


class Told(Progress):
    """Keeps what it showed after each step."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, int | None]] = []

    def advance(self, count: int = 1) -> None:
        super().advance(count)
        self.lines.append((self.phase, self.percent))
