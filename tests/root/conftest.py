"""Fixtures that tests as root share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from root.volume_pools import SIZE
from support.leftovers import attached, take_away
from support.shell import run


@pytest.fixture
def disk(run_directory: Path) -> Iterator[str]:
    """A loop device of the test's own, empty."""
    directory = run_directory / "disk"
    directory.mkdir()
    with (directory / "image").open("wb") as file:
        file.truncate(SIZE)
    device = run("losetup", "--find", "--show", directory / "image").stdout.strip()
    yield device
    take_away(leftover for leftover in attached() if f"{device} " in leftover.sentence)
    shutil.rmtree(directory)
