"""`fspoolfs check` on pools whose storage is not a directory of this host's own."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from mount.control import request, value
from root.server_pools import SERVERS, source_on
from root.volume_pools import define
from support import zfs
from support.daemon import Daemon
from support.needs import needs_fuse, needs_root
from support.shell import run
from support.wait import eventually

pytestmark = [needs_root, needs_fuse, pytest.mark.long, pytest.mark.timeout(300)]

KINDS = [*SERVERS, pytest.param("zfs", marks=zfs.MARKS)]


@pytest.fixture(params=KINDS)
def pool(request: pytest.FixtureRequest) -> Path:
    """Defined with a fresh daemon, whose place is known before servers are."""
    kind = request.param
    source = source_on(kind, request) if kind in SERVERS else ""
    daemon: Daemon = request.getfixturevalue("daemon")
    if not source:
        request.getfixturevalue("usable_zfs")
        return define(daemon, "tank", kind)
    (daemon.mount / "define").write_text(f"<fspool type='network'><name>tank</name>{source}</fspool>\n")
    return daemon.mount / "pools" / "tank"


def findings(daemon: Daemon) -> list[str]:
    """What the check finds with the daemon's directories."""
    where = ("--state-dir", str(daemon.state), "--storage-dir", str(daemon.storage))
    done = run(sys.executable, "-m", "fspoolfs", "check", *where, "--json", check=False)
    assert done.returncode in (0, 1), done.stderr
    found = [one["finding"] for one in json.loads(done.stdout)["findings"]]
    assert bool(found) == bool(done.returncode)
    return found


def test_what_is_well_is_found_well_and_what_is_not_is_told(pool: Path, daemon: Daemon) -> None:
    request(pool / "status", "start build")
    for name in ("web", "shop", "old"):
        (pool / "items" / name).mkdir()
    (pool / "items" / "web" / "snapshots" / "monday").mkdir()
    (pool / "items" / "old").rmdir()
    root = Path(os.readlink(pool / "root"))
    assert findings(daemon) == []
    (root / ".fspool").chmod(0o755)
    daemon.kill()
    assert [finding for finding in findings(daemon) if ".fspool" in finding and "755" in finding]
    (root / ".fspool").chmod(0o700)
    daemon.start()
    eventually(lambda: value(pool / "status") == "active", what="the pool is taken up", timeout=60)
    assert sorted(os.listdir(pool / "items")) == ["shop", "web"]
    assert findings(daemon) == []
    request(pool / "status", "stop")
    assert findings(daemon) == []
