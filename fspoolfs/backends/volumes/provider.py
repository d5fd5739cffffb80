"""The contract of a volume provider: a block device for a volume pool, there and of which size.

To add one, write a module with a class that keeps `VolumeProvider` and list it in
`fspoolfs.backends.registry`. A provider knows nothing of file systems: what is on its volumes, and
whether they may be erased, is the business of `fspoolfs.backends.volume`. It holds no state between
calls. Refusals are `FspoolError`; an `OSError` is taken as the storage's answer.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from fspoolfs.model.definitions import PoolDefinition
from fspoolfs.model.infos import Backing
from fspoolfs.progress import Progress


@dataclass(frozen=True, slots=True)
class Device:
    """An open block device: its descriptor, its path for programs, and what a person knows it by.

    The last is the image's path where the device comes and goes with it.
    """

    fd: int
    path: str
    origin: str

    @property
    def number(self) -> int:
        """st_rdev."""
        return os.fstat(self.fd).st_rdev

    @property
    def size(self) -> int:
        """Bytes."""
        return os.lseek(self.fd, 0, os.SEEK_END)


class VolumeProvider(Protocol):
    """Makes, finds, resizes and removes volumes of one kind."""

    #: What `provider=` calls it.
    name: ClassVar[str]
    #: Whether its volumes can become smaller.
    shrinks: ClassVar[bool]
    #: Whether the volumes that it makes read as zeros.
    zeroed: ClassVar[bool]

    def unusable(self) -> str:
        """Why there can be no such volume on this host; empty where there can."""

    def check(self, definition: PoolDefinition) -> None:
        """Raise `InvalidError` or `UnsupportedError` for what no such volume can be."""

    def identity(self, definition: PoolDefinition) -> str:
        """A string that two pools on one volume share."""

    def place(self, definition: PoolDefinition) -> str:
        """The absolute path of what is to be probed without attaching it: an image, a device."""

    def size(self, definition: PoolDefinition) -> int | None:
        """Bytes; `None` when there is no such volume."""

    def create(self, definition: PoolDefinition) -> bool:
        """Make the volume, empty, and record that it was made here; False when it is there already."""

    def open(self, definition: PoolDefinition) -> AbstractContextManager[Device]:
        """The device, attached for as long as the context or a mount lasts.

        What is attached is found again. Raises `NotFoundError` when there is no such volume.
        """

    def is_behind(self, definition: PoolDefinition, path: str) -> bool:
        """Whether the device at `path` shows this volume, as far as can be told without reading it."""

    def release(self, definition: PoolDefinition) -> None:
        """Leave nothing attached when nobody uses the volume any more. May be repeated."""

    def grow(self, definition: PoolDefinition, capacity: int) -> None:
        """Make the volume, and its device if it is attached, `capacity` bytes large.

        One that is as large already stays. Raises `UnsupportedError` where it cannot be.
        """

    def shrink(self, definition: PoolDefinition, capacity: int) -> None:
        """Make the volume, and its device, `capacity` bytes large, which its file system is already.

        One that is no larger stays. Raises `UnsupportedError` where it cannot be.
        """

    def backing(self, definition: PoolDefinition) -> Backing | None:
        """What the volume takes of the storage below; `None` without either."""

    def remove(self, definition: PoolDefinition) -> None:
        """Remove the volume if it was made here, and what was recorded of it. May be repeated."""


@runtime_checkable
class Replaceable(Protocol):
    """What a provider implements that can put another volume in the place of one, in one step."""

    def replacement(self, definition: PoolDefinition, progress: Progress) -> AbstractContextManager[str]:
        """The absolute path of a file that holds what the volume holds, which nobody uses meanwhile.

        It takes the volume's place, durably, when the context ends; when it ends with an exception, or
        never, the volume stays what it is.
        """
