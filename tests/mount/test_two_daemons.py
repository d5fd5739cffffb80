"""Two daemons that know the same pool: only one works on it at a time, however the other one has ended."""

from __future__ import annotations

import errno
from pathlib import Path

from mount.control import last_error, refused, request, value
from support.daemon import Daemon, MakeDaemon


def define(daemon: Daemon, root: Path) -> Path:
    target = f"<target><path>{root}</path></target>"
    request(daemon.mount / "define", f"<fspool type='dir'><name>tank</name>{target}</fspool>")
    return daemon.mount / "pools" / "tank"


def test_a_pool_that_is_active_elsewhere_is_not_started(make_daemon: MakeDaemon, tmp_path: Path) -> None:
    one, other = make_daemon(), make_daemon()
    root = tmp_path / "shared"
    mine = define(one, root)
    request(mine / "status", "start build")
    (mine / "items" / "web").mkdir()
    theirs = define(other, root)
    assert value(theirs / "uuid") == value(mine / "uuid")
    with refused(errno.EBUSY):
        request(theirs / "status", "start")
    assert "another daemon has this pool active" in last_error(theirs)
    assert value(mine / "status") == "active"
    request(mine / "status", "stop")
    request(theirs / "status", "start")
    assert (theirs / "items" / "web").is_dir()
    with refused(errno.EBUSY):
        request(mine / "status", "start")
    other.kill()
    request(mine / "status", "start")
    assert (mine / "items" / "web").is_dir()
