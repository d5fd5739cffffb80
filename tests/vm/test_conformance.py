"""The contract of every file system, over project quota on ext4 and xfs."""

from __future__ import annotations

import pytest

from conformance.conftest import stranger, strict_umask  # noqa: F401
from conformance.test_filesystem_contract import *  # noqa: F403
from fspoolfs.backends.filesystem import FileSystem
from fspoolfs.backends.project_quota import ProjectQuotaFileSystem


@pytest.fixture
def filesystem(quotas: ProjectQuotaFileSystem) -> FileSystem:
    return quotas
