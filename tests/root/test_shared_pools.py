"""Daemons that share a pool as hosts do, each with a mount of its own, and one that dies in its work."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from mount.control import last_error, refused, request, value
from root.working import Work, await_work, working
from support.daemon import Daemon, MakeDaemon
from support.keepers import end_keepers
from support.needs import needs_fuse, needs_root
from support.wait import eventually

pytestmark = [needs_root, needs_fuse, pytest.mark.required]

#: Operations that each host has done before one of them dies.
BEFORE = 25


@pytest.fixture
def export(run_directory: Path, tmp_path: Path) -> Path:
    """What the hosts share."""
    directory = tmp_path / "export"
    directory.mkdir()
    return directory


def join(daemon: Daemon, export: Path) -> Path:
    """The shared pool in one daemon, active."""
    target = daemon.base / "target"
    request(
        daemon.mount / "define",
        f"<fspool type='network'><name>tank</name><uuid>{UUID}</uuid><source><dir path='{export}'/></source>"
        f"<target><path>{target}</path></target></fspool>",
    )
    pool = daemon.mount / "pools/tank"
    request(pool / "status", "start build")
    return pool


UUID = "5f6d1de5-7c43-4a3e-9d9b-3f0f4c2a8a10"


def items(pool: Path) -> list[str]:
    return sorted(os.listdir(pool / "items"))


def test_what_one_makes_the_other_lists(make_daemon: MakeDaemon, export: Path) -> None:
    one, other = join(make_daemon(), export), join(make_daemon(), export)
    assert items(other) == []
    (one / "items/web").mkdir()
    eventually(lambda: items(other) == ["web"], what="the item is listed on the other host")
    (one / "items/web/data/file").write_text("text")
    assert (other / "items/web/data/file").read_text() == "text"
    (one / "items/web/snapshots/v1").mkdir()
    eventually(lambda: (other / "items/web/snapshots/v1").is_dir(), what="the snapshot is seen")
    assert (other / "items/web/snapshots/v1/data/file").read_text() == "text"
    (other / "items/web").rename(other / "items/www")
    eventually(lambda: items(one) == ["www"], what="the new name is seen")
    (other / "items/www/capacity").read_text()
    (other / "items/www").rmdir()
    eventually(lambda: items(one) == [], what="it is gone on the first host, too")
    assert os.listdir(one / "trash") == ["www"]


def test_what_another_host_has_active_is_not_deleted(make_daemon: MakeDaemon, export: Path) -> None:
    one, other = join(make_daemon(), export), join(make_daemon(), export)
    request(one / "status", "destroy")
    with refused(errno.EBUSY):
        request(one / "status", "delete")
    assert "another host has it active" in last_error(one)
    (other / "items/web").mkdir()
    (other / "items/web").rmdir()
    (other / "trash/web").rmdir()
    eventually(lambda: os.listdir(export / ".fspool/purge") == [], what="it was purged")
    request(other / "status", "destroy")
    request(one / "status", "delete")
    assert os.listdir(export) == []


def test_features_tell_what_the_export_can_do(make_daemon: MakeDaemon, export: Path) -> None:
    pool = join(make_daemon(), export)
    features = dict(line.split(": ", 1) for line in (pool / "features").read_text().splitlines())
    assert features["hosts"] == "yes (several at once; a lost one is fenced by the servers)"
    assert [features[name] for name in ("locks", "xattrs", "exchange")] == ["yes", "yes", "yes"]
    assert [name for name in os.listdir(export / ".fspool") if name.startswith(".")] == []
    assert os.listdir(export / ".fspool/staging") == []


def test_hosts_are_listed(make_daemon: MakeDaemon, export: Path) -> None:
    first, second = make_daemon(), make_daemon()
    one, other = join(first, export), join(second, export)
    lines = (one / "hosts").read_text().splitlines()
    assert len(lines) == 2
    assert [line.split()[-1] for line in lines].count("here") == 1
    request(other / "status", "destroy")  # here the other one's mount is seen, as a use
    assert [line.split()[-1] for line in (one / "hosts").read_text().splitlines()] == ["here"]


@pytest.mark.parametrize("turn", range(3))
def test_a_host_that_dies_in_its_work_loses_and_doubles_nothing(
    make_daemon: MakeDaemon, export: Path, turn: int
) -> None:
    first, second = make_daemon(), make_daemon()
    one, other = join(first, export), join(second, export)
    mine, theirs = Work(one, f"a{turn}-"), Work(other, f"b{turn}-")
    with working(mine, theirs):
        await_work(mine, theirs, more_than=BEFORE + turn, timeout=30)
        second.kill()
        end_keepers(second.state)
        done = mine.done
        eventually(lambda: mine.done > done + 5, what="the one that is left goes on")
    assert mine.error is None
    assert theirs.error is not None
    sure = (mine.there | theirs.there) - theirs.doubtful
    gone = mine.trashed | theirs.trashed
    eventually(
        lambda: sure <= set(items(one)) <= sure | theirs.doubtful,
        what="all that was acknowledged is there, and nothing else",
    )
    uuids = [value(one / "items" / name / "uuid") for name in items(one)]
    assert len(set(uuids)) == len(uuids)
    assert gone - theirs.doubtful <= set(os.listdir(one / "trash"))
    assert len(os.listdir(export / ".fspool/items")) == len(items(one))
    assert sorted(name for name in os.listdir(export) if name != ".fspool") == items(one)
    for name in sure:
        assert (one / "items" / name / "data").is_dir()
    second.start()
    pool = second.mount / "pools/tank"
    eventually(lambda: value(pool / "status") == "active", what="the host is back")
    assert items(pool) == items(one)
    (pool / "items/back").mkdir()
    eventually(lambda: "back" in items(one), what="both work together again")
