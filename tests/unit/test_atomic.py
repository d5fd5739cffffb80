"""Files of the state directory: whole or not at all, and the lock of the host."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from fspoolfs.errors import BusyError
from fspoolfs.system import atomic
from fspoolfs.system.atomic import LockFile


class Disk:
    """Records what is synced and renamed, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.refuse = ""
        real_fsync, real_rename = os.fsync, os.rename

        def fsync(fd: int) -> None:
            what = "directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file"
            self._note(f"fsync {what}")
            real_fsync(fd)

        def rename(source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
            self._note("rename")
            real_rename(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.setattr(os, "rename", rename)

    def _note(self, call: str) -> None:
        if call == self.refuse:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self.calls.append(call)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


def test_a_written_file_is_synced_before_it_takes_the_name_and_its_name_after(
    tmp_path: Path, disk: Disk
) -> None:
    path = tmp_path / "tank.xml"
    path.write_text("old")
    atomic.write_file(str(path), b"new")
    assert path.read_bytes() == b"new"
    assert disk.calls == ["fsync file", "rename", "fsync directory"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["tank.xml"]


@pytest.mark.parametrize("refused", ["fsync file", "rename"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, disk: Disk, refused: str
) -> None:
    path = tmp_path / "tank.xml"
    path.write_text("old")
    disk.refuse = refused
    with pytest.raises(OSError, match="Input/output error"):
        atomic.write_file(str(path), b"new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["tank.xml"]


def test_a_file_gets_the_mode_that_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "public"
    atomic.write_file(str(path), b"", mode=0o644)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_symbolic_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "link").symlink_to("victim")
    atomic.write_file(str(tmp_path / "link"), b"new")
    assert (tmp_path / "victim").read_text() == "precious"
    assert not (tmp_path / "link").is_symlink()


def test_removing_is_durable_and_tells_what_is_missing(tmp_path: Path, disk: Disk) -> None:
    path = tmp_path / "autostart"
    path.touch()
    atomic.remove_file(str(path))
    assert not path.exists()
    assert disk.calls == ["fsync directory"]
    with pytest.raises(FileNotFoundError):
        atomic.remove_file(str(path))


@pytest.mark.parametrize("size", [0, 1, 99, 100])
def test_a_file_within_the_limit_is_read_whole(tmp_path: Path, size: int) -> None:
    (tmp_path / "f").write_bytes(b"x" * size)
    assert atomic.read_file(str(tmp_path / "f"), 100) == b"x" * size


def test_what_cannot_be_a_state_file_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * 101)
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to("large")
    os.mkfifo(tmp_path / "fifo")
    for name, number in {
        "large": errno.EFBIG,
        "directory": errno.EISDIR,
        "link": errno.ELOOP,
        "fifo": errno.EINVAL,
    }.items():
        with pytest.raises(OSError, match=name) as caught:
            atomic.read_file(str(tmp_path / name), 100)
        assert caught.value.errno == number


def test_a_file_that_lies_about_its_size_is_still_limited() -> None:
    assert os.stat("/proc/self/status").st_size == 0
    with pytest.raises(OSError, match="too large"):
        atomic.read_file("/proc/self/status", 100)
    assert b"Pid:" in atomic.read_file("/proc/self/status", 100_000)


def test_a_lock_is_held_once_and_names_its_holder(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    lock = LockFile.acquire(path)
    assert int(Path(path).read_text()) == os.getpid()
    with pytest.raises(BusyError, match=f"locked by process {os.getpid()}"):
        LockFile.acquire(path)
    lock.release()
    lock.release()
    LockFile.acquire(path).release()


def test_a_lock_ends_with_the_process_that_held_it(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    code = (
        "import sys; from fspoolfs.system.atomic import LockFile\n"
        "lock = LockFile.acquire(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(atomic.__file__).parents[2],
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        with pytest.raises(BusyError, match=f"process {child.pid}"):
            LockFile.acquire(path)
        child.kill()
    LockFile.acquire(path).release()


def test_a_holder_without_a_name_yet_is_another_process(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock = LockFile.acquire(str(path))
    path.write_bytes(b"")
    with pytest.raises(BusyError, match="locked by another process"):
        LockFile.acquire(str(path))
    lock.release()


def test_a_lock_file_is_never_opened_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "lock").symlink_to("victim")
    with pytest.raises(OSError, match="symbolic links"):
        LockFile.acquire(str(tmp_path / "lock"))
    assert (tmp_path / "victim").read_text() == "precious"
