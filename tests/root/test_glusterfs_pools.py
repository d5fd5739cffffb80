"""A pool on a volume of GlusterFS with one server, through a real daemon."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from mount.control import last_error, refused, request, value
from root.moosefs_pools import root_of, types_at
from support.daemon import Daemon
from support.needs import needs_fuse, needs_program, needs_root
from support.network import Host, address
from support.shell import run
from support.wait import eventually

pytestmark = [
    pytest.mark.long,
    needs_root,
    needs_fuse,
    needs_program("glusterd", "gluster", "glusterfs"),
    pytest.mark.usefixtures("volume"),
]

#: Where a glusterd keeps what there can be one of.
_PLACES = ("/var/lib/glusterd", "/var/log/glusterfs", "/run/gluster")


@pytest.fixture
def volume(run_directory: Path, network_places: None) -> Iterator[str]:
    """The name of a volume; the test is on the host of its server."""
    with ExitStack() as stack:
        for place in map(Path, _PLACES):
            place.mkdir(parents=True, exist_ok=True)
            run("mount", "-t", "tmpfs", "fspoolfs-test", place)
            stack.callback(run, "umount", "--lazy", place)
        brick = run_directory / "brick"
        stack.callback(shutil.rmtree, brick, ignore_errors=True)
        host = Host()
        stack.callback(host.close)
        host.add(address(1))
        stack.enter_context(host.entered())
        argv = ["glusterd", "-N", "-p", "/run/gluster/glusterd.pid"]
        server = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        stack.callback(server.wait)
        stack.callback(server.kill)
        eventually(
            lambda: run("gluster", "volume", "info", check=False).returncode == 0, what="glusterd answers"
        )
        run("gluster", "volume", "create", "vol", f"{address(1)}:{brick}", "force")
        run("gluster", "volume", "start", "vol")
        stack.callback(run, "gluster", "--mode=script", "volume", "stop", "vol", "force")
        yield "vol"


def test_a_pool_lives_in_a_directory_of_a_volume(volume: str, daemon: Daemon) -> None:
    source = f"<host name='{address(1)}'/><dir path='/{volume}/in/side'/><format type='glusterfs'/>"
    document = f"<fspool type='network'><name>tank</name><source>{source}</source></fspool>"
    request(daemon.mount / "define", document)
    pool = daemon.mount / "pools" / "tank"
    request(pool / "status", "start build")
    assert sorted(types_at(root_of(pool))) == ["fuse.glusterfs", "tmpfs"]
    item = pool / "items" / "web"
    item.mkdir()
    (item / "data" / "file").write_text("first")
    (item / "snapshots" / "before").mkdir()
    (item / "data" / "file").write_text("second")
    request(item / "status", "rollback before")
    assert (item / "data" / "file").read_text() == "first"
    daemon.kill()
    daemon.start()
    eventually(lambda: value(pool / "status") == "active", what="the pool is taken up")
    assert os.listdir(pool / "items") == ["web"]
    request(pool / "status", "stop")
    assert types_at(root_of(pool)) == []


def test_a_volume_that_there_is_not_is_told(volume: str, daemon: Daemon) -> None:
    source = f"<host name='{address(1)}'/><dir path='/{volume}x'/><format type='glusterfs'/>"
    document = f"<fspool type='network'><name>tank</name><source>{source}</source></fspool>"
    request(daemon.mount / "define", document)
    pool = daemon.mount / "pools" / "tank"
    with refused(errno.ENOENT):
        request(pool / "status", "start build")
    assert "is not there" in last_error(pool)
    assert "volume file" in last_error(pool)
