"""What changes of items do to control groups: checked before they are journalled, and undone with them.

Groups follow from definitions and are put again at each start, so nothing of this is journalled.
"""

from __future__ import annotations

import logging

from fspoolfs.backends.cgroups import Place
from fspoolfs.backends.root import RootDirectory
from fspoolfs.backends.source import Remote
from fspoolfs.errors import FspoolError
from fspoolfs.model.definitions import ItemDefinition
from fspoolfs.model.limits import Limits
from fspoolfs.service.changes import ItemChange
from fspoolfs.service.group_keeper import GroupKeeper
from fspoolfs.service.objects import Attached, Pool

log = logging.getLogger(__name__)


def place_of(pool: Pool, item: str) -> Place:
    return Place(str(pool.uuid), pool.name, item)


def root_of(attached: Attached) -> RootDirectory | None:
    """The root where its devices are this host's; a server is not asked for anything."""
    return None if isinstance(attached.source, Remote) else attached.root


def step(
    keeper: GroupKeeper,
    pool: Pool,
    attached: Attached,
    old: ItemDefinition | None,
    new: ItemDefinition | None,
) -> Step | None:
    """What a change makes of the item's group; `None` where that stays as it is, or there is none."""
    before = (place_of(pool, old.name), old.limits) if old is not None and old.limits else None
    after = (place_of(pool, new.name), new.limits) if new is not None and new.limits else None
    if before == after and (before is None or attached.limited.get(before[0].item) == before[1]):
        return None
    stays = new is not None and old is not None and new.name == old.name
    return Step(keeper, attached, before, after, stays=stays)


class Step:
    """The part of a change that concerns a group. Runs in the committer's thread, but for `settle`.

    With `stays` the item keeps its name, and the group whoever is in it.
    """

    def __init__(
        self,
        keeper: GroupKeeper,
        attached: Attached,
        before: tuple[Place, Limits] | None,
        after: tuple[Place, Limits] | None,
        *,
        stays: bool,
    ) -> None:
        self._keeper = keeper
        self._attached = attached
        self._root = root_of(attached)
        self._before, self._after = before, after
        self._goes = before is not None and not stays

    def check(self) -> None:
        if self._after is not None:
            self._keeper.check(self._after[0].item, self._after[1], self._root)
        if self._before is not None and self._goes:
            place = self._before[0]
            self._keeper.check_unused(f"item {place.item} cannot go or be renamed", [place])

    def apply(self) -> None:
        if self._before is not None and self._goes:
            self._keeper.remove(self._before[0])
        if self._after is not None:
            self._keeper.put(*self._after, self._root)
        elif self._before is not None and not self._goes:
            self._keeper.lift(self._before[0], self._root)

    def undo(self) -> None:
        """Put back what was. What is in the way of that is told in the log; the next start mends it."""
        try:
            if self._after is not None and (self._before is None or self._goes):
                self._keeper.let_go([self._after[0]])
            if self._before is not None:
                self._keeper.put(*self._before, self._root)
        except FspoolError as error:
            log.warning("a control group could not be put back as it was: %s", error)

    def settle(self) -> None:
        """It has happened, and nothing can undo it any more."""
        if self._before is not None:
            self._attached.limited.pop(self._before[0].item, None)
        if self._after is not None:
            self._attached.limited[self._after[0].item] = self._after[1]


class LimitedChange:
    """A change of an item with what it makes of the item's group: the committer's `Change`."""

    def __init__(self, change: ItemChange, its_step: Step) -> None:
        self._change = change
        self._step = its_step
        self.uuid = change.uuid
        self.enters = change.enters
        self.leaves = change.leaves
        self.basis = change.basis

    def prepare(self) -> bytes:
        self._step.check()
        return self._change.prepare()

    def apply(self) -> None:
        self._step.apply()
        self._change.apply()

    def undo(self) -> bytes:
        payload = self._change.undo()
        self._step.undo()
        return payload

    def settle(self, error: Exception | None) -> None:
        if error is None:
            self._step.settle()
        self._change.settle(error)
