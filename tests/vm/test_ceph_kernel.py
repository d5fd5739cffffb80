"""Network pools on CephFS by the kernel's own client: a pool's life with capacity and snapshots."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mount.control import request, value
from support.ceph import Cluster, running
from support.machine import mounts
from support.shell import run
from support.wait import eventually
from vm.preloaded import PreloadedDaemon

#: A whole cluster in the guest takes minutes to come up, and gigabytes.
pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

MIB = 1 << 20


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    run("ip", "link", "set", "lo", "up")
    run("modprobe", "ceph")
    with running(tmp_path_factory.mktemp("ceph")) as made:
        yield made


def test_a_pool_lives_by_the_kernels_client(daemon: PreloadedDaemon, cluster: Cluster) -> None:
    cluster.confine("h1", "/tank")
    source = cluster.source("/tank", client="h1", more="<options>client=kernel</options>")
    request(daemon.mount / "define", f"<fspool type='network'><name>tank</name>{source}</fspool>")
    pool = daemon.mount / "pools" / "tank"
    request(pool / "status", "start build")
    root = Path(os.readlink(pool / "root"))
    assert "ceph" in {mount.fstype for mount in mounts() if mount.point == str(root)}
    assert "filesystem: ceph" in (pool / "features").read_text()
    item = pool / "items" / "web"
    item.mkdir()
    request(item / "capacity", str(8 * MIB))
    (item / "data" / "file").write_text("first")
    (item / "snapshots" / "before").mkdir()
    (item / "data" / "file").write_text("second")
    assert (item / "snapshots" / "before" / "data" / "file").read_text() == "first"
    argv = ("dd", "if=/dev/zero", f"of={item}/data/big", "bs=1M", "count=64", "oflag=direct")
    assert "Disk quota exceeded" in run(*argv, check=False).stderr
    (item / "data" / "big").unlink()
    request(item / "status", "rollback before")
    assert (item / "data" / "file").read_text() == "first"
    item.rename(pool / "items" / "shop")
    daemon.kill()
    daemon.start()
    eventually(lambda: value(pool / "status") == "active", what="the pool is taken up")
    assert (pool / "items" / "shop" / "data" / "file").read_text() == "first"
    (pool / "items" / "shop" / "snapshots" / "before").rmdir()
    (pool / "items" / "shop").rmdir()
    request(pool / "status", "stop")
    assert not os.path.ismount(root)
