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
from support.volumes import Volumes, marks


@contextmanager
def opened(case: RootCase, tmp_path: Path, volumes: Volumes) -> Iterator[RootDirectory]:
    with case.open(volumes.directory(case.volume) if case.volume else tmp_path) as root:
        yield root


def needing(name: str, case: RootCase) -> ParameterSet:
    """The parameter `name`, with the marks of what `case` needs of the machine."""
    return pytest.param(name, marks=marks(case.volume) if case.volume else [])


@pytest.fixture(params=[needing(name, case) for name, case in ROOTS.items()])
def root(request: pytest.FixtureRequest, tmp_path: Path, volumes: Volumes) -> Iterator[RootDirectory]:
    with opened(ROOTS[request.param], tmp_path, volumes) as found:
        yield found


@pytest.fixture(params=[needing(name, case.root) for name, case in FILE_SYSTEMS.items()])
def filesystem(request: pytest.FixtureRequest, tmp_path: Path, volumes: Volumes) -> Iterator[FileSystem]:
    case = FILE_SYSTEMS[request.param]
    with opened(case.root, tmp_path, volumes) as root:
        found = case.probe(root)
        assert found is not None
        yield found


@pytest.fixture(params=[pytest.param(name, marks=source_marks(name)) for name in SOURCES])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SourceCase]:
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
