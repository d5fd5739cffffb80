"""Where a pool's root is to be seen: its target, made and removed alike for every source on the host.

Refuses what belongs to the system. Never removes a directory that holds anything, and knows nothing
of what is mounted.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from fspoolfs.backends import layout
from fspoolfs.backends.root import RootDirectory
from fspoolfs.errors import BusyError, FspoolError, InvalidError, NotEmptyError
from fspoolfs.model.definitions import PoolDefinition
from fspoolfs.system import mounts

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


def refuse_leftovers(definition: PoolDefinition, root: RootDirectory, *, besides: str = "") -> None:
    """Raise `NotEmptyError` when `root` holds anything but fspoolfs' own files, and the entry `besides`."""
    strangers = sorted(name for name in root.names("") if name not in (layout.OWN, besides))
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


def refuse_hosts(definition: PoolDefinition, root: RootDirectory) -> None:
    """Raise `BusyError` when `root` says that a host has the pool active, or had when it was lost."""
    there: list[str] = []
    with suppress(FileNotFoundError):
        there = [name for name in root.names(layout.HOSTS) if not name.startswith(".")]
    if not there:
        there = [layout.OWNER] if layout.OWNER.rpartition("/")[2] in root.names(layout.OWN) else []
    if there:
        raise BusyError(
            f"pool {definition.name}: another host has it active, or had when that was lost; stop it there, "
            "or start it here and fence that host, which `hosts` names, before it is deleted"
        )


def _enumerate(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:_NAMED])
    more = len(names) - _NAMED
    return f"{shown} and {more} more" if more > 0 else shown


def place_of(definition: PoolDefinition) -> str:
    """The target without symbolic links, so that two ways to one directory are one."""
    return os.path.realpath(target_of(definition))


def unvisited(path: str, table: Sequence[mounts.Mount] | None = None) -> str:
    """`path` without symbolic links, like realpath(3), without touching what is mounted at it.

    That may be of a server which never answers. `table` is what was just read.
    """
    parent, name = os.path.split(os.path.normpath(path))
    place = os.path.join(os.path.realpath(parent), name)
    # A mount point is no link.
    return place if mounts.mount_at(place, table) is not None else os.path.realpath(path)


def usable_place(definition: PoolDefinition) -> str:
    """The same. Raises `InvalidError` for a directory that belongs to the system."""
    return usable(definition, place_of(definition))


def usable(definition: PoolDefinition, place: str) -> str:
    """`place` itself. Raises `InvalidError` for a directory that belongs to the system."""
    inside_kernel = place.startswith(_KERNEL) and not place.startswith(_EXCEPT)
    if place in _SYSTEM or inside_kernel:
        raise InvalidError(
            f"pool {definition.name}: {place} belongs to the system and cannot be a pool's root; name a "
            "directory of the pool's own, such as /srv/fspool"
        )
    return place


def make(definition: PoolDefinition) -> None:
    """Make the target and what is missing above it, mode 0755, durably; one that exists stays as it is."""
    place = Path(usable_place(definition))
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


def _missing(place: Path, definition: PoolDefinition) -> list[Path]:
    """The directories that lack on the way to `place`, the topmost first."""
    missing: list[Path] = []
    for directory in (place, *place.parents):
        try:
            if not directory.is_dir():
                directory.lstat()
                raise not_a_directory(definition, str(directory))
        except FileNotFoundError:
            missing.insert(0, directory)
        except NotADirectoryError:
            continue
        else:
            break
    return missing


def not_a_directory(definition: PoolDefinition, place: str) -> FspoolError:
    return FspoolError(
        f"pool {definition.name}: {place} is not a directory; name another target, or move the file away",
        errno=errno.ENOTDIR,
    )


def remove_empty(definition: PoolDefinition) -> None:
    """Remove the target durably, which must be empty; a mount point stays."""
    place = Path(usable_place(definition))
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
