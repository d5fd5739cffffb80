"""What every test has: fixtures for daemons, the rules for skipping, the check for what was left behind."""

from __future__ import annotations

import hypothesis
import pytest

from support.shell import Shell

pytest_plugins = [
    "pytester",
    "support.daemon",
    "support.guest",
    "support.leaks",
    "support.ceph",
    "support.limits",
    "support.moosefs",
    "support.nested",
    "support.requirements",
    "support.sshd",
    "support.volumes",
    "support.zfs",
]

# A slow machine makes no example wrong.
hypothesis.settings.register_profile("fspoolfs", deadline=None)
hypothesis.settings.load_profile("fspoolfs")


@pytest.fixture(params=["bash", "dash"])
def shell(request: pytest.FixtureRequest) -> Shell:
    """Each shell that people have; they differ in what they send to a file and which errors they tell."""
    name: Shell = request.param
    return name
