"""The commands for items and their snapshots."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from mount.commands import Commands
from mount.control import ControlTree, last_error, request, value
from support.needs import needs_fuse, needs_root
from support.shell import run

pytestmark = [needs_root, needs_fuse, pytest.mark.required]


@pytest.fixture
def commands(tree: ControlTree) -> Commands:
    return Commands(tree.mount)


@pytest.fixture
def web(tree: ControlTree, pool: Path) -> Path:
    """An item `web` of a pool of the test's own, which holds a file."""
    item = tree.new_item(pool)
    (item / "data" / "index.html").write_text("hello\n")
    return item


@pytest.fixture
def name(web: Path) -> str:
    """The item as commands call it."""
    return f"{web.parents[1].name}/web"


def test_an_item_is_made_from_options(pool: Path, commands: Commands) -> None:
    arguments = ("fs-create-as", pool.name, "web", "--mode", "2750", "--owner", "1000", "--group", "1001")
    printed = commands(*arguments, "--print-xml")
    assert "<mode>2750</mode>" in printed
    assert f"<source fspool='{pool.name}'/>" in printed
    assert not (pool / "items/web").exists()
    assert commands(*arguments) == f"Item web created in pool {pool.name}\n"
    info = (pool / "items/web/data/.").stat()
    assert (info.st_mode & 0o7777, info.st_uid, info.st_gid) == (0o2750, 1000, 1001)
    assert commands.refusal(*arguments) == f"pool {pool.name} has an item web already"
    refusal = commands.refusal("fs-create-as", pool.name, "big", "10G")
    assert refusal == last_error(pool)
    assert "no capacity can be enforced" in refusal
    assert commands.refusal("fs-create-as", pool.name, "-x", status=2)
    assert "begins with '-'" in commands.refusal("fs-create-as", "--", pool.name, "-x")


def test_an_item_is_made_from_a_document(pool: Path, commands: Commands, tmp_path: Path) -> None:
    document = tmp_path / "item.xml"
    document.write_text("<fs><name>web</name><permissions><mode>0711</mode></permissions></fs>")
    assert "names no pool" in commands.refusal("fs-define", document)
    commands("fs-define", document, "--pool", pool.name)
    assert commands("fs-dumpxml", f"{pool.name}/web") == (pool / "items/web/config.xml").read_text()
    other = (
        f"<fs><name>web</name><source fspool='{pool.name}'/><permissions><mode>0700</mode></permissions></fs>"
    )
    commands("fs-define", "-", input=other)
    assert (pool / "items/web/data/.").stat().st_mode & 0o7777 == 0o700
    assert "its pool is" in commands.refusal("fs-define", "-", "--pool", "else", input=other)


def test_an_item_is_named_in_two_ways(web: Path, name: str, commands: Commands) -> None:
    pool = web.parents[1].name
    path = f"{os.readlink(web / 'data')}\n"
    assert commands("fs-path", name) == path
    assert commands("fs-path", "web", "--pool", pool) == path
    assert commands("fs-path", "--pool", pool, "web") == path
    assert "say --pool" in commands.refusal("fs-path", "web")
    assert "twice" in commands.refusal("fs-path", name, "--pool", pool)
    assert commands.refusal("fs-path", f"{pool}/none") == f"there is no item none of pool {pool}"
    assert "holds a slash" in commands.refusal("fs-path", f"{pool}/../x")


def test_lists_have_what_the_tree_tells(web: Path, name: str, commands: Commands) -> None:
    pool = web.parents[1]
    request(web / "status", "measure")
    (web / "snapshots" / "monday").mkdir()
    (pool / "items" / "zwei ☃").mkdir()
    row, other = commands.json("fs-list", pool.name)
    assert other["name"] == "zwei ☃"
    assert row == {
        "name": "web",
        "uuid": value(web / "uuid"),
        "state": "ready",
        "owner": 0,
        "group": 0,
        "mode": f"{web.stat().st_mode & 0o7777:04o}",
        "capacity": None,
        "soft": None,
        "allocation": int(value(web / "allocation")),
        "files": None,
        "inodes": 2,
        "snapshots": 1,
        "path": os.readlink(web / "data"),
        "problem": None,
    }
    assert [json.loads(line) for line in (pool / "listing").read_text().splitlines()] == [row, other]
    table = commands("fs-list", pool.name).splitlines()
    assert table[0].split() == ["Name", "State", "Path"]
    assert table[2].split() == ["web", "ready", row["path"]]
    details = commands("fs-list", pool.name, "--details", "--bytes").splitlines()[2].split()
    assert details == [
        "web",
        "ready",
        "0:0",
        row["mode"],
        "none",
        str(row["allocation"]),
        "2",
        "1",
        row["path"],
    ]
    assert commands("fs-list", pool.name, "--name") == "web\nzwei ☃\n"


def test_info_is_the_trees(web: Path, name: str, commands: Commands) -> None:
    assert commands("fs-info", name) == (web / "info").read_text()
    facts = commands.json("fs-info", name)
    assert (facts["name"], facts["state"], facts["snapshots"]) == ("web", "ready", 0)
    assert facts["path"] == os.readlink(web / "data")
    assert facts["available"] > 0
    assert commands("fs-measure", name) == (web / "allocation").read_text()
    assert f"Allocation:     {value(web / 'allocation')}\n" in commands("fs-info", name, "--bytes")


def test_an_item_in_use_names_who_uses_it(web: Path, name: str, commands: Commands, tmp_path: Path) -> None:
    assert commands("fs-users", name) == ""
    run("mount", "--bind", web / "data", tmp_path)
    try:
        assert str(tmp_path) in commands("fs-users", name)
        (line,) = commands.json("fs-users", name)
        assert str(tmp_path) in line
        assert commands.refusal("fs-delete", name) == last_error(web.parents[1])
    finally:
        run("umount", tmp_path)


def test_clone_rename_delete_bring_back(web: Path, name: str, commands: Commands) -> None:
    pool = web.parents[1]
    items = pool / "items"
    assert commands("fs-clone", name, "web2") == "Item web2 cloned from web\n"
    assert (items / "web2/data/index.html").read_text() == "hello\n"
    assert commands("fs-clone", name, "a b") == "Item a b cloned from web\n"
    assert commands("fs-rename", f"{pool.name}/a b", "shop") == "Item a b renamed to shop\n"
    assert "has an item web already" in commands.refusal("fs-rename", f"{pool.name}/shop", "web")
    assert commands.refusal("fs-clone", name, "web2") == last_error(web)
    assert commands("fs-delete", f"{pool.name}/shop") == "Item shop deleted\n"
    assert sorted(os.listdir(items)) == ["web", "web2"]
    assert commands("fs-list", pool.name, "--deleted", "--name") == "shop\n"
    assert commands.json("fs-list", pool.name, "--deleted")[0]["item"] == "shop"
    assert "shop" in commands("fs-list", pool.name, "--deleted").splitlines()[2]
    assert "choose another --name" in commands.refusal("fs-undelete", f"{pool.name}/shop", "--name", "web")
    commands("fs-undelete", f"{pool.name}/shop", "--name", "store")
    assert (items / "store/data/index.html").read_text() == "hello\n"
    commands("fs-delete", f"{pool.name}/store")
    assert commands("fs-purge", f"{pool.name}/store") == "Item store purged\n"
    assert commands("fs-list", pool.name, "--deleted", "--name") == ""


def test_snapshots_are_taken_listed_used_and_deleted(web: Path, name: str, commands: Commands) -> None:
    file = web / "data" / "index.html"
    commands("fs-snapshot-create", name, "monday")
    assert "has monday already" in commands.refusal("fs-snapshot-create", name, "monday")
    file.write_text("ruined\n")
    (row,) = commands.json("fs-snapshot-list", name)
    assert row["name"] == "monday"
    assert (Path(row["path"]) / "index.html").read_text() == "hello\n"
    assert commands("fs-snapshot-list", name).splitlines()[2].split() == ["monday", row["created"], "ready"]
    commands("fs-clone", name, "relaunch", "--snapshot", "monday")
    assert (web.parent / "relaunch/data/index.html").read_text() == "hello\n"
    assert commands("fs-rollback", name, "monday") == "Item web rolled back to monday\n"
    assert (web / "data/index.html").read_text() == "hello\n"
    commands("fs-snapshot-delete", name, "monday")
    assert "monday" not in commands("fs-snapshot-list", name, "--name").split()
    assert commands.refusal("fs-rollback", name, "monday").endswith("has no snapshot monday")


def test_sizes_are_changed_where_the_storage_counts(simulated: Commands) -> None:
    place = simulated.mount / "pools/tank/items/web"
    assert (
        simulated("fs-resize", "tank/web", "10G") == "Size of item web successfully changed to 10737418240\n"
    )
    assert value(place / "capacity") == "10737418240"
    simulated("fs-resize", "tank/web", "1GiB", "--delta")
    assert value(place / "capacity") == str(11 << 30)
    assert simulated.json("fs-list", "tank")[0]["capacity"] == 11 << 30
    simulated("fs-resize", "tank/web", "none")
    assert value(place / "capacity") == "none"
    assert "nothing to add to" in simulated.refusal("fs-resize", "tank/web", "1G", "--delta")
    assert "is not a capacity" in simulated.refusal("fs-resize", "tank/web", "much")
    simulated("fs-create-as", "tank", "small", "1M", "--soft", "80%", "--files", "100")
    text = (place.parent / "small/config.xml").read_text()
    assert "<capacity unit='bytes' soft='80%'>1048576</capacity>" in text
    assert "<files>100</files>" in text


@pytest.fixture
def simulated(make_daemon: object) -> Commands:
    """Commands for a simulated tree, whose storage counts, with pool `tank` and item `web`."""
    assert callable(make_daemon)
    commands = Commands(make_daemon("--sim").mount)
    commands("fspool-define-as", "tank")
    commands("fspool-start", "tank", "--build")
    commands("fs-create-as", "tank", "web")
    return commands


def test_limits_are_set_and_taken_away(simulated: Commands) -> None:
    name = "tank/web"
    assert simulated("fs-limit", name) == ""
    assert simulated.json("fs-limit", name) == {}
    simulated("fs-limit", name, "pids.max", "50")
    simulated("fs-limit", name, "memory.max", "64M")
    assert simulated.json("fs-limit", name) == {"memory.max": "64M", "pids.max": "50"}
    assert simulated("fs-limit", name, "pids.max") == "pids.max: 50\n"
    assert "<pids.max>50</pids.max>" in simulated("fs-dumpxml", name)
    simulated("fs-limit", name, "pids.max", "--remove")
    assert simulated("fs-limit", name, "pids.max") == "pids.max: no limit\n"
    simulated("fs-limit", name, "memory.max", "--remove")
    assert "cgroups" not in simulated("fs-dumpxml", name)


def test_what_is_no_limit_is_refused(web: Path, name: str, commands: Commands) -> None:
    assert "'colour' is not one of" in commands.refusal("fs-limit", name, "colour", "red", status=2)
    refusal = commands.refusal("fs-limit", name, "pids.max", "many")
    assert refusal == last_error(web)
    assert "many" in refusal
    assert "has no limit io.max" in commands.refusal("fs-limit", name, "io.max", "--remove")
    assert "takes a LIMIT" in commands.refusal("fs-limit", name, "--remove", status=2)


# -- to another pool ------------------------------------------------------------------------------


def test_an_item_moves_to_another_pool_whole(
    tree: ControlTree, web: Path, name: str, commands: Commands
) -> None:
    data = web / "data"
    os.link(data / "index.html", data / "again")
    (data / "link").symlink_to("/nowhere")
    os.chown(data / "index.html", 1000, 1001)
    os.setxattr(data / "index.html", "user.colour", b"red")
    uuid, target = value(web / "uuid"), tree.active_pool()
    commands("fs-move", name, target.name, "--name", "shop")
    assert os.listdir(web.parent) == []
    assert os.listdir(target / "items") == ["shop"]
    moved = target / "items/shop/data"
    info = (moved / "index.html").stat()
    assert (info.st_uid, info.st_gid, info.st_nlink) == (1000, 1001, 2)
    assert os.getxattr(moved / "index.html", "user.colour") == b"red"
    assert os.readlink(moved / "link") == "/nowhere"
    assert value(target / "items/shop/uuid") != uuid
    commands("fs-undelete", name)
    assert value(web / "uuid") == uuid, "the original can still be brought back"


def test_a_move_that_cannot_be_leaves_everything(
    tree: ControlTree, web: Path, name: str, commands: Commands, tmp_path: Path
) -> None:
    target = tree.active_pool()
    tree.new_item(target)
    assert "has an item web already" in commands.refusal("fs-move", name, target.name)
    (target / "items/shop.moving").mkdir()
    left = commands.refusal("fs-move", name, target.name, "--name", "shop")
    assert "a move that was interrupted left it" in left
    (web / "snapshots/monday").mkdir()
    assert "--without-snapshots" in commands.refusal("fs-move", name, target.name, "--name", "new")
    run("mount", "--bind", web / "data", tmp_path)
    try:
        assert "is in use" in commands.refusal("fs-move", name, target.name, "--name", "new")
    finally:
        run("umount", tmp_path)
    assert "fs-rename" in commands.refusal("fs-move", name, web.parents[1].name)
    assert os.listdir(web / "snapshots") == ["monday"]
    assert sorted(os.listdir(target / "items")) == ["shop.moving", "web"]
    assert (web / "data/index.html").read_text() == "hello\n"


def test_a_copy_that_fails_is_taken_back(
    tree: ControlTree, web: Path, name: str, commands: Commands, tmp_path: Path
) -> None:
    target = tree.active_pool()
    # A cp that writes half of it, and changes the original as somebody else might.
    programs = tmp_path / "bin"
    programs.mkdir()
    fake = programs / "cp"
    path = f"{programs}:{os.environ['PATH']}"
    fake.write_text("#!/bin/sh\necho 'cp: error writing: No space left on device' >&2\nexit 1\n")
    fake.chmod(0o755)
    assert "No space left on device" in commands.refusal("fs-move", name, target.name, env={"PATH": path})
    fake.write_text(f'#!/bin/sh\n/bin/cp "$@"\necho more >> {web}/data/index.html\n')
    refusal = commands.refusal("fs-move", name, target.name, env={"PATH": path})
    assert "was changed while it was being moved" in refusal
    assert os.listdir(target / "items") == os.listdir(target / "trash") == []
    assert os.listdir(web / "snapshots") == []
    assert (web / "data/index.html").read_text() == "hello\nmore\n"


@pytest.mark.parametrize("killed", ["cp", "sync"])
def test_a_move_that_is_killed_leaves_the_source_whole(
    killed: str, tree: ControlTree, web: Path, name: str, commands: Commands, tmp_path: Path
) -> None:
    target = tree.active_pool()
    # The parent of the program, which is the command, is killed when it has got that far.
    program = tmp_path / killed
    program.write_text("#!/bin/sh\nkill -KILL $PPID\n")
    program.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    assert commands.attempt("fs-move", name, target.name, env={"PATH": path}).returncode == -signal.SIGKILL
    assert (web / "data/index.html").read_text() == "hello\n"
    assert os.listdir(target / "items") == ["web.moving"]
    assert "a move that was interrupted left it" in commands.refusal("fs-move", name, target.name)
    commands("fs-delete", f"{target.name}/web.moving")
    commands("fs-move", name, target.name)
    assert (target / "items/web/data/index.html").read_text() == "hello\n"
    assert os.listdir(web.parent) == []
