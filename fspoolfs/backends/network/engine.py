"""The contract of an engine: how exports of one kind of server are mounted on this host.

To add one, write a module with a class that keeps `Engine` and list it in
`fspoolfs.backends.registry`. An engine mounts where it is told, a directory that nobody else sees,
and recognises its mounts; `fspoolfs.backends.network_source` does the rest alike for all of them:
what covers the target, when a mount is put there, how it is verified and let go, and for how long a
server is waited for. It holds no state between calls. Refusals are `FspoolError`; an `OSError` is
taken as the storage's answer. Methods block and run in worker threads.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar, Protocol

from fspoolfs.model.definitions import PoolDefinition
from fspoolfs.progress import Progress
from fspoolfs.system.mounts import Mount


class Engine(Protocol):
    """Mounts exports of one kind."""

    #: What `<format type=>` calls it.
    name: ClassVar[str]
    #: The types of file systems that its mounts have in mountinfo, such as "fuse.sshfs".
    fs_types: ClassVar[Collection[str]]
    #: The mount options that `<options>` may name: "reconnect" for a plain word, "timeo=" for one
    #: with a value. What is not listed is refused.
    options: ClassVar[Collection[str]]
    #: Why only one host may have a pool of this kind active; empty where locks hold between hosts.
    single_host: ClassVar[str]
    #: Whether a host that the servers have lost can do nothing to the data any more once its locks
    #: are given to others.
    fences: ClassVar[bool]
    #: Seconds that a mount may take, servers that do not answer included.
    patience: ClassVar[float]
    #: An extended attribute of directories that the server of metadata alone can tell; empty where it is that
    #: one which answers statfs(2).
    told_by_server: ClassVar[str]

    def unusable(self) -> str:
        """Why nothing of this kind can be mounted on this host; empty where it can."""

    def check(self, definition: PoolDefinition) -> None:
        """Raise `InvalidError` or `UnsupportedError` for a source that can never be mounted.

        Host names, the directory, options and the file of `<auth>` have been looked at already.
        """

    def identity(self, definition: PoolDefinition) -> str:
        """A string that two pools on one export share, such as "sshfs:10.0.0.7:22:/exports/fs"."""

    def mount(self, definition: PoolDefinition, place: str, progress: Progress) -> None:
        """Mount the export at the empty directory `place`; it is mounted when this returns.

        Gives up after `patience` and leaves nothing behind then. nosuid and nodev where the program
        takes them; the caller sees to it anyway.
        """

    def shows(self, definition: PoolDefinition, mount: Mount) -> bool:
        """Whether `mount`, of one of `fs_types`, is of this pool's export, by its source."""

    def answers(self, definition: PoolDefinition) -> bool:
        """Whether a server of this kind is what the source's hosts run, asked within a few seconds."""
