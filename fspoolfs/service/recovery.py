"""Makes true, after a crash, what the journal says was under way.

The records that may not be on the disk are folded into the last intent of each item, in the order
in which these last intents came; each is then made true whatever part of it had been done. In these
records no place was entered by one item after another had left it (the committer syncs in between),
so a directory found at one of an item's places is that item's. Making an intent true twice changes
nothing, so a crash in here is no different from the first.
"""

from __future__ import annotations

import errno
import logging
import stat
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from uuid import UUID, uuid4

from fspoolfs.backends import layout
from fspoolfs.backends.filesystem import FileSystem
from fspoolfs.backends.root import RootDirectory
from fspoolfs.errors import FspoolError
from fspoolfs.model import formatting
from fspoolfs.service import catalogue
from fspoolfs.service.intents import Intent, Outcome
from fspoolfs.service.journal import Record
from fspoolfs.service.rollback import freeze, make_room
from fspoolfs.service.vacating import vacate

log = logging.getLogger(__name__)


def recover(
    root: RootDirectory, filesystem: FileSystem, pending: Sequence[Record], *, alone: bool = True
) -> dict[UUID, FspoolError]:
    """Replay `pending`, put leftovers among what is purged, and make it all durable.

    Who is not `alone` in the pool leaves what may be growing for another host.

    Returns the items that are in their places, but whose owner, mode or limits the storage refused: one
    of these never fails its pool. Raises `OSError` or `FspoolError` when the storage does not let it;
    the journal is then kept as it is.
    """
    histories: dict[UUID, list[Intent]] = {}
    for record in pending:
        if record.payload:
            intent = Intent.decode(record.payload)
            if intent.outcome is Outcome.NOTED:
                continue
            histories[intent.uuid] = [*histories.pop(intent.uuid, []), intent]
    troubles: dict[UUID, FspoolError] = {}
    for uuid, history in histories.items():
        replay = _Replay(root, filesystem, history)
        replay.make_true()
        if replay.trouble is not None:
            troubles[uuid] = replay.trouble
    _vacate_places(root, histories.values())
    leftovers = alone and _collect_staging(root, filesystem)
    if histories or leftovers:
        root.sync()
    if histories:
        log.info("%s: finished or undid what was interrupted for %d items", root.path, len(histories))
    return troubles


def _vacate_places(root: RootDirectory, histories: Collection[Sequence[Intent]]) -> None:
    """Remove what is empty above places that items have left.

    At the end, when every item is where it belongs: a directory that was above one may be an item by
    now. That came later, so its intent is among these too.
    """
    last = [history[-1] for history in histories]
    places = {intent.definition.location for intent in last if intent.outcome is Outcome.PLACED}
    left = {
        place
        for history in histories
        for intent in history
        for place in (intent.definition.location, intent.was_path)
    }
    for place in sorted(left - places):
        vacate(root, place, besides=places)


def _collect_staging(root: RootDirectory, filesystem: FileSystem) -> bool:
    """Nothing is being copied at a start: what lies in staging was interrupted."""
    leftovers = root.names(layout.STAGING)
    for name in leftovers:
        filesystem.move(f"{layout.STAGING}/{name}", layout.purge(uuid4()))
    return bool(leftovers)


class _Replay:
    """Makes the last intent of one item true."""

    def __init__(self, root: RootDirectory, filesystem: FileSystem, history: Sequence[Intent]) -> None:
        self._root = root
        self._filesystem = filesystem
        self._last = history[-1]
        self._history = history
        self._uuid = self._last.uuid
        self._final_definition = ""
        #: What the storage refused of the item's definition.
        self.trouble: FspoolError | None = None

    def make_true(self) -> None:
        self._roll_back()
        match self._last.outcome:
            case Outcome.PLACED:
                self._place()
            case Outcome.TRASHED:
                self._trash()
            case Outcome.PURGED:
                self._purge()
            case Outcome.ABORTED:
                self._abort()
            case Outcome.NOTED:
                raise AssertionError("what was only noted has no history")
        self._remove_old_definitions()

    def _places(self) -> Iterable[str]:
        """Where the item's directory can be: the latest places first."""
        for intent in reversed(self._history):
            yield intent.definition.location
            if intent.was_path:
                yield intent.was_path
        yield from (
            layout.trashed_data(self._uuid),
            layout.staging(self._uuid),
            layout.purge(self._uuid),
        )

    def _find(self) -> str | None:
        return next((place for place in self._places() if self._is_directory(place)), None)

    def _is_directory(self, place: str) -> bool:
        try:
            return stat.S_ISDIR(self._root.stat(place).mode)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return False
            raise

    def _move_to(self, target: str) -> bool:
        """Bring the item's directory to `target`, wherever it is; whether there is one."""
        if self._is_directory(target):
            return True
        found = self._find()
        if found is not None:
            self._filesystem.move(found, target)
        return found is not None

    def _place(self) -> None:
        definition = self._last.definition
        if self._move_to(definition.location):
            try:
                self._filesystem.update(definition.location, definition, definition)
            except FspoolError as error:
                log.error("%s: item %s: %s", self._root.path, definition.name, error)
                self.trouble = error
        elif any(intent.fresh for intent in self._history):
            self._filesystem.create(definition.location, definition)
        self._final_definition = layout.definition(definition.name)
        self._root.write(
            self._final_definition, formatting.format_item(definition), replace=True, durable=False
        )

    def _roll_back(self) -> None:
        """Bring the directory that was restored last to the item's place, and keep the one before."""
        intent = next((intent for intent in reversed(self._history) if intent.restored), None)
        if intent is None:
            return
        staging = layout.rollback(self._uuid)
        place = next(filter(self._is_directory, self._places()), intent.definition.location)
        around = (place, staging, *(one.kept for one in self._history if one.kept))
        found = next((path for path in around if self._is(path, intent.restored)), None)
        if found is None:
            log.error("%s: what item %s was rolled back to is gone", self._root.path, intent.definition.name)
            return
        old = staging if found == place else place
        if intent.kept and self._is_directory(old) and not self._is_directory(intent.kept):
            make_room(self._root, intent.kept)
            self._filesystem.move(old, intent.kept)
        if found != place:
            if self._is_directory(place):
                self._filesystem.move(place, layout.purge(uuid4()))
            self._filesystem.move(found, place)
        if intent.kept and self._is_directory(intent.kept):
            freeze(self._filesystem, intent.kept)

    def _is(self, path: str, identity: str) -> bool:
        return self._is_directory(path) and self._filesystem.identify(path) == identity

    def _trash(self) -> None:
        intent = self._last
        if not self._move_to(layout.trashed_data(self._uuid)):
            if not any(one.fresh for one in self._history):
                return
            # It was made and deleted again, and the storage has heard of neither.
            self._filesystem.create(layout.trashed_data(self._uuid), intent.definition)
        self._final_definition = intent.record
        document = formatting.format_item(intent.definition)
        try:
            self._root.write(intent.record, document, replace=True, durable=False)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            # A full storage still lets the definition be moved, if that has not been done yet.
            with suppress(FileExistsError, FileNotFoundError):
                self._root.rename(layout.definition(intent.was_name), intent.record)

    def _purge(self) -> None:
        # Without a place of its own the item was missing when it was deleted: what lies there is not its.
        if self._last.was_path:
            self._move_to(layout.purge(self._uuid))
        with suppress(FileNotFoundError):
            self._root.rename(layout.snapshots(self._uuid), layout.purge(uuid4()))

    def _abort(self) -> None:
        """Only an empty directory that this creation made goes; what somebody put there stays."""
        if self._is_directory(layout.staging(self._uuid)):
            self._filesystem.move(layout.staging(self._uuid), layout.purge(self._uuid))
        if self._last.adopted:
            return
        try:
            self._root.remove_directory(self._last.definition.location)
        except FileNotFoundError:
            pass
        except OSError as error:
            log.warning("%s is left: %s", self._root.location(self._last.definition.location), error)

    def _remove_old_definitions(self) -> None:
        """Remove this item's definitions under every other name that it had."""
        stale = {intent.record for intent in self._history if intent.record}
        for intent in self._history:
            for name in filter(None, (intent.definition.name, intent.was_name)):
                if self._defines_it(name):
                    stale.add(layout.definition(name))
        for path in stale - {self._final_definition}:
            with suppress(FileNotFoundError):
                self._root.remove_file(path)

    def _defines_it(self, name: str) -> bool:
        """Whether the definition called `name` is this item's, or torn and so of no other.

        One that was torn before, and has not been mended after all, is not to go.
        """
        try:
            return catalogue.read_item(self._root, name).uuid == self._uuid
        except FileNotFoundError:
            return False
        except FspoolError:
            return not (self._last.outcome is Outcome.ABORTED and self._last.mends)
