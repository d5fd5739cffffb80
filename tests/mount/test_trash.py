"""Deleted items: kept in the trash, brought back by mv, purged by rmdir or by age."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from mount.control import ControlTree, last_error, refused, request, value
from support.needs import needs_root
from support.shell import run
from support.wait import eventually

pytestmark = [needs_root, pytest.mark.required]


def filled(tree: ControlTree, pool: Path, name: str = "web") -> Path:
    item = tree.new_item(pool, name)
    (item / "data" / "dir").mkdir()
    (item / "data" / "dir" / "file").write_text("content")
    return item


def storage_is_free(pool: Path) -> bool:
    """Whether nothing is left of what was deleted."""
    own = Path(os.readlink(pool / "root")) / ".fspool"
    return not os.listdir(own / "trash") and not os.listdir(own / "purge")


def test_a_deleted_item_is_in_the_trash_with_all_that_it_holds(tree: ControlTree, pool: Path) -> None:
    item = filled(tree, pool)
    uuid, real = value(item / "uuid"), Path(os.readlink(item / "data"))
    printed = (item / "config.xml").read_text()
    item.rmdir()
    assert os.listdir(pool / "items") == []
    assert not real.exists()
    deleted = pool / "trash" / "web"
    assert set(os.listdir(deleted)) == {"config.xml", "info", "uuid", "last_error"}
    assert value(deleted / "uuid") == uuid
    assert "Purged after:" in (deleted / "info").read_text()
    assert (deleted / "config.xml").read_text() == printed


def test_a_deleted_item_comes_back_by_mv(tree: ControlTree, pool: Path) -> None:
    item = filled(tree, pool)
    os.chown(item, 107, 108)
    item.chmod(0o2750)
    before, config = item.stat(), (item / "config.xml").read_text()
    item.rmdir()
    run("mv", pool / "trash" / "web", pool / "items" / "web")
    assert (item / "data" / "dir" / "file").read_text() == "content"
    assert (item / "config.xml").read_text() == config
    after = item.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert os.listdir(pool / "trash") == []
    assert value(item / "status") == "ready"


def test_a_deleted_item_comes_back_under_another_name(tree: ControlTree, pool: Path) -> None:
    filled(tree, pool).rmdir()
    run("mv", pool / "trash" / "web", pool / "items" / "shop")
    assert (pool / "items" / "shop" / "data" / "dir" / "file").read_text() == "content"
    assert "<name>shop</name>" in (pool / "items" / "shop" / "config.xml").read_text()


def test_an_item_that_came_back_is_an_item_like_any_other(tree: ControlTree, pool: Path) -> None:
    item = filled(tree, pool)
    for _ in range(3):
        item.rmdir()
        (pool / "trash" / "web").rename(item)
        item.chmod(0o700)
        (item / "data" / "more").touch()
        request(item / "status", "measure")
        item.rename(pool / "items" / "other")
        (pool / "items" / "other").rename(item)
    assert os.listdir(pool / "trash") == []


def test_a_second_deleted_item_of_one_name_keeps_the_first(tree: ControlTree, pool: Path) -> None:
    uuids = set()
    for _ in range(4):
        item = filled(tree, pool)
        uuids.add(value(item / "uuid"))
        item.rmdir()
    names = os.listdir(pool / "trash")
    assert len(names) == 4
    assert "web" in names
    assert all(name.startswith("web") for name in names)
    assert {value(pool / "trash" / name / "uuid") for name in names} == uuids
    for name in names:
        (pool / "trash" / name).rename(pool / "items" / f"back-{name}".replace("@", "-"))
    assert {value(pool / "items" / name / "uuid") for name in os.listdir(pool / "items")} == uuids


def test_a_deleted_item_does_not_replace_one_that_is_there(tree: ControlTree, pool: Path) -> None:
    filled(tree, pool).rmdir()
    item = tree.new_item(pool)
    with refused(errno.EEXIST, errno.ENOTEMPTY):
        (pool / "trash" / "web").rename(item)
    assert os.listdir(pool / "trash") == ["web"]
    (Path(os.readlink(pool / "root")) / "stray").mkdir()
    with refused(errno.EEXIST):
        (pool / "trash" / "web").rename(pool / "items" / "stray")
    assert os.listdir(pool / "trash") == ["web"]
    assert os.listdir(pool / "items") == ["web"]


def test_a_deleted_item_goes_nowhere_else(tree: ControlTree, pool: Path) -> None:
    filled(tree, pool).rmdir()
    other = tree.active_pool()
    for target in (pool / "trash" / "b", pool / "web", other / "items" / "web", other / "trash" / "web"):
        with refused(errno.EPERM):
            (pool / "trash" / "web").rename(target)
    assert "items/" in last_error(pool / "trash" / "web") + last_error(pool)


@pytest.mark.parametrize("name", [".web", "-web", "a" * 201])
def test_a_deleted_item_comes_back_under_no_bad_name(tree: ControlTree, pool: Path, name: str) -> None:
    filled(tree, pool).rmdir()
    with refused(errno.EINVAL):
        (pool / "trash" / "web").rename(pool / "items" / name)
    assert os.listdir(pool / "trash") == ["web"]


def test_a_purged_item_is_gone_for_good(tree: ControlTree, pool: Path) -> None:
    filled(tree, pool).rmdir()
    (pool / "trash" / "web").rmdir()
    assert os.listdir(pool / "trash") == []
    eventually(lambda: storage_is_free(pool), what="the storage of a purged item is free")
    assert os.listdir(Path(os.readlink(pool / "root"))) == [".fspool"]


def test_nothing_in_the_trash_can_be_changed(tree: ControlTree, pool: Path) -> None:
    filled(tree, pool).rmdir()
    deleted = pool / "trash" / "web"
    for name in os.listdir(deleted):
        with refused(errno.EPERM, errno.EACCES):
            request(deleted / name, "x")
        with refused(errno.EPERM):
            (deleted / name).unlink()
    with refused(errno.EPERM):
        deleted.chmod(0o777)


def test_a_pool_without_retention_purges_at_once_in_the_background(tree: ControlTree) -> None:
    pool = tree.active_pool("<trash retention='none'/>")
    filled(tree, pool).rmdir()
    assert os.listdir(pool / "trash") == []
    eventually(lambda: storage_is_free(pool), what="the storage of a deleted item is free")
    assert "keeps:    nothing" in (pool / "info").read_text()


def test_what_has_been_kept_long_enough_is_purged(tree: ControlTree) -> None:
    pool = tree.active_pool("<trash retention='1s'/>")
    filled(tree, pool).rmdir()
    eventually(lambda: not os.listdir(pool / "trash"), what="an old deleted item is purged")
    eventually(lambda: storage_is_free(pool), what="its storage is free")


def test_a_shorter_retention_holds_for_what_is_in_the_trash_already(tree: ControlTree, pool: Path) -> None:
    filled(tree, pool).rmdir()
    request(
        pool / "config.xml",
        f"<fspool type='dir'><name>{pool.name}</name><trash retention='1s'/></fspool>",
    )
    eventually(lambda: not os.listdir(pool / "trash"), what="an old deleted item is purged")


def test_the_trash_is_kept_while_the_pool_is_stopped(tree: ControlTree, pool: Path) -> None:
    filled(tree, pool).rmdir()
    filled(tree, pool).rmdir()
    names = sorted(os.listdir(pool / "trash"))
    request(pool / "status", "stop")
    eventually(lambda: not os.listdir(pool / "trash"), what="a stopped pool shows no trash")
    request(pool / "status", "start")
    assert sorted(os.listdir(pool / "trash")) == names
    (pool / "trash" / "web").rename(pool / "items" / "web")
    assert (pool / "items" / "web" / "data" / "dir" / "file").read_text() == "content"


def test_an_item_that_belongs_to_a_user_is_purged_whatever_is_in_it(tree: ControlTree, pool: Path) -> None:
    item = filled(tree, pool)
    data = item / "data"
    os.mkfifo(data / "fifo")
    (data / "link").symlink_to("/")
    (data / "closed").mkdir(mode=0)
    (data / "deep").joinpath(*["d" * 100] * 30).mkdir(parents=True)
    item.rmdir()
    (pool / "trash" / "web").rmdir()
    eventually(lambda: storage_is_free(pool), what="the storage is free")
    assert Path("/etc/passwd").exists()


def test_deleting_an_item_that_is_not_there_says_so(pool: Path) -> None:
    for directory in ("items", "trash"):
        with refused(errno.ENOENT):
            (pool / directory / "none").rmdir()
