"""Directory pools: the root is a directory of the host that is there anyway.

Nothing is mounted, so there is nothing to unmount either, and nobody can be in the way of a detach.
The directory is never emptied: building keeps what it finds, deleting refuses it.
"""

from __future__ import annotations

import errno
import os
from contextlib import closing, suppress
from pathlib import Path
from typing import ClassVar

from fspoolfs.backends import layout
from fspoolfs.backends.root import RootDirectory
from fspoolfs.backends.source import BuildMode
from fspoolfs.errors import FspoolError, InvalidError, NotEmptyError, NotFoundError, UnsupportedError
from fspoolfs.model.definitions import PoolDefinition, PoolSource, PoolType
from fspoolfs.progress import Progress
from fspoolfs.system.paths import HostRoot

#: What fspoolfs keeps in a root, and the places in there that hold what belongs to somebody.
_OWNED_PLACES = {
    layout.ITEMS: "items",
    layout.TRASH: "deleted items in the trash",
    layout.SNAPSHOTS: "snapshots of items",
}

#: How many leftovers a refusal names.
_NAMED = 3

#: Directories that belong to the system as a whole (hier(7)): a pool's owner must not own them, and
#: a pool's deletion must not remove them.
_SYSTEM = frozenset(
    {
        "/", "/bin", "/boot", "/dev", "/dev/shm", "/etc", "/home", "/lib", "/lib32", "/lib64", "/libx32",
        "/lost+found", "/media", "/opt", "/proc", "/root", "/run", "/run/lock", "/run/user", "/sbin", "/sys",
        "/tmp", "/usr", "/usr/bin", "/usr/lib", "/usr/local", "/usr/sbin", "/usr/share", "/usr/src", "/var",
        "/var/cache", "/var/lib", "/var/lock", "/var/log", "/var/run", "/var/spool", "/var/tmp",
    }
)  # fmt: skip
#: The kernel's own file systems: nothing beneath them can be kept. /dev/shm is an ordinary tmpfs.
_KERNEL = ("/proc/", "/sys/", "/dev/")
_EXCEPT = "/dev/shm/"


def target_of(definition: PoolDefinition) -> str:
    """The target path. Raises `InvalidError` where it is missing or relative."""
    target = definition.target
    if target is None or not target.startswith("/"):
        raise InvalidError(
            f"pool {definition.name}: the target path must be an absolute path, not {target!r}"
        )
    return target


def check_plain(definition: PoolDefinition) -> None:
    """Refuse what no directory pool can have, wherever its directory lies."""
    target = target_of(definition)
    if definition.capacity is not None:
        raise UnsupportedError(
            f"pool {definition.name}: a directory has no capacity of its own, the file system that holds "
            f"{target} has; leave <capacity> out, or use a pool of type 'volume'"
        )
    if definition.source != PoolSource():
        raise UnsupportedError(
            f"pool {definition.name}: a pool of type 'dir' has no source but its target {target}; leave "
            "<source> out"
        )


def refuse_leftovers(definition: PoolDefinition, root: RootDirectory) -> None:
    """Raise `NotEmptyError` when `root` holds anything but fspoolfs' own files."""
    strangers = sorted(name for name in root.names("") if name != layout.OWN)
    if strangers:
        raise NotEmptyError(
            f"pool {definition.name}: {root.path} still holds {_enumerate(strangers)}; move or remove that "
            "first, or undefine the pool, which keeps everything"
        )
    for place, what in _OWNED_PLACES.items():
        with suppress(FileNotFoundError):
            # A leading dot marks the temporary file of a write that was interrupted.
            left = sorted(name for name in root.names(place) if not name.startswith("."))
            if left:
                raise NotEmptyError(
                    f"pool {definition.name}: {root.location(place)} still holds {what}: {_enumerate(left)}; "
                    "start the pool and delete or purge them first, or undefine it, which keeps everything"
                )


def _enumerate(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:_NAMED])
    more = len(names) - _NAMED
    return f"{shown} and {more} more" if more > 0 else shown


class DirectorySource:
    """`Source` for pools of type "dir"."""

    type: ClassVar[PoolType] = PoolType.DIR
    format: ClassVar[str] = ""

    def unusable(self) -> str:
        return ""

    def check(self, definition: PoolDefinition) -> None:
        check_plain(definition)
        _usable_place(definition)

    def identity(self, definition: PoolDefinition) -> str:
        return f"dir:{_place(definition)}"

    def build(self, definition: PoolDefinition, mode: BuildMode, progress: Progress) -> None:
        """Make the target and what is missing above it, mode 0755, durably.

        A directory that exists stays as it is, with all that it holds, also with `OVERWRITE`.
        """
        progress.begin("building")
        place = Path(_usable_place(definition))
        changed = {place, place.parent}
        for directory in _missing(place, definition):
            with suppress(FileExistsError):
                # Never open to others, not even until the next line.
                directory.mkdir(mode=0o755)
                # Whatever the umask: the owners of items have to get through.
                directory.chmod(0o755)
            changed.add(directory.parent)
        for directory in changed:
            _sync(directory)

    def attach(self, definition: PoolDefinition, progress: Progress) -> RootDirectory:
        place = _place(definition)
        try:
            return HostRoot.open(place)
        except FileNotFoundError:
            raise NotFoundError(
                f"pool {definition.name}: {place} does not exist; build the pool first"
            ) from None
        except NotADirectoryError:
            raise _not_a_directory(definition, place) from None

    def verify(self, definition: PoolDefinition, root: RootDirectory) -> None:
        if not isinstance(root, HostRoot):
            raise TypeError(f"{root!r} was not attached by this source")
        if not root.still_there():
            raise FspoolError(
                f"pool {definition.name}: {root.path} is no longer the directory that was attached; stop the "
                "pool, put the directory back and start it again",
                errno=errno.ESTALE,
            )

    def detach(self, definition: PoolDefinition, *, force: bool) -> None:
        """Nothing was mounted, so nothing is undone; descriptors belong to the root."""

    def delete(self, definition: PoolDefinition) -> None:
        """Remove the target if it holds nothing but fspoolfs' own files.

        A mount point, which build did not make, stays as an empty directory.
        """
        place = _usable_place(definition)
        try:
            opened = HostRoot.open(place)
        except FileNotFoundError:
            return
        except NotADirectoryError:
            raise _not_a_directory(definition, place) from None
        with closing(opened) as root:
            refuse_leftovers(definition, root)
            with suppress(FileNotFoundError):
                root.remove_tree(layout.OWN, Progress())
            root.sync()
        _remove_empty(definition, Path(place))


def _place(definition: PoolDefinition) -> str:
    """The target without symbolic links, so that two ways to one directory are one."""
    return os.path.realpath(target_of(definition))


def _usable_place(definition: PoolDefinition) -> str:
    """The same. Raises `InvalidError` for a directory that belongs to the system."""
    place = _place(definition)
    inside_kernel = place.startswith(_KERNEL) and not place.startswith(_EXCEPT)
    if place in _SYSTEM or inside_kernel:
        raise InvalidError(
            f"pool {definition.name}: {place} belongs to the system and cannot be a pool's root; name a "
            "directory of the pool's own, such as /srv/fspool"
        )
    return place


def _missing(place: Path, definition: PoolDefinition) -> list[Path]:
    """The directories that lack on the way to `place`, the topmost first."""
    missing: list[Path] = []
    for directory in (place, *place.parents):
        try:
            if not directory.is_dir():
                directory.lstat()
                raise _not_a_directory(definition, str(directory))
        except FileNotFoundError:
            missing.insert(0, directory)
        except NotADirectoryError:
            continue
        else:
            break
    return missing


def _not_a_directory(definition: PoolDefinition, place: str) -> FspoolError:
    return FspoolError(
        f"pool {definition.name}: {place} is not a directory; name another target, or move the file away",
        errno=errno.ENOTDIR,
    )


def _remove_empty(definition: PoolDefinition, place: Path) -> None:
    try:
        place.rmdir()
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno == errno.EBUSY:
            return
        if error.errno == errno.ENOTEMPTY:
            raise NotEmptyError(
                f"pool {definition.name}: something was just put into {place}; look at it, and delete the "
                "pool again"
            ) from error
        raise
    _sync(place.parent)


def _sync(directory: Path) -> None:
    """fsync(2) of a directory, where its file system knows that."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # fsync(2): EINVAL means that this file does not take it, as directories of some networks.
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)
