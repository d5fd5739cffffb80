"""What a pool on a server goes through in each test of one."""

from __future__ import annotations

from pathlib import Path

from mount.control import request, value
from support.wait import eventually
from vm.preloaded import PreloadedDaemon


def live(daemon: PreloadedDaemon, pool: Path, exported: Path) -> None:
    """From the first item of an active pool to its stop, with a daemon killed in between."""
    assert "filesystem: generic" in (pool / "features").read_text()
    item = pool / "items" / "web"
    item.mkdir()
    (item / "data" / "file").write_text("first")
    assert (exported / "web" / "file").read_text() == "first"
    (item / "snapshots" / "before").mkdir()
    (item / "data" / "file").write_text("second")
    go_back_and_be_taken_up(daemon, pool)
    (pool / "items" / "shop").rmdir()
    request(pool / "status", "stop")


def go_back_and_be_taken_up(daemon: PreloadedDaemon, pool: Path) -> None:
    """The item `web`, rolled back to what it held `before`, is called `shop` and outlives the daemon."""
    item = pool / "items" / "web"
    request(item / "status", "rollback before")
    assert (item / "data" / "file").read_text() == "first"
    item.rename(pool / "items" / "shop")
    daemon.kill()
    daemon.start()
    eventually(lambda: value(pool / "status") == "active", what="the pool is taken up")
    assert (pool / "items" / "shop" / "data" / "file").read_text() == "first"
