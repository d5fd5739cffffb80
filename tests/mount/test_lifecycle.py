"""Pools: defined, built, started, redefined, stopped, deleted, undefined, and what a restart keeps."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path

import pytest

from mount.control import ControlTree, last_error, refused, request, value
from support.needs import needs_root
from support.shell import run, sh
from support.wait import eventually

pytestmark = [needs_root, pytest.mark.required]


def redefine(pool: Path, inner: str) -> None:
    request(pool / "config.xml", f"<fspool type='dir'><name>{pool.name}</name>{inner}</fspool>")


def becomes(pool: Path, state: str) -> None:
    eventually(lambda: value(pool / "status") == state, what=f"{pool.name} is {state}")


# The verbs


def test_a_pool_goes_through_its_whole_life(tree: ControlTree) -> None:
    name = tree.new_name()
    pool, real = tree.pools / name, tree.daemon.storage / "pools" / name
    pool.mkdir()
    assert value(pool / "status") == "inactive"
    assert not real.exists()
    sh('echo build > "$1" && echo start > "$1"', pool / "status")
    assert value(pool / "status") == "active"
    assert stat.S_IMODE(real.stat().st_mode) == 0o755
    assert stat.S_IMODE((real / ".fspool").stat().st_mode) == 0o700
    tree.new_item(pool)
    request(pool / "status", "stop")
    assert value(pool / "status") == "inactive"
    pool.rmdir()
    assert name not in os.listdir(tree.pools)
    assert (real / "web").is_dir()


STATES = {"inactive": (), "active": ("start build",), "failed": ("start",)}
#: What each verb does in each state: the state afterwards, or how it is refused.
VERBS: dict[str, dict[str, str | int]] = {
    "build": {"inactive": "inactive", "active": errno.EBUSY, "failed": "inactive"},
    "build no-overwrite": {"inactive": "inactive", "active": errno.EBUSY, "failed": "inactive"},
    "build overwrite": {"inactive": "inactive", "active": errno.EBUSY, "failed": "inactive"},
    "start": {"inactive": errno.ENOENT, "active": errno.EBUSY, "failed": errno.ENOENT},
    "start build": {"inactive": "active", "active": errno.EBUSY, "failed": "active"},
    "stop": {"inactive": errno.ENOMEDIUM, "active": "inactive", "failed": "inactive"},
    "destroy": {"inactive": errno.ENOMEDIUM, "active": "inactive", "failed": "inactive"},
    "delete": {"inactive": "inactive", "active": errno.EBUSY, "failed": "inactive"},
    "refresh": {"inactive": errno.ENOMEDIUM, "active": "active", "failed": errno.ENOMEDIUM},
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_is_done_or_refused_with_the_reason(tree: ControlTree, verb: str, state: str) -> None:
    pool = tree.defined_pool()
    for step in STATES[state]:
        if state == "failed":
            with refused(errno.ENOENT):
                request(pool / "status", step)
        else:
            request(pool / "status", step)
    assert value(pool / "status") == state
    outcome = VERBS[verb][state]
    if isinstance(outcome, str):
        request(pool / "status", verb)
        assert value(pool / "status") == outcome
        assert last_error(pool) == ""
        return
    with refused(outcome):
        request(pool / "status", verb)
    assert pool.name in last_error(pool)
    assert value(pool / "status") == ("failed" if verb == "start" and state == "inactive" else state)


@pytest.mark.parametrize(("state", "allowed"), [("inactive", True), ("active", False), ("failed", True)])
def test_a_pool_is_undefined_unless_it_is_active(tree: ControlTree, state: str, allowed: bool) -> None:
    pool = tree.defined_pool()
    if state == "active":
        request(pool / "status", "start build")
    elif state == "failed":
        with refused(errno.ENOENT):
            request(pool / "status", "start")
    if allowed:
        pool.rmdir()
        assert not pool.exists()
    else:
        with refused(errno.EBUSY, errno.ENOTEMPTY):
            pool.rmdir()
        assert "stop" in last_error(pool)


def test_nothing_is_done_in_the_items_of_an_inactive_pool(tree: ControlTree) -> None:
    pool = tree.defined_pool()
    with refused(errno.ENOMEDIUM):
        (pool / "items" / "web").mkdir()
    assert "start" in last_error(pool)


def test_deleting_removes_what_building_made_and_nothing_else(tree: ControlTree, pool: Path) -> None:
    real = Path(os.readlink(pool / "root"))
    item = tree.new_item(pool)
    request(pool / "status", "stop")
    with refused(errno.ENOTEMPTY):
        request(pool / "status", "delete")
    assert "web" in last_error(pool)
    request(pool / "status", "start")
    item.rmdir()
    request(pool / "status", "stop")
    with refused(errno.ENOTEMPTY):
        request(pool / "status", "delete")
    assert "trash" in last_error(pool)
    request(pool / "status", "start")
    (pool / "trash" / "web").rmdir()
    eventually(lambda: not os.listdir(real / ".fspool" / "purge"), what="the purge is done")
    request(pool / "status", "stop")
    request(pool / "status", "delete")
    assert not real.exists()


def test_building_keeps_what_it_finds(tree: ControlTree) -> None:
    real = tree.daemon.storage / tree.new_name()
    real.mkdir(mode=0o710)
    (real / "file").write_text("kept")
    pool = tree.defined_pool(f"<target><path>{real}</path></target>")
    for verb in ("build", "build overwrite", "start build"):
        request(pool / "status", verb)
    assert (real / "file").read_text() == "kept"


@pytest.mark.parametrize("path", ["/etc", "/usr/lib", "/proc/1", "/dev", "/home", "/root"])
def test_a_directory_of_the_system_becomes_no_pool(tree: ControlTree, path: str) -> None:
    before = os.listdir(tree.pools)
    with refused(errno.EINVAL):
        tree.defined_pool(f"<target><path>{path}</path></target>")
    assert f"{path} belongs to the system" in last_error(tree.mount)
    assert os.listdir(tree.pools) == before


def test_a_pool_cannot_lie_among_the_daemon_s_own_files(tree: ControlTree) -> None:
    way = tree.daemon.storage / "way"
    way.symlink_to(tree.daemon.state)
    pool = tree.defined_pool()
    for place in (tree.daemon.state, tree.daemon.state / "pools", way / "new", tree.daemon.base):
        target = f"<target><path>{place}</path></target>"
        with refused(errno.EINVAL):
            tree.defined_pool(target)
        assert f"the daemon's state directory {tree.daemon.state}" in last_error(tree.mount)
        with refused(errno.EINVAL):
            request(pool / "config.xml", f"<fspool type='dir'><name>{pool.name}</name>{target}</fspool>")
        assert f"the daemon's state directory {tree.daemon.state}" in last_error(pool)
    way.unlink()


@pytest.mark.parametrize("state", ["inactive", "active"])
def test_a_capacity_that_a_directory_cannot_have_is_refused_and_not_stored(
    tree: ControlTree, state: str
) -> None:
    """It would wait for the next start, which could only fail by it."""
    capacity = "<capacity unit='GiB'>10</capacity>"
    with refused(errno.EOPNOTSUPP):
        tree.defined_pool(capacity)
    pool = tree.active_pool() if state == "active" else tree.defined_pool()
    before = (pool / "config.xml").read_text()
    with refused(errno.EOPNOTSUPP):
        request(pool / "config.xml", f"<fspool type='dir'><name>{pool.name}</name>{capacity}</fspool>")
    assert "a directory has no capacity of its own" in last_error(pool)
    assert (pool / "config.xml").read_text() == before
    assert not (pool / "pending.xml").exists()
    if state == "active":
        request(pool / "status", "stop")
    request(pool / "status", "start build")


def test_a_refresh_sees_what_was_changed_behind_its_back(tree: ControlTree, pool: Path) -> None:
    item, other = tree.new_item(pool), tree.new_item(pool, "other")
    real = Path(os.readlink(pool / "root"))
    (real / "web").rename(real / "aside")
    request(pool / "status", "refresh")
    assert value(item / "status") == "missing"
    assert "web" in last_error(item)
    assert "Problem:" in (item / "info").read_text()
    for act in (item.rename, lambda target: request(item / "status", "clone copy")):
        with refused(errno.EBUSY):
            act(pool / "items" / "copy")
    (real / "aside").rename(real / "web")
    request(pool / "status", "refresh")
    assert (value(item / "status"), last_error(item)) == ("ready", "")
    assert value(other / "status") == "ready"


def test_a_missing_item_can_be_deleted(tree: ControlTree, pool: Path) -> None:
    item = tree.new_item(pool)
    Path(os.readlink(item / "data")).rmdir()
    request(pool / "status", "refresh")
    item.rmdir()
    assert os.listdir(pool / "items") == os.listdir(pool / "trash") == []
    tree.new_item(pool)


# Definitions and conflicts


def test_mkdir_of_a_pool_that_is_defined_is_refused(tree: ControlTree, pool: Path) -> None:
    with refused(errno.EEXIST):
        (tree.pools / pool.name).mkdir()


@pytest.mark.parametrize("how", ["uuid", "same root", "root inside", "root around", "root by a link"])
def test_a_pool_takes_nothing_that_is_anothers_who_is_named(tree: ControlTree, pool: Path, how: str) -> None:
    real = Path(os.readlink(pool / "root"))
    link = tree.daemon.storage / f"link-to-{pool.name}"
    link.symlink_to(real)
    inner = {
        "uuid": f"<uuid>{value(pool / 'uuid')}</uuid>",
        "same root": f"<target><path>{real}</path></target>",
        "root inside": f"<target><path>{real}/a/b</path></target>",
        "root around": f"<target><path>{real.parent}</path></target>",
        "root by a link": f"<target><path>{link}/x</path></target>",
    }[how]
    before = os.listdir(tree.pools)
    with refused(errno.EEXIST):
        tree.defined_pool(inner)
    if how != "root around":  # which is around others too
        assert f"pool {pool.name}" in last_error(tree.mount)
    assert os.listdir(tree.pools) == before


@pytest.mark.parametrize("kind", ["volume", "network"])
def test_two_pools_do_not_share_a_source(tree: ControlTree, kind: str) -> None:
    source = {
        "volume": "<source><pool name='images'/><volume name='vol1'/></source>",
        "network": "<source><host name='10.0.0.7'/><dir path='/exports/fs'/></source>",
    }[kind]
    one, two = tree.new_name(), tree.new_name()
    document = f"<fspool type='{kind}'><name>{{}}</name>{source}</fspool>"
    request(tree.define, document.format(one))
    with refused(errno.EEXIST):
        request(tree.define, document.format(two))
    assert f"pool {one}" in last_error(tree.mount)


def test_redefining_into_a_conflict_changes_nothing(tree: ControlTree, pool: Path) -> None:
    other = tree.defined_pool()
    before = (other / "config.xml").read_text()
    with refused(errno.EEXIST):
        redefine(other, f"<target><path>{os.readlink(pool / 'root')}</path></target>")
    assert pool.name in last_error(other)
    assert (other / "config.xml").read_text() == before


def test_what_can_change_on_an_active_pool_changes_at_once(pool: Path) -> None:
    redefine(
        pool,
        "<target><permissions><mode>2770</mode><owner>107</owner><group>108</group></permissions></target>"
        "<trash retention='2h'/><metadata><a/></metadata>",
    )
    info = (pool / "items").stat()
    assert (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid) == (0o2770, 107, 108)
    assert "<trash retention='2h'/>" in (pool / "config.xml").read_text()
    assert "<metadata><a/></metadata>" in (pool / "config.xml").read_text()
    assert "pending.xml" not in os.listdir(pool)


def test_the_rest_waits_in_pending_xml_for_the_next_start(tree: ControlTree, pool: Path) -> None:
    old, new = os.readlink(pool / "root"), f"{tree.daemon.storage}/moved-{pool.name}"
    redefine(pool, f"<target><path>{new}</path></target><trash retention='2h'/>")
    assert f"<path>{old}</path>" in (pool / "config.xml").read_text()
    assert "<trash retention='2h'/>" in (pool / "config.xml").read_text()
    assert f"<path>{new}</path>" in (pool / "pending.xml").read_text()
    assert "pending.xml" in os.listdir(pool)
    assert "pending.xml" in (pool / "info").read_text()
    assert os.readlink(pool / "root") == old
    tree.new_item(pool)
    request(pool / "status", "stop")
    request(pool / "status", "start build")
    assert os.readlink(pool / "root") == new
    assert "pending.xml" not in os.listdir(pool)
    assert os.listdir(pool / "items") == []


def test_a_pending_definition_is_taken_back_by_the_old_one(tree: ControlTree, pool: Path) -> None:
    printed = (pool / "config.xml").read_text()
    redefine(pool, f"<target><path>{tree.daemon.storage}/elsewhere-{pool.name}</path></target>")
    assert (pool / "pending.xml").exists()
    request(pool / "config.xml", printed)
    assert "pending.xml" not in os.listdir(pool)
    assert (pool / "config.xml").read_text() == printed


def test_the_uuid_and_the_name_of_a_pool_are_for_good(pool: Path) -> None:
    with refused(errno.EPERM):
        redefine(pool, "<uuid>00000000-0000-4000-8000-000000000001</uuid>")
    assert "uuid" in last_error(pool)
    with refused(errno.EPERM, errno.EINVAL):
        request(pool / "config.xml", "<fspool type='dir'><name>other</name></fspool>")


# Restart, and what was lost


def test_a_restarted_daemon_has_everything_as_it_was(own_tree: ControlTree) -> None:
    active, stopped = own_tree.active_pool("<metadata><note/></metadata>"), own_tree.active_pool()
    autostarted = own_tree.defined_pool()
    request(autostarted / "status", "build")
    request(autostarted / "autostart", "1")
    item = own_tree.new_item(active)
    (item / "data" / "file").write_text("kept")
    os.chown(item, 107, 108)
    own_tree.new_item(active, "old").rmdir()
    request(stopped / "status", "stop")
    files = [active / "config.xml", item / "config.xml", stopped / "config.xml"]
    before = [file.read_text() for file in files]
    for _ in range(2):
        own_tree.daemon.restart()
        becomes(active, "active")
        becomes(autostarted, "active")
        assert value(stopped / "status") == "inactive"
        assert [file.read_text() for file in files] == before
        assert value(autostarted / "autostart") == "1"
        assert value(active / "autostart") == "0"
        assert os.listdir(active / "items") == ["web"]
        assert os.listdir(active / "trash") == ["old"]
        assert (item / "data" / "file").read_text() == "kept"


def test_what_waits_for_the_next_start_goes_on_waiting_when_the_daemon_is_restarted(
    own_tree: ControlTree,
) -> None:
    pool = own_tree.active_pool()
    item = own_tree.new_item(pool)
    redefine(pool, f"<target><path>{own_tree.daemon.storage}/later</path></target>")
    before = [(pool / name).read_text() for name in ("config.xml", "pending.xml")]
    own_tree.daemon.restart()
    becomes(pool, "active")
    assert [(pool / name).read_text() for name in ("config.xml", "pending.xml")] == before
    assert value(item / "status") == "ready"


def test_data_is_reachable_while_the_daemon_is_away(own_tree: ControlTree) -> None:
    item = own_tree.new_item()
    real = Path(os.readlink(item / "data"))
    with (real / "file").open("w") as file:
        own_tree.daemon.kill()
        file.write("written meanwhile")
    own_tree.daemon.start()
    becomes(item.parents[1], "active")
    assert (item / "data" / "file").read_text() == "written meanwhile"


def test_a_pool_whose_host_lost_its_state_comes_back_whole(own_tree: ControlTree) -> None:
    pool = own_tree.active_pool()
    item = own_tree.new_item(pool)
    (item / "data" / "file").write_text("kept")
    os.chown(item, 107, 108)
    own_tree.new_item(pool, "old").rmdir()
    uuids = [value(pool / "uuid"), value(item / "uuid"), value(pool / "trash" / "old" / "uuid")]
    own_tree.daemon.stop()
    shutil.rmtree(own_tree.daemon.state)
    own_tree.daemon.state.mkdir()
    own_tree.daemon.start()
    assert os.listdir(own_tree.pools) == []
    pool.mkdir()
    request(pool / "status", "start")
    assert uuids == [value(pool / "uuid"), value(item / "uuid"), value(pool / "trash" / "old" / "uuid")]
    assert (item.stat().st_uid, item.stat().st_gid) == (107, 108)
    assert (item / "data" / "file").read_text() == "kept"


def test_a_pool_that_is_carried_to_another_host_comes_back_whole(
    own_tree: ControlTree, tree: ControlTree
) -> None:
    item = own_tree.new_item()
    pool = item.parents[1]
    (item / "data" / "file").write_text("kept")
    request(pool / "status", "stop")
    carried = tree.daemon.storage / "carried"
    run("cp", "-a", os.readlink(pool / "root"), carried)
    target = f"<target><path>{carried}</path></target>"
    request(tree.define, f"<fspool type='dir'><name>{pool.name}</name>{target}</fspool>")
    request(tree.pools / pool.name / "status", "start")
    assert (tree.pools / pool.name / "items" / "web" / "data" / "file").read_text() == "kept"
    assert value(tree.pools / pool.name / "uuid") == value(pool / "uuid")
