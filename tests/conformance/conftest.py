"""The fixtures of the conformance suite; see `conformance.cases` for what it runs over."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from _pytest.mark.structures import ParameterSet

from conformance.cases import FILE_SYSTEMS, ROOTS, SOURCES, RootCase, SourceCase, source_marks
from fspoolfs.backends.filesystem import FileSystem
from fspoolfs.backends.root import RootDirectory
from support import ceph, moosefs, sshd, zfs
from support.volumes import Volumes, marks

#: What tests need that use a server, by its fixture.
SERVERS = {"usable_zfs": zfs.MARKS, "sshd": sshd.MARKS, "moosefs": moosefs.MARKS, "ceph": ceph.MARKS}
#: The fixtures that sources need.
FOR_SOURCES = {
    "images-zfs": "usable_zfs",
    "network-sshfs": "sshd",
    "network-moosefs": "moosefs",
    "network-cephfs": "ceph",
    "network-bound": "network_places",
}


@contextmanager
def opened(request: pytest.FixtureRequest, case: RootCase) -> Iterator[RootDirectory]:
    tmp_path: Path = request.getfixturevalue("tmp_path")
    volumes: Volumes = request.getfixturevalue("volumes")
    if case.server:
        request.getfixturevalue(case.server)
    with case.open(volumes.directory(case.volume) if case.volume else tmp_path) as root:
        yield root


def needing(name: str, case: RootCase) -> ParameterSet:
    """The parameter `name`, with the marks of what `case` needs of the machine."""
    if case.server:
        return pytest.param(name, marks=SERVERS[case.server])
    return pytest.param(name, marks=marks(case.volume) if case.volume else [])


@pytest.fixture(params=[needing(name, case) for name, case in ROOTS.items()])
def root(request: pytest.FixtureRequest) -> Iterator[RootDirectory]:
    with opened(request, ROOTS[request.param]) as found:
        yield found


@pytest.fixture(params=[needing(name, case.root) for name, case in FILE_SYSTEMS.items()])
def filesystem(request: pytest.FixtureRequest) -> Iterator[FileSystem]:
    case = FILE_SYSTEMS[request.param]
    with opened(request, case.root) as root:
        found = case.probe(root)
        assert found is not None
        yield found


@pytest.fixture(params=[pytest.param(name, marks=source_marks(name)) for name in SOURCES])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SourceCase]:
    if request.param in FOR_SOURCES:
        request.getfixturevalue(FOR_SOURCES[request.param])
    made = SOURCES[request.param](tmp_path)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def stranger() -> int:
    """The number of a user and group other than the tests' own, where those may give files away."""
    return 4711 if os.geteuid() == 0 else os.geteuid()


@pytest.fixture
def strict_umask() -> Iterator[None]:
    old = os.umask(0o077)
    yield
    os.umask(old)
