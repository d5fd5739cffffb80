"""`fspoolfs wait`: it ends when pools are active, when one has failed, and when the time is over."""

from __future__ import annotations

import errno

import pytest

from mount.commands import PROGRAM, Commands
from mount.control import ControlTree, refused, request
from support.needs import needs_fuse, needs_root
from support.terminal import Terminal

pytestmark = [needs_root, needs_fuse, pytest.mark.required]


def test_pools_that_are_active_are_not_waited_for(own_tree: ControlTree) -> None:
    run = Commands(own_tree.mount)
    assert run("wait") == ""
    pool = own_tree.active_pool()
    assert run("wait", pool.name) == ""
    own_tree.defined_pool()
    request(pool / "autostart", "1")
    assert run("wait") == ""


def test_a_pool_that_stays_inactive_is_given_up(own_tree: ControlTree) -> None:
    pool = own_tree.defined_pool()
    run = Commands(own_tree.mount)
    assert run.refusal("wait", pool.name, "--timeout", "0.1") == f"pool {pool.name} is still inactive"
    request(pool / "autostart", "1")
    assert "is still inactive" in run.refusal("wait", "--timeout", "0")
    assert "there is no pool" in run.refusal("wait", "nobody")


def test_it_ends_when_the_pool_is_started(own_tree: ControlTree) -> None:
    pool = own_tree.defined_pool()
    with Terminal((*PROGRAM, "wait", pool.name), env=Commands(own_tree.mount).environment) as waiting:
        request(pool / "status", "start build")
        assert waiting.end() == 0


def test_a_pool_that_has_failed_is_told_at_once(own_tree: ControlTree) -> None:
    pool = own_tree.active_pool()
    request(pool / "status", "stop")
    root = own_tree.daemon.storage / "pools" / pool.name
    root.rename(root.parent / "elsewhere")
    with Terminal((*PROGRAM, "wait", pool.name), env=Commands(own_tree.mount).environment) as waiting:
        with refused(errno.ENOENT):
            request(pool / "status", "start")
        waiting.wait_for("does not exist; build the pool first")
        assert waiting.end() == 1
