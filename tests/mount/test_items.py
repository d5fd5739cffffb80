"""Items: made, adopted, defined, renamed, cloned, measured, handed over."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from uuid import UUID

import pytest

from mount.control import ControlTree, last_error, refused, request, value
from support.needs import needs_program, needs_root
from support.shell import as_user, run, sh

pytestmark = [needs_root, pytest.mark.required]


def owner(path: Path) -> tuple[int, int, int]:
    info = path.stat()
    return stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid


def test_a_new_item_is_an_empty_directory_of_its_maker(pool: Path) -> None:
    run("mkdir", "-m", "2750", pool / "items" / "web")
    item = pool / "items" / "web"
    assert owner(item) == owner(item / "data") == (0o2750, 0, 0)
    assert os.listdir(item / "data") == []
    assert UUID(value(item / "uuid")).version == 4
    assert value(item / "status") == "ready"


@pytest.mark.parametrize("umask", ["000", "022", "077"])
def test_the_umask_of_mkdir_holds(pool: Path, umask: str) -> None:
    sh('umask "$2"; mkdir "$1/items/web"', pool, umask)
    assert owner(pool / "items" / "web" / "data")[0] == 0o777 & ~int(umask, 8)


def test_an_item_that_exists_is_not_made_again(pool: Path, tree: ControlTree) -> None:
    tree.new_item(pool)
    with refused(errno.EEXIST):
        (pool / "items" / "web").mkdir()


def test_a_mkdir_leaves_alone_what_is_there_and_a_definition_adopts_it(pool: Path, tree: ControlTree) -> None:
    real = Path(os.readlink(pool / "root")) / "old"
    real.mkdir()
    real.chmod(0o2710)
    os.chown(real, 1234, 2345)
    (real / "file").write_text("kept")
    with refused(errno.EEXIST):
        (pool / "items" / "old").mkdir()
    assert "definition" in last_error(pool)
    assert os.listdir(pool / "items") == []
    request(tree.define, f"<fs><name>old</name><source fspool='{pool.name}'/></fs>")
    item = pool / "items" / "old"
    assert owner(item) == owner(real) == (0o2710, 1234, 2345)
    assert (item / "data" / "file").read_text() == "kept"


def test_an_adopted_directory_gets_what_the_document_says(pool: Path, tree: ControlTree) -> None:
    real = Path(os.readlink(pool / "root")) / "deep" / "old"
    real.mkdir(parents=True)
    os.chown(real, 1234, 2345)
    request(
        tree.define,
        f"<fs><name>i</name><source fspool='{pool.name}'/><target><path>/deep/old</path></target>"
        "<permissions><mode>0700</mode><owner>107</owner></permissions></fs>",
    )
    assert owner(pool / "items" / "i") == owner(real) == (0o700, 107, 2345)


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_is_no_directory_is_never_adopted(pool: Path, tree: ControlTree, kind: str) -> None:
    place = Path(os.readlink(pool / "root")) / "old"
    if kind == "file":
        place.write_text("kept")
    else:
        place.symlink_to("/etc")
    with refused(errno.EEXIST):
        request(tree.define, f"<fs><name>old</name><source fspool='{pool.name}'/></fs>")
    with refused(errno.EEXIST):
        (pool / "items" / "old").mkdir()
    assert place.is_symlink() == (kind == "link")


def test_items_do_not_lie_inside_one_another(pool: Path, tree: ControlTree) -> None:
    def define(name: str, path: str) -> None:
        target = f"<target><path>{path}</path></target>"
        request(tree.define, f"<fs><name>{name}</name><source fspool='{pool.name}'/>{target}</fs>")

    define("middle", "/a/b")
    for path in ("/a", "/a/b", "/a/b/c"):
        with refused(errno.EEXIST):
            define("other", path)
        assert "middle" in last_error(pool) or "inside" in last_error(pool)
    define("beside", "/a/bb")


def test_a_definition_of_an_item_that_exists_changes_it(pool: Path, tree: ControlTree) -> None:
    item = tree.new_item(pool)
    uuid = value(item / "uuid")
    document = f"<fs><name>web</name><source fspool='{pool.name}'/>"
    request(tree.define, f"{document}<permissions><mode>1770</mode></permissions></fs>")
    assert owner(item / "data")[0] == 0o1770
    assert value(item / "uuid") == uuid


@pytest.mark.parametrize(
    ("inner", "number"),
    [
        ("<uuid>00000000-0000-4000-8000-000000000001</uuid>", errno.EPERM),
        ("<target><path>/elsewhere</path></target>", errno.EPERM),
        ("<source fspool='other'/>", errno.EINVAL),
        ("<source fs='another'/>", errno.EPERM),
    ],
    ids=["uuid", "path", "pool", "origin"],
)
def test_what_an_item_is_for_good_cannot_be_redefined(
    pool: Path, tree: ControlTree, inner: str, number: int
) -> None:
    item = tree.new_item(pool)
    before = (item / "config.xml").read_text()
    with refused(number):
        request(item / "config.xml", f"<fs><name>web</name>{inner}</fs>")
    assert "web" in last_error(item)
    assert (item / "config.xml").read_text() == before


def test_the_uuid_of_an_item_is_its_alone(pool: Path, tree: ControlTree) -> None:
    uuid = value(tree.new_item(pool) / "uuid")
    for place in ("item web", "trash"):
        with refused(errno.EEXIST):
            request(
                tree.define,
                f"<fs><name>two</name><uuid>{uuid}</uuid><source fspool='{pool.name}'/></fs>",
            )
        assert place in last_error(pool)
        if (pool / "items" / "web").exists():
            (pool / "items" / "web").rmdir()


# Owners and modes


@needs_program("chown", "chmod")
def test_chmod_and_chown_of_an_item_change_the_real_directory(pool: Path, tree: ControlTree) -> None:
    item = tree.new_item(pool)
    run("chmod", "3701", item)
    run("chown", "107:108", item)
    assert owner(item) == owner(item / "data") == (0o3701, 107, 108)
    run("chmod", "u+x,g=rx,o=,g-s,-t", item)
    run("chgrp", "109", item)
    assert owner(item) == owner(item / "data") == (0o750, 107, 109)
    text = (item / "config.xml").read_text()
    assert all(part in text for part in ("<mode>0750<", "<owner>107<", "<group>109<"))


def test_the_owner_of_an_item_owns_its_control_files_but_not_its_size(pool: Path, tree: ControlTree) -> None:
    item, user = tree.new_item(pool), as_user(107)
    os.chown(item, 107, 107)
    sh('echo measure > "$1/status"', item, user=user)
    sh('chmod 700 "$1"', item, user=user)
    sh('sed -i s/0700/0711/ "$1/config.xml"', item, user=user)
    assert owner(item / "data")[0] == 0o711
    for line in ('echo none > "$1/capacity"', 'chown 0 "$1"', 'rmdir "$1"'):
        assert sh(line, item, user=user, check=False).returncode != 0


def test_whoever_may_write_in_items_makes_items_of_his_own(tree: ControlTree) -> None:
    pool = tree.active_pool("<target><permissions><mode>1777</mode></permissions></target>")
    mine, his = as_user(107), as_user(108)
    sh('mkdir "$1/items/mine" && echo x > "$1/items/mine/data/file"', pool, user=mine)
    assert owner(pool / "items" / "mine" / "data")[1:] == (107, 107)
    for line in (
        'rmdir "$1/items/mine"',
        'mv "$1/items/mine" "$1/items/his"',
        'echo > "$1/items/mine/data/x"',
    ):
        assert sh(line, pool, user=his, check=False).returncode != 0
    sh('mv "$1/items/mine" "$1/items/own" && rmdir "$1/items/own"', pool, user=mine)


def test_a_user_defines_items_only_where_he_may(tree: ControlTree) -> None:
    closed = tree.active_pool()
    shared = tree.active_pool(
        "<target><permissions><mode>0770</mode><group>108</group></permissions></target>"
    )
    line = 'echo "<fs><name>i</name><source fspool=\'$2\'/></fs>" > "$1"'
    user = as_user(107, 108)
    assert "Permission denied" in sh(line, tree.define, closed.name, user=user, check=False).stderr
    sh(line, tree.define, shared.name, user=user)
    assert owner(shared / "items" / "i" / "data")[1:] == (107, 108)
    pool = sh(
        'echo "<fspool type=\'dir\'><name>x</name></fspool>" > "$1"', tree.define, user=user, check=False
    )
    assert "Permission denied" in pool.stderr


# Rename


def test_a_renamed_item_is_the_same_item(pool: Path, tree: ControlTree) -> None:
    item = tree.new_item(pool)
    (item / "data" / "file").write_text("kept")
    uuid = value(item / "uuid")
    run("mv", item, pool / "items" / "shop")
    moved = pool / "items" / "shop"
    assert os.listdir(pool / "items") == ["shop"]
    assert value(moved / "uuid") == uuid
    assert os.readlink(moved / "data").endswith(f"{pool.name}/shop")
    assert (moved / "data" / "file").read_text() == "kept"
    assert "<name>shop</name>" in (moved / "config.xml").read_text()
    assert not item.exists()
    places = f"/pools/{pool.name}/items"
    assert f"rename {places}/web uid=0 to {places}/shop\n" in tree.daemon.log


def test_an_item_with_a_path_of_its_own_stays_there_under_another_name(pool: Path, tree: ControlTree) -> None:
    target = "<target><path>/customers/one</path></target>"
    request(tree.define, f"<fs><name>one</name><source fspool='{pool.name}'/>{target}</fs>")
    (pool / "items" / "one").rename(pool / "items" / "two")
    assert os.readlink(pool / "items" / "two" / "data").endswith("/customers/one")


def test_a_rename_onto_what_is_there_is_refused(pool: Path, tree: ControlTree) -> None:
    item, other = tree.new_item(pool), tree.new_item(pool, "other")
    (other / "data" / "file").write_text("kept")
    with refused(errno.EEXIST, errno.ENOTEMPTY):
        item.rename(other)
    (Path(os.readlink(pool / "root")) / "stray").mkdir()
    with refused(errno.EEXIST):
        item.rename(pool / "items" / "stray")
    assert sorted(os.listdir(pool / "items")) == ["other", "web"]
    assert (other / "data" / "file").read_text() == "kept"


def test_an_item_stays_in_its_pool(pool: Path, tree: ControlTree) -> None:
    item, other = tree.new_item(pool), tree.active_pool()
    for target in (other / "items" / "web", pool / "web", tree.pools / "web", pool / "trash" / "web"):
        with refused(errno.EPERM, errno.EXDEV):
            item.rename(target)
    with refused(errno.EPERM):
        pool.rename(tree.pools / "renamed")


def test_an_item_in_use_is_neither_renamed_nor_deleted_and_the_user_is_named(
    pool: Path, tree: ControlTree, tmp_path: Path
) -> None:
    item = tree.new_item(pool)
    run("mount", "--bind", os.readlink(item / "data"), tmp_path)
    try:
        with refused(errno.EBUSY):
            item.rmdir()
        assert str(tmp_path) in last_error(pool) + last_error(item)
        with refused(errno.EBUSY):
            item.rename(pool / "items" / "other")
        with refused(errno.EBUSY):
            request(pool / "status", "stop")
        assert str(tmp_path) in last_error(pool)
        users = (item / "users").read_text().splitlines()
        pid = users[0].split()[0]
        assert os.readlink(f"/proc/{pid}/ns/mnt") == os.readlink("/proc/self/ns/mnt")
        assert users[0].endswith(f" {tmp_path}")
    finally:
        run("umount", tmp_path)
    assert (item / "users").read_text() == ""
    item.rmdir()


# Clone and measure


def test_a_clone_holds_what_its_original_holds(pool: Path, tree: ControlTree) -> None:
    item = tree.new_item(pool)
    data = item / "data"
    os.chown(item, 107, 108)
    item.chmod(0o750)
    (data / "dir").mkdir()
    (data / "dir" / "file").write_text("content")
    os.chown(data / "dir" / "file", 1, 2)
    (data / "link").symlink_to("/etc/passwd")
    os.mkfifo(data / "fifo")
    os.setxattr(data / "dir" / "file", "user.note", b"kept")
    request(item / "status", "clone copy")
    copy = pool / "items" / "copy"
    assert owner(copy) == owner(item) == (0o750, 107, 108)
    assert value(copy / "uuid") != value(item / "uuid")
    assert (copy / "data" / "dir" / "file").read_text() == "content"
    assert owner(copy / "data" / "dir" / "file")[1:] == (1, 2)
    assert os.getxattr(copy / "data" / "dir" / "file", "user.note") == b"kept"
    assert os.readlink(copy / "data" / "link") == "/etc/passwd"
    assert stat.S_ISFIFO((copy / "data" / "fifo").stat().st_mode)
    (copy / "data" / "dir" / "file").write_text("changed")
    assert (data / "dir" / "file").read_text() == "content"
    assert "fs='web'" in (copy / "config.xml").read_text()


def test_a_clone_can_be_defined_by_a_document(pool: Path, tree: ControlTree) -> None:
    (tree.new_item(pool) / "data" / "file").write_text("content")
    request(tree.define, f"<fs><name>copy</name><source fspool='{pool.name}' fs='web'/></fs>")
    assert (pool / "items" / "copy" / "data" / "file").read_text() == "content"


def test_a_clone_needs_an_original_and_a_free_name(pool: Path, tree: ControlTree) -> None:
    item = tree.new_item(pool)
    with refused(errno.EEXIST):
        request(item / "status", "clone web")
    with refused(errno.ENOENT):
        request(tree.define, f"<fs><name>copy</name><source fspool='{pool.name}' fs='none'/></fs>")
    (Path(os.readlink(pool / "root")) / "stray").mkdir()
    with refused(errno.EEXIST):
        request(item / "status", "clone stray")
    assert os.listdir(pool / "items") == ["web"]
    assert os.listdir(Path(os.readlink(pool / "root")) / ".fspool" / "staging") == []


def test_what_was_measured_is_shown(pool: Path, tree: ControlTree) -> None:
    item = tree.new_item(pool)
    assert value(item / "allocation") == "unknown"
    (item / "data" / "file").write_bytes(b"x" * 100_000)
    (item / "data" / "file").open("rb").close()
    os.sync()
    request(item / "status", "measure")
    used = int(run("du", "-s", "--block-size=1", os.readlink(item / "data")).stdout.split()[0])
    assert int(value(item / "allocation")) == used
    assert "in 2 files and directories" in (item / "info").read_text()
