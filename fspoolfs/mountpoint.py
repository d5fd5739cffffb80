"""The mount point: made ready before the daemon mounts there, and unmounted afterwards."""

from __future__ import annotations

import os
from pathlib import Path

from fspoolfs.errors import BusyError, ExistsError, InvalidError, NotEmptyError, StorageError
from fspoolfs.system import mounts

#: What mountinfo shows as source and, behind "fuse.", as type.
SOURCE = "fspoolfs"
SUBTYPE = "fspoolfs"
_TYPE = f"fuse.{SUBTYPE}"


def resolved(path: Path) -> Path:
    """`path` as the kernel's table of mounts has it, without symbolic links: /var/run is /run."""
    return Path(os.path.realpath(path))


def trees() -> list[Path]:
    """Where control trees are mounted, in this mount namespace, each once."""
    found = {mount.target for mount in mounts.mounts() if mount.fs_type == _TYPE and mount.root == "/"}
    return [Path(target) for target in sorted(found)]


def mounted_below(target: str) -> tuple[str, str] | None:
    """The device ("major:minor") and the source of the mount that holds `target`, in this mount namespace.

    Nothing is asked of what is mounted at `target` itself, which may be a server that does not answer.
    """
    parent, name = os.path.split(os.path.normpath(target))
    around = mounts.containing(mounts.mounts(), os.path.join(os.path.realpath(parent), name))
    return None if around is None else (around.device, around.source)


def prepare(path: Path) -> None:
    """Make the directory, clear what a killed daemon left there, refuse what is in use or full.

    `path` is a resolved one.
    """
    _refuse_inside(path)
    found = mounts.mount_at(str(path))
    while found is not None:
        if found.fs_type != _TYPE or not mounts.is_stale_fuse(str(path)):
            what = (
                "a control tree of fspoolfs" if found.fs_type == _TYPE else f"a {found.fs_type} file system"
            )
            raise ExistsError(f"{path}: {what} is mounted there already")
        mounts.unmount_lazily(str(path))
        found = mounts.mount_at(str(path))
    try:
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
        entries = os.listdir(path)
    except OSError as error:
        raise StorageError.from_os(f"{path} cannot be a mount point", error) from error
    if entries:
        raise NotEmptyError(f"{path} is not empty: mount on an empty directory")


def _refuse_inside(path: Path) -> None:
    """A tree on a directory of another one would hide that, and hold it for as long as it lives."""
    around = mounts.containing(mounts.mounts(), str(path.parent))
    if around is not None and around.fs_type == _TYPE:
        raise InvalidError(
            f"{path} lies in the control tree of fspoolfs that is mounted at {around.target}; mount elsewhere"
        )


def unmount(path: Path) -> None:
    """Unmount a control tree; its daemon ends by itself.

    Raises `InvalidError` when none is mounted there, `BusyError` when it is in use.
    """
    path = resolved(path)
    found = mounts.mount_at(str(path))
    if found is None or found.fs_type != _TYPE:
        raise InvalidError(f"{path}: no control tree of fspoolfs is mounted there")
    if mounts.is_stale_fuse(str(path)):
        mounts.unmount_lazily(str(path))
        return
    try:
        mounts.unmount(str(path))
    except OSError as error:
        raise BusyError(
            f"{path}: {os.strerror(error.errno or 0)}: some process has it open or works in it"
        ) from error
