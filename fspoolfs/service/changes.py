"""The changes of items: what each checks, journals, does to the storage, and undoes.

One class per change. `prepare`, `apply` and `undo` run in the committer's thread and touch the
storage alone; `settle` runs in the event loop and hands the result to who asked. What the objects
in memory become is said by the caller, in `on_done`.
"""

from __future__ import annotations

import errno
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from uuid import UUID

import trio

from fspoolfs.backends import layout
from fspoolfs.backends.filesystem import FileSystem
from fspoolfs.errors import (
    AccessError,
    ExistsError,
    FspoolError,
    InProgressError,
    NotFoundError,
    StorageError,
)
from fspoolfs.model import formatting
from fspoolfs.model.definitions import ItemDefinition, Permissions
from fspoolfs.service import limits
from fspoolfs.service.access import Caller
from fspoolfs.service.accounts import Accounts
from fspoolfs.service.intents import Intent, Outcome
from fspoolfs.service.places import label, place
from fspoolfs.service.vacating import vacate


class ItemChange(ABC):
    """What all changes share: whom they concern and how their end is told."""

    def __init__(
        self,
        what: str,
        filesystem: FileSystem,
        *,
        uuid: UUID,
        enters: tuple[str, ...] = (),
        leaves: tuple[str, ...] = (),
        on_done: Callable[[Exception | None], None],
    ) -> None:
        self.what = what
        self.filesystem = filesystem
        self.root = filesystem.root
        self.uuid = uuid
        self.enters = enters
        self.leaves = leaves
        self.basis = 0
        #: The sums that quotas limit; `None` where nobody keeps any.
        self.accounts: Accounts | None = None
        self._on_done = on_done
        self._answered = trio.Event()
        self._is_settled = False
        #: Whether who asked was answered before the end, and so does not know of it.
        self.late = False
        self._watcher: Callable[[Exception | None], None] | None = None
        self.error: Exception | None = None

    @abstractmethod
    def prepare(self) -> bytes: ...

    @abstractmethod
    def apply(self) -> None: ...

    @abstractmethod
    def undo(self) -> bytes: ...

    def watch(self, watcher: Callable[[Exception | None], None]) -> None:
        """Call `watcher` with the result, after the objects in memory have it."""
        self._watcher = watcher

    def claim(self, definition: ItemDefinition) -> None:
        """Take what the item is to be from the quotas, in `prepare`. Raises `QuotaError`."""
        if self.accounts is not None:
            self.accounts.claim(definition, self.what)

    def account(self, accounts: Accounts) -> None:
        """Let the sums follow what was done."""
        accounts.settle(self.uuid, done=True)

    def settle(self, error: Exception | None) -> None:
        self.error = error
        if self.accounts is not None:
            if error is None:
                self.account(self.accounts)
            else:
                self.accounts.settle(self.uuid, done=False)
        self._on_done(error)
        if self._watcher is not None:
            self._watcher(error)
        self._is_settled = True
        self._answered.set()

    async def outcome(self) -> None:
        """Wait for the end, or until `let_go`, and raise how it failed.

        Raises `InProgressError` when it has not ended; it goes on all the same.
        """
        await self._answered.wait()
        if not self._is_settled:
            raise InProgressError(
                f"{self.what}: the storage has not answered yet; it goes on in the background"
            )
        if self.error is not None:
            raise self.error

    def let_go(self) -> None:
        """Answer who waits, although it has not ended."""
        self.late = not self._is_settled
        self._answered.set()

    def failed(self, error: OSError) -> StorageError:
        return StorageError.from_os(self.what, error)

    def is_directory(self, location: str) -> bool | None:
        """Whether a directory is at `location`; `None` when nothing is there."""
        try:
            return stat.S_ISDIR(self.root.stat(location).mode)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EXDEV):
                raise ExistsError(
                    f"{self.what}: /{location} leads through something that is no directory"
                ) from error
            raise self.failed(error) from error


class CreateItem(ItemChange):
    """Make a new item, take over a directory for `adopter`, or place a finished clone.

    `unset` are the permissions that the document left open: an adopted directory keeps its own. With
    `mends` the directory is that of an item whose stored definition cannot be read.
    """

    def __init__(
        self,
        filesystem: FileSystem,
        definition: ItemDefinition,
        *,
        adopter: Caller | None = None,
        unset: Permissions | None = None,
        staged: bool = False,
        mends: bool = False,
        on_done: Callable[[Exception | None], None],
    ) -> None:
        assert definition.uuid is not None
        super().__init__(
            f"{'define' if mends else 'create'} item {definition.name}",
            filesystem,
            uuid=definition.uuid,
            enters=(place(definition.location), label(definition.name)),
            on_done=on_done,
        )
        self.definition = definition
        self._adopter = adopter
        self._unset = unset or Permissions()
        self._staged = staged
        self._mends = mends
        self._adopted: ItemDefinition | None = None
        self._made = False
        self._document = b""

    def prepare(self) -> bytes:
        location = self.definition.location
        limits.check(self.filesystem, self.definition)
        found = self.is_directory(location)
        if found is not None:
            if self._adopter is None or not found:
                kind = "a directory" if found else "something that is no directory"
                advice = "; write a definition to take it over" if found and not self._staged else ""
                raise ExistsError(f"{self.what}: {kind} is already at /{location} in the pool{advice}")
            self._take_over(location, self._adopter)
        elif self._mends:
            raise NotFoundError(
                f"{self.what}: there is no directory /{location} in the pool; say with <path> where it lies, "
                "put it back, or delete the item and create it anew"
            )
        self.claim(self.definition)
        self._document = formatting.format_item(self.definition)
        return Intent(
            outcome=Outcome.PLACED,
            uuid=self.uuid,
            definition=self.definition,
            was_path=layout.staging(self.uuid) if self._staged else "",
            fresh=not self._staged and self._adopted is None,
            adopted=self._adopted is not None,
            mends=self._mends,
        ).encode(self._document)

    def _take_over(self, location: str, adopter: Caller) -> None:
        """An adopted directory keeps the owner, group and mode that the document does not name."""
        info = self.root.stat(location)
        if not adopter.administers and info.owner != adopter.uid:
            raise AccessError(f"{self.what}: /{location} belongs to another user and cannot be taken over")
        wanted, real = (
            self.definition.permissions,
            Permissions(mode=stat.S_IMODE(info.mode), owner=info.owner, group=info.group),
        )
        # What is nobody's item yet has no limits to go back to either.
        self._adopted = replace(self.definition, permissions=real, capacity=None, soft=None, files=None)
        self.definition = replace(
            self.definition,
            permissions=Permissions(
                mode=real.mode if self._unset.mode is None else wanted.mode,
                owner=real.owner if self._unset.owner is None else wanted.owner,
                group=real.group if self._unset.group is None else wanted.group,
            ),
        )

    def apply(self) -> None:
        location = self.definition.location
        try:
            if self._staged:
                self.filesystem.move(layout.staging(self.uuid), location)
                self._made = True
            elif self._adopted is not None:
                self.filesystem.update(location, self._adopted, self.definition)
            else:
                self._made = True
                self.filesystem.create(location, self.definition)
            self.root.write(
                layout.definition(self.definition.name), self._document, replace=self._mends, durable=False
            )
        except FileExistsError as error:
            self._made = False  # whoever made it meanwhile keeps it
            raise self.failed(error) from error
        except OSError as error:
            raise self.failed(error) from error

    def undo(self) -> bytes:
        location = self.definition.location
        if self._staged:
            if self._made:
                self.filesystem.move(location, layout.staging(self.uuid))
        elif self._adopted is not None:
            self.filesystem.update(location, self.definition, self._adopted)
        else:
            # The directory is empty and new, or it was never made; anything else stays.
            with suppress(FileNotFoundError):
                if self._made:
                    self.root.remove_directory(location)
        vacate(self.root, location)
        return Intent(
            outcome=Outcome.ABORTED,
            uuid=self.uuid,
            definition=self.definition,
            was_name=self.definition.name,
            was_path=location,
            adopted=self._adopted is not None,
            mends=self._mends,
        ).encode()


class UpdateItem(ItemChange):
    """Give an item another definition under the same name, at the same place."""

    def __init__(
        self,
        filesystem: FileSystem,
        old: ItemDefinition,
        new: ItemDefinition,
        *,
        on_done: Callable[[Exception | None], None],
    ) -> None:
        assert old.uuid is not None
        super().__init__(f"change item {old.name}", filesystem, uuid=old.uuid, on_done=on_done)
        self._old = old
        self._new = new

    def prepare(self) -> bytes:
        limits.check(self.filesystem, self._new)
        if not self.is_directory(self._old.location):
            raise NotFoundError(f"{self.what}: its directory /{self._old.location} is missing")
        limits.check_fits(self.filesystem, self.what, self._old, self._new)
        self.claim(self._new)
        return self._intent(self._new)

    def _intent(self, definition: ItemDefinition) -> bytes:
        return Intent(outcome=Outcome.PLACED, uuid=self.uuid, definition=definition).encode()

    def apply(self) -> None:
        """The definition is replaced last, and as a whole: while that fails the old one stands."""
        old, new = self._old, self._new
        try:
            self.filesystem.update(old.location, old, new)
            self.root.write(
                layout.definition(new.name), formatting.format_item(new), replace=True, durable=False
            )
        except OSError as error:
            raise self.failed(error) from error

    def undo(self) -> bytes:
        self.filesystem.update(self._old.location, self._new, self._old)
        return self._intent(self._old)


class NoteSnapshots(ItemChange):
    """Do `work`, which changes the snapshots of an item, when no other host changes the item."""

    def __init__(
        self, filesystem: FileSystem, definition: ItemDefinition, what: str, work: Callable[[], None]
    ) -> None:
        assert definition.uuid is not None
        super().__init__(what, filesystem, uuid=definition.uuid, on_done=lambda error: None)
        self._definition = definition
        self._work = work

    def prepare(self) -> bytes:
        return Intent(outcome=Outcome.NOTED, uuid=self.uuid, definition=self._definition).encode()

    def apply(self) -> None:
        self._work()

    def undo(self) -> bytes:
        """What failed has left nothing; who reads along looks once more."""
        return self.prepare()


def as_refusal(error: Exception) -> FspoolError:
    """What an object remembers of `error`."""
    return error if isinstance(error, FspoolError) else FspoolError(f"not foreseen: {error}")
