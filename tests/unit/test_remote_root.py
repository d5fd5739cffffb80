"""Roots whose server syncfs(2) does not reach: which files and directories are synced, and when."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fspoolfs.system.descriptors import Descriptor
from fspoolfs.system.paths import HostRoot
from fspoolfs.system.remote import RemoteRoot, open_root


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is synced, by the paths of the descriptors."""
    found: list[str] = []
    really = os.fsync

    def record(fd: int) -> None:
        found.append(os.readlink(f"/proc/self/fd/{fd}"))
        really(fd)

    monkeypatch.setattr(os, "fsync", record)
    return found


@pytest.fixture
def root(tmp_path: Path) -> Iterator[RemoteRoot]:
    root = RemoteRoot(str(tmp_path), Descriptor(os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)))
    root.make_directory("own", mode=0o700)
    root.trust("own")
    yield root
    root.close()


def fail(fd: int) -> None:
    raise OSError(5, "Input/output error")


def test_a_sync_reaches_each_file_that_was_written_since_the_last(
    root: RemoteRoot, synced: list[str], tmp_path: Path
) -> None:
    root.write("own/one", b"1", replace=False, durable=False)
    root.write("own/two", b"2", replace=True, durable=False)
    assert synced == []
    root.sync()
    directories = [str(tmp_path), f"{tmp_path}/own"]
    assert sorted(synced) == sorted([f"{tmp_path}/own/one", f"{tmp_path}/own/two", *directories])
    synced.clear()
    root.sync()
    assert synced == directories


def test_what_was_renamed_meanwhile_is_synced_where_it_is(
    root: RemoteRoot, synced: list[str], tmp_path: Path
) -> None:
    root.write("own/one", b"1", replace=False, durable=False)
    root.rename("own/one", "own/other")
    root.sync()
    assert f"{tmp_path}/own/other" in synced


def test_nothing_is_kept_open_and_what_was_removed_is_forgotten(root: RemoteRoot, synced: list[str]) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for number in range(20):
        root.write(f"own/{number}", b"", replace=False, durable=False)
        root.remove_file(f"own/{number}")
    assert len(os.listdir("/proc/self/fd")) == before
    root.sync()
    assert len(synced) == 2  # the directories


def test_what_failed_is_tried_again(
    root: RemoteRoot, synced: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root.write("own/one", b"1", replace=False, durable=False)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="Input/output"):
            root.sync()
    root.sync()
    assert f"{tmp_path}/own/one" in synced


def test_a_file_that_cannot_be_synced_fails_the_sync(
    root: RemoteRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    root.write("own/one", b"1", replace=False, durable=False)
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        root.sync()


def test_only_servers_of_fuse_need_that(tmp_path: Path) -> None:
    root = open_root(str(tmp_path))
    assert type(root) is HostRoot
    root.close()
