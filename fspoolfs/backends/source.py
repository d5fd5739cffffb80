"""The contract of a source: where a pool's root comes from, and how it is attached and detached.

To add one, write a module with a class that keeps `Source` and list it in
`fspoolfs.backends.registry`. The conformance suite runs over every registered source.

A source holds no state between calls: everything it needs is in the definition, so a daemon that
was killed finds its roots again. Methods block and run in worker threads. Refusals are
`FspoolError`; an `OSError` that leaves a method is taken as the storage's answer.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable
from uuid import UUID

from fspoolfs.backends.root import RootDirectory
from fspoolfs.model.definitions import PoolDefinition, PoolType
from fspoolfs.model.infos import Backing, Feature, MountUse
from fspoolfs.progress import Progress


class BuildMode(enum.StrEnum):
    """What a build may do to storage that already holds something."""

    NO_OVERWRITE = "no-overwrite"
    OVERWRITE = "overwrite"


class Source(Protocol):
    """Attaches and detaches pool roots of one kind."""

    #: The pool type it serves.
    type: ClassVar[PoolType]
    #: The `<format type=>` it serves; "" for every format of the type.
    format: ClassVar[str]

    def unusable(self) -> str:
        """Why no pool of this kind can run on this host; empty where it can."""

    def check(self, definition: PoolDefinition) -> None:
        """Raise `UnsupportedError` or `InvalidError` for what this source cannot do."""

    def identity(self, definition: PoolDefinition) -> str:
        """A string that two pools on one storage share, such as "dir:/srv/tank"."""

    def build(self, definition: PoolDefinition, mode: BuildMode, progress: Progress) -> None:
        """Make the target, and the storage where it is missing. A second build changes nothing."""

    def attach(self, definition: PoolDefinition, progress: Progress) -> RootDirectory:
        """Attach and return the root. Attaching what is attached returns it again."""

    def verify(self, definition: PoolDefinition, root: RootDirectory) -> None:
        """Raise `FspoolError` when `root` is no longer what `attach` returned."""

    def detach(self, definition: PoolDefinition, *, force: bool) -> None:
        """Undo `attach`; with `force` also while something uses it. Data is kept."""

    def delete(self, definition: PoolDefinition) -> None:
        """Undo `build`; `NotEmptyError` when anything but fspoolfs' own files is left."""


@runtime_checkable
class Growable(Protocol):
    """What a source implements whose root has a capacity of its own, which can grow."""

    def size(self, definition: PoolDefinition) -> int | None:
        """How large the storage is that the pool's definition calls its capacity; `None` before a build."""

    def grow(
        self, definition: PoolDefinition, root: RootDirectory, capacity: int, progress: Progress
    ) -> None:
        """Make the attached root `capacity` bytes large, while it is used.

        Repeating it finishes what was interrupted. A start does the same by itself for what the
        definition says. Raises `UnsupportedError` for what cannot become that large, or is larger.
        """


@runtime_checkable
class Shrinkable(Growable, Protocol):
    """What a source implements whose root can become smaller, too."""

    def check_shrink(self, definition: PoolDefinition, capacity: int, *, active: bool) -> None:
        """Raise `UnsupportedError` where this root cannot, or not while it is as active as this."""

    def shrink(
        self, definition: PoolDefinition, root: RootDirectory | None, capacity: int, progress: Progress
    ) -> None:
        """Make the root `capacity` bytes large; it is `None` while the pool is inactive.

        What is interrupted leaves all that the root holds; the next start makes it as large again as
        `definition` says. Raises `StorageError` when what it holds does not fit.
        """


@runtime_checkable
class Backed(Protocol):
    """What a source implements whose pools lie on storage that others share."""

    def backing(self, definition: PoolDefinition) -> Backing | None:
        """What the pool takes there; `None` before a build, and where it is all there is. Never attaches."""


@runtime_checkable
class Composite(Protocol):
    """What a source implements that is made of parts which a definition names."""

    def lacks(self, definition: PoolDefinition) -> bool:
        """Whether the definition names a part that there is none of."""

    def parts(self) -> Sequence[Feature]:
        """Each of them ("provider images"), and why it is not usable on this host, or which one it is."""


@runtime_checkable
class Recognising(Protocol):
    """What a source implements whose storage tells whose pool it carries without being attached."""

    def carried(self, definition: PoolDefinition) -> UUID | None:
        """The uuid of the pool of this name on the storage; `None` when there is none or it is hidden."""


@dataclass(frozen=True, slots=True)
class Sharing:
    """How a pool's storage lets several hosts work on it at once.

    `single` says why it does not; empty where its locks hold between hosts. `fences` tells whether a
    host that has lost its locks can do nothing to the data any more.
    """

    single: str
    fences: bool


@runtime_checkable
class Shared(Protocol):
    """What a source implements whose storage other hosts can attach, too."""

    def sharing(self, definition: PoolDefinition) -> Sharing: ...


@runtime_checkable
class Describing(Protocol):
    """What a source implements whose attached roots differ in what a person should know of them."""

    def describe(self, definition: PoolDefinition, root: RootDirectory) -> Sequence[Feature]:
        """Rows for the `features` of the pool, before those of its file system."""


@runtime_checkable
class Remote(Protocol):
    """What a source implements whose storage is elsewhere, and may cease to answer."""

    def ping(self, definition: PoolDefinition, root: RootDirectory) -> None:
        """Have the storage itself answer, not a cache; blocks for as long as it does not.

        Called in a thread that nothing else waits for. An `OSError` means that it does not answer now,
        `FspoolError` that what was attached is lost for good.
        """


@runtime_checkable
class Unmounting(Protocol):
    """What a source implements whose detaching is refused while a process has something open."""

    def holders(self, definition: PoolDefinition) -> Sequence[MountUse]:
        """The processes that keep the attached root from being detached without `force`."""
