"""The contracts of every file system, root and source, on OpenZFS."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from conformance.cases import SourceCase, on_image, on_zpool
from conformance.conftest import stranger, strict_umask  # noqa: F401
from conformance.test_filesystem_contract import *  # noqa: F403
from conformance.test_log_contract import *  # noqa: F403
from conformance.test_root_contract import *  # noqa: F403
from conformance.test_source_contract import *  # noqa: F403
from fspoolfs.backends import zfs
from fspoolfs.backends.filesystem import FileSystem
from fspoolfs.backends.root import RootDirectory
from fspoolfs.backends.zfs import ZfsFileSystem
from fspoolfs.backends.zfs_root import ZfsRoot
from fspoolfs.progress import Progress
from fspoolfs.system.descriptors import Descriptor
from support.zfs import usable_zfs  # noqa: F401
from vm.disks import volume
from vm.openzfs import LIMIT

pytestmark = [pytest.mark.usefixtures("usable_zfs"), pytest.mark.timeout(LIMIT)]


@pytest.fixture(scope="module")
def disk(usable_zfs: None) -> Path:  # noqa: F811
    """What images lie on keeps extended attributes."""
    return volume("ext4", "").place


@pytest.fixture(scope="module")
def zpool(disk: Path) -> Iterator[ZfsRoot]:
    """One for all tests of roots and file systems: importing it takes seconds there."""
    with on_zpool(disk) as found:
        assert isinstance(found, ZfsRoot)
        yield found


@pytest.fixture
def root(zpool: ZfsRoot) -> Iterator[RootDirectory]:
    """As if it were a new one."""
    descriptor = Descriptor(os.open(zpool.path, os.O_RDONLY | os.O_DIRECTORY))
    with closing(ZfsRoot(zpool.path, descriptor, zpool.pool, "")) as found:
        yield found
    for name in zpool.names(""):
        if name in zpool.directories(""):
            ZfsFileSystem(zpool).remove(name, Progress())
        else:
            zpool.remove_file(name)
    zpool.set_attributes("", mode=0o755, owner=0, group=0)


@pytest.fixture
def filesystem(root: RootDirectory) -> FileSystem:
    found = zfs.probe(root)
    assert found is not None
    return found


@pytest.fixture
def case(disk: Path, tmp_path: Path) -> Iterator[SourceCase]:
    place = disk / tmp_path.name
    place.mkdir()
    made = on_image(place, "zfs")
    yield made
    made.close()
