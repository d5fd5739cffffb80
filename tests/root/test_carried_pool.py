"""A pool with many items and snapshots in an image that goes to another place, with another state directory.

FSPOOLFS_CARRIED_ITEMS=100 makes it the whole one: 10 GiB, and ten snapshots of each item.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from mount.control import request, value
from root.volume_pools import MARKS, MIB, define, image_of, loops_of
from support.daemon import MakeDaemon
from support.wait import eventually

pytestmark = MARKS

ITEMS = int(os.environ.get("FSPOOLFS_CARRIED_ITEMS", "12"))
SNAPSHOTS = 10 if ITEMS > 12 else 3
SIZE = (100 * ITEMS + 240) * MIB


def furnish(item: Path, number: int) -> None:
    """Capacity, owner, content, and snapshots of what it held before."""
    request(item / "capacity", f"{8 + number % 4}M")
    os.chown(item, 1000 + number, 2000 + number)
    for snapshot in range(SNAPSHOTS):
        (item / "data" / "file").write_text(f"{number} at {snapshot}")
        (item / "snapshots" / f"s{snapshot}").mkdir()
    (item / "data" / "file").write_bytes(os.urandom(100_000 + number))


def seen(pool: Path) -> dict[str, object]:
    """All that a pool is to bring along."""
    found: dict[str, object] = {"uuid": value(pool / "uuid")}
    for item in sorted((pool / "items").iterdir()):
        info = (item / "data" / ".").stat()
        found[item.name] = {
            "owner": (info.st_uid, info.st_gid, info.st_mode),
            "capacity": value(item / "capacity"),
            "uuid": value(item / "uuid"),
            "content": (item / "data" / "file").read_bytes(),
            "snapshots": {
                snapshot.name: ((snapshot / "data" / "file").read_text(), (snapshot / "created").read_text())
                for snapshot in (item / "snapshots").iterdir()
            },
        }
    return found


def test_a_pool_is_all_there_in_another_place(make_daemon: MakeDaemon) -> None:
    one, other = make_daemon(), make_daemon()
    pool = define(one, "tank", "btrfs", size=SIZE)
    request(pool / "status", "start build")
    for number in range(ITEMS):
        item = pool / "items" / f"i{number}"
        item.mkdir()
        furnish(item, number)
    before = seen(pool)
    assert len(before) == ITEMS + 1
    request(pool / "status", "stop")
    assert loops_of(one) == []
    image_of(other, "tank").parent.mkdir(parents=True)
    shutil.move(image_of(one, "tank"), image_of(other, "tank"))
    one.stop()
    pool = define(other, "tank", "btrfs", size=None)
    request(pool / "status", "start")
    assert seen(pool) == before
    for number in range(ITEMS):
        allocation = int(value(pool / "items" / f"i{number}" / "allocation"))
        assert 100_000 <= allocation <= 12 * MIB, "what an item holds is counted here, too"
    item = pool / "items" / "i1"
    request(item / "status", "rollback s0")
    assert (item / "data" / "file").read_text() == "1 at 0"
    eventually(lambda: len(os.listdir(item / "snapshots")) == SNAPSHOTS + 1, what="what it replaced is kept")
    request(pool / "status", "stop")
    assert loops_of(other) == []
