"""Project quota by system call, as far as a kernel without it shows; the rest is tested in the guest."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fspoolfs.system import quota


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """What the kernel is told: blocks of 1024 bytes and inodes."""
    told: list[tuple[int, int]] = []

    def call(command: int, fd: int, number: int, block: quota._NextBlock) -> None:
        told.append((block.bhardlimit, block.ihardlimit))

    monkeypatch.setattr(quota, "_call", call)
    return told


def test_structures_are_as_large_as_the_kernels() -> None:
    assert quota._FSXATTR.size == 28  # part of both ioctl numbers
    assert ctypes.sizeof(quota._NextBlock) == 72


@pytest.mark.parametrize("number", [quota._NR_QUOTACTL_FD, 1 << 20], ids=["by descriptor", "by device"])
@pytest.mark.parametrize("place", ["/proc", "/dev/shm"])
def test_file_system_without_quota_counts_nothing(
    place: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quota, "_NR_QUOTACTL_FD", number)
    fd = os.open(place, os.O_RDONLY)
    try:
        assert quota.state(fd) == (False, False)
        with pytest.raises(OSError) as caught:  # noqa: PT011
            quota.next_counters(fd, 1)
        assert caught.value.errno in quota._NO_QUOTA - {errno.ENOENT}
    finally:
        os.close(fd)


def test_unknown_answer_is_an_error(directory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def call(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(quota, "_call", call)
    for function in (quota.state, lambda fd: quota.counters(fd, 1), lambda fd: quota.next_counters(fd, 1)):
        with pytest.raises(OSError, match="Input/output error"):
            function(directory)


@pytest.mark.parametrize(
    ("space", "blocks"),
    [(0, 0), (1, 1), (1024, 1), (1025, 2), (10 << 20, 10 << 10), (2**63 - 1, 2**53 - 1)],
)
def test_space_is_rounded_up_to_what_the_kernel_counts(
    directory: int, limits: list[tuple[int, int]], space: int, blocks: int
) -> None:
    quota.set_limits(directory, 7, space=space, inodes=3)
    assert limits == [(blocks, 3)]
