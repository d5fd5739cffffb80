"""Processes that keep locks for daemons whose state lies below a directory."""

from __future__ import annotations

from pathlib import Path

from fspoolfs.system.keeper import Keeper


def end_keepers(directory: Path) -> None:
    """End them, as the death of their host does."""
    for note in directory.glob("**/keepers/*"):
        Keeper().let_go(note)
