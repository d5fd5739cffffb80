"""Pools on btrfs through the control tree: what only a subvolume does to the life of a pool."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from mount.control import ControlTree, refused, request, value
from support.daemon import MakeDaemon
from support.needs import needs_fuse, needs_program, needs_root
from support.shell import run, sh
from support.volumes import Volumes
from support.wait import eventually

pytestmark = [needs_root, needs_fuse, needs_program("btrfs", "mkfs.btrfs"), pytest.mark.required]


@pytest.fixture
def pool(volumes: Volumes, make_daemon: MakeDaemon) -> Path:
    place = volumes.directory("btrfs-simple")
    return ControlTree(make_daemon()).active_pool(f"<target><path>{place}/pool</path></target>")


def subvolumes(path: Path) -> list[str]:
    """The paths of all subvolumes beneath a directory."""
    listed = sh('btrfs subvolume list -o "$1"', path).stdout.splitlines()
    return [line.split(" path ")[1] for line in listed]


def test_everything_of_an_item_goes_with_it_and_the_pool_can_be_deleted(pool: Path) -> None:
    root = (pool / "root").resolve()
    item = pool / "items" / "web"
    item.mkdir()
    run("btrfs", "subvolume", "create", item / "data" / "." / "nested")
    (item / "snapshots" / "one").mkdir()
    (item / "data" / "file").write_text("later")
    request(item / "status", "rollback one")
    item.rmdir()
    (pool / "trash" / "web").rmdir()
    eventually(lambda: not list((root / ".fspool" / "purge").iterdir()), what="it is purged")
    assert [path for path in subvolumes(root) if "/pool/" in path] == []
    request(pool / "status", "stop")
    request(pool / "status", "delete")
    assert not root.exists()


def test_what_a_killed_daemon_left_to_be_purged_does_not_keep_a_pool_from_being_deleted(pool: Path) -> None:
    root = (pool / "root").resolve()
    item = pool / "items" / "web"
    item.mkdir()
    (item / "data" / "file").write_text("content")
    rubbish = root / ".fspool" / "purge" / "rubbish"
    request(pool / "status", "stop")
    run("btrfs", "subvolume", "snapshot", "-r", root / "web", rubbish)
    with refused(errno.ENOTEMPTY):
        request(pool / "status", "delete")
    request(pool / "status", "start")
    item.rmdir()
    (pool / "trash" / "web").rmdir()
    eventually(lambda: not list((root / ".fspool" / "purge").iterdir()), what="it is purged")
    request(pool / "status", "stop")
    run("btrfs", "subvolume", "create", root / "other")
    run("btrfs", "subvolume", "snapshot", "-r", root / "other", rubbish)
    run("btrfs", "subvolume", "delete", root / "other")
    request(pool / "status", "delete")
    assert value(pool / "status") == "inactive"
    assert not root.exists()


def test_features_of_a_pool_say_what_its_file_system_does(pool: Path) -> None:
    features = (pool / "features").read_text()
    assert "filesystem: btrfs" in features
    assert "quota: yes" in features
    assert "files: no (" in features
