"""The contracts of sources, roots and file systems, on exports of the kernel's NFS server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from conformance.cases import SourceCase
from conformance.on_a_server import *  # noqa: F403
from conformance.on_a_server import mount
from fspoolfs.backends import generic
from fspoolfs.backends.filesystem import FileSystem
from fspoolfs.backends.network.bound import Bound
from fspoolfs.backends.network.nfs import Nfs
from fspoolfs.backends.network_source import NetworkSource
from fspoolfs.backends.root import RootDirectory
from fspoolfs.model.documents import parse_pool
from vm.nfs_server import NfsServer, server

#: The contract of generic items is looked at on many other roots in every run.
pytestmark = pytest.mark.long


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
    return mount(case_on(nfs, tmp_path_factory.mktemp("nfs"), request.param))


@pytest.fixture
def probe() -> Callable[[RootDirectory], FileSystem | None]:
    return generic.probe


@pytest.fixture(params=["3", "4.2"])
def case(request: pytest.FixtureRequest, nfs: NfsServer, tmp_path: Path) -> Iterator[SourceCase]:
    made = case_on(nfs, tmp_path, request.param)
    yield made
    made.close()
