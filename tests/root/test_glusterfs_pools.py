"""A pool on a volume of GlusterFS with one server, through a real daemon."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mount.control import last_error, refused, request, value
from root.moosefs_pools import root_of, types_at
from support import glusterfs
from support.daemon import Daemon
from support.wait import eventually

pytestmark = [pytest.mark.long, *glusterfs.MARKS, pytest.mark.usefixtures("volume")]


@pytest.fixture
def volume(run_directory: Path, network_places: None) -> Iterator[None]:
    """There is one, on the host that the test is on."""
    with glusterfs.running(run_directory):
        yield


def test_a_pool_lives_in_a_directory_of_a_volume(daemon: Daemon) -> None:
    document = f"<fspool type='network'><name>tank</name>{glusterfs.source('/vol/in/side')}</fspool>"
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


def test_a_volume_that_there_is_not_is_told(daemon: Daemon) -> None:
    document = f"<fspool type='network'><name>tank</name>{glusterfs.source('/other')}</fspool>"
    request(daemon.mount / "define", document)
    pool = daemon.mount / "pools" / "tank"
    with refused(errno.ENOENT):
        request(pool / "status", "start build")
    assert "is not there" in last_error(pool)
    assert "volume file" in last_error(pool)
