"""Directories by descriptor, for what works beneath one and never by path."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fspoolfs.progress import Progress
from fspoolfs.system.paths import HostRoot
from fspoolfs.system.removal import remove_tree
from support.leaks import mark


@pytest.fixture
def here(tmp_path: Path) -> Iterator[int]:
    """A descriptor of the test's directory."""
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    _clear(fd)


@pytest.fixture
def memory() -> Iterator[tuple[int, Path]]:
    """A directory in memory and its descriptor, for deep trees that would keep a disk busy."""
    path = Path(tempfile.mkdtemp(dir="/dev/shm", prefix=mark()))
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd, path
    _clear(fd)
    path.rmdir()


@pytest.fixture(params=["same file system", "another one"])
def there(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """Where a copy goes: a descriptor and its path."""
    if request.param == "same file system":
        path = tmp_path / "there"
        path.mkdir()
    else:
        path = Path(tempfile.mkdtemp(dir="/dev/shm", prefix=mark()))
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd, path
    os.close(fd)
    shutil.rmtree(path)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """The root's directory; beside it lies a victim that nothing may reach."""
    (tmp_path / "victim").mkdir(mode=0o755)
    (tmp_path / "victim/precious").write_text("precious")
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def root(base: Path) -> Iterator[HostRoot]:
    opened = HostRoot.open(str(base))
    yield opened
    opened.close()


def _clear(fd: int) -> None:
    """Empty and close a directory that holds trees which pytest's own removal is not made for."""
    for name in os.listdir(fd):
        remove_tree(fd, name, Progress())
    os.close(fd)
