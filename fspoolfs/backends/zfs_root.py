"""The root of a pool on zfs: directories of its root dataset on which other datasets are mounted.

Every item and every snapshot is a dataset of its own, POOL/ID. The directory in the root dataset that
it is mounted on holds nothing but a symbolic link, `dataset -> ID`: so the place of a dataset is what
the directory's place is, renaming an item is renaming a directory, and whatever is mounted after a
crash or a boot is found by looking for these links. Properties of datasets are never consulted for that.
What is seen below the mounts is reached through a copy of the root's mount that has none on it.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property

from fspoolfs.backends import layout
from fspoolfs.backends.zfs_mounts import mounted, settle
from fspoolfs.errors import FspoolError
from fspoolfs.model.infos import FileInfo, UsageInfo
from fspoolfs.progress import Progress
from fspoolfs.system import copying, measuring, mounting, mountless, syscalls, zfs
from fspoolfs.system.descriptors import Descriptor
from fspoolfs.system.paths import HostRoot

log = logging.getLogger(__name__)

#: The dataset of a pool that is its root. Not the first one, which zfs-fuse mounts whatever it is told.
ROOT = "root"
#: The name of the link that says which dataset belongs on a directory.
LINK = "dataset"
#: How the names of those snapshots begin that clones are made of.
SNAPSHOT = "fspoolfs-"
#: Mode of a directory that waits for its dataset, so that nobody writes into it instead.
_CLOSED = 0o700
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@contextmanager
def _told_as_by_the_kernel() -> Iterator[None]:
    """File operations fail with `OSError`, also where a program has to do them."""
    try:
        yield
    except FspoolError as error:
        raise OSError(error.errno, str(error)) from error


class ZfsRoot(HostRoot):
    """A root on zfs; `pool` is the name of its zpool, `options` are the attributes of all its mounts.

    One that is `alone` is mounted nowhere, and has nothing mounted in it.
    """

    def __init__(
        self, path: str, descriptor: Descriptor, pool: str, options: str, *, alone: bool = False
    ) -> None:
        super().__init__(path, descriptor)
        self.pool = pool
        self._options = options
        # Of what is mounted nowhere there can be no copy before Linux 6.15, and need not be.
        bare = os.dup(descriptor.fd) if alone else mounting.copy_detached(descriptor.fd)
        try:
            self._bare = HostRoot(path, Descriptor(os.open(".", _DIRECTORY, dir_fd=bare)))
        finally:
            os.close(bare)

    def close(self) -> None:
        super().close()
        self._bare.close()

    def whole_name(self, dataset: str) -> str:
        """What zfs calls the dataset of this id."""
        return f"{self.pool}/{dataset}"

    # -- what mounts change about file operations -------------------------------------------------

    def rename(self, source: str, target: str) -> None:
        """The same, of a directory with everything that is mounted on and below it."""
        try:
            super().rename(source, target)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            mountless.run(lambda: HostRoot.rename(self, source, target))

    def exchange(self, one: str, other: str) -> None:
        try:
            super().exchange(one, other)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            mountless.run(lambda: HostRoot.exchange(self, one, other))

    def remove_directory(self, path: str) -> None:
        """Of a dataset, too, if it is empty."""
        if self.dataset_at(path) is None:
            super().remove_directory(path)
        elif self.names(path):
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), path)
        else:
            with _told_as_by_the_kernel():
                self.discard(path)

    def set_attributes(self, path: str, *, mode: int | None, owner: int | None, group: int | None) -> None:
        """Never of the directory below a dataset: ENODEV when that is not mounted."""
        if self.dataset_at(path) is not None and not self.is_mounted(path):
            raise OSError(errno.ENODEV, "its dataset is not mounted", path)
        super().set_attributes(path, mode=mode, owner=owner, group=group)

    def copy_tree(self, source: str, target: str, progress: Progress, *, existing: bool = False) -> None:
        """Onto a dataset, too, where it is an `existing` one."""
        if not existing:
            super().copy_tree(source, target, progress)
            return
        with self._opened(source) as old, self._opened(target) as new:
            copying.copy_tree(old, ".", new, ".", progress, existing=True)

    def measure(self, path: str, progress: Progress) -> UsageInfo:
        with self._opened(path) as fd:
            return measuring.measure(fd, ".", progress)

    @contextmanager
    def _opened(self, path: str) -> Iterator[int]:
        fd = self.open_directory(path)
        try:
            yield fd
        finally:
            os.close(fd)

    def write(self, path: str, data: bytes, *, replace: bool, durable: bool) -> None:
        super().write(path, data, replace=replace, durable=durable)
        if durable and self._forgets_directories:
            self._flush()

    def sync_directory(self, path: str) -> None:
        super().sync_directory(path)
        if self._forgets_directories:
            self._flush()

    @cached_property
    def _forgets_directories(self) -> bool:
        """Whether fsync(2) of a directory does nothing, as with zfs-fuse."""
        return zfs.is_fuse(self.filesystem_magic())

    def sync(self) -> None:
        """Of all datasets; zfs-fuse answers syncfs(2) without doing anything."""
        super().sync()
        self._flush()

    def _flush(self) -> None:
        with _told_as_by_the_kernel():
            zfs.flush(self.pool)

    # -- datasets ---------------------------------------------------------------------------------

    def dataset_at(self, path: str) -> str | None:
        """The id of the dataset that belongs on the directory `path`, mounted or not."""
        try:
            fd = self._bare.open_directory(path)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL):
                return None
            raise
        try:
            owner = os.stat(LINK, dir_fd=fd, follow_symlinks=False).st_uid
            # In a directory that is no dataset's its owner could name somebody else's.
            return os.readlink(LINK, dir_fd=fd) if owner == os.geteuid() else None
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno == errno.EINVAL:  # somebody's file of this name, which is no link
                return None
            raise
        finally:
            os.close(fd)

    def is_mounted(self, path: str) -> bool:
        """Whether something is mounted on the directory `path`."""
        with self._opened(path) as fd:
            return syscalls.mount_id(fd) != self.mount_id()

    def mounted_at(self, paths: Sequence[str]) -> Iterator[tuple[str, int]]:
        """Those of `paths` where a dataset is mounted, each with a descriptor of it for the moment."""
        below = self.mount_id()
        for path in paths:
            with ExitStack() as opened:
                try:
                    fd = opened.enter_context(self._opened(path))
                    if syscalls.mount_id(fd) == below or self.dataset_at(path) is None:
                        continue
                except (FileNotFoundError, NotADirectoryError):
                    continue
                yield path, fd

    def place(
        self,
        path: str,
        dataset: str,
        prepare: Callable[[str], None] = lambda path: None,
        *,
        mount_last: bool = False,
    ) -> None:
        """Let `dataset` appear at `path`, whole, after `prepare` has seen to it where nobody looks.

        With `mount_last` it is mounted there, and not before: only what is mounted within a directory
        is seen in copies of that directory's mount. Raises `FileExistsError` when something is at
        `path`. The dataset is destroyed when it fails.
        """
        waiting = f"{layout.STAGING}/{dataset}.new"
        for directory in (layout.OWN, layout.STAGING):
            with suppress(FileExistsError):
                self._bare.make_directory(directory, mode=_CLOSED)
        self._bare.make_directory(waiting, mode=_CLOSED)
        try:
            fd = self._bare.open_directory(waiting)
            try:
                os.symlink(dataset, LINK, dir_fd=fd)
            finally:
                os.close(fd)
            if not mount_last:
                self.mount(waiting, dataset)
            prepare(waiting)
            self.rename(waiting, path)
        except BaseException:
            self.discard(waiting)
            raise
        if mount_last:
            try:
                self.mount(path, dataset)
            except BaseException:
                self.discard(path)
                raise

    def mount(self, path: str, dataset: str) -> None:
        """Mount a dataset on its directory."""
        with self._opened(path) as place, mounted(self.whole_name(dataset), self._options) as tree:
            mounting.move(tree, place)

    def unmount(self, path: str) -> None:
        """Unmount what is mounted on the directory `path`, if anything is, used or not."""
        parent, _, name = path.rpartition("/")
        fd = self.open_directory(parent)
        flags = syscalls.UMOUNT_NOFOLLOW | syscalls.MNT_DETACH
        try:
            while True:
                settle(f"/proc/self/fd/{fd}/{name}")
                syscalls.unmount(f"/proc/self/fd/{fd}/{name}", flags)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOENT):
                raise
        finally:
            os.close(fd)

    def discard(self, path: str) -> None:
        """Destroy the dataset at `path` and remove its directory; what is gone of it is no error.

        Datasets that share its blocks stay whole. Raises `StorageError` while somebody uses it.
        """
        dataset = self.dataset_at(path)
        if dataset is not None:
            self.unmount(path)
            self.destroy(dataset)
            with suppress(FileNotFoundError):
                self._bare.remove_file(f"{path}/{LINK}")
        with suppress(FileNotFoundError):
            self._bare.remove_directory(path)

    def destroy(self, dataset: str) -> None:
        """Destroy a dataset; clones of its snapshots take over what they need of it."""
        name = self.whole_name(dataset)
        while True:
            known = zfs.datasets(self.pool)
            if all(one.name != name for one in known):
                return
            clone = next((one for one in known if one.origin.startswith(f"{name}@")), None)
            if clone is None:
                break
            zfs.promote(clone.name)
        zfs.destroy(name)

    def datasets(self, path: str = "") -> Iterator[tuple[str, str]]:
        """Place and id of every dataset on the directory `path` or below, as the links say.

        Looks into directories of the daemon's user alone: it makes all those above items.
        """
        found = self.dataset_at(path) if path else None
        if found is not None:
            yield path, found
            return
        waiting = [path]
        while waiting:
            above = waiting.pop()
            for name, info in list(self._bare.entries(above)):
                inside = f"{above}/{name}" if above else name
                if not _may_lead_to_datasets(info) or inside == layout.ITEMS:
                    continue
                dataset = self.dataset_at(inside)
                if dataset is None:
                    waiting.append(inside)
                else:
                    yield inside, dataset

    def mount_all(self, progress: Progress) -> None:
        """Mount every dataset that is not, and destroy what an interrupted operation left of others.

        What no directory names was never acknowledged: snapshots and clones, which hold nothing of their
        own, and datasets that are empty. Anything else is told and stays.
        """
        places = list(self.datasets())
        existing = {one.name: one for one in zfs.datasets(self.pool)}
        progress.begin("mounting", unit="datasets", total=len(places))
        for path, dataset in places:
            if self.whole_name(dataset) not in existing:
                # Its removal was interrupted, or the pool has lost it: the item is told to be missing.
                log.warning("%s: dataset %s of /%s is gone", self.path, dataset, path)
                self.discard(path)
            elif not self.is_mounted(path):
                self.mount(path, dataset)
            progress.advance(1)
        known = {self.whole_name(dataset) for _, dataset in places} | {self.pool, self.whole_name(ROOT)}
        for one in existing.values():
            if one.name not in known:
                self._sweep(one)
        for name in zfs.lasting_snapshots(self.pool):
            if name.rpartition("@")[2].startswith(SNAPSHOT):
                zfs.destroy_with_clones(name)

    def _sweep(self, orphan: zfs.Dataset) -> None:
        if not orphan.origin:
            with mounted(orphan.name, "") as tree:
                fd = os.open(".", _DIRECTORY, dir_fd=tree)
                try:
                    holds = os.listdir(fd)
                finally:
                    os.close(fd)
            if holds:
                log.warning("%s: dataset %s belongs to no item and stays", self.path, orphan.name)
                return
        self.destroy(orphan.name.partition("/")[2])


def _may_lead_to_datasets(info: FileInfo) -> bool:
    return stat.S_ISDIR(info.mode) and info.owner == os.geteuid()
