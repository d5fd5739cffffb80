"""Pools of format zfs on OpenZFS: all that is tested with zfs-fuse elsewhere."""

from __future__ import annotations

import pytest

from root.test_zfs_pools import *  # noqa: F403
from vm.openzfs import *  # noqa: F403
from vm.openzfs import LIMIT

pytestmark = [pytest.mark.usefixtures("usable_zfs"), pytest.mark.timeout(LIMIT)]
