"""The fixtures of the conformance suite; see `conformance.cases` for what it runs over."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance.cases import FILE_SYSTEMS, ROOTS, SOURCES, FileSystemCase, SourceCase
from fspoolfs.backends.filesystem import FileSystem
from fspoolfs.backends.root import RootDirectory
from support.volumes import Volumes, marks


@pytest.fixture(params=ROOTS)
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RootDirectory]:
    with ROOTS[request.param](tmp_path) as opened:
        yield opened


@pytest.fixture(
    params=[
        pytest.param(name, marks=marks(case.volume) if case.volume else [])
        for name, case in FILE_SYSTEMS.items()
    ]
)
def filesystem(request: pytest.FixtureRequest, tmp_path: Path, volumes: Volumes) -> Iterator[FileSystem]:
    case: FileSystemCase = FILE_SYSTEMS[request.param]
    directory = volumes.directory(case.volume) if case.volume else tmp_path
    with case.open_root(directory) as opened:
        found = case.probe(opened)
        assert found is not None
        yield found


@pytest.fixture(params=SOURCES)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> SourceCase:
    return SOURCES[request.param](tmp_path)


@pytest.fixture
def stranger() -> int:
    """The number of a user and group other than the tests' own, where those may give files away."""
    return 4711 if os.geteuid() == 0 else os.geteuid()


@pytest.fixture
def strict_umask() -> Iterator[None]:
    old = os.umask(0o077)
    yield
    os.umask(old)
