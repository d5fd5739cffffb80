"""The changes that move an item's directory: rename, delete, undelete, purge.

As in `fspoolfs.service.changes`, everything but `settle` runs in the committer's thread.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from uuid import UUID, uuid4

from fspoolfs.backends import layout
from fspoolfs.backends.filesystem import FileSystem
from fspoolfs.errors import ExistsError, NotEmptyError, NotFoundError
from fspoolfs.model import formatting
from fspoolfs.model.definitions import ItemDefinition
from fspoolfs.service.accounts import Accounts
from fspoolfs.service.changes import ItemChange
from fspoolfs.service.intents import Intent, Outcome
from fspoolfs.service.objects import TrashEntry
from fspoolfs.service.places import label, place
from fspoolfs.service.vacating import vacate

#: Raises `BusyError` when somebody uses the directory at this place below the root.
InUseCheck = Callable[[str], None]


class MovingChange(ItemChange):
    """A change that moves an item's directory and its definition, forth and, undone, back."""

    def __init__(
        self,
        what: str,
        filesystem: FileSystem,
        *,
        uuid: UUID,
        source: str,
        target: str,
        definition_source: str,
        definition_target: str,
        document: bytes,
        old_document: bytes,
        enters: tuple[str, ...] = (),
        leaves: tuple[str, ...] = (),
        as_written: bool = True,
        with_snapshots: bool = False,
        on_done: Callable[[Exception | None], None],
    ) -> None:
        super().__init__(what, filesystem, uuid=uuid, enters=enters, leaves=leaves, on_done=on_done)
        #: Where the item's snapshots go, for good, and be it their empty directory; "" where they stay.
        self._snapshots_target = layout.purge(uuid4()) if with_snapshots else ""
        self._moved_snapshots = False
        #: A definition that stays as it is moves, which is cheaper and goes on a full storage too.
        self._definition_moves = as_written and bool(definition_target) and document == old_document
        self._source, self._target = source, target
        self._definition_source, self._definition_target = definition_source, definition_target
        self._document, self._old_document = document, old_document
        self._moved = False
        self._moved_definition = False
        self._written = False
        self._removed = False

    def apply(self) -> None:
        try:
            self._apply_snapshots()
            if self._source != self._target:
                self.filesystem.move(self._source, self._target)
                self._moved = True
            if self._definition_moves:
                self.root.rename(self._definition_source, self._definition_target)
                self._moved_definition = True
                return
            if self._definition_target:
                self.root.write(self._definition_target, self._document, replace=False, durable=False)
                self._written = True
            self.root.remove_file(self._definition_source)
            self._removed = True
        except OSError as error:
            raise self.failed(error) from error

    def _apply_snapshots(self) -> None:
        if self._snapshots_target:
            with suppress(FileNotFoundError):
                self.root.rename(layout.snapshots(self.uuid), self._snapshots_target)
                self._moved_snapshots = True

    def put_back(self) -> None:
        """Undo `apply` as far as it came; a full storage must not be asked for more than that."""
        if self._moved_snapshots:
            self.root.rename(self._snapshots_target, layout.snapshots(self.uuid))
        if self._moved:
            self.filesystem.move(self._target, self._source)
        if self._moved_definition:
            self.root.rename(self._definition_target, self._definition_source)
        if self._written:
            self.root.remove_file(self._definition_target)
        if self._removed:
            self.root.write(self._definition_source, self._old_document, replace=False, durable=False)


class RenameItem(MovingChange):
    """Give an item another name; its directory goes along unless its definition names a path."""

    def __init__(
        self,
        filesystem: FileSystem,
        old: ItemDefinition,
        new: ItemDefinition,
        *,
        in_use: InUseCheck,
        on_done: Callable[[Exception | None], None],
    ) -> None:
        assert old.uuid is not None
        super().__init__(
            f"rename item {old.name} to {new.name}",
            filesystem,
            uuid=old.uuid,
            source=old.location,
            target=new.location,
            definition_source=layout.definition(old.name),
            definition_target=layout.definition(new.name),
            document=formatting.format_item(new),
            old_document=formatting.format_item(old),
            enters=(place(new.location), label(new.name)),
            leaves=(place(old.location), label(old.name)),
            on_done=on_done,
        )
        self._old, self._new = old, new
        self._in_use = in_use

    def account(self, accounts: Accounts) -> None:
        accounts.note(self._new)

    def prepare(self) -> bytes:
        if self._source != self._target:
            self._in_use(self._source)
            if not self.is_directory(self._source):
                raise NotFoundError(f"{self.what}: its directory /{self._source} is missing")
            if self.is_directory(self._target) is not None:
                raise ExistsError(f"{self.what}: something is already at /{self._target} in the pool")
        return self._intent(self._new, was=self._old)

    def _intent(self, definition: ItemDefinition, *, was: ItemDefinition) -> bytes:
        return Intent(
            outcome=Outcome.PLACED,
            uuid=self.uuid,
            definition=definition,
            was_name=was.name,
            was_path=was.location,
        ).encode()

    def undo(self) -> bytes:
        self.put_back()
        return self._intent(self._old, was=self._new)


def _trashed(entry: TrashEntry, *, was_name: str = "", was_path: str = "") -> Intent:
    return Intent(
        outcome=Outcome.TRASHED,
        uuid=entry.uuid,
        definition=entry.definition,
        was_name=was_name,
        was_path=was_path,
        record=entry.record,
    )


class DeleteItem(MovingChange):
    """Move an item into the trash as `entry`, or, where nothing is kept, among what is being purged.

    `as_written` tells that the item's stored definition could be read and is the entry's.
    """

    def __init__(
        self,
        filesystem: FileSystem,
        entry: TrashEntry,
        *,
        keep: bool,
        as_written: bool,
        in_use: InUseCheck,
        on_done: Callable[[Exception | None], None],
    ) -> None:
        definition = entry.definition
        document = formatting.format_item(definition)
        super().__init__(
            f"delete item {definition.name}",
            filesystem,
            uuid=entry.uuid,
            source=definition.location,
            target=layout.trashed_data(entry.uuid) if keep else layout.purge(entry.uuid),
            definition_source=layout.definition(definition.name),
            definition_target=entry.record if keep else "",
            document=document,
            old_document=document,
            leaves=(place(definition.location), label(definition.name)),
            as_written=as_written,
            with_snapshots=not keep,
            on_done=on_done,
        )
        self._entry, self._definition = entry, definition
        self._intent = _trashed(entry, was_name=definition.name, was_path=definition.location)
        if not keep:
            self._intent = replace(self._intent, outcome=Outcome.PURGED, record="")
        self._in_use = in_use

    @property
    def kept(self) -> bool:
        """Whether it is in the trash afterwards."""
        return bool(self._definition_target)

    def prepare(self) -> bytes:
        self._in_use(self._source)
        if not self.is_directory(self._source):
            if self._entry.snapshots:
                raise NotEmptyError(
                    f"{self.what}: its directory is missing, but snapshots of it are left; bring it back "
                    "by rolling back to one, or remove them first"
                )
            # Nothing to keep: the definition goes, whatever lies in the item's place stays.
            self._target = self._source
            self._definition_target, self._definition_moves = "", False
            self._snapshots_target = layout.purge(uuid4())  # at most an empty directory
            self._intent = replace(self._intent, outcome=Outcome.PURGED, was_path="", record="")
        return self._intent.encode(self._document)

    def account(self, accounts: Accounts) -> None:
        if self.kept:
            accounts.note_trashed(self._definition)
        else:
            accounts.forget(self.uuid)

    def apply(self) -> None:
        super().apply()
        vacate(self.root, self._source, in_use=self._in_use)

    def undo(self) -> bytes:
        self.put_back()
        return Intent(
            outcome=Outcome.PLACED, uuid=self.uuid, definition=self._definition, record=self._intent.record
        ).encode(self._document)


class UndeleteItem(MovingChange):
    """Bring an item back from the trash, as `new` says: by its old name or another."""

    def __init__(
        self,
        filesystem: FileSystem,
        entry: TrashEntry,
        new: ItemDefinition,
        *,
        on_done: Callable[[Exception | None], None],
    ) -> None:
        super().__init__(
            f"undelete item {new.name}",
            filesystem,
            uuid=entry.uuid,
            source=layout.trashed_data(entry.uuid),
            target=new.location,
            definition_source=entry.record,
            definition_target=layout.definition(new.name),
            document=formatting.format_item(new),
            old_document=formatting.format_item(entry.definition),
            enters=(place(new.location), label(new.name)),
            on_done=on_done,
        )
        self._entry, self._new = entry, new

    def prepare(self) -> bytes:
        if self.is_directory(self._target) is not None:
            raise ExistsError(f"{self.what}: something is already at /{self._target} in the pool")
        self.claim(self._new)
        return Intent(
            outcome=Outcome.PLACED,
            uuid=self.uuid,
            definition=self._new,
            was_path=layout.trashed_data(self.uuid),
            record=self._entry.record,
        ).encode(self._document)

    def undo(self) -> bytes:
        self.put_back()
        vacate(self.root, self._target)
        return _trashed(self._entry, was_name=self._new.name, was_path=self._new.location).encode()


class PurgeTrash(MovingChange):
    """Take a deleted item out of the trash for good; its storage is removed in the background."""

    def __init__(
        self,
        filesystem: FileSystem,
        entry: TrashEntry,
        *,
        on_done: Callable[[Exception | None], None],
    ) -> None:
        super().__init__(
            f"purge item {entry.definition.name}",
            filesystem,
            uuid=entry.uuid,
            source=layout.trashed_data(entry.uuid),
            target=layout.purge(entry.uuid),
            definition_source=entry.record,
            definition_target="",
            document=b"",
            old_document=formatting.format_item(entry.definition),
            with_snapshots=True,
            on_done=on_done,
        )
        self._entry = entry

    def account(self, accounts: Accounts) -> None:
        accounts.forget(self.uuid)

    def prepare(self) -> bytes:
        there = self.is_directory(self._source)
        if not there:
            self._target = self._source
        return Intent(
            outcome=Outcome.PURGED,
            uuid=self.uuid,
            definition=self._entry.definition,
            was_path=self._source if there else "",
            record=self._entry.record,
        ).encode()

    def undo(self) -> bytes:
        self.put_back()
        return _trashed(self._entry).encode()
