"""The contract of every file system, in pools on logical volumes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from conformance.cases import VOLUME_SIZE, SourceCase, volume_pool, volume_source
from conformance.conftest import stranger, strict_umask  # noqa: F401
from conformance.test_filesystem_contract import *  # noqa: F403
from fspoolfs.backends import project_quota
from fspoolfs.backends.filesystem import FileSystem
from fspoolfs.backends.source import BuildMode
from fspoolfs.model.definitions import PoolSource
from fspoolfs.progress import Progress
from fspoolfs.system.paths import HostRoot
from vm.volume_groups import Group

#: The same file systems have the same contract without LVM in every run.
pytestmark = pytest.mark.long


@pytest.fixture(scope="module", params=["ext4", "xfs"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where a pool's root is mounted."""
    group, storage = Group(f"contract-{request.param}", 2 * VOLUME_SIZE), tmp_path_factory.mktemp("lvm")
    source = PoolSource(pool=group.name, volume="v", provider="lvm", format=request.param)
    case = SourceCase(volume_source(storage), volume_pool(storage, source, VOLUME_SIZE), clean_up=group.clear)
    case.source.build(case.definition, BuildMode.NO_OVERWRITE, Progress())
    with closing(case.source.attach(case.definition, Progress())):
        assert case.definition.target is not None
        yield Path(case.definition.target)
    case.close()


@pytest.fixture
def filesystem(place: Path) -> Iterator[FileSystem]:
    """The items of a root of its own there."""
    with closing(HostRoot.open(tempfile.mkdtemp(dir=place))) as root:
        found = project_quota.probe(root)
        assert found is not None
        yield found
