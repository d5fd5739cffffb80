"""That the file systems of the suite are here and are what they are called: where it counts, all must be."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from fspoolfs.backends.registry import default_registry
from fspoolfs.system import btrfs
from fspoolfs.system.paths import HostRoot
from support.volumes import KINDS, Volumes, marks

#: f_type of statfs(2), include/uapi/linux/magic.h and fs/xfs.
MAGIC = {"ext4": 0xEF53, "xfs": 0x58465342, "overlay": 0x794C7630}


@pytest.mark.required
@pytest.mark.parametrize("kind", [pytest.param(kind, marks=marks(kind)) for kind in KINDS])
def test_kind_can_be_made_and_is_recognised(kind: str, volumes: Volumes) -> None:
    with closing(HostRoot.open(str(volumes.directory(kind)))) as root:
        assert root.filesystem_magic() == MAGIC.get(kind, btrfs.MAGIC)
        expected = "generic" if kind in MAGIC else "btrfs"
        assert default_registry(Path("/nonexistent")).filesystem_at(root).name == expected
