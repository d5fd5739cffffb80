"""Snapshots with shell tools: mkdir, mv, rmdir, rollback, and reading what they hold."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from mount.control import ControlTree, last_error, refused, request, value
from support.needs import needs_fuse
from support.shell import sh
from support.wait import eventually

pytestmark = [needs_fuse, pytest.mark.required]


@pytest.fixture
def kept(item: Path) -> Path:
    """An item with snapshot `one`, changed since."""
    (item / "data" / "file").write_text("first")
    (item / "snapshots" / "one").mkdir()
    (item / "data" / "file").write_text("second")
    return item


def test_a_snapshot_is_taken_by_mkdir_and_read_through_data(kept: Path) -> None:
    one = kept / "snapshots" / "one"
    assert sorted(os.listdir(one)) == ["created", "data", "info"]
    assert (one / "data" / "file").read_text() == "first"
    assert sh('date -d "$(cat "$1")" +%s', one / "created").stdout
    assert "State:          ready" in (one / "info").read_text()


@pytest.mark.root
def test_nobody_writes_into_a_snapshot(kept: Path) -> None:
    data = kept / "snapshots" / "one" / "data"
    for attempt in (lambda: (data / "file").write_text("x"), lambda: (data / "new").mkdir()):
        with refused(errno.EROFS):
            attempt()


def test_a_snapshot_is_renamed_by_mv_and_deleted_by_rmdir(kept: Path) -> None:
    snapshots = kept / "snapshots"
    created = value(snapshots / "one" / "created")
    sh('mv "$1/one" "$1/first"', snapshots)
    assert os.listdir(snapshots) == ["first"]
    assert value(snapshots / "first" / "created") == created
    assert (snapshots / "first" / "data" / "file").read_text() == "first"
    sh('rmdir "$1/first"', snapshots)
    assert os.listdir(snapshots) == []


def test_a_rollback_brings_the_content_back_and_keeps_what_it_replaced(kept: Path) -> None:
    request(kept / "status", "rollback one")
    assert (kept / "data" / "file").read_text() == "first"
    (before,) = set(os.listdir(kept / "snapshots")) - {"one"}
    assert before.startswith("before-rollback-")
    assert (kept / "snapshots" / before / "data" / "file").read_text() == "second"


def test_an_item_comes_back_from_the_trash_with_its_snapshots(kept: Path, some_pool: Path) -> None:
    kept.rmdir()
    assert "Snapshots:      1" in (some_pool / "trash" / kept.name / "info").read_text()
    (some_pool / "trash" / kept.name).rename(kept)
    assert (kept / "snapshots" / "one" / "data" / "file").read_text() == "first"


def test_a_clone_of_a_snapshot_holds_what_that_holds(kept: Path, some_pool: Path) -> None:
    request(kept / "status", f"clone {kept.name}-copy one")
    copy = some_pool / "items" / f"{kept.name}-copy"
    assert (copy / "data" / "file").read_text() == "first"
    assert f"<source fspool='{some_pool.name}' fs='{kept.name}' snapshot='one'/>" in (
        copy / "config.xml"
    ).read_text().replace('"', "'")


def test_what_cannot_be_done_is_refused_with_the_reason(kept: Path, some_pool: Path) -> None:
    snapshots = kept / "snapshots"
    with refused(errno.EEXIST):
        (snapshots / "one").mkdir()
    with refused(errno.EINVAL):
        (snapshots / ".hidden").mkdir()
    with refused(errno.ENOENT):
        request(kept / "status", "rollback none")
    assert "no snapshot none" in last_error(kept)
    with refused(errno.EINVAL):
        request(kept / "status", "rollback")
    with refused(errno.EPERM):
        (snapshots / "one").rename(some_pool / "items" / "one")
    assert "cannot leave its item" in last_error(kept)
    with refused(errno.EPERM):
        (snapshots / "file").write_text("")
    (snapshots / "two").mkdir()
    with refused(errno.EEXIST, errno.ENOTEMPTY):
        (snapshots / "two").rename(snapshots / "one")
    assert (snapshots / "one" / "data" / "file").read_text() == "first"


def test_snapshots_are_there_after_a_restart(kept: Path, some_pool: Path, tree: ControlTree) -> None:
    tree.daemon.restart()
    eventually(lambda: value(some_pool / "status") == "active", what="the pool is active again")
    assert (kept / "snapshots" / "one" / "data" / "file").read_text() == "first"
