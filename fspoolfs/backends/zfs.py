"""Items as datasets of zfs: enforced capacities, counted usage, snapshots and clones at once.

A capacity is the property refquota: it limits what the item holds itself, not what its snapshots keep.
A snapshot is a read-only clone, which can be looked at with every zfs and lives on when its item is
rolled back. docs/zfs.md tells people what that means.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from typing import ClassVar
from uuid import uuid4

from fspoolfs.backends.filesystem import FEATURES
from fspoolfs.backends.generic import DEFAULT_MODE, GenericFileSystem
from fspoolfs.backends.root import RootDirectory
from fspoolfs.backends.zfs_root import SNAPSHOT, ZfsRoot
from fspoolfs.errors import StorageError, UnsupportedError
from fspoolfs.model.definitions import ItemDefinition
from fspoolfs.model.infos import Feature, UsageInfo
from fspoolfs.progress import Progress
from fspoolfs.system import zfs

_CLOSED = 0o700
_NONE = "none"


class ZfsFileSystem(GenericFileSystem):
    """An item is a dataset, and so is a snapshot."""

    name: ClassVar[str] = "zfs"
    instant_snapshots: ClassVar[bool] = True

    def __init__(self, root: ZfsRoot) -> None:
        super().__init__(root)
        self._zfs = root

    def features(self) -> Sequence[Feature]:
        reasons = {"files": "zfs does not limit the number of files of a dataset"}
        late = "when zfs writes down what has changed, some seconds later"
        notes = {
            "quota": f"refquota; counted {late}",
            "usage": f"counted {late}",
            "snapshot": "at once; what only snapshots keep is not counted against the item",
            "clone": "at once, sharing blocks",
            "reflink": "clones and snapshots of datasets share blocks",
        }
        return tuple(
            Feature(name=name, reason=reasons.get(name, ""), note=notes.get(name, "")) for name in FEATURES
        )

    def check(self, definition: ItemDefinition) -> None:
        if definition.files is not None:
            raise UnsupportedError(
                f"item {definition.name}: zfs does not limit the number of files of a dataset; leave <files> "
                "out, or put the item into a pool whose features say that it limits files"
            )

    # Items.

    def create(self, path: str, definition: ItemDefinition) -> None:
        """Make an empty dataset, or take the one that was made for the item just before a crash."""
        self._with_parents(path, lambda: self._create(path, definition))

    def _create(self, path: str, definition: ItemDefinition) -> None:
        self._expect_room(path)
        wanted = definition.permissions
        mode = DEFAULT_MODE if wanted.mode is None else wanted.mode
        dataset = self._id_for(definition)

        def prepare(waiting: str) -> None:
            self._root.set_attributes(waiting, mode=mode, owner=wanted.owner, group=wanted.group)
            self._limit(dataset, definition.capacity)

        self._zfs.place(path, dataset, prepare)

    def _expect_room(self, path: str) -> None:
        """Tell before a dataset is made what would refuse it its place."""
        self._root.stat(path.rpartition("/")[0])
        try:
            self._root.stat(path)
        except FileNotFoundError:
            return
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)

    def _id_for(self, definition: ItemDefinition) -> str:
        """The id of a new dataset, which is the item's own as long as nothing else has that."""
        wanted = definition.uuid.hex if definition.uuid is not None else uuid4().hex
        existing = {one.name for one in zfs.datasets(self._zfs.pool)}
        if self._zfs.whole_name(wanted) in existing:
            if all(dataset != wanted for _, dataset in self._zfs.datasets()):
                return wanted
            wanted = uuid4().hex
        zfs.create(self._zfs.whole_name(wanted))
        return wanted

    def _make_directory(self, path: str, *, mode: int) -> None:
        """An empty dataset for what is copied, where no definition is at hand."""
        self._expect_room(path)
        dataset = uuid4().hex
        zfs.create(self._zfs.whole_name(dataset))
        self._zfs.place(
            path,
            dataset,
            lambda waiting: self._root.set_attributes(waiting, mode=mode, owner=None, group=None),
        )

    def _limit(self, dataset: str, capacity: int | None) -> None:
        """At least what is held already, which may be some blocks more than the limit was."""
        name = self._zfs.whole_name(dataset)
        try:
            zfs.set_property(name, "refquota", _NONE if capacity is None else str(capacity))
        except StorageError:
            held = int(zfs.property_of(name, "referenced"))
            if capacity is None or held <= capacity:
                raise
            zfs.set_property(name, "refquota", str(held))

    def _enforce(self, path: str, definition: ItemDefinition) -> None:
        dataset = self._zfs.dataset_at(path)
        if dataset is not None:
            self._limit(dataset, definition.capacity)
        elif definition.capacity is not None:
            raise UnsupportedError(
                f"item {definition.name}: its directory {self._root.location(path)} is no dataset, and zfs "
                "limits nothing else; leave <capacity> out, or use a clone of the item"
            )

    def update(self, path: str, old: ItemDefinition, new: ItemDefinition) -> None:
        try:
            super().update(path, old, new)
        except OSError as error:
            dataset = self._zfs.dataset_at(path)
            if error.errno != errno.EDQUOT or dataset is None:
                raise
            # Even chmod(2) needs space in an item that is full: it gets some for a moment.
            self._limit(dataset, None)
            try:
                self._apply(path, new.permissions)
            finally:
                self._enforce(path, new)

    def remove(self, path: str, progress: Progress) -> None:
        progress.begin("purging", unit="datasets")
        for place, _ in list(self._zfs.datasets(path)) if self._exists(path) else ():
            self._zfs.discard(place)
            progress.advance(1)
        super().remove(path, progress)

    def _exists(self, path: str) -> bool:
        try:
            self._root.stat(path)
        except FileNotFoundError:
            return False
        return True

    def identify(self, path: str) -> str:
        dataset = self._zfs.dataset_at(path)
        return super().identify(path) if dataset is None else f"dataset {dataset}"

    # Snapshots and clones.

    def snapshot(self, path: str, target: str, progress: Progress) -> None:
        progress.advance(0)
        dataset = self._zfs.dataset_at(path)
        if dataset is not None:
            self._zfs.place(target, self._clone(dataset, {"readonly": "on"}), mount_last=True)
        else:
            self._make_directory(target, mode=_CLOSED)
            try:
                self._root.copy_tree(path, target, progress, existing=True)
                self.freeze(target)
            except BaseException:
                self.remove(target, Progress())
                raise
        self._settle(target)

    def _clone(self, dataset: str, properties: Mapping[str, str]) -> str:
        """The id of a new dataset that holds what `dataset` holds.

        The snapshot in between goes with its last clone, whatever is promoted meanwhile.
        """
        made = uuid4().hex
        between = f"{self._zfs.whole_name(dataset)}@{SNAPSHOT}{made}"
        zfs.snapshot(between)
        try:
            zfs.clone(between, self._zfs.whole_name(made), properties)
        finally:
            zfs.destroy_with_clones(between)
        return made

    def freeze(self, path: str) -> None:
        dataset = self._zfs.dataset_at(path)
        if dataset is None:
            return
        name = self._zfs.whole_name(dataset)
        if zfs.property_of(name, "readonly") == "on":
            return
        self._limit(dataset, None)
        # Mounted anew it is read-only, and seen wherever snapshots are shown. OpenZFS would do so by itself
        # to what is mounted while it is told, but where its property says, and fail.
        self._zfs.unmount(path)
        zfs.set_property(name, "readonly", "on")
        self._zfs.mount(path, dataset)

    def clone(self, source: str, target: str, definition: ItemDefinition, progress: Progress) -> None:
        progress.advance(0)
        dataset = self._zfs.dataset_at(source)
        if dataset is None:
            super().clone(source, target, definition, progress)
            self._root.sync()
            return
        self._with_parents(target, lambda: self._expect_room(target), needs=source)
        made = self._clone(dataset, {})

        def prepare(waiting: str) -> None:
            # In this order: a clone may be full from the first moment on.
            self._apply(waiting, definition.permissions)
            self._limit(made, definition.capacity)

        self._zfs.place(target, made, prepare)
        self._settle(target)

    def _settle(self, path: str) -> None:
        """Make durable that a dataset is at `path`; the dataset itself is."""
        self._root.sync_directory(path.rpartition("/")[0])

    # Usage.

    def usage(self, path: str) -> UsageInfo:
        found = self.usages([path]).get(path)
        if found is None:
            raise UnsupportedError(
                f"{self._root.location(path)} is no dataset, and zfs counts nothing else; the verb 'measure' "
                "does"
            )
        return found

    def usages(self, paths: Sequence[str]) -> Mapping[str, UsageInfo]:
        """One statvfs(2) each: what it calls used is what zfs calls referenced."""
        found = {}
        for path, fd in self._zfs.mounted_at(paths):
            numbers = os.fstatvfs(fd)
            size = (numbers.f_blocks - numbers.f_bfree) * numbers.f_frsize
            found[path] = UsageInfo(allocation=size, inodes=None)
        return found


def probe(root: RootDirectory) -> ZfsFileSystem | None:
    """Takes the roots that a pool of format zfs attaches; a directory on somebody's zfs is generic."""
    return ZfsFileSystem(root) if isinstance(root, ZfsRoot) else None
