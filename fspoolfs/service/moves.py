"""The changes that move an item's directory: rename, delete, undelete, purge.

As in `fspoolfs.service.changes`, everything but `settle` runs in the committer's thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

from fspoolfs.backends import layout
from fspoolfs.backends.filesystem import FileSystem
from fspoolfs.errors import ExistsError, NotFoundError
from fspoolfs.model import formatting
from fspoolfs.model.definitions import ItemDefinition
from fspoolfs.service import trashcan
from fspoolfs.service.changes import ItemChange, label, place
from fspoolfs.service.intents import Intent, Outcome

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
        on_done: Callable[[Exception | None], None],
    ) -> None:
        super().__init__(what, filesystem, uuid=uuid, enters=enters, leaves=leaves, on_done=on_done)
        self._source, self._target = source, target
        self._definition_source, self._definition_target = definition_source, definition_target
        self._document, self._old_document = document, old_document
        self._moved = False
        self._written = False
        self._removed = False

    def apply(self) -> None:
        try:
            if self._source != self._target:
                self.filesystem.move(self._source, self._target)
                self._moved = True
            if self._definition_target:
                self.keep_record()
            if not self._removed:
                self.root.remove_file(self._definition_source)
                self._removed = True
        except OSError as error:
            raise self.failed(error) from error

    def keep_record(self) -> None:
        """Write the definition that will be true."""
        self.root.write(self._definition_target, self._document, replace=False, durable=False)
        self._written = True

    def put_back(self) -> None:
        """Undo `apply` as far as it came; a full storage must not be asked for more than that."""
        if self._moved:
            self.filesystem.move(self._target, self._source)
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


class DeleteItem(MovingChange):
    """Move an item into the trash, or, where nothing is kept, among what is being purged."""

    def __init__(
        self,
        filesystem: FileSystem,
        definition: ItemDefinition,
        *,
        trash_name: str,
        deleted: int,
        keep: bool,
        in_use: InUseCheck,
        on_done: Callable[[Exception | None], None],
    ) -> None:
        assert definition.uuid is not None
        uuid = definition.uuid
        document = formatting.format_item(definition)
        super().__init__(
            f"delete item {definition.name}",
            filesystem,
            uuid=uuid,
            source=definition.location,
            target=layout.trashed_data(uuid) if keep else layout.purge(uuid),
            definition_source=layout.definition(definition.name),
            definition_target=layout.trashed_definition(uuid) if keep else "",
            document=trashcan.encode(document, name=trash_name, deleted=deleted) if keep else b"",
            old_document=document,
            leaves=(place(definition.location), label(definition.name)),
            on_done=on_done,
        )
        self._definition = definition
        self._intent = Intent(
            outcome=Outcome.TRASHED if keep else Outcome.PURGED,
            uuid=uuid,
            definition=definition,
            was_name=definition.name,
            was_path=definition.location,
            trash_name=trash_name,
            deleted=deleted,
        )
        self._in_use = in_use

    def keep_record(self) -> None:
        """A full storage still lets the definition itself be moved; it says all but the time."""
        self._removed = not trashcan.keep(
            self.root,
            definition=self._definition_source,
            target=self._definition_target,
            record=self._document,
        )
        self._written = True

    @property
    def kept(self) -> bool:
        """Whether it is in the trash afterwards."""
        return bool(self._definition_target)

    def prepare(self) -> bytes:
        self._in_use(self._source)
        if not self.is_directory(self._source):
            # Nothing to keep: the definition goes, whatever lies in the item's place stays.
            self._target = self._source
            self._definition_target = ""
            self._intent = replace(self._intent, outcome=Outcome.PURGED, was_path="")
        return self._intent.encode(self._old_document)

    def undo(self) -> bytes:
        self.put_back()
        return Intent(outcome=Outcome.PLACED, uuid=self.uuid, definition=self._definition).encode()


class UndeleteItem(MovingChange):
    """Bring an item back from the trash, by its old name or another."""

    def __init__(
        self,
        filesystem: FileSystem,
        old: ItemDefinition,
        new: ItemDefinition,
        *,
        trash_name: str,
        deleted: int,
        on_done: Callable[[Exception | None], None],
    ) -> None:
        assert old.uuid is not None
        uuid = old.uuid
        super().__init__(
            f"undelete item {new.name}",
            filesystem,
            uuid=uuid,
            source=layout.trashed_data(uuid),
            target=new.location,
            definition_source=layout.trashed_definition(uuid),
            definition_target=layout.definition(new.name),
            document=formatting.format_item(new),
            old_document=trashcan.encode(formatting.format_item(old), name=trash_name, deleted=deleted),
            enters=(place(new.location), label(new.name)),
            on_done=on_done,
        )
        self._old, self._new = old, new
        self._trash_name, self._deleted = trash_name, deleted

    def prepare(self) -> bytes:
        if self.is_directory(self._target) is not None:
            raise ExistsError(f"{self.what}: something is already at /{self._target} in the pool")
        return Intent(
            outcome=Outcome.PLACED,
            uuid=self.uuid,
            definition=self._new,
            was_path=layout.trashed_data(self.uuid),
        ).encode(self._document)

    def undo(self) -> bytes:
        self.put_back()
        return Intent(
            outcome=Outcome.TRASHED,
            uuid=self.uuid,
            definition=self._old,
            was_name=self._new.name,
            was_path=self._new.location,
            trash_name=self._trash_name,
            deleted=self._deleted,
        ).encode()


class PurgeTrash(MovingChange):
    """Take a deleted item out of the trash for good; its storage is removed in the background."""

    def __init__(
        self,
        filesystem: FileSystem,
        definition: ItemDefinition,
        *,
        trash_name: str,
        deleted: int,
        on_done: Callable[[Exception | None], None],
    ) -> None:
        assert definition.uuid is not None
        uuid = definition.uuid
        super().__init__(
            f"purge item {definition.name}",
            filesystem,
            uuid=uuid,
            source=layout.trashed_data(uuid),
            target=layout.purge(uuid),
            definition_source=layout.trashed_definition(uuid),
            definition_target="",
            document=b"",
            old_document=trashcan.encode(
                formatting.format_item(definition), name=trash_name, deleted=deleted
            ),
            on_done=on_done,
        )
        self._definition = definition
        self._trash_name, self._deleted = trash_name, deleted

    def prepare(self) -> bytes:
        there = self.is_directory(self._source)
        if not there:
            self._target = self._source
        return Intent(
            outcome=Outcome.PURGED,
            uuid=self.uuid,
            definition=self._definition,
            was_path=self._source if there else "",
        ).encode()

    def undo(self) -> bytes:
        self.put_back()
        return Intent(
            outcome=Outcome.TRASHED,
            uuid=self.uuid,
            definition=self._definition,
            trash_name=self._trash_name,
            deleted=self._deleted,
        ).encode()
