"""Pools of format zfs through a real daemon: items, snapshots and clones are datasets of a zpool."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mount.control import last_error, refused, request, value
from root.volume_pools import SIZE, define, image_of, loops_of, options_at, root_of
from root.zfs_pools import MARKS, datasets, zfs_pool, zpool_of  # noqa: F401
from support.daemon import Daemon, MakeDaemon
from support.machine import is_mounted, mounts
from support.shell import run
from support.wait import eventually
from support.zfs import ZfsFuse

pytestmark = MARKS

MIB = 1 << 20


@contextmanager
def bound(place: Path) -> Iterator[int]:
    """A process that has mounted `place` in a mount namespace of its own; its number."""
    script = f"mount --bind {place} /mnt && echo ready && exec sleep 600"
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process.pid
        finally:
            process.kill()


def fill(item: Path, mebibytes: int) -> str:
    """What dd says about writing that much into an item."""
    argv = ("dd", "if=/dev/zero", f"of={item}/data/full", "bs=1M", f"count={mebibytes}")
    return run(*argv, check=False).stderr


# Items.


def test_an_item_is_a_dataset_mounted_in_its_place(pool: Path) -> None:
    item = pool / "items" / "web"
    item.mkdir()
    place = root_of(pool) / "web"
    assert is_mounted(place)
    assert {"nosuid", "nodev"} <= set(options_at(place))
    assert datasets(pool) == {value(item / "uuid").replace("-", "")}
    assert os.listdir(place) == []


def test_an_item_below_other_directories(pool: Path, daemon: Daemon) -> None:
    path = "<target><path>/customers/north/deep</path></target>"
    request(daemon.mount / "define", f"<fs><name>deep</name><source fspool='tank'/>{path}</fs>")
    place = root_of(pool) / "customers" / "north" / "deep"
    assert is_mounted(place)
    (pool / "items" / "deep").rmdir()
    eventually(lambda: datasets(pool) == set(), what="the dataset is destroyed")
    assert not (root_of(pool) / "customers").exists()


def test_a_capacity_is_enforced_and_can_be_changed_while_the_item_is_full(pool: Path) -> None:
    item = pool / "items" / "web"
    item.mkdir()
    request(item / "capacity", str(8 * MIB))
    assert "quota exceeded" in fill(item, 32)
    assert os.statvfs(root_of(pool) / "web").f_blocks * os.statvfs(root_of(pool) / "web").f_frsize < 9 * MIB
    os.chmod(item, 0o2770)
    assert (root_of(pool) / "web").stat().st_mode & 0o7777 == 0o2770
    request(item / "capacity", str(64 * MIB))
    assert fill(item, 32).strip().splitlines()[-1].startswith("33554432 bytes")
    eventually(lambda: int(value(item / "allocation")) > 32 * MIB, what="zfs has counted what was written")
    with refused(errno.EBUSY):
        request(item / "capacity", str(8 * MIB))
    request(item / "capacity", "none")


def test_a_renamed_item_keeps_its_mount_for_who_uses_it(pool: Path) -> None:
    (pool / "items" / "web").mkdir()
    with (root_of(pool) / "web" / "file").open("w") as file:
        (pool / "items" / "web").rename(pool / "items" / "shop")
        file.write("written on")
    assert not (root_of(pool) / "web").exists()
    assert (root_of(pool) / "shop" / "file").read_text() == "written on"


def test_an_item_that_a_container_has_mounted_is_neither_deleted_nor_rolled_back(pool: Path) -> None:
    item = pool / "items" / "web"
    item.mkdir()
    (item / "snapshots" / "one").mkdir()
    with bound(root_of(pool) / "web") as pid:
        assert value(item / "users").startswith(f"{pid} ")
        for refusal in (item.rmdir, lambda: request(item / "status", "rollback one")):
            with refused(errno.EBUSY):
                refusal()
        with refused(errno.EBUSY):
            request(pool / "status", "stop")
        assert value(pool / "status") == "active"
        assert is_mounted(root_of(pool) / "web")
    request(pool / "status", "stop")


def test_a_directory_that_was_there_is_taken_over_and_cloned_into_a_dataset(
    pool: Path, daemon: Daemon
) -> None:
    plain = root_of(pool) / "old"
    plain.mkdir()
    (plain / "file").write_text("kept")
    item = "<fs><name>old</name>{}<source fspool='tank'/></fs>"
    with refused(errno.EOPNOTSUPP):
        request(daemon.mount / "define", item.format(f"<capacity>{MIB}</capacity>"))
    request(daemon.mount / "define", item.format(""))
    request(pool / "items" / "old" / "status", "clone new")
    assert (root_of(pool) / "new" / "file").read_text() == "kept"
    assert not is_mounted(plain)
    assert is_mounted(root_of(pool) / "new")
    (pool / "items" / "old" / "snapshots" / "one").mkdir()
    assert (pool / "items" / "old" / "snapshots" / "one" / "data" / "file").read_text() == "kept"


def test_a_process_that_stands_in_an_item_keeps_its_pool_from_stopping(pool: Path) -> None:
    (pool / "items" / "web").mkdir()
    (pool / "items" / "db").mkdir()
    root = root_of(pool)
    with subprocess.Popen(["sleep", "600"], cwd=root / "web") as process:
        with refused(errno.EBUSY):
            request(pool / "status", "stop")
        assert f"in use by process {process.pid} (sleep) at {root}/web; end that" in last_error(pool)
        assert is_mounted(root / "db")
        process.kill()
    request(pool / "status", "stop")


def test_a_directory_that_was_taken_over_cannot_pass_itself_off_as_a_dataset(
    pool: Path, daemon: Daemon
) -> None:
    web = pool / "items" / "web"
    web.mkdir()
    (web / "data" / "file").write_text("kept")
    plain = root_of(pool) / "old"
    plain.mkdir()
    (plain / "dataset").symlink_to(value(web / "uuid").replace("-", ""))
    for place in (plain, plain / "dataset"):
        os.chown(place, 4711, 4711, follow_symlinks=False)
    request(daemon.mount / "define", "<fs><name>old</name><source fspool='tank'/></fs>")
    (pool / "items" / "old").rmdir()
    eventually(lambda: not os.listdir(root_of(pool) / ".fspool" / "purge"), what="it is purged")
    assert (web / "data" / "file").read_text() == "kept"
    assert is_mounted(root_of(pool) / "web")


# Snapshots.


def test_snapshots_are_seen_read_only_through_renames_and_rollbacks(pool: Path) -> None:
    item = pool / "items" / "web"
    item.mkdir()
    for name in ("one", "two"):
        (item / "data" / "file").write_text(name)
        (item / "snapshots" / name).mkdir()
    (item / "data" / "file").write_text("three")
    request(item / "status", "rollback one")
    (kept,) = {one.name for one in (item / "snapshots").iterdir()} - {"one", "two"}
    (item / "snapshots" / "one").rename(item / "snapshots" / "first")
    seen = {one.name: (one / "data" / "file").read_text() for one in (item / "snapshots").iterdir()}
    assert seen == {"first": "one", "two": "two", kept: "three"}
    assert (item / "data" / "file").read_text() == "one"
    for name in seen:
        with refused(errno.EROFS):
            (item / "snapshots" / name / "data" / "new").touch()


def test_a_rollback_of_a_full_item(pool: Path) -> None:
    item = pool / "items" / "web"
    item.mkdir()
    request(item / "capacity", str(8 * MIB))
    fill(item, 32)
    (item / "snapshots" / "full").mkdir()
    (item / "data" / "full").unlink()
    request(item / "status", "rollback full")
    assert (item / "data" / "full").stat().st_size > 7 * MIB
    assert "quota exceeded" in fill(item, 32)


@pytest.mark.parametrize("first", ["origin", "clone", "snapshot"])
def test_what_shares_blocks_is_deleted_in_any_order(pool: Path, first: str) -> None:
    item, clone = pool / "items" / "web", pool / "items" / "clone"
    item.mkdir()
    (item / "data" / "file").write_text("shared")
    (item / "snapshots" / "one").mkdir()
    request(item / "status", "clone clone one")
    steps = {
        "snapshot": (item / "snapshots" / "one").rmdir,
        "origin": item.rmdir,
        "clone": clone.rmdir,
    }
    steps.pop(first)()
    survivor = clone if first == "origin" else item
    assert (survivor / "data" / "file").read_text() == "shared"
    for step in steps.values():
        if first != "origin" or step != (item / "snapshots" / "one").rmdir:
            try:
                step()
            except FileNotFoundError:
                assert first == "origin", "a snapshot goes with its item"
    eventually(lambda: datasets(pool) == set(), what="no dataset and no snapshot is left")


def test_everything_is_there_after_a_stop_and_a_start(pool: Path) -> None:
    item = pool / "items" / "web"
    item.mkdir()
    (item / "data" / "file").write_text("kept")
    (item / "snapshots" / "one").mkdir()
    before = datasets(pool)
    request(pool / "status", "stop")
    assert zpool_of(pool) not in run("zpool", "list", "-H", "-o", "name").stdout
    request(pool / "status", "start")
    assert (item / "data" / "file").read_text() == "kept"
    assert (item / "snapshots" / "one" / "data" / "file").read_text() == "kept"
    assert datasets(pool) == before


# What goes wrong.


def test_what_an_interrupted_operation_left_is_gone_after_the_next_start(pool: Path) -> None:
    item = pool / "items" / "web"
    item.mkdir()
    (item / "data" / "file").write_text("kept")
    before, name = datasets(pool), zpool_of(pool)
    own = value(item / "uuid").replace("-", "")
    # Where a daemon can be killed: a dataset without its directory, a snapshot without its clone, and both.
    run("zfs", "create", "-o", "canmount=noauto", f"{name}/{'a' * 32}")
    run("zfs", "snapshot", f"{name}/{own}@fspoolfs-{'b' * 32}")
    run("zfs", "snapshot", f"{name}/{own}@fspoolfs-{'c' * 32}")
    run("zfs", "clone", "-o", "canmount=noauto", f"{name}/{own}@fspoolfs-{'c' * 32}", f"{name}/{'c' * 32}")
    run("zfs", "snapshot", f"{name}/{own}@admins")
    request(pool / "status", "stop")
    request(pool / "status", "start")
    assert datasets(pool) == {*before, f"{own}@admins"}
    assert (item / "data" / "file").read_text() == "kept"


def test_a_zpool_of_the_same_name_is_left_alone(pool: Path, tmp_path: Path) -> None:
    request(pool / "status", "stop")
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(SIZE)
    run("zpool", "create", "-o", "cachefile=none", "-O", "mountpoint=none", zpool_of(pool), image)
    try:
        with refused(errno.EBUSY):
            request(pool / "status", "start")
        assert "zpool export" in last_error(pool)
    finally:
        run("zpool", "destroy", zpool_of(pool))
    request(pool / "status", "start")


def test_a_copy_of_a_volume_is_not_taken_for_the_volume(
    pool: Path, daemon: Daemon, make_daemon: MakeDaemon
) -> None:
    other = make_daemon()
    request(pool / "status", "stop")
    image_of(other, "tank").parent.mkdir(parents=True)
    run("cp", "--sparse=always", image_of(daemon, "tank"), image_of(other, "tank"))
    request(pool / "status", "start")
    copy = define(other, "tank", "zfs", size=None)
    assert value(copy / "uuid") == value(pool / "uuid")
    with refused(errno.EBUSY):
        request(copy / "status", "start")
    assert "imported on this host from another device" in last_error(copy)
    assert value(pool / "status") == "active"


def test_foreign_zpools_are_not_overwritten(daemon: Daemon, tmp_path: Path) -> None:
    pool = define(daemon, "tank", "zfs")
    image = image_of(daemon, "tank")
    image.parent.mkdir(parents=True)
    with image.open("wb") as file:
        file.truncate(SIZE)
    token = tmp_path.name.replace("_", "-")
    run("zpool", "create", "-o", "cachefile=none", "-O", "mountpoint=none", f"theirs{token}", image)
    run("zpool", "export", f"theirs{token}")
    for verb in ("build", "start"):
        with refused(errno.EEXIST):
            request(pool / "status", verb)
        assert "theirs" in last_error(pool)
    request(pool / "status", "build overwrite")
    request(pool / "status", "start")
    request(pool / "status", "stop")


def test_what_zfs_cannot_is_refused(pool: Path, daemon: Daemon) -> None:
    item = pool / "items" / "web"
    item.mkdir()
    with refused(errno.EOPNOTSUPP):
        request(item / "config.xml", "<fs><name>web</name><files>10</files></fs>")
    with refused(errno.EOPNOTSUPP):
        request(pool / "capacity", str(SIZE // 2))
    options = "<pool name='images'/><volume name='x'/><options>compress=on</options>"
    with refused(errno.EINVAL):
        define(daemon, "x", "zfs", source=options)


def test_a_pool_grows_while_it_is_active_where_zfs_lets_it(pool: Path, usable_zfs: ZfsFuse | None) -> None:
    def size() -> int:
        numbers = os.statvfs(root_of(pool))
        return numbers.f_blocks * numbers.f_frsize

    assert size() < SIZE
    if usable_zfs is None:
        request(pool / "capacity", str(SIZE * 2))
    else:
        with refused(errno.EOPNOTSUPP):
            request(pool / "capacity", str(SIZE * 2))
        assert "stop it, write the capacity again" in last_error(pool)
        request(pool / "status", "stop")
        request(pool / "capacity", str(SIZE * 2))
        request(pool / "status", "start")
    assert value(pool / "capacity") == str(SIZE * 2)
    assert size() > SIZE


def test_a_destroyed_pool_leaves_no_mount_in_its_place_and_comes_back(pool: Path, daemon: Daemon) -> None:
    item = pool / "items" / "web"
    item.mkdir()
    (item / "snapshots" / "one").mkdir()
    root = root_of(pool)
    with (root / "web" / "file").open("w") as file:
        request(pool / "status", "destroy")
        assert not any(mount.point.startswith(f"{root}") for mount in mounts())
        file.write("written ")
        file.flush()
        request(pool / "status", "start")
        assert (item / "data" / "file").read_text() == "written "
        request(pool / "status", "destroy")
        file.write("on")
    request(pool / "status", "start")
    assert (item / "data" / "file").read_text() == "written on"
    request(pool / "status", "stop")
    assert loops_of(daemon) == []
    assert zpool_of(pool) not in run("zpool", "list", "-H", "-o", "name").stdout
