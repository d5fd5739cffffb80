"""Log files of fixed size: allocated once, written in place."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from fspoolfs.system import syscalls
from fspoolfs.system.logfile import HostLog
from fspoolfs.system.paths import HostRoot

#: More than is written at once.
_LARGE = (1 << 20) + 10_000


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """The root's directory."""
    return tmp_path


@pytest.fixture
def root(base: Path) -> Iterator[HostRoot]:
    opened = HostRoot.open(str(base))
    yield opened
    opened.close()


def test_a_log_is_allocated_when_new_and_kept_when_there(base: Path, root: HostRoot) -> None:
    log = root.open_log("journal", size=100_000)
    info = (base / "journal").stat()
    assert (info.st_size, stat.S_IMODE(info.st_mode)) == (100_000, 0o600)
    assert info.st_blocks * 512 >= 100_000
    assert log.read(0, 100_000) == bytes(100_000)
    log.write(99_990, b"0123456789")
    log.sync()
    log.close()
    again = root.open_log("journal", size=100_000)
    assert again.read(99_990, 10) == b"0123456789"
    assert again.read(99_995, 10) == b"56789"
    again.close()


def test_a_shorter_log_is_extended_and_a_longer_one_stays(base: Path, root: HostRoot) -> None:
    (base / "journal").write_bytes(b"head")
    log = root.open_log("journal", size=10_000)
    assert log.read(0, 10_000) == b"head" + bytes(9_996)
    log.close()
    log = root.open_log("journal", size=10)
    log.write(5_000, b"x")
    assert (base / "journal").stat().st_size == 10_000
    log.close()


def test_a_log_never_grows_by_writing(root: HostRoot) -> None:
    log = root.open_log("journal", size=100)
    with pytest.raises(OSError, match="too large"):
        log.write(95, b"0123456789")
    log.write(90, b"0123456789")
    log.close()
    with pytest.raises(OSError, match="Bad file"):
        log.write(0, b"late")


def test_a_log_is_durable_before_anything_in_it_is_whoever_made_it(
    root: HostRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(stat.S_ISDIR(os.fstat(fd).st_mode)))
    root.make_directory("own", mode=0o700)
    root.open_log("own/journal", size=100).close()
    assert synced == [False, True]
    log = root.open_log("own/journal", size=100)
    assert synced == [False, True]
    log.write(0, b"record")
    log.sync()
    assert synced == 2 * [False, True]
    log.sync()
    assert synced == 2 * [False, True]
    log.close()


def _fail_to_allocate(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(fd: int, offset: int, size: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(syscalls, "fallocate", refuse)


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.ENOSYS])
def test_where_space_cannot_be_allocated_zeros_are_written_once(
    base: Path, root: HostRoot, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    (base / "journal").write_bytes(b"head")
    _fail_to_allocate(monkeypatch, number)
    written: list[tuple[int, int]] = []
    pwrite = os.pwrite

    def write(fd: int, data: bytes, offset: int) -> int:
        written.append((offset, len(data)))
        return pwrite(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", write)
    log = root.open_log("journal", size=_LARGE)
    assert written == [(4, 1 << 20), (4 + (1 << 20), _LARGE - 4 - (1 << 20))]
    assert (base / "journal").read_bytes() == b"head" + bytes(_LARGE - 4)
    log.close()


@pytest.mark.parametrize("allocates", [True, False])
def test_without_space_for_all_of_a_log_none_is_taken(
    base: Path, root: HostRoot, monkeypatch: pytest.MonkeyPatch, allocates: bool
) -> None:
    (base / "journal").write_bytes(b"head")
    pwrite = os.pwrite

    def write(fd: int, data: bytes, offset: int) -> int:
        if offset > 1 << 20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", write)
    _fail_to_allocate(monkeypatch, errno.ENOSPC if allocates else errno.EOPNOTSUPP)
    with pytest.raises(OSError, match="No space"):
        root.open_log("journal", size=_LARGE)
    assert (base / "journal").read_bytes() == b"head"
    monkeypatch.undo()
    log = root.open_log("journal", size=_LARGE)
    assert log.read(0, _LARGE) == b"head" + bytes(_LARGE - 4)
    log.close()


def test_a_log_is_a_regular_file(base: Path) -> None:
    os.mkfifo(base / "journal")
    fd = os.open(base, os.O_RDONLY)
    try:
        with pytest.raises(OSError, match="Invalid argument"):
            HostLog.open(fd, "journal", size=10)
    finally:
        os.close(fd)
