"""Contents of files that are copied: whole, with their holes, in pieces that can be cancelled."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from fspoolfs.errors import CancelledError
from fspoolfs.progress import Progress
from fspoolfs.system import syscalls, transfer
from fspoolfs.system.copying import copy_tree

MIB = 1 << 20


def test_holes_stay_holes(tmp_path: Path, here: int, there: tuple[int, Path]) -> None:
    (tmp_path / "source").mkdir()
    with open(tmp_path / "source/sparse", "wb") as file:
        for offset in (0, 10 * MIB, 700 * MIB):
            file.seek(offset)
            file.write(b"data" * 1000)
        file.truncate(1024 * MIB + 3)
    with open(tmp_path / "source/only a hole", "wb") as file:
        file.truncate(50 * MIB)
    progress = Progress()
    copy_tree(here, "source", there[0], "copy", progress)
    for name in ("sparse", "only a hole"):
        source, copy = tmp_path / "source" / name, there[1] / "copy" / name
        assert copy.stat().st_size == source.stat().st_size
        assert copy.stat().st_blocks * 512 < MIB
    with open(there[1] / "copy/sparse", "rb") as file:
        for offset in (0, 10 * MIB, 700 * MIB):
            file.seek(offset)
            assert file.read(4000) == b"data" * 1000
    assert progress.done < MIB


def test_contents_survive_when_the_kernel_copies_nothing(
    tmp_path: Path, here: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "source").mkdir()
    content = os.urandom(3 * MIB + 17)
    (tmp_path / "source/file").write_bytes(content)

    def refuse(*_: object) -> int:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "copy_file_range", refuse)
    copy_tree(here, "source", here, "copy", Progress())
    assert (tmp_path / "copy/file").read_bytes() == content


def test_a_kernel_that_copies_nothing_without_an_error_is_not_believed(
    tmp_path: Path, here: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/file").write_bytes(b"x" * 5000)
    monkeypatch.setattr(os, "copy_file_range", lambda *_: 0)
    copy_tree(here, "source", here, "copy", Progress())
    assert (tmp_path / "copy/file").read_bytes() == b"x" * 5000


def test_storage_that_cannot_share_is_asked_once(
    tmp_path: Path, here: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "source").mkdir()
    for number in range(5):
        (tmp_path / f"source/{number}").write_text("x")
    asked = []

    def refuse(target: int, source: int) -> None:
        asked.append(source)
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(syscalls, "clone_file", refuse)
    copy_tree(here, "source", here, "copy", Progress())
    assert len(asked) == 1


def test_a_file_that_grows_without_end_is_copied_as_it_was(
    tmp_path: Path, here: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "source").mkdir()
    growing = tmp_path / "source/growing"
    growing.write_bytes(b"x" * 5000)
    real = os.copy_file_range

    def grow(source: int, target: int, count: int, start: int, end: int) -> int:
        with open(growing, "ab") as file:
            file.write(b"y" * 5000)
        return real(source, target, count, start, end)

    monkeypatch.setattr(os, "copy_file_range", grow)
    copy_tree(here, "source", here, "copy", Progress())
    assert (tmp_path / "copy/growing").read_bytes() == b"x" * 5000


@pytest.mark.parametrize("sparse", [False, True])
def test_a_file_that_shrinks_is_copied_as_it_is(
    tmp_path: Path, here: int, monkeypatch: pytest.MonkeyPatch, sparse: bool
) -> None:
    (tmp_path / "source").mkdir()
    shrinking = tmp_path / "source/shrinking"
    with open(shrinking, "wb") as file:
        file.write(b"x" * 5000)
        file.seek(10 * MIB if sparse else 5000)
        file.write(b"x" * 5000)
    real = os.copy_file_range

    def shrink(source: int, target: int, count: int, start: int, end: int) -> int:
        os.truncate(shrinking, 1000)
        return real(source, target, count, start, end)

    monkeypatch.setattr(os, "copy_file_range", shrink)
    copy_tree(here, "source", here, "copy", Progress())
    assert (tmp_path / "copy/shrinking").read_bytes() == b"x" * 1000


def test_a_large_file_can_be_cancelled_in_its_middle(
    tmp_path: Path, here: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/large").write_bytes(b"x" * 100_000)
    monkeypatch.setattr(transfer, "PIECE", 10_000)
    progress = Progress()
    real = os.copy_file_range

    def cancel(source: int, target: int, count: int, start: int, end: int) -> int:
        if start >= 30_000:
            progress.cancel()
        return real(source, target, count, start, end)

    monkeypatch.setattr(os, "copy_file_range", cancel)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(CancelledError):
        copy_tree(here, "source", here, "copy", progress)
    assert (progress.phase, progress.unit, progress.done) == ("copying", "bytes", 40_000)
    assert os.listdir("/proc/self/fd") == before
