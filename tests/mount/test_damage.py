"""Damaged storage: the object concerned says what is wrong, and everything else goes on working."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from mount.control import ControlTree, last_error, refused, request, value
from support.needs import needs_program, needs_root
from support.shell import run
from support.wait import eventually

pytestmark = [needs_root, pytest.mark.required]


@pytest.fixture
def pool(own_tree: ControlTree) -> Path:
    return own_tree.active_pool()


@pytest.fixture(autouse=True)
def bystander(own_tree: ControlTree) -> Iterator[Path]:
    """A pool that must not notice what happens to another."""
    other = own_tree.active_pool()
    item = own_tree.new_item(other)
    yield other
    eventually(lambda: value(other / "status") == "active", what="the other pool is active")
    assert value(item / "status") == "ready"
    own_tree.new_item(other, "another").rmdir()
    assert (other / "trash" / "another").is_dir()
    assert (own_tree.mount / "metrics").read_text()
    assert own_tree.daemon.is_running


def problem(directory: Path) -> str:
    """The reason that `info` gives for the state of a pool or item."""
    lines = (directory / "info").read_text().splitlines()
    return next((line for line in lines if line.startswith("Problem:")), "")


def restarted(pool: Path) -> None:
    request(pool / "status", "stop")
    request(pool / "status", "start")


@pytest.mark.parametrize(
    "content",
    [b"", b"<fs><name>", b"\0" * 4096, b"<fs><name>other</name></fs>", b"<fs><name>bad</name></fs>"],
    ids=["empty", "torn", "zeros", "another's", "incomplete"],
)
def test_an_item_whose_definition_is_corrupt_has_failed_and_says_why(
    own_tree: ControlTree, pool: Path, content: bytes
) -> None:
    own_tree.daemon.expect_log("bad")
    bad, good = own_tree.new_item(pool, "bad"), own_tree.new_item(pool, "good")
    (bad / "data" / "file").write_text("kept")
    request(pool / "status", "stop")
    stored = Path(os.readlink(pool / "root")) / ".fspool" / "items" / "bad.xml"
    stored.write_bytes(content)
    request(pool / "status", "start")
    assert value(pool / "status") == "active"
    assert value(bad / "status") == "failed"
    assert "bad.xml" in last_error(bad)
    assert value(good / "status") == "ready"
    with refused(errno.EBUSY):
        request(bad / "status", "clone copy")
    assert "bad.xml" in problem(bad), "what it refuses meanwhile takes the place of no reason"
    good.rename(pool / "items" / "still-good")
    assert (Path(os.readlink(pool / "root")) / "bad" / "file").read_text() == "kept"


def test_a_definition_that_is_mended_is_taken_by_a_refresh(own_tree: ControlTree, pool: Path) -> None:
    own_tree.daemon.expect_log("web")
    item = own_tree.new_item(pool)
    uuid = value(item / "uuid")
    stored = Path(os.readlink(pool / "root")) / ".fspool" / "items" / "web.xml"
    right = stored.read_bytes()
    stored.write_bytes(b"junk")
    request(pool / "status", "refresh")
    assert value(item / "status") == "failed"
    stored.write_bytes(right)
    request(pool / "status", "refresh")
    assert (value(item / "status"), value(item / "uuid"), last_error(item)) == ("ready", uuid, "")


@pytest.mark.parametrize("way", ["config.xml", "define"])
def test_a_corrupt_item_is_mended_by_defining_it(own_tree: ControlTree, pool: Path, way: str) -> None:
    own_tree.daemon.expect_log("web")
    item = own_tree.new_item(pool)
    item.chmod(0o2750)
    os.chown(item, 1000, 1001)
    (item / "data" / "file").write_text("kept")
    (Path(os.readlink(pool / "root")) / ".fspool" / "items" / "web.xml").write_bytes(b"junk")
    request(pool / "status", "refresh")
    assert "Owner:          1000:1001\nMode:           2750\n" in (item / "info").read_text()
    document = f"<fs><name>web</name><source fspool='{pool.name}'/></fs>"
    request(item / "config.xml" if way == "config.xml" else own_tree.define, document)
    assert (value(item / "status"), last_error(item), problem(item)) == ("ready", "", "")
    assert "<owner>1000</owner>" in (item / "config.xml").read_text()
    assert "<mode>2750</mode>" in (item / "config.xml").read_text()
    assert (item / "data" / "file").read_text() == "kept"
    restarted(pool)
    assert value(item / "status") == "ready"


@pytest.mark.parametrize("content", [b"", b"junk", b"<fspool type='dir'><name>other</name></fspool>"])
def test_a_pool_whose_definition_is_corrupt_has_failed_and_says_why(
    own_tree: ControlTree, pool: Path, content: bytes
) -> None:
    own_tree.daemon.expect_log(pool.name)
    item = own_tree.new_item(pool)
    own_tree.daemon.stop()
    stored = own_tree.daemon.state / "pools" / f"{pool.name}.xml"
    right = stored.read_bytes()
    stored.write_bytes(content)
    own_tree.daemon.start()
    assert value(pool / "status") == "failed"
    assert stored.name in last_error(pool)
    with refused(errno.EIO):
        request(pool / "status", "start")
    assert stored.read_bytes() == content
    own_tree.daemon.stop()
    stored.write_bytes(right)
    own_tree.daemon.start()
    eventually(lambda: value(pool / "status") == "active", what="the mended pool is active")
    assert value(item / "status") == "ready"


def test_a_file_that_defines_no_pool_is_left_alone(own_tree: ControlTree, pool: Path) -> None:
    own_tree.daemon.stop()
    stray = own_tree.daemon.state / "pools" / f"{pool.name}.xml.orig"
    stray.write_text("junk")
    own_tree.daemon.start()
    assert not [name for name in os.listdir(own_tree.pools) if "orig" in name]
    assert stray.read_text() == "junk"
    assert f"{stray} is no definition of a pool" in own_tree.daemon.log


def test_a_corrupt_pool_is_mended_by_defining_it(own_tree: ControlTree, pool: Path) -> None:
    own_tree.daemon.expect_log(pool.name)
    uuid = value(own_tree.new_item(pool) / "uuid")
    own_tree.daemon.stop()
    (own_tree.daemon.state / "pools" / f"{pool.name}.xml").write_bytes(b"junk")
    own_tree.daemon.start()
    request(own_tree.define, f"<fspool type='dir'><name>{pool.name}</name></fspool>")
    eventually(lambda: value(pool / "status") == "inactive", what="the pool is defined")
    request(pool / "status", "start")
    assert value(pool / "items" / "web" / "uuid") == uuid


@pytest.mark.parametrize("content", [b"", b"junk", b"<pool format='99'/>"])
def test_a_pool_whose_identity_cannot_be_read_does_not_start(
    own_tree: ControlTree, pool: Path, content: bytes
) -> None:
    request(pool / "status", "stop")
    stored = Path(os.readlink(pool / "root")) / ".fspool" / "pool.xml"
    stored.write_bytes(content)
    with refused(errno.EIO, errno.EOPNOTSUPP):
        request(pool / "status", "start")
    assert value(pool / "status") == "failed"
    assert "pool.xml" in last_error(pool)
    assert stored.read_bytes() == content


def test_a_root_that_carries_another_pool_is_refused(own_tree: ControlTree, pool: Path) -> None:
    request(pool / "status", "stop")
    real, uuid = os.readlink(pool / "root"), value(pool / "uuid")
    pool.rmdir()
    other = own_tree.defined_pool(f"<target><path>{real}</path></target>")
    with refused(errno.EEXIST):
        request(other / "status", "start build")
    assert value(other / "status") == "failed"
    assert pool.name in last_error(other)
    assert uuid in last_error(other)


def test_a_pool_whose_root_vanished_fails_and_comes_back_with_it(own_tree: ControlTree, pool: Path) -> None:
    own_tree.daemon.expect_log(pool.name)
    item = own_tree.new_item(pool)
    real = Path(os.readlink(pool / "root"))
    aside = real.with_name("aside")
    real.rename(aside)
    with refused(errno.ESTALE, errno.EIO, errno.ENOENT):
        request(pool / "status", "refresh")
    eventually(lambda: value(pool / "status") == "failed", what="the pool has failed")
    assert str(real) in last_error(pool)
    with refused(errno.ENOMEDIUM):
        (pool / "items" / "another").mkdir()
    assert str(real) in problem(pool)
    with refused(errno.ENOENT):
        request(pool / "status", "start")
    aside.rename(real)
    request(pool / "status", "start")
    assert value(item / "status") == "ready"


def test_a_pool_whose_root_vanished_can_be_stopped(own_tree: ControlTree, pool: Path) -> None:
    own_tree.daemon.expect_log(pool.name)
    own_tree.new_item(pool)
    real = Path(os.readlink(pool / "root"))
    aside = real.with_name("aside")
    real.rename(aside)
    with refused(errno.ESTALE):
        request(pool / "status", "refresh")
    request(pool / "status", "stop")  # as the sentence in last_error says
    assert value(pool / "status") == "inactive"
    aside.rename(real)
    request(pool / "status", "start")
    assert os.listdir(pool / "items") == ["web"]


@needs_program("mount")
def test_a_pool_whose_file_system_is_not_mounted_does_not_start_empty(own_tree: ControlTree) -> None:
    """Else its items would seem lost, and new ones would come to lie on the disk below."""
    place = own_tree.daemon.storage / "place"
    place.mkdir()
    run("mount", "-t", "tmpfs", "tmpfs", place)
    pool = own_tree.defined_pool(f"<target><path>{place}</path></target>")
    own_tree.daemon.expect_log(pool.name)
    request(pool / "status", "start")
    own_tree.new_item(pool)
    request(pool / "autostart", "1")
    request(pool / "status", "stop")
    aside = own_tree.daemon.storage / "aside"
    aside.mkdir()
    run("mount", "--move", place, aside)

    with refused(errno.ENOENT):
        request(pool / "status", "start build")
    assert "mount what belongs there" in problem(pool)
    own_tree.daemon.stop()
    own_tree.daemon.start()
    eventually(lambda: value(pool / "status") == "failed", what="the pool has failed")
    assert os.listdir(place) == []

    run("mount", "--move", aside, place)
    request(pool / "status", "start")
    assert os.listdir(pool / "items") == ["web"]
    request(pool / "status", "stop")
    run("umount", place)
    request(pool / "status", "build overwrite")  # to begin anew has to be said
    request(pool / "status", "start")
    assert os.listdir(pool / "items") == []


def test_a_pool_whose_root_is_missing_at_the_daemons_start_has_failed(
    own_tree: ControlTree, pool: Path
) -> None:
    own_tree.daemon.expect_log(pool.name)
    real = Path(os.readlink(pool / "root"))
    own_tree.daemon.stop()
    shutil.rmtree(real)
    own_tree.daemon.start()
    eventually(lambda: value(pool / "status") == "failed", what="the pool has failed")
    assert "build" in last_error(pool)
    assert not real.exists()


def test_nothing_follows_a_link_that_stands_where_an_item_was(
    own_tree: ControlTree, pool: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("kept")
    tmp_path.chmod(0o755)
    item = own_tree.new_item(pool)
    place = Path(os.readlink(item / "data"))
    place.rmdir()
    place.symlink_to(tmp_path)
    with refused(errno.EEXIST, errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EBUSY):
        item.chmod(0o777)
    with refused(errno.ELOOP, errno.ENOTDIR, errno.EEXIST, errno.ENOENT, errno.EXDEV):
        request(item / "status", "clone copy")
    with refused(errno.ELOOP, errno.ENOTDIR, errno.EEXIST, errno.ENOENT, errno.EXDEV):
        request(item / "status", "measure")
    request(pool / "status", "refresh")
    assert value(item / "status") == "failed"
    assert "not a directory" in last_error(item)
    item.rmdir()
    assert tmp_path.stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("path", [".fspool", ".fspool/items", ".fspool/trash", ".fspool/purge"])
def test_nothing_follows_a_link_that_stands_where_fspoolfs_keeps_its_own(
    own_tree: ControlTree, pool: Path, path: str, tmp_path: Path
) -> None:
    own_tree.new_item(pool)
    request(pool / "status", "stop")
    place = Path(os.readlink(pool / "root")) / path
    place.rename(place.with_name("aside"))
    place.symlink_to(tmp_path)
    with refused(errno.ENOTDIR, errno.ELOOP, errno.EXDEV, errno.EIO):
        request(pool / "status", "start")
    assert value(pool / "status") == "failed"
    assert last_error(pool)
    assert os.listdir(tmp_path) == []


@needs_program("mount")
def test_a_pool_on_a_read_only_root_does_not_start_and_says_why(own_tree: ControlTree, pool: Path) -> None:
    request(pool / "status", "stop")
    real = os.readlink(pool / "root")
    run("mount", "--bind", real, real)
    run("mount", "-o", "remount,bind,ro", real)
    with refused(errno.EROFS):
        request(pool / "status", "start")
    assert value(pool / "status") == "failed"
    assert "ead-only" in last_error(pool)
    assert f"remount the file system that holds {real} for writing, then start" in last_error(pool)
    run("umount", real)
    request(pool / "status", "start")


@pytest.fixture
def full_pool(own_tree: ControlTree) -> Iterator[Path]:
    """A pool on a file system that has no inode left."""
    real = own_tree.daemon.storage / "small"
    real.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=16m,nr_inodes=80", "tmpfs", real)
    pool = own_tree.defined_pool(f"<target><path>{real}</path></target>")
    request(pool / "status", "start")
    with refused(errno.ENOSPC):
        for number in range(200):
            (pool / "items" / f"i{number}").mkdir()
    assert "No space" in last_error(pool)
    yield pool
    request(pool / "status", "stop")


def test_full_storage_refuses_an_item_and_leaves_nothing_of_it(full_pool: Path) -> None:
    made, real = os.listdir(full_pool / "items"), Path(os.readlink(full_pool / "root"))
    assert sorted(set(os.listdir(real)) - {".fspool"}) == sorted(made)
    restarted(full_pool)
    assert sorted(os.listdir(full_pool / "items")) == sorted(made)


def test_full_storage_is_freed_by_deleting_items_and_purging_them(
    own_tree: ControlTree, full_pool: Path
) -> None:
    (full_pool / "items" / "i0").rmdir()  # though there is no room for anything new in the trash
    assert os.listdir(full_pool / "trash") == ["i0"]
    restarted(full_pool)
    assert os.listdir(full_pool / "trash") == ["i0"]
    (full_pool / "trash" / "i0").rmdir()
    purged = Path(os.readlink(full_pool / "root")) / ".fspool" / "purge"
    eventually(lambda: not os.listdir(purged), what="the storage is free")
    own_tree.new_item(full_pool, "again")
