"""Mounts of datasets, made and kept where nobody sees them, and moved to their places and back.

zfs mounts a dataset where its property says, which is a directory of root's for all of them. zfs-fuse
mounts nothing twice, and never lets go of a dataset that was unmounted while it was used: so nothing is
unmounted lazily, but put aside until it can be.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from fspoolfs.errors import BusyError, StorageError
from fspoolfs.system import mounting, mounts, zfs

#: Where datasets are mounted for the moment in which their mount is moved to its place; root's alone.
HOLD = "/run/fspoolfs/zfs"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def hold_of(pool: str) -> str:
    """The mountpoint that the datasets of a pool have as a property."""
    return f"{HOLD}/{pool}"


def _make_hold() -> None:
    """A mount of its own, since out of one that is shared nothing can be moved."""
    for directory in (os.path.dirname(HOLD), HOLD):
        with suppress(FileExistsError):
            os.mkdir(directory, mode=0o700)  # the daemon has no umask that would keep others out
    if mounts.last_on(HOLD) is None:
        fd = os.open(HOLD, _DIRECTORY)
        try:
            tree = mounting.copy_detached(fd)
            mounting.move(tree, fd)
            os.close(tree)
        finally:
            os.close(fd)


@contextmanager
def mounted(dataset: str, options: str) -> Iterator[int]:
    """A descriptor of a dataset's mount, for `mounting.move`; it goes with the context if it is not moved.

    One that was put aside is taken up again, and stays there if it is not moved. So is what a daemon has
    left that was killed: a mount that went with it would be lost to zfs-fuse, see `settle`.
    """
    _make_hold()
    hold = f"{HOLD}/{dataset}"
    aside = _is_on(hold, dataset)
    if not aside:
        _mount(dataset, hold)
    tree = os.open(hold, _DIRECTORY)
    try:
        mounting.restrict(tree, options)
        yield tree
    finally:
        settle(tree)
        os.close(tree)
        if not aside and _is_on(hold, dataset):
            settle(hold)
            mounts.unmount_lazily(hold)
        if not _is_on(hold, dataset):
            with suppress(OSError):
                os.rmdir(hold)


def _is_on(hold: str, dataset: str) -> bool:
    found = mounts.last_on(hold)
    return found is not None and found.source == dataset


def _mount(dataset: str, hold: str) -> None:
    try:
        zfs.mount(dataset)
    except StorageError as error:
        if error.errno != errno.EBUSY:
            raise
        raise BusyError(
            f"{dataset} is used where it cannot be seen, and zfs-fuse mounts nothing twice; end that, and "
            "try again"
        ) from error
    if not _is_on(hold, dataset):
        raise StorageError(
            f"{dataset} was mounted, but not in the daemon's mount namespace; start zfs-fuse and the "
            "daemon in the same one"
        )


def put_aside(mount: mounts.Mount) -> None:
    """Take the mount of a dataset that somebody uses out of the tree, and keep it until he has done.

    A dataset that is unmounted lazily is lost to zfs-fuse, see `settle`.
    """
    _make_hold()
    hold = f"{HOLD}/{mount.source}"
    os.makedirs(hold, mode=0o700, exist_ok=True)
    source, target = os.open(mount.target, _DIRECTORY), os.open(hold, _DIRECTORY)
    try:
        mounting.move(source, target)
    finally:
        os.close(source)
        os.close(target)


def let_go(pool: str) -> None:
    """Unmount what was put aside of a pool. Raises `StorageError` with EBUSY while it is used."""
    for mount in reversed(mounts.mounts()):
        if mounts.is_beneath(mount.target, f"{HOLD}/{pool}"):
            settle(mount.target)
            try:
                mounts.unmount(mount.target)
            except OSError as error:
                raise StorageError.from_os(f"unmount {mount.source}", error) from error


def settle(mount: int | str) -> None:
    """Wait until zfs-fuse has heard that files of a mount were closed, as it must before that goes.

    The kernel tells it later, and drops what it has not told when the last mount of a dataset goes:
    zfs-fuse then takes the dataset for used, for ever. Its requests are answered in their order.
    """
    with suppress(OSError):
        os.statvfs(mount)
