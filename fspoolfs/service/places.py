"""What changes enter and leave, as committers tell it apart: places, names and items."""

from __future__ import annotations

from uuid import UUID


def place(location: str) -> str:
    """A directory below the pool's root."""
    return f"path:{location}"


def label(name: str) -> str:
    """An item's name."""
    return f"name:{name}"


def self_of(uuid: UUID) -> str:
    """The item itself, wherever it is."""
    return f"item:{uuid}"
