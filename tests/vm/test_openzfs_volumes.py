"""What is tested with volumes of every format, on OpenZFS."""

from __future__ import annotations

import pytest

from root import test_volume_pools
from vm.openzfs import *  # noqa: F403
from vm.openzfs import LIMIT, MakeDaemon
from vm.preloaded import PreloadedDaemon

pytestmark = [pytest.mark.usefixtures("usable_zfs"), pytest.mark.timeout(LIMIT)]


def test_a_volume_pool_lives_a_whole_life(daemon: PreloadedDaemon) -> None:
    test_volume_pools.test_a_volume_pool_lives_a_whole_life(daemon, "zfs")


def test_a_pool_is_whole_on_another_host(make_daemon: MakeDaemon) -> None:
    test_volume_pools.test_a_pool_is_whole_on_another_host(make_daemon, "zfs")


def test_a_killed_daemon_s_mount_and_loop_device_are_found_again(daemon: PreloadedDaemon) -> None:
    test_volume_pools.test_a_killed_daemon_s_mount_and_loop_device_are_found_again(daemon, "zfs")
