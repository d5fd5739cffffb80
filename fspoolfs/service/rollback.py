"""The change that lets an item hold what one of its snapshots holds.

What the snapshot holds is prepared in staging; the change exchanges it with the item's directory in
one step and keeps what was there as a snapshot. Which of the two directories is which, names do not
tell after a crash: the intent carries the identity of the prepared one.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import suppress
from uuid import uuid4

from fspoolfs.backends import layout
from fspoolfs.backends.filesystem import Cloner, FileSystem, Snapshotter
from fspoolfs.backends.root import RootDirectory
from fspoolfs.model.definitions import ItemDefinition
from fspoolfs.progress import Progress
from fspoolfs.service.changes import ItemChange
from fspoolfs.service.intents import Intent, Outcome
from fspoolfs.service.moves import InUseCheck


class RollbackItem(ItemChange):
    """Put what `restore` prepared in the item's place; `kept` is where the old content goes."""

    def __init__(
        self,
        filesystem: FileSystem,
        definition: ItemDefinition,
        *,
        kept: str,
        in_use: InUseCheck,
        on_done: Callable[[Exception | None], None],
    ) -> None:
        assert definition.uuid is not None
        super().__init__(
            f"roll back item {definition.name}", filesystem, uuid=definition.uuid, on_done=on_done
        )
        self._definition = definition
        self._location = definition.location
        self._staging = layout.rollback(definition.uuid)
        self._kept = kept
        self._in_use = in_use
        self._old = ""
        #: Where the old content is now.
        self._old_at = self._location

    def restore(self, snapshot: str, progress: Progress) -> None:
        """Prepare what the directory `snapshot` holds, durably. Runs before the change is submitted."""
        self._in_use(self._location)
        self.discard()
        filesystem = self.filesystem
        assert isinstance(filesystem, Cloner), "what has snapshots can be cloned"
        cloner: Cloner = filesystem
        progress.begin("rolling back")
        cloner.clone(snapshot, self._staging, self._definition, progress)
        sync_copy(filesystem)

    def discard(self) -> None:
        """Put what was prepared among what is purged."""
        with suppress(FileNotFoundError):
            self.root.rename(self._staging, layout.purge(uuid4()))

    def prepare(self) -> bytes:
        self._in_use(self._location)
        if self.is_directory(self._location):
            self._old = self.filesystem.identify(self._location)
        new = self.filesystem.identify(self._staging)
        return self._intent(new, kept=self._kept if self._old else "")

    def _intent(self, restored: str, *, kept: str) -> bytes:
        return Intent(
            outcome=Outcome.PLACED,
            uuid=self.uuid,
            definition=self._definition,
            restored=restored,
            kept=kept,
        ).encode()

    def apply(self) -> None:
        try:
            if not self._old:
                self.filesystem.move(self._staging, self._location)
                return
            make_room(self.root, self._kept)
            self._swap()
            freeze(self.filesystem, self._kept)
        except OSError as error:
            raise self.failed(error) from error

    def _swap(self) -> None:
        """One step for whoever looks, where the storage can exchange; else two."""
        try:
            self.root.exchange(self._location, self._staging)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._move(self._location, self._kept)
            self.root.rename(self._staging, self._location)
        else:
            self._old_at = self._staging
            self._move(self._staging, self._kept)

    def _move(self, source: str, target: str) -> None:
        """Move the old content."""
        self.root.rename(source, target)
        self._old_at = target

    def undo(self) -> bytes:
        if self._old_at == self._staging:
            self.root.exchange(self._location, self._staging)
        elif self._old_at == self._kept:
            if self.is_directory(self._location):
                self.root.rename(self._location, self._staging)
            self.root.rename(self._kept, self._location)
        return self._intent(self._old, kept="")


def sync_copy(filesystem: FileSystem) -> None:
    """Make durable what `Cloner.clone` has just made; a file system that clones at once has done so."""
    if not (isinstance(filesystem, Snapshotter) and filesystem.instant_snapshots):
        filesystem.root.sync()


def make_room(root: RootDirectory, snapshot: str) -> None:
    """Make the directory of an item's snapshots, for a snapshot to come."""
    with suppress(FileExistsError):
        root.make_directory(snapshot.rpartition("/")[0], mode=layout.PASSABLE)


def freeze(filesystem: FileSystem, path: str) -> None:
    """What an item held is one of its snapshots now."""
    assert isinstance(filesystem, Snapshotter), "who rolls back has snapshots"
    snapshotter: Snapshotter = filesystem
    snapshotter.freeze(path)
