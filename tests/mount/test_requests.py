"""What is written into `status`, `capacity` and `autostart`: what is taken, and what is refused why."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from mount.control import ControlTree, last_error, refused, request, value
from support.needs import needs_root

pytestmark = [needs_root, pytest.mark.required]


@pytest.mark.parametrize(
    "text",
    ["", " ", "frobnicate", "start now", "build yes", "stop start", "START", "start\0", "\ufffd", "rm -rf /"],
)
def test_a_verb_that_is_none_is_refused_and_changes_nothing(some_pool: Path, text: str) -> None:
    with refused(errno.EINVAL):
        request(some_pool / "status", text)
    assert last_error(some_pool)
    assert value(some_pool / "status") == "active"


@pytest.mark.parametrize(
    "text", ["", "frobnicate", "clone", "clone a b c", "measure it", "rollback", "start"]
)
def test_a_verb_that_no_item_has_is_refused(item: Path, text: str) -> None:
    with refused(errno.EINVAL):
        request(item / "status", text)
    assert last_error(item)
    assert value(item / "status") == "ready"


@pytest.mark.parametrize("text", ["", "2", "yes", "01", "1 0", "-1"])
def test_autostart_takes_0_and_1_alone(some_pool: Path, text: str) -> None:
    with refused(errno.EINVAL):
        request(some_pool / "autostart", text)
    assert value(some_pool / "autostart") == "0"


@pytest.mark.parametrize("text", ["1073741824", "10G", "10GiB", "10 GB", " 5k\n"])
def test_a_capacity_that_nothing_enforces_is_refused_with_the_reason(item: Path, text: str) -> None:
    with refused(errno.EOPNOTSUPP):
        request(item / "capacity", text)
    assert "enforced" in last_error(item)
    assert value(item / "capacity") == "none"
    assert "capacity" not in (item / "config.xml").read_text()


@pytest.mark.parametrize("text", ["", "-1", "ten", "1.5G", "10X", "0", "none none", "9E9"])
def test_a_capacity_that_is_none_is_refused(item: Path, text: str) -> None:
    with refused(errno.EINVAL):
        request(item / "capacity", text)


def test_no_capacity_can_always_be_asked_for(item: Path) -> None:
    request(item / "capacity", "none")
    assert value(item / "capacity") == "none"


def test_a_pool_says_why_it_cannot_grow(some_pool: Path) -> None:
    with refused(errno.EOPNOTSUPP):
        request(some_pool / "capacity", "10G")
    assert "capacity" in last_error(some_pool)


@pytest.mark.parametrize(
    "inner",
    [
        "<capacity unit='GiB'>5</capacity>",
        "<files>1000</files>",
    ],
    ids=["capacity", "files"],
)
def test_an_item_with_a_limit_that_nothing_enforces_is_not_made(
    tree: ControlTree, some_pool: Path, inner: str
) -> None:
    with refused(errno.EOPNOTSUPP):
        request(tree.define, f"<fs><name>limited</name><source fspool='{some_pool.name}'/>{inner}</fs>")
    assert "enforced" in last_error(some_pool)
    assert not (some_pool / "items" / "limited").exists()
    assert not (some_pool / "root" / "limited").exists()


def test_a_soft_limit_that_nobody_would_be_told_of_is_refused(item: Path) -> None:
    with refused(errno.EOPNOTSUPP):
        request(item / "config.xml", f"<fs><name>{item.name}</name><capacity soft='4GiB'>0</capacity></fs>")
    assert "nobody would be told at the soft limit" in last_error(item)


def test_a_default_capacity_that_nothing_enforces_refuses_the_bare_mkdir(tree: ControlTree) -> None:
    pool = tree.active_pool("<defaults><capacity unit='GiB'>1</capacity></defaults>")
    with refused(errno.EOPNOTSUPP):
        (pool / "items" / "web").mkdir()
    assert "enforced" in last_error(pool)
