"""The operations after whose success the power is cut. A new one is one row of the table.

Each is done in a pool of its own life: `prepare` before, `operate` as the last thing before the cut,
`check` when the storage and a new daemon are back. `pool` is the pool's directory in the control tree.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mount.control import request, value

_CONTENT = b"content\n" * 10_000


@dataclass(frozen=True, slots=True)
class Operation:
    """What is done to a pool that has the items "web" and "db", both with something in them."""

    name: str
    operate: Callable[[Path], None]
    check: Callable[[Path], None]
    prepare: Callable[[Path], None] = lambda pool: None
    #: Whether file systems have ways of their own for it; what all do alike is looked at on one, usually.
    own_ways: bool = False


def furnish(pool: Path, name: str) -> None:
    """A new item with a file in it that is on the disk."""
    item = pool / "items" / name
    item.mkdir()
    put(item)


def put(item: Path) -> None:
    with (item / "data" / "file").open("wb") as file:
        file.write(_CONTENT)
        file.flush()
        os.fsync(file.fileno())
    directory = os.open(item / "data" / ".", os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)


def holds(item: Path) -> bool:
    """Whether an item is usable and has what `put` put there."""
    return value(item / "status") == "ready" and (item / "data" / "file").read_bytes() == _CONTENT


def names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


def _create(pool: Path) -> None:
    (pool / "items" / "new").mkdir(mode=0o750)


def _created(pool: Path) -> None:
    new = pool / "items" / "new"
    assert value(new / "status") == "ready"
    assert os.listdir(new / "data" / ".") == []
    assert (new / "data" / ".").stat().st_mode & 0o7777 == 0o750


def _define(pool: Path) -> None:
    (pool.parents[1] / "define").write_text(
        "<fs><name>new</name><source fspool='tank'/><target><path>/customers/new</path></target>"
        "<permissions><mode>1777</mode><owner>1000</owner><group>1001</group></permissions></fs>\n"
    )


def _defined(pool: Path) -> None:
    new = pool / "items" / "new"
    info = (new / "data" / ".").stat()
    assert (info.st_mode & 0o7777, info.st_uid, info.st_gid) == (0o1777, 1000, 1001)
    assert os.readlink(new / "data") == os.readlink(pool / "root") + "/customers/new"


def _redefine(pool: Path) -> None:
    config = pool / "items" / "web" / "config.xml"
    config.write_text(config.read_text().replace("<mode>0755<", "<mode>0700<"))


def _redefined(pool: Path) -> None:
    web = pool / "items" / "web"
    assert "<mode>0700</mode>" in (web / "config.xml").read_text()
    assert (web / "data" / ".").stat().st_mode & 0o7777 == 0o700
    assert holds(web)


def _rename(pool: Path) -> None:
    (pool / "items" / "web").rename(pool / "items" / "shop")


def _renamed(pool: Path) -> None:
    assert names(pool / "items") == ["db", "shop"]
    assert holds(pool / "items" / "shop")


def _delete(pool: Path) -> None:
    (pool / "items" / "web").rmdir()


def _deleted(pool: Path) -> None:
    assert names(pool / "items") == ["db"]
    assert names(pool / "trash") == ["web"]


def _undelete(pool: Path) -> None:
    (pool / "trash" / "web").rename(pool / "items" / "web")


def _undeleted(pool: Path) -> None:
    assert names(pool / "items") == ["db", "web"]
    assert names(pool / "trash") == []
    assert holds(pool / "items" / "web")


def _purge(pool: Path) -> None:
    (pool / "trash" / "web").rmdir()


def _purged(pool: Path) -> None:
    assert names(pool / "items") == ["db"]
    assert names(pool / "trash") == []


def _clone(pool: Path) -> None:
    request(pool / "items" / "web" / "status", "clone copy")


def _cloned(pool: Path) -> None:
    assert names(pool / "items") == ["copy", "db", "web"]
    assert holds(pool / "items" / "copy")
    assert holds(pool / "items" / "web")


def _change(item: Path) -> None:
    """Another content than `put` gave it, on the disk."""
    with (item / "data" / "file").open("wb") as file:
        file.write(b"changed")
        file.flush()
        os.fsync(file.fileno())


def _snapshot(pool: Path) -> None:
    (pool / "items" / "web" / "snapshots" / "one").mkdir()


def _snapshotted(pool: Path) -> None:
    web = pool / "items" / "web"
    assert names(web / "snapshots") == ["one"]
    assert (web / "snapshots" / "one" / "data" / "file").read_bytes() == _CONTENT
    assert holds(web)


def _snapshot_and_change(pool: Path) -> None:
    _snapshot(pool)
    _change(pool / "items" / "web")


def _rename_snapshot(pool: Path) -> None:
    snapshots = pool / "items" / "web" / "snapshots"
    (snapshots / "one").rename(snapshots / "two")


def _snapshot_renamed(pool: Path) -> None:
    web = pool / "items" / "web"
    assert names(web / "snapshots") == ["two"]
    assert (web / "snapshots" / "two" / "data" / "file").read_bytes() == _CONTENT


def _delete_snapshot(pool: Path) -> None:
    (pool / "items" / "web" / "snapshots" / "one").rmdir()


def _snapshot_deleted(pool: Path) -> None:
    assert names(pool / "items" / "web" / "snapshots") == []


def _roll_back(pool: Path) -> None:
    request(pool / "items" / "web" / "status", "rollback one")


def _rolled_back(pool: Path) -> None:
    web = pool / "items" / "web"
    assert holds(web)
    kept, one = names(web / "snapshots")
    assert (kept.startswith("before-rollback-"), one) == (True, "one")
    assert (web / "snapshots" / kept / "data" / "file").read_bytes() == b"changed"


def _clone_snapshot(pool: Path) -> None:
    request(pool / "items" / "web" / "status", "clone copy one")


def _snapshot_cloned(pool: Path) -> None:
    assert holds(pool / "items" / "copy")
    assert (pool / "items" / "web" / "data" / "file").read_bytes() == b"changed"


def _delete_with_snapshot(pool: Path) -> None:
    _snapshot_and_change(pool)
    _delete(pool)


def _undeleted_with_snapshot(pool: Path) -> None:
    _snapshot_kept(pool / "items" / "web")
    assert names(pool / "trash") == []


def _snapshot_kept(web: Path) -> None:
    assert (web / "snapshots" / "one" / "data" / "file").read_bytes() == _CONTENT
    assert (web / "data" / "file").read_bytes() == b"changed"


def _limit(pool: Path) -> None:
    request(pool / "items" / "web" / "capacity", "64M")


def _resize(pool: Path) -> None:
    request(pool / "items" / "web" / "capacity", "32M")


def _resized(pool: Path) -> None:
    web = pool / "items" / "web"
    assert value(web / "capacity") == str(32 << 20)
    numbers = os.statvfs(web / "data" / ".")
    # What df(1) shows is the limit of the project; btrfs shows the whole file system.
    shown = numbers.f_blocks * numbers.f_frsize
    assert shown == 32 << 20 or "filesystem: btrfs" in (pool / "features").read_text()
    assert holds(web)


def _other(pool: Path) -> Path:
    """The directory of a pool that only operations on pools have."""
    return pool.parent / "other"


def _define_pool(pool: Path) -> None:
    _other(pool).mkdir()


def _defined_pool(pool: Path) -> None:
    assert value(_other(pool) / "status") == "inactive"
    assert value(_other(pool) / "autostart") == "0"


def _autostart(pool: Path) -> None:
    request(_other(pool) / "autostart", "1")


def _autostarted(pool: Path) -> None:
    assert value(_other(pool) / "autostart") == "1"


def _redefine_pool(pool: Path) -> None:
    (_other(pool) / "config.xml").write_text(
        "<fspool type='dir'><name>other</name><trash retention='2h'/></fspool>"
    )


def _redefined_pool(pool: Path) -> None:
    assert "<trash retention='2h'/>" in (_other(pool) / "config.xml").read_text().replace('"', "'")


def _start_pool(pool: Path) -> None:
    request(_other(pool) / "status", "start build")


def _started_pool(pool: Path) -> None:
    """Built for good; active it is only until the next boot."""
    request(_other(pool) / "status", "start")
    assert value(_other(pool) / "status") == "active"


def _stop_pool(pool: Path) -> None:
    request(_other(pool) / "status", "stop")


def _stopped_pool(pool: Path) -> None:
    assert value(_other(pool) / "status") == "inactive"


def _undefine_pool(pool: Path) -> None:
    if value(_other(pool) / "status") == "active":
        _stop_pool(pool)
    _other(pool).rmdir()


def _undefined_pool(pool: Path) -> None:
    assert not _other(pool).exists()


OPERATIONS = (
    Operation("create", _create, _created, own_ways=True),
    Operation("define", _define, _defined),
    Operation("redefine", _redefine, _redefined),
    Operation("rename", _rename, _renamed),
    Operation("delete", _delete, _deleted),
    Operation("undelete", _undelete, _undeleted, prepare=_delete),
    Operation("purge", _purge, _purged, prepare=_delete, own_ways=True),
    Operation("clone", _clone, _cloned, own_ways=True),
    Operation("snapshot", _snapshot, _snapshotted, own_ways=True),
    Operation("snapshot rename", _rename_snapshot, _snapshot_renamed, prepare=_snapshot_and_change),
    Operation(
        "snapshot delete", _delete_snapshot, _snapshot_deleted, prepare=_snapshot_and_change, own_ways=True
    ),
    Operation("rollback", _roll_back, _rolled_back, prepare=_snapshot_and_change, own_ways=True),
    Operation(
        "snapshot clone", _clone_snapshot, _snapshot_cloned, prepare=_snapshot_and_change, own_ways=True
    ),
    Operation("snapshot undelete", _undelete, _undeleted_with_snapshot, prepare=_delete_with_snapshot),
    Operation("resize", _resize, _resized, prepare=_limit, own_ways=True),
    # Each of these goes on where the one before has ended.
    Operation("pool define", _define_pool, _defined_pool),
    Operation("pool start", _start_pool, _started_pool),
    Operation("pool stop", _stop_pool, _stopped_pool),
    Operation("pool autostart", _autostart, _autostarted),
    Operation("pool redefine", _redefine_pool, _redefined_pool),
    Operation("pool undefine", _undefine_pool, _undefined_pool),
)
