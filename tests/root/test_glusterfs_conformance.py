"""The contracts of sources, roots and file systems, on a volume of GlusterFS."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
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
from fspoolfs.backends.network.glusterfs import GlusterFs
from fspoolfs.backends.network_source import NetworkSource
from fspoolfs.backends.root import RootDirectory
from fspoolfs.model.documents import parse_pool
from support import glusterfs
from support.sshd import own_places

#: The contract of generic items is looked at on many other roots in every run.
pytestmark = [pytest.mark.long, *glusterfs.MARKS, pytest.mark.usefixtures("volume")]


@pytest.fixture(scope="module")
def volume(run_directory: Path) -> Iterator[None]:
    """There is one, on the host that the tests are on."""
    with own_places(), glusterfs.running(run_directory):
        yield


def case_on(place: Path) -> SourceCase:
    """A pool on a directory of the volume that is not there yet."""
    text = f"<fspool type='network'><name>tank</name>{glusterfs.source(f'/vol/{uuid4()}')}</fspool>"
    definition = replace(parse_pool(text.encode()), uuid=uuid4(), target=str(place / "tank"))
    return SourceCase(NetworkSource([GlusterFs()], Bound()), definition)


@pytest.fixture(scope="module")
def mounted(volume: None, run_directory: Path) -> Iterator[Path]:
    place = run_directory / "glusterfs"
    with closing(case_on(place)) as case:
        yield mount(case)
    shutil.rmtree(place)


@pytest.fixture
def probe() -> Callable[[RootDirectory], FileSystem | None]:
    return generic.probe


@pytest.fixture
def case(tmp_path: Path) -> Iterator[SourceCase]:
    with closing(case_on(tmp_path)) as made:
        yield made
