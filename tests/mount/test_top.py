"""`fspoolfs top`: for programs, and as a screen on a terminal."""

from __future__ import annotations

import json

import pytest

from mount.commands import PROGRAM, Commands
from mount.control import ControlTree, request
from support.daemon import MakeDaemon
from support.needs import needs_fuse, needs_root, skip_unless_runnable
from support.shell import as_user
from support.terminal import Terminal

pytestmark = [needs_root, needs_fuse, pytest.mark.required]


@pytest.fixture
def counting(make_daemon: MakeDaemon) -> ControlTree:
    """A tree with pools that count and enforce: `tank` with two items, and `idle`, which is not active."""
    tree = ControlTree(make_daemon("--sim"))
    for name in ("tank", "idle"):
        request(tree.define, f"<fspool type='dir'><name>{name}</name></fspool>")
    request(tree.pools / "tank" / "status", "start build")
    for name in ("web", "[red]shop"):
        (tree.pools / "tank" / "items" / name).mkdir()
    request(tree.pools / "tank" / "items" / "web" / "capacity", "1G")
    return tree


def test_one_look_as_json(counting: ControlTree) -> None:
    look = json.loads(Commands(counting.mount)("top", "--once", "--json"))
    assert [(pool["name"], pool["state"], pool["items"]) for pool in look["pools"]] == [
        ("idle", "inactive", 0),
        ("tank", "active", 2),
    ]
    items = {item["name"]: item for item in look["items"]}
    assert items["web"]["capacity"] == 1 << 30
    assert items["web"]["state"] == "ready"
    assert items["web"]["users"] == 0
    assert items["[red]shop"]["capacity"] is None
    assert items["web"]["growth"] is None


def test_several_looks_tell_what_has_changed(counting: ControlTree) -> None:
    told = Commands(counting.mount)("top", "--json", "-n", "2", "-d", "0.1", "--sort", "name", "--lines", "1")
    first, second = map(json.loads, told.splitlines())
    assert first["time"] < second["time"]
    assert [item["name"] for item in second["items"]] == ["[red]shop"]
    assert second["items"][0]["growth"] == 0.0
    assert first["items"][0]["growth"] is None


def test_one_look_for_a_person(counting: ControlTree) -> None:
    told = Commands(counting.mount)("top", "--once")
    assert "tank/[red]shop" in told
    assert "1.00 GiB" in told
    assert [line.split()[:2] for line in told.splitlines() if line.startswith(" idle")] == [
        ["idle", "inactive"]
    ]


def test_any_user_may_look(counting: ControlTree) -> None:
    user = as_user(12345)
    skip_unless_runnable(user)
    look = json.loads(Commands(counting.mount, user)("top", "--once", "--json"))
    assert len(look["items"]) == 2


def test_a_screen_needs_a_terminal(counting: ControlTree) -> None:
    assert "needs a terminal" in Commands(counting.mount).refusal("top", status=2)
    assert "exclude each other" in Commands(counting.mount).refusal("top", "--once", "-n", "3", status=2)


def test_keys_sort_and_end_the_screen(counting: ControlTree) -> None:
    with Terminal((*PROGRAM, "top", "-d", "60"), env=Commands(counting.mount).environment) as screen:
        screen.wait_for("2 pools, 2 items by used")
        screen.wait_for("tank/[red]shop")
        screen.type("n")
        screen.wait_for("2 items by name")
        screen.type("\x1b[A")  # an arrow means nothing
        screen.type("g")
        screen.wait_for("2 items by growth")
        screen.type("q")
        assert screen.end() == 0


def test_the_screen_shows_what_comes(counting: ControlTree) -> None:
    with Terminal((*PROGRAM, "top", "-d", "0.2"), env=Commands(counting.mount).environment) as screen:
        screen.wait_for("2 items by used")
        (counting.pools / "tank" / "items" / "late").mkdir()
        screen.wait_for("tank/late")
        screen.type("\x03")
        assert screen.end() == 0


def test_a_tree_that_goes_ends_the_screen_with_a_sentence(own_tree: ControlTree) -> None:
    with Terminal((*PROGRAM, "top", "-d", "0.2"), env=Commands(own_tree.mount).environment) as screen:
        screen.wait_for("0 items by used")
        own_tree.daemon.kill(unmount=False)
        screen.wait_for("the daemon of this control tree has ended")
        assert screen.end() == 1
