"""The contracts of sources, roots and file systems for a module of tests with a server of its own.

Whoever imports all of it defines `mounted`, the root of a pool, for tests of roots and file systems,
`probe`, which recognizes what items are there, and `case`, a pool that is not there yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from conformance.cases import SourceCase, host
from conformance.conftest import stranger, strict_umask  # noqa: F401
from conformance.test_filesystem_contract import *  # noqa: F403
from conformance.test_log_contract import *  # noqa: F403
from conformance.test_root_contract import *  # noqa: F403
from conformance.test_source_contract import *  # noqa: F403
from fspoolfs.backends.filesystem import FileSystem
from fspoolfs.backends.root import RootDirectory
from fspoolfs.backends.source import BuildMode
from fspoolfs.progress import Progress

_numbers = count(1)


def mount(case: SourceCase) -> Path:
    """Where a new pool is mounted from then on."""
    case.source.build(case.definition, BuildMode.NO_OVERWRITE, Progress())
    root = case.source.attach(case.definition, Progress())
    path = Path(root.path)
    root.close()
    return path


@pytest.fixture
def root(mounted: Path) -> Iterator[RootDirectory]:
    made = mounted / f"root{next(_numbers)}"
    made.mkdir()
    made.chmod(0o755)
    with host(made) as found:
        yield found


@pytest.fixture
def filesystem(root: RootDirectory, probe: Callable[[RootDirectory], FileSystem | None]) -> FileSystem:
    found = probe(root)
    assert found is not None
    return found
