"""Network pools on CephFS by the kernel's own client: a pool's life, and the contracts.

The cluster runs outside of the guest, where tests/root/test_ceph_kernel.py starts it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from conformance.cases import SourceCase
from conformance.on_a_server import *  # noqa: F403
from conformance.on_a_server import mount
from fspoolfs.backends import ceph
from fspoolfs.backends.filesystem import FileSystem
from fspoolfs.backends.network.bound import Bound
from fspoolfs.backends.network.cephfs import Cephfs
from fspoolfs.backends.network_source import NetworkSource
from fspoolfs.backends.root import RootDirectory
from fspoolfs.model.documents import parse_pool
from mount.control import last_error, refused, request
from support.ceph import KERNEL_CLIENT, Cluster
from support.machine import mounts
from support.shell import run
from vm.network_life import go_back_and_be_taken_up
from vm.preloaded import PreloadedDaemon

pytestmark = pytest.mark.long

MIB = 1 << 20
#: The kernel's client where there could be another one.
_OPTIONS = "<options>client=kernel</options>"


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    """What is known here of the cluster that runs outside."""
    address, _, base = os.environ[KERNEL_CLIENT].partition(":")
    return Cluster(Path(base), address=address, port=3300)


@pytest.fixture(scope="module")
def pool(daemon: PreloadedDaemon, cluster: Cluster) -> Iterator[Path]:
    """Active, of a client that may do all in its own directory and nothing elsewhere."""
    source = cluster.source("/tank", client="h1", more=_OPTIONS)
    request(daemon.mount / "define", f"<fspool type='network'><name>tank</name>{source}</fspool>")
    pool = daemon.mount / "pools" / "tank"
    request(pool / "status", "start build")
    yield pool
    request(pool / "status", "destroy")


def test_a_pool_lives_by_the_kernels_client(pool: Path, daemon: PreloadedDaemon) -> None:
    root = Path(os.readlink(pool / "root"))
    assert "ceph" in {mount.fstype for mount in mounts() if mount.point == str(root)}
    features = (pool / "features").read_text()
    assert "filesystem: ceph" in features
    item = pool / "items" / "web"
    item.mkdir()
    (item / "data" / "file").write_text("first")
    (item / "snapshots" / "before").mkdir()
    (item / "data" / "file").write_text("second")
    assert (item / "snapshots" / "before" / "data" / "file").read_text() == "first"
    go_back_and_be_taken_up(daemon, pool)
    request(pool / "items" / "shop" / "status", "clone copy")
    assert (pool / "items" / "copy" / "data" / "file").read_text() == "first"
    for name in ("shop", "copy"):
        for snapshot in os.listdir(pool / "items" / name / "snapshots"):
            (pool / "items" / name / "snapshots" / snapshot).rmdir()
        (pool / "items" / name).rmdir()
    request(pool / "status", "stop")
    assert not os.path.ismount(root)
    request(pool / "status", "start")


def test_a_capacity_limits_what_the_kernels_client_writes(pool: Path) -> None:
    item = pool / "items" / "small"
    item.mkdir()
    request(item / "capacity", str(8 * MIB))
    argv = ("dd", "if=/dev/zero", f"of={item}/data/big", "bs=1M", "count=64", "oflag=direct")
    assert "Disk quota exceeded" in run(*argv, check=False).stderr
    (item / "data" / "big").unlink()
    request(item / "capacity", str(128 * MIB))
    run(*argv)
    assert (item / "data" / "big").stat().st_size == 64 * MIB
    item.rmdir()


def test_an_item_in_use_stays(pool: Path) -> None:
    item = pool / "items" / "used"
    item.mkdir()
    with (item / "data" / "file").open("w"), refused(errno.EBUSY):
        request(pool / "status", "stop")
    assert "in use" in last_error(pool)
    item.rmdir()


def test_a_client_without_the_secret_hears_what_it_may_be(daemon: PreloadedDaemon, cluster: Cluster) -> None:
    """The kernel tells it to its log alone."""
    source = cluster.source("/other", client="stranger", more=_OPTIONS)
    request(daemon.mount / "define", f"<fspool type='network'><name>other</name>{source}</fspool>")
    other = daemon.mount / "pools" / "other"
    with refused(errno.ETIMEDOUT):
        request(other / "status", "start build")
    assert "was not let in as client.stranger with the secret" in last_error(other)
    other.rmdir()


def case_on(cluster: Cluster, place: Path) -> SourceCase:
    source = cluster.source(f"/{uuid4()}/tank", more=_OPTIONS)
    definition = parse_pool(f"<fspool type='network'><name>tank</name>{source}</fspool>".encode())
    return SourceCase(
        NetworkSource([Cephfs()], Bound()), replace(definition, uuid=uuid4(), target=str(place / "tank"))
    )


@pytest.fixture(scope="module")
def mounted(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mount(case_on(cluster, tmp_path_factory.mktemp("ceph")))


@pytest.fixture
def probe() -> Callable[[RootDirectory], FileSystem | None]:
    return ceph.probe


@pytest.fixture
def case(cluster: Cluster, tmp_path: Path) -> Iterator[SourceCase]:
    made = case_on(cluster, tmp_path)
    yield made
    made.close()
