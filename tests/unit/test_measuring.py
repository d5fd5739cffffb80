"""Measuring trees: each inode once, nothing outside, however deep."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fspoolfs.errors import CancelledError, StorageError
from fspoolfs.progress import Progress
from fspoolfs.system import walking
from fspoolfs.system.measuring import measure
from support.trees import make_chain


def test_the_numbers_are_those_of_du(tmp_path: Path, here: int) -> None:
    tree = tmp_path / "tree"
    (tree / "a/b").mkdir(parents=True)
    (tree / "a/file").write_bytes(b"x" * 100_000)
    os.link(tree / "a/file", tree / "a/b/same")
    with open(tree / "sparse", "wb") as file:
        file.truncate(1 << 30)
    (tree / "link").symlink_to("/usr")
    os.mkfifo(tree / "fifo")
    progress = Progress()
    usage = measure(here, "tree", progress)
    du = subprocess.run(["du", "-s", "--block-size=1", str(tree)], capture_output=True, check=True)
    inodes = subprocess.run(["du", "-s", "--inodes", str(tree)], capture_output=True, check=True)
    assert usage.allocation == int(du.stdout.split()[0])
    assert usage.inodes == int(inodes.stdout.split()[0]) == 7
    assert (progress.phase, progress.unit, progress.done) == ("measuring", "files", 7)


def test_a_directory_is_measured_by_its_own_descriptor(tmp_path: Path, here: int) -> None:
    (tmp_path / "file").write_bytes(b"x" * 5000)
    assert measure(here, ".", Progress()).inodes == 2


def test_depth_costs_no_descriptors(memory: tuple[int, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    here, path = memory
    os.close(make_chain(path / "tree", 5000))
    opened: list[int] = []
    real = walking.Place.__init__

    def counting(self: walking.Place, name: str, fd: int) -> None:
        real(self, name, fd)
        opened.append(fd)

    monkeypatch.setattr(walking.Place, "__init__", counting)
    before = os.listdir("/proc/self/fd")
    assert measure(here, "tree", Progress()).inodes == 5001
    assert max(opened) <= max(map(int, before)) + walking.OPEN_LEVELS + 3
    assert os.listdir("/proc/self/fd") == before


def test_what_vanishes_or_turns_into_a_link_on_the_way_is_left_out(
    tmp_path: Path, here: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tmp_path / "tree"
    for name in ("stays", "vanishes", "turns"):
        (tree / name).mkdir(parents=True)
        (tree / name / "file").touch()
    (tree / "gone").touch()
    real = walking.split

    def changing(place: walking.Place) -> Iterator[str]:
        names = list(real(place))
        if place.name == "tree":
            (tree / "gone").unlink()
            for name in ("vanishes", "turns"):
                os.rename(tree / name, tmp_path / name)
            (tree / "turns").symlink_to(tmp_path)
        yield from names

    monkeypatch.setattr(walking, "split", changing)
    assert measure(here, "tree", Progress()).inodes == 3


def test_what_is_no_directory_cannot_be_measured(tmp_path: Path, here: int) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(".")
    for name in ("file", "link", "absent"):
        with pytest.raises(OSError, match=name):
            measure(here, name, Progress())


def test_a_failing_disk_is_told_and_not_taken_for_an_empty_one(
    tmp_path: Path, here: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tree/a").mkdir(parents=True)
    (tmp_path / "tree/a/bad").touch()
    real = os.stat

    def stat(name: str, *, dir_fd: int, follow_symlinks: bool) -> os.stat_result:
        if name == "bad":
            raise OSError(errno.EIO, os.strerror(errno.EIO), name)
        return real(name, dir_fd=dir_fd, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(os, "stat", stat)
    with pytest.raises(StorageError, match="measure tree/a: Input/output error") as caught:
        measure(here, "tree", Progress())
    monkeypatch.undo()
    assert caught.value.errno == errno.EIO


def test_directories_moved_away_under_the_walk_end_it(
    tmp_path: Path, here: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.close(make_chain(tmp_path / "tree", walking.OPEN_LEVELS + 10))
    (tmp_path / "elsewhere").mkdir()
    real = walking.Descent.leave
    moved: list[str] = []

    def leave(self: walking.Descent) -> walking.Place:
        if not moved:
            moved.append("d")
            os.rename(tmp_path / "tree/d/d/d", tmp_path / "elsewhere/d")
        return real(self)

    monkeypatch.setattr(walking.Descent, "leave", leave)
    with pytest.raises(StorageError, match="it was moved meanwhile") as caught:
        measure(here, "tree", Progress())
    assert caught.value.errno == errno.EBUSY


def test_measuring_can_be_cancelled(tmp_path: Path, here: int) -> None:
    (tmp_path / "tree").mkdir()
    progress = Progress()
    progress.cancel()
    with pytest.raises(CancelledError):
        measure(here, "tree", progress)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_left_out(tmp_path: Path, here: int) -> None:
    (tmp_path / "tree/locked").mkdir(parents=True)
    (tmp_path / "tree/locked").chmod(0)
    try:
        assert measure(here, "tree", Progress()).inodes == 1
    finally:
        (tmp_path / "tree/locked").chmod(0o700)
