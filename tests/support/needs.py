"""What a test needs of the machine, as marks; without it the test is skipped with the reason."""

from __future__ import annotations

import sys

import pytest

from support.shell import User, run

needs_root = pytest.mark.root
needs_fuse = pytest.mark.mount


def needs_program(*names: str) -> pytest.MarkDecorator:
    """All of the programs `names` on the path."""
    return pytest.mark.program(*names)


def skip_unless_runnable(user: User) -> None:
    """Skip the test where `user` does not get at this Python, as with a checkout in root's home."""
    if run("test", "-x", sys.executable, user=user, check=False).returncode:
        pytest.skip(f"user {user.uid} does not get at {sys.executable}")
