"""Removing trees: all of it, nothing but it, whatever their owners built or do meanwhile."""

from __future__ import annotations

import errno
import os
import resource
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fspoolfs.errors import CancelledError, StorageError
from fspoolfs.progress import Progress
from fspoolfs.system import removal, walking
from fspoolfs.system.removal import remove_tree
from support.trees import make_chain


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    """Little more than what one chain of directories may have open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    in_use = max(map(int, os.listdir("/proc/self/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (in_use + walking.OPEN_LEVELS + 8, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_everything_in_a_tree_goes_and_nothing_beside_it(tmp_path: Path, here: int) -> None:
    tree = tmp_path / "tree"
    for directory in ("a/b/c", "a/empty", "z"):
        (tree / directory).mkdir(parents=True)
    (tree / "a/file").write_text("x")
    (tree / "a/b/c/\udcff\n").touch()
    os.mkfifo(tree / "fifo")
    (tree / "dangling").symlink_to("nowhere")
    (tmp_path / "other").mkdir()
    progress = Progress()
    remove_tree(here, "tree", progress)
    assert os.listdir(tmp_path) == ["other"]
    assert (progress.phase, progress.unit, progress.done) == ("purging", "files", 10)


def test_links_are_removed_and_never_followed(tmp_path: Path, here: int) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "precious").touch()
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "to directory").symlink_to(victim)
    (tree / "to file").symlink_to(victim / "precious")
    (tree / "upwards").symlink_to("..")
    remove_tree(here, "tree", Progress())
    (tmp_path / "link").symlink_to(victim)
    remove_tree(here, "link", Progress())
    assert os.listdir(tmp_path) == ["victim"]
    assert os.listdir(victim) == ["precious"]


def test_a_file_in_the_place_of_a_directory_is_removed_too(tmp_path: Path, here: int) -> None:
    (tmp_path / "file").touch()
    remove_tree(here, "file", Progress())
    assert os.listdir(tmp_path) == []


def test_what_is_not_there_is_told(here: int) -> None:
    with pytest.raises(FileNotFoundError):
        remove_tree(here, "absent", Progress())


@pytest.mark.usefixtures("few_descriptors")
def test_depth_costs_no_descriptors(memory: tuple[int, Path]) -> None:
    here, path = memory
    os.close(make_chain(path / "tree", 5000, files=True))
    progress = Progress()
    remove_tree(here, "tree", progress)
    assert os.listdir(path) == []
    assert progress.done == 10_001


def test_no_descriptor_stays_open(tmp_path: Path, here: int) -> None:
    os.close(make_chain(tmp_path / "tree", 100, files=True))
    before = os.listdir("/proc/self/fd")
    remove_tree(here, "tree", Progress())
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("mode", [0o000, 0o500, 0o100, 0o300])
def test_directories_that_their_owner_locked_are_removed(tmp_path: Path, here: int, mode: int) -> None:
    inner = tmp_path / "tree/locked/inner"
    inner.mkdir(parents=True)
    (inner / "file").touch()
    for directory in (inner, inner.parent, inner.parent.parent):
        directory.chmod(mode)
    remove_tree(here, "tree", Progress())
    assert os.listdir(tmp_path) == []


def test_cancelling_leaves_the_rest(tmp_path: Path, here: int) -> None:
    (tmp_path / "tree").mkdir()
    for number in range(500):
        (tmp_path / "tree" / str(number)).touch()
    progress = Progress()
    progress.cancel()
    before = os.listdir("/proc/self/fd")
    with pytest.raises(CancelledError):
        remove_tree(here, "tree", progress)
    assert 0 < len(os.listdir(tmp_path / "tree")) < 500
    assert os.listdir("/proc/self/fd") == before


def test_what_cannot_be_removed_is_named_and_the_rest_goes(
    tmp_path: Path, here: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for directory in ("a", "b/c", "d"):
        (tmp_path / "tree" / directory).mkdir(parents=True)
        for name in ("1", "stuck", "2"):
            (tmp_path / "tree" / directory / name).touch()
    real = os.unlink

    def unlink(name: str, *, dir_fd: int) -> None:
        if name == "stuck":
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), name)
        real(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", unlink)
    with pytest.raises(StorageError, match=r"tree/.*/stuck could not be removed: .*, and 2 more") as caught:
        remove_tree(here, "tree", Progress())
    monkeypatch.undo()
    assert caught.value.errno == errno.EPERM
    left = sorted(str(path.relative_to(tmp_path / "tree")) for path in (tmp_path / "tree").rglob("*"))
    assert left == ["a", "a/stuck", "b", "b/c", "b/c/stuck", "d", "d/stuck"]


def test_what_is_stuck_deep_down_is_tried_once(
    tmp_path: Path, here: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading every directory above it again would double the work with each level."""
    os.close(make_chain(tmp_path / "tree", 60, files=True))
    tries = []
    real = os.rmdir

    def rmdir(name: str, *, dir_fd: int) -> None:
        tries.append(name)
        if len(tries) == 1:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), name)
        real(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "rmdir", rmdir)
    with pytest.raises(StorageError, match="it is a mount point") as caught:
        remove_tree(here, "tree", Progress())
    monkeypatch.undo()
    assert (caught.value.errno, len(tries)) == (errno.EBUSY, 1)
    assert not list((tmp_path / "tree").rglob("file"))


def test_a_long_path_is_told_shortened(memory: tuple[int, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    here, path = memory
    os.close(make_chain(path / "tree", 3000, files=True))

    def rmdir(name: str, *, dir_fd: int) -> None:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), name)

    monkeypatch.setattr(os, "rmdir", rmdir)
    with pytest.raises(StorageError) as caught:
        remove_tree(here, "tree", Progress())
    assert len(caught.value.sentence) < 400


def test_entries_that_a_file_system_skips_are_found_by_another_pass(
    tmp_path: Path, here: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where an offset in a directory is a count, removing one entry hides another."""
    (tmp_path / "tree/sub").mkdir(parents=True)
    for number in range(200):
        (tmp_path / "tree" / str(number)).touch()
        (tmp_path / "tree/sub" / str(number)).touch()
    real = walking.split

    def skipping(place: walking.Place) -> Iterator[str]:
        names = list(real(place))
        yield from names[: (len(names) + 1) // 2]

    monkeypatch.setattr(walking, "split", skipping)
    remove_tree(here, "tree", Progress())
    assert os.listdir(tmp_path) == []


def test_a_directory_swapped_for_another_one_is_found_by_its_parent(
    tmp_path: Path, here: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    real = os.rmdir
    swapped: list[str] = []

    def rmdir(name: str, *, dir_fd: int) -> None:
        if not swapped:
            swapped.append("sub")
            os.rename(tree / "sub", tree / "aside")
            (tree / "sub").mkdir()
            (tree / "sub/file").touch()
        real(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "rmdir", rmdir)
    remove_tree(here, "tree", Progress())
    monkeypatch.undo()
    assert swapped
    assert os.listdir(tmp_path) == []


def test_an_owner_who_keeps_adding_files_does_not_hold_the_removal_forever(
    tmp_path: Path, here: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tree").mkdir()
    real = os.rmdir

    def rmdir(name: str, *, dir_fd: int) -> None:
        (tmp_path / "tree/one more").touch()
        real(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "rmdir", rmdir)
    with pytest.raises(StorageError, match="tree could not be removed: Directory not empty"):
        remove_tree(here, "tree", Progress())


def test_directories_moved_away_under_the_walk_make_it_begin_again(
    tmp_path: Path, here: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the way up is not the one that the walk came down, it must not go on there."""
    depth = walking.OPEN_LEVELS + 10
    os.close(make_chain(tmp_path / "tree", depth, files=True))
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim/precious").touch()
    real = os.rmdir
    moved: list[str] = []

    def rmdir(name: str, *, dir_fd: int) -> None:
        if not moved:
            # Everything below the fifth level, where the walk is, goes to the victim.
            moved.append("d")
            os.rename(tmp_path / "tree/d/d/d/d/d", tmp_path / "victim/d")
        real(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "rmdir", rmdir)
    remove_tree(here, "tree", Progress())
    monkeypatch.undo()
    assert moved
    assert not (tmp_path / "tree").exists()
    assert (tmp_path / "victim/precious").exists()


def test_a_directory_swapped_for_a_link_again_and_again_is_removed_and_not_followed(
    tmp_path: Path, here: int
) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    for number in range(20):
        (victim / str(number)).touch()
    for _ in range(40):
        tree = tmp_path / "tree"
        for number in range(5):
            (tree / f"sub{number}/deeper").mkdir(parents=True)
            (tree / f"sub{number}/deeper/file").touch()
        begin = threading.Barrier(2)

        def swap(tree: Path = tree, begin: threading.Barrier = begin) -> None:
            begin.wait()
            for number in range(5):
                try:
                    os.rename(tree / f"sub{number}/deeper", tree / f"aside{number}")
                    (tree / f"sub{number}/deeper").symlink_to(victim)
                    os.rename(tree / f"sub{number}", tree / f"away{number}")
                    (tree / f"sub{number}").symlink_to(victim)
                except OSError:
                    return  # removed already

        thread = threading.Thread(target=swap)
        thread.start()
        begin.wait()
        remove_tree(here, "tree", Progress())
        thread.join()
        assert len(os.listdir(victim)) == 20
        assert os.listdir(tmp_path) == ["victim"]


def test_progress_is_told_in_batches(tmp_path: Path, here: int) -> None:
    (tmp_path / "tree").mkdir()
    for number in range(1000):
        (tmp_path / "tree" / str(number)).touch()
    told: list[int] = []

    class Listening(Progress):
        def advance(self, count: int = 1) -> None:
            told.append(count)
            super().advance(count)

    progress = Listening()
    remove_tree(here, "tree", progress)
    assert sum(told) == progress.done == 1001
    assert len(told) <= 1001 // removal._BATCH + 2
