"""What a test needs of the machine, as marks; without it the test is skipped with the reason."""

from __future__ import annotations

import pytest

needs_root = pytest.mark.root
needs_fuse = pytest.mark.mount


def needs_program(*names: str) -> pytest.MarkDecorator:
    """All of the programs `names` on the path."""
    return pytest.mark.program(*names)
