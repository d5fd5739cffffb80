"""System calls that `os` lacks: their answers, and what stands in for them on older systems."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fspoolfs.system import syscalls

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY


def number_of(call: Callable[[], object]) -> int:
    """The errno that `call` fails with, or 0."""
    try:
        call()
    except OSError as error:
        return error.errno or -1
    return 0


def failing(number: int) -> Callable[..., int]:
    """A C function that always fails with `number`."""

    def call(*_: object) -> int:
        ctypes.set_errno(number)
        return -1

    return call


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[int]:
    """A directory with files, directories and links, some of which lead out."""
    (tmp_path / "tree/a/b").mkdir(parents=True)
    (tmp_path / "tree/a/file").write_text("inside")
    (tmp_path / "outside").mkdir()
    (tmp_path / "tree/up").symlink_to("..")
    (tmp_path / "tree/away").symlink_to(tmp_path / "outside")
    (tmp_path / "tree/a/here").symlink_to("b")
    (tmp_path / "tree/a/link").symlink_to("file")
    fd = os.open(tmp_path / "tree", _DIRECTORY)
    yield fd
    os.close(fd)


PATHS = {
    ".": 0,
    "a": 0,
    "a/b": 0,
    "./a//b/": 0,
    "missing/x": errno.ENOENT,
    "..": errno.EXDEV,
    "/etc": errno.EXDEV,
    "up/outside": errno.ELOOP,
    "away": errno.ELOOP,
    "a/here": errno.ELOOP,
    "a/file": errno.ENOTDIR,
}


@pytest.mark.parametrize(("path", "expected"), PATHS.items())
def test_openat2_follows_no_link_and_never_leaves(tree: int, path: str, expected: int) -> None:
    assert number_of(lambda: os.close(syscalls.openat2(tree, path, _DIRECTORY))) == expected


@pytest.mark.parametrize("resolve", [syscalls.RESOLVE_SAFE, syscalls.RESOLVE_SAFE | syscalls.RESOLVE_NO_XDEV])
@pytest.mark.parametrize(("path", "expected"), PATHS.items())
def test_walk_for_old_kernels_refuses_the_same(tree: int, path: str, expected: int, resolve: int) -> None:
    number = number_of(lambda: os.close(syscalls.walk_open(tree, path, _DIRECTORY, 0, resolve)))
    # A link to a directory is told as ELOOP or ENOTDIR, as it comes.
    assert number == expected or {number, expected} == {errno.ELOOP, errno.ENOTDIR}


def test_walk_stands_in_where_openat2_is_missing(tree: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syscalls, "_openat2", failing(errno.ENOSYS))
    fd = syscalls.openat2(tree, "a/file", os.O_RDONLY)
    try:
        assert os.read(fd, 100) == b"inside"
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        syscalls.openat2(tree, "a/link", os.O_RDONLY)


def test_walk_opens_a_link_itself_when_asked_to(tree: int) -> None:
    flags = os.O_PATH | os.O_NOFOLLOW
    for opener in (syscalls.openat2, syscalls.walk_open):
        fd = opener(tree, "a/link", flags, 0, syscalls.RESOLVE_SAFE)
        try:
            assert os.readlink("", dir_fd=fd) == "file"
        finally:
            os.close(fd)
    assert number_of(lambda: syscalls.walk_open(tree, "a/link", os.O_PATH, 0, 0)) == errno.ELOOP


def test_walk_leaves_no_descriptor_behind(tree: int) -> None:
    before = os.listdir("/proc/self/fd")
    for path in PATHS:
        with contextlib.suppress(OSError):
            os.close(syscalls.walk_open(tree, path, _DIRECTORY, 0, syscalls.RESOLVE_NO_XDEV))
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.skipif(os.stat("/").st_dev == os.stat("/proc").st_dev, reason="/proc is no mount here")
def test_mounts_are_crossed_only_when_allowed() -> None:
    root = os.open("/", _DIRECTORY)
    try:
        for opener in (syscalls.openat2, syscalls.walk_open):
            os.close(opener(root, "proc", os.O_PATH, 0, syscalls.RESOLVE_SAFE))
            strict = syscalls.RESOLVE_SAFE | syscalls.RESOLVE_NO_XDEV
            with pytest.raises(OSError, match="cross-device"):
                opener(root, "proc", os.O_PATH, 0, strict)
    finally:
        os.close(root)


def test_a_null_byte_is_refused_before_c_cuts_the_path(tree: int) -> None:
    assert number_of(lambda: syscalls.openat2(tree, "a\0/../..", os.O_PATH)) == errno.EINVAL


def test_mount_id_is_the_one_in_mountinfo(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_PATH)
    try:
        ids = [line.split()[0] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        assert str(syscalls.mount_id(fd)) in ids
    finally:
        os.close(fd)


@pytest.mark.parametrize("fallback", [0, errno.EINVAL, errno.ENOSYS])
@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_rename_never_replaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, fallback: int
) -> None:
    if fallback:
        monkeypatch.setattr(syscalls, "_renameat2", failing(fallback))
    (tmp_path / "old").mkdir()
    target = tmp_path / "new"
    if kind == "file":
        target.touch()
    elif kind == "directory":
        target.mkdir()
    else:
        target.symlink_to("nowhere")
    fd = os.open(tmp_path, _DIRECTORY)
    try:
        with pytest.raises(FileExistsError):
            syscalls.rename_no_replace("old", "new", source_fd=fd, target_fd=fd)
        syscalls.rename_no_replace("old", "free", source_fd=fd, target_fd=fd)
    finally:
        os.close(fd)
    assert (tmp_path / "free").is_dir()
    assert not (tmp_path / "old").exists()


def test_rename_tells_what_is_missing(tmp_path: Path) -> None:
    fd = os.open(tmp_path, _DIRECTORY)
    try:
        with pytest.raises(FileNotFoundError, match="absent"):
            syscalls.rename_no_replace("absent", "new", source_fd=fd, target_fd=fd)
    finally:
        os.close(fd)


def test_syncfs_takes_a_directory_and_tells_a_bad_descriptor(tmp_path: Path) -> None:
    fd = os.open(tmp_path, _DIRECTORY)
    try:
        syscalls.syncfs(fd)
    finally:
        os.close(fd)
    assert number_of(lambda: syscalls.syncfs(fd)) == errno.EBADF


def test_allocated_space_is_there_and_reads_as_zeros(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb+") as file:
        syscalls.fallocate(file.fileno(), 5, 100_000)
        info = os.fstat(file.fileno())
        assert info.st_size == 100_005
        assert info.st_blocks * 512 >= 100_000
        assert file.read() == bytes(100_005)
        fd = file.fileno()
    assert number_of(lambda: syscalls.fallocate(fd, 0, 1)) == errno.EBADF


def test_calls_interrupted_by_a_signal_are_repeated(tree: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real = syscalls._openat2
    answers: list[Callable[..., int]] = [failing(errno.EINTR), failing(errno.EINTR), real]
    monkeypatch.setattr(syscalls, "_openat2", lambda *arguments: answers.pop(0)(*arguments))
    os.close(syscalls.openat2(tree, "a", _DIRECTORY))
    assert not answers


def test_unmounting_what_is_no_mount_is_refused(tmp_path: Path) -> None:
    number = number_of(lambda: syscalls.unmount(str(tmp_path), syscalls.UMOUNT_NOFOLLOW))
    assert number == (errno.EINVAL if os.geteuid() == 0 else errno.EPERM)
