"""Opens a pool's root and closes it: identity, recovery, items, journal. Blocking, in threads."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

import trio

from fspoolfs.backends import layout
from fspoolfs.backends.filesystem import FileSystem
from fspoolfs.backends.registry import Registry
from fspoolfs.backends.root import RootDirectory
from fspoolfs.backends.source import Describing, Sharing, Source
from fspoolfs.errors import FspoolError
from fspoolfs.model.definitions import PoolDefinition
from fspoolfs.model.infos import Feature, SpaceInfo
from fspoolfs.model.states import ItemState
from fspoolfs.progress import Progress
from fspoolfs.service import catalogue, identity, recovery
from fspoolfs.service.accounts import Accounts
from fspoolfs.service.committer import Committer
from fspoolfs.service.hosts import joining
from fspoolfs.service.hosts.joining import Ourselves
from fspoolfs.service.hosts.membership import Membership, Tenancy
from fspoolfs.service.hosts.sole import SoleHost
from fspoolfs.service.journal import Journal
from fspoolfs.service.objects import Attached, Item, TrashEntry

log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Opened:
    """What a start found: the attached root and all that it holds."""

    attached: Attached
    items: list[Item]
    parsed: int
    trash: dict[str, TrashEntry]
    space: SpaceInfo
    rubbish: bool


def open_pool(
    definition: PoolDefinition,
    registry: Registry,
    token: trio.lowlevel.TrioToken,
    progress: Progress,
    *,
    ourselves: Ourselves,
    known: bool = False,
) -> Opened:
    """Attach the root, make sure that it is this pool's, finish or undo what was interrupted.

    `ourselves` is who this host is where others can attach the root, too. A pool that is `known` to have
    been active there is never made anew. Leaves nothing attached when it fails. Raises `FspoolError` or
    `OSError`.
    """
    assert definition.uuid is not None
    source = registry.source_for(definition)
    source.check(definition)
    progress.begin("attaching")
    root = source.attach(definition, progress)
    parts: _Parts | None = None
    try:
        source.verify(definition, root)
        wanted = identity.Identity(uuid=definition.uuid, name=definition.name)
        sharing = joining.sharing_of(source, definition)
        progress.begin("recovering")
        opening = _Opening(
            definition=definition,
            registry=registry,
            token=token,
            root=root,
            ourselves=ourselves,
            wanted=wanted,
            known=known,
        )
        parts = opening.open(sharing)
        troubles = parts.troubles
        progress.begin("reading items")
        loaded = catalogue.load_items(root)
        for item in loaded.items if troubles else ():
            if item.uuid in troubles:
                item.state = ItemState.FAILED
                item.error = item.problem = troubles[item.uuid]
        trash = catalogue.load_trash(root)
        _hand_out_snapshots(root, loaded.items, trash.values())
        accounts = Accounts(definition.quotas)
        accounts.renew(
            (item.definition for item in loaded.items), (entry.definition for entry in trash.values())
        )
        if parts.membership is not None:
            shared = parts.membership.committer
            shared.accounts, shared.count_anew = accounts, lambda: _count_anew(root, accounts)
        return Opened(
            attached=Attached(
                root=root,
                source=source,
                filesystem=parts.filesystem,
                features=(*_described(source, definition, root), *parts.filesystem.features()),
                committer=parts.committer,
                accounts=accounts,
                tenancy=parts.tenancy,
                membership=parts.membership,
            ),
            items=loaded.items,
            parsed=loaded.parsed,
            trash=trash,
            space=root.space(),
            rubbish=bool(root.names(layout.PURGE)),
        )
    except BaseException:
        if parts is not None and parts.tenancy is not None:
            _leave_quietly(definition, parts.tenancy)
        root.close()
        try:
            source.detach(definition, force=False)
        except (OSError, FspoolError) as error:
            # Somebody uses what an earlier daemon had attached; what failed is what is to be told.
            log.warning("pool %s: %s", definition.name, error)
        raise


def _count_anew(root: RootDirectory, accounts: Accounts) -> None:
    items, trash = catalogue.load_items(root).items, catalogue.load_trash(root)
    accounts.renew((one.definition for one in items), (one.definition for one in trash.values()))


@dataclass(slots=True, kw_only=True)
class _Parts:
    """What is made of an attached root first, alone or with others."""

    filesystem: FileSystem
    committer: Committer
    troubles: dict[UUID, FspoolError]
    tenancy: Tenancy | None = None
    membership: Membership | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opening:
    """An attached root of which a pool is made."""

    definition: PoolDefinition
    registry: Registry
    token: trio.lowlevel.TrioToken
    root: RootDirectory
    ourselves: Ourselves
    wanted: identity.Identity
    known: bool

    def open(self, sharing: Sharing | None) -> _Parts:
        if sharing is None or sharing.single:
            return self._alone(sharing)
        return self._with_others(sharing)

    def _alone(self, sharing: Sharing | None) -> _Parts:
        """On this host only, or on one host at a time."""
        self._claim()
        place = None
        if sharing is not None:
            place = SoleHost(self.definition.name, self.root, self.ourselves.host, sharing.single)
            place.enter()
        try:
            self._discard()
            filesystem = self._probe()
            journal, troubles = _recovered_journal(self.root, filesystem)
        except BaseException:
            if place is not None:
                _leave_quietly(self.definition, place)
            raise
        committer = Committer(self.definition.name, self.root, journal, self.token)
        return _Parts(filesystem=filesystem, committer=committer, troubles=troubles, tenancy=place)

    def _with_others(self, sharing: Sharing) -> _Parts:
        """On many hosts at once."""
        if self.known and identity.read(self.root) is None:
            self._claim()  # which refuses it, before anything is made there
        joined = joining.join(
            self.definition,
            self.root,
            sharing,
            self.ourselves,
            self.token,
            claim=self._claim,
            discard=self._discard,
            probe=self._probe,
        )
        return _Parts(
            filesystem=joined.filesystem,
            committer=joined.membership.committer,
            troubles=joined.troubles,
            tenancy=joined.membership.presence,
            membership=joined.membership,
        )

    def _claim(self) -> None:
        identity.claim(self.root, self.wanted, known=self.known)

    def _discard(self) -> None:
        _discard_temporary(self.root)

    def _probe(self) -> FileSystem:
        return self.registry.filesystem_at(self.root)


def _leave_quietly(definition: PoolDefinition, place: Tenancy) -> None:
    """What failed before is what is to be told."""
    try:
        place.leave()
    except (OSError, FspoolError) as error:
        log.warning("pool %s: %s", definition.name, error)


def _hand_out_snapshots(root: RootDirectory, items: Iterable[Item], trash: Iterable[TrashEntry]) -> None:
    """Give each item, deleted ones too, the snapshots of its uuid."""
    snapshots = catalogue.load_snapshots(root)
    if not snapshots:
        return
    owners: Iterable[Item | TrashEntry] = itertools.chain(items, trash)
    for owner in owners:
        owner.snapshots = snapshots.pop(owner.uuid, owner.snapshots)
    for uuid in snapshots:
        place = root.location(layout.snapshots(uuid))
        log.warning("%s belongs to no item that can be read and is left alone", place)


def _discard_temporary(root: RootDirectory) -> None:
    """Remove the temporary files of writes that were interrupted; nobody is writing now."""
    for place in (layout.OWN, layout.ITEMS, layout.TRASH):
        for name in root.names(place):
            if name.startswith("."):
                root.remove_file(f"{place}/{name}")


def _recovered_journal(
    root: RootDirectory, filesystem: FileSystem
) -> tuple[Journal, dict[UUID, FspoolError]]:
    """The journal, and what became of items that could not be recovered whole."""
    journal = Journal.open(root)
    try:
        if any(record.payload for record in journal.pending):
            # A daemon that was killed has written these, and the replay is not to outlive them half-way.
            journal.sync()
        troubles = recovery.recover(root, filesystem, journal.pending)
    except BaseException:
        journal.abandon()
        raise
    journal.stabilise(journal.last)
    return journal, troubles


def purge_leftovers(source: Source, registry: Registry, definition: PoolDefinition) -> None:
    """Remove what waits to be removed at the root of an inactive pool, as its file system does that.

    A root that cannot be attached has nothing that could be removed.
    """
    try:
        root = source.attach(definition, Progress())
    except (OSError, FspoolError):
        return
    try:
        filesystem = registry.filesystem_at(root)
        for place in (layout.STAGING, layout.PURGE):
            with suppress(FileNotFoundError):
                for name in root.names(place):
                    filesystem.remove(f"{place}/{name}", Progress())
    finally:
        root.close()
        source.detach(definition, force=False)


def _described(source: Source, definition: PoolDefinition, root: RootDirectory) -> Sequence[Feature]:
    return source.describe(definition, root) if isinstance(source, Describing) else ()


def save_index(attached: Attached, items: list[Item]) -> None:
    """Leave the index for the next start; `items` are taken as they are now."""
    catalogue.save_index(attached.root, items, time.time_ns())
