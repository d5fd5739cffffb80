"""What a peer is to the measurements: something else that keeps named directories or volumes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

from benchmarks.scratch import Scratch


class VolumeStore(Protocol):
    """Creates and deletes volumes."""

    @property
    def name(self) -> str: ...

    @property
    def synced(self) -> bool:
        """Whether what it has answered is on disk. Only then is being faster than it a goal."""

    def create(self, volume: str) -> None: ...

    def fill(self, volume: str) -> None:
        """Put the usual content into a volume, where this peer deletes volumes with content."""

    def delete(self, volume: str) -> None: ...


class Lister(Protocol):
    """Lists many volumes with what is known of each."""

    @property
    def name(self) -> str: ...

    def create(self, volume: str) -> None: ...

    def list_with_info(self) -> int:
        """Ask for all volumes and for the size of each; how many there were."""


class LimitedStore(Protocol):
    """Creates volumes with a capacity that is enforced, and takes snapshots of them."""

    @property
    def name(self) -> str: ...

    def create(self, volume: str) -> None: ...

    def snapshot(self, volume: str, name: str) -> None:
        """Returns when the snapshot is there."""


_P = TypeVar("_P", covariant=True)

#: Starts a private instance below a scratch directory; it ends with the context.
Starter = Callable[[Scratch], AbstractContextManager[_P]]
