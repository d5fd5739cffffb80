"""The contracts of sources, roots and file systems, on exports of the kernel's NFS server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import count
from pathlib import Path
from uuid import uuid4

import pytest

from conformance.cases import SourceCase, host
from conformance.conftest import stranger, strict_umask  # noqa: F401
from conformance.test_filesystem_contract import *  # noqa: F403
from conformance.test_log_contract import *  # noqa: F403
from conformance.test_root_contract import *  # noqa: F403
from conformance.test_source_contract import *  # noqa: F403
from fspoolfs.backends import generic
from fspoolfs.backends.filesystem import FileSystem
from fspoolfs.backends.network.bound import Bound
from fspoolfs.backends.network.nfs import Nfs
from fspoolfs.backends.network_source import NetworkSource
from fspoolfs.backends.root import RootDirectory
from fspoolfs.backends.source import BuildMode
from fspoolfs.model.documents import parse_pool
from fspoolfs.progress import Progress
from vm.nfs_server import NfsServer, server

#: The contract of generic items is looked at on many other roots in every run.
pytestmark = pytest.mark.long

_numbers = count(1)


@pytest.fixture(scope="module")
def nfs() -> NfsServer:
    return server()


def case_on(nfs: NfsServer, place: Path, version: str) -> SourceCase:
    """A pool on a new directory of the export, which is not there yet."""
    source = nfs.source(nfs.new_directory() / "tank", f"vers={version}")
    definition = parse_pool(f"<fspool type='network'><name>tank</name>{source}</fspool>".encode())
    return SourceCase(
        NetworkSource([Nfs()], Bound()), replace(definition, uuid=uuid4(), target=str(place / "tank"))
    )


@pytest.fixture(scope="module", params=["3", "4.2"])
def mounted(request: pytest.FixtureRequest, nfs: NfsServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a pool, for all tests of roots and file systems."""
    case = case_on(nfs, tmp_path_factory.mktemp("nfs"), request.param)
    case.source.build(case.definition, BuildMode.NO_OVERWRITE, Progress())
    with closing(case.source.attach(case.definition, Progress())) as root:
        return Path(root.path)


@pytest.fixture
def root(mounted: Path) -> Iterator[RootDirectory]:
    made = mounted / f"root{next(_numbers)}"
    made.mkdir(mode=0o755)
    with host(made) as found:
        yield found


@pytest.fixture
def filesystem(root: RootDirectory) -> FileSystem:
    found = generic.probe(root)
    assert found is not None
    return found


@pytest.fixture(params=["3", "4.2"])
def case(request: pytest.FixtureRequest, nfs: NfsServer, tmp_path: Path) -> Iterator[SourceCase]:
    made = case_on(nfs, tmp_path, request.param)
    yield made
    made.close()
