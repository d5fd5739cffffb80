"""What is told of sharing blocks is what a trial finds, also where nothing is tried."""

from __future__ import annotations

import os

import pytest

from fspoolfs.system import reflink
from support.volumes import Volumes, marks

KINDS = {"ext4": False, "xfs": True, "btrfs-plain": True, "overlay": None}


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=marks(kind)) for kind in KINDS])
def test_sharing_blocks_is_told_as_it_is(kind: str, volumes: Volumes) -> None:
    directory = os.open(volumes.directory(kind), os.O_RDONLY | os.O_DIRECTORY)
    try:
        told, found = reflink.supported(directory), reflink._works(directory)
    finally:
        os.close(directory)
    assert told is found
    assert KINDS[kind] in (told, None)


def test_sharing_blocks_is_tried_elsewhere() -> None:
    memory = os.open("/dev/shm", os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert reflink.supported(memory) is reflink._works(memory)
    finally:
        os.close(memory)
