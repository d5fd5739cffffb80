"""The contracts of every file system, root and source, on OpenZFS."""

from __future__ import annotations

from collections.abc import Iterator
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
from support.zfs import usable_zfs  # noqa: F401
from vm.disks import volume

pytestmark = pytest.mark.usefixtures("usable_zfs")


@pytest.fixture(scope="module")
def disk() -> Path:
    """What images lie on keeps extended attributes."""
    return volume("ext4", "").place


@pytest.fixture
def place(disk: Path, tmp_path: Path) -> Path:
    """A new directory there."""
    made = disk / tmp_path.name
    made.mkdir()
    return made


@pytest.fixture
def root(place: Path) -> Iterator[RootDirectory]:
    with on_zpool(place) as found:
        yield found


@pytest.fixture
def filesystem(root: RootDirectory) -> FileSystem:
    found = zfs.probe(root)
    assert found is not None
    return found


@pytest.fixture
def case(place: Path) -> Iterator[SourceCase]:
    made = on_image(place, "zfs")
    yield made
    made.close()
