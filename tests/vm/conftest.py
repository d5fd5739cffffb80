"""For tests in the guest that `scripts/vmtest` boots: everywhere else they are skipped.

Nothing that they mount or attach is taken away at the end, since the guest ends with them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from fspoolfs.backends import project_quota
from fspoolfs.backends.project_quota import ProjectQuotaFileSystem
from fspoolfs.system.paths import HostRoot
from support.zfs import IS_OPENZFS
from vm.disks import Volume, volume
from vm.preloaded import PreloadedDaemon

#: They need what only `scripts/vmtest --openzfs` brings.
collect_ignore_glob = [] if IS_OPENZFS else ["test_openzfs_*"]

_HERE = Path(__file__).parent
#: Set by `scripts/vmtest`.
_VARIABLE = "FSPOOLFS_GUEST"
#: How many characters of a daemon's log are shown with a failed test.
_SHOWN = 4000

# The suites that run here as well, with their failed assertions explained as they are elsewhere.
for _suite in (
    *(f"conformance.test_{name}_contract" for name in ("filesystem", "log", "root", "source")),
    *("root.test_volume_pools", "root.test_zfs_pools"),
):
    if _suite not in sys.modules:
        pytest.register_assert_rewrite(_suite)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get(_VARIABLE) is None:
        for item in items:
            if item.path.is_relative_to(_HERE):
                item.add_marker(pytest.mark.skip(reason="runs in the guest that scripts/vmtest boots"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    call: pytest.CallInfo[None],
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show with a failed test what the daemons have logged: they outlive it."""
    report = yield
    if report.failed and call.when == "call":
        for daemon in PreloadedDaemon.known:
            if daemon.is_running:
                report.sections.append((f"log of the daemon on {daemon.mount}", daemon.log[-_SHOWN:]))
    return report


@pytest.fixture(scope="session", params=["ext4", "xfs"])
def limited(request: pytest.FixtureRequest) -> Volume:
    """A mounted file system that enforces project quota."""
    return volume(request.param, "prjquota")


@pytest.fixture
def quotas(limited: Volume) -> Iterator[ProjectQuotaFileSystem]:
    """The items of a pool on it that has nothing else."""
    root = HostRoot.open(str(limited.new_directory()))
    filesystem = project_quota.probe(root)
    assert filesystem is not None
    yield filesystem
    root.close()


@pytest.fixture(scope="module")
def daemon() -> Iterator[PreloadedDaemon]:
    """A running daemon with state and storage on an ext4 of its own, for all tests of a module."""
    made = PreloadedDaemon(volume("ext4", "").new_directory())
    try:
        made.start()
        yield made
    finally:
        made.close()
