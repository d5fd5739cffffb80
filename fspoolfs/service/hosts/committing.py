"""The committer of a pool that several hosts share: what it does, it does in turns.

A change that was asked for before this host knew what another one has just done to the same item, or
to the place that it enters, is refused: whoever asked looks again. So of two hosts that do the same
thing one succeeds, and the other one hears why not.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import trio

from fspoolfs.backends.root import SharedDirectory
from fspoolfs.errors import BusyError, ExistsError, FspoolError, StorageError
from fspoolfs.service.accounts import Accounts
from fspoolfs.service.committer import IDLE_TIME, Change, Committer
from fspoolfs.service.intents import Intent, Outcome
from fspoolfs.service.journal import Journal, Record
from fspoolfs.service.places import label, place, self_of

#: Seconds that a turn goes on without work: the next change of this host then needs none of its own.
TURN_IDLE = 0.05
#: Seconds after which a turn ends that has always had work, and that others get then.
LONGEST_TURN, PAUSE = 0.5, 0.06
#: Seconds without work in a turn after which it is looked whether it still is this host's: a daemon that
#: was stopped for a while may have been fenced.
_GAP = 0.03
#: How many touched items and places are remembered; what was touched before is known by now.
_REMEMBERED = 20_000

#: What is called in the event loop with records of others, in order, and the number of the newest one;
#: `None` when there were too many to be told.
Hear = Callable[[Sequence[Record] | None, int], None]


class Turns(Protocol):
    """How hosts that share a pool take turns; `fspoolfs.service.hosts.turns` is the real one."""

    def begin(self) -> Sequence[Record] | None:
        """Wait for the turn; what others have journalled meanwhile, `None` where that is too much.

        Raises `FspoolError` or `OSError`, and has no turn then.
        """

    def check(self) -> None:
        """Raise `FspoolError` when others have put this host out in the midst of its turn."""

    def end(self) -> None:
        """Let others have their turn. The caller has marked the journal, or could not."""

    def is_own(self, number: int) -> bool:
        """Whether this host wrote a record; also asked by another thread than the turns'."""


class SharedCommitter(Committer):
    """A `Committer` whose journal others write to as well."""

    def __init__(
        self, name: str, root: SharedDirectory, journal: Journal, token: trio.lowlevel.TrioToken, turns: Turns
    ) -> None:
        super().__init__(name, root, journal, token)
        self.turns = turns
        #: The newest record of others that the objects in memory have; the event loop's.
        self.seen = journal.last
        #: Told what others have done; the event loop's.
        self.hear: Hear = lambda records, last: None
        #: What the pool's items may come to hold; set when they are known.
        self.accounts = Accounts()
        #: Lets them be what the storage says; blocks, and raises `OSError`.
        self.count_anew: Callable[[], None] = lambda: None
        #: The newest record that they have.
        self._counted = journal.last
        self._counting = threading.Lock()
        #: Whether they are not known, since others have done more than can be told.
        self._uncounted = False
        self._begun: float | None = None
        self._worked = 0.0
        #: What others have touched: the number of the record, and whether something is there now.
        self._touched: dict[str, tuple[int, bool]] = {}
        #: The newest record of those that nobody could tell us.
        self._untold = 0

    def submit(self, change: Change) -> None:
        change.basis = self.seen
        super().submit(change)

    def _patience(self) -> float:
        return IDLE_TIME if self._begun is None else TURN_IDLE

    def _rest(self) -> bool:
        if self._begun is None:
            return False
        self._end_turn()
        return True

    def _commit(self, batch: list[Change]) -> None:
        if self.broken is None and not (self._begin_turn(batch) if self._begun is None else self._goes_on()):
            if self.broken is not None:
                super()._commit(batch)  # which refuses all of it
            return
        allowed: list[Change] = []
        for change in batch:
            refusal = self._overtaken(change)
            if refusal is not None:
                self._tell(change.settle, refusal)
            else:
                allowed.append(change)
        super()._commit(allowed)
        self._worked = time.monotonic()
        if self._begun is not None and time.monotonic() - self._begun > LONGEST_TURN:
            self._end_turn()
            if not self._queue.empty():
                time.sleep(PAUSE)

    def _begin_turn(self, batch: list[Change]) -> bool:
        """Whether this host may change something now; if not, `batch` has been told."""
        try:
            found = self.turns.begin()
        except (FspoolError, OSError) as error:
            refusal = (
                error
                if isinstance(error, FspoolError)
                else StorageError.from_os(f"take a turn in pool {self._name}", error)
            )
            self._refuse(batch, refusal)
            return False
        self._begun = self._worked = time.monotonic()
        self._applied = self._journal.last
        if found is None:
            self._untold = self._journal.last
            self._uncounted = True
        for record in found or ():
            self._remember(record)
        if found is None or found:
            self._tell(self.hear, found, self._journal.last)
        return self._recount(batch)

    def _refuse(self, batch: list[Change], refusal: FspoolError) -> None:
        for change in batch:
            self._tell(change.settle, refusal)

    def _goes_on(self) -> bool:
        """Whether the turn that was begun still is this host's."""
        if time.monotonic() - self._worked <= _GAP:
            return True
        try:
            self.turns.check()
        except (FspoolError, OSError) as error:
            self.broken = (
                error
                if isinstance(error, FspoolError)
                else StorageError.from_os(f"go on with a turn in pool {self._name}", error)
            )
            return False
        return True

    def _remember(self, record: Record) -> None:
        if not record.payload:
            return
        intent = Intent.decode(record.payload)
        self.count(record, intent)
        there = intent.outcome is Outcome.PLACED
        definition = intent.definition
        if len(self._touched) > _REMEMBERED:
            self._touched = {
                key: value
                for key, value in self._touched.items()
                if value[0] > self._journal.last - _REMEMBERED // 8
            }
        for key in (label(intent.was_name), place(intent.was_path)):
            self._touched[key] = (record.number, False)
        self._touched[self_of(intent.uuid)] = (record.number, there)
        if intent.outcome is not Outcome.NOTED:
            for key in (label(definition.name), place(definition.location)):
                self._touched[key] = (record.number, there)

    def count(self, record: Record, intent: Intent) -> None:
        """Let the sums that quotas limit follow what another host has done; each record counts once.

        Called by the committer's thread and in the event loop, by each in the order of the records.
        """
        with self._counting:
            if record.number <= self._counted:
                return
            self._counted = record.number
            match intent.outcome:
                case Outcome.PLACED:
                    self.accounts.note(intent.definition)
                case Outcome.TRASHED:
                    self.accounts.note_trashed(intent.definition)
                case Outcome.PURGED | Outcome.ABORTED:
                    self.accounts.forget(intent.uuid)
                case Outcome.NOTED:
                    pass

    def count_soon(self) -> None:
        """Take the sums from the storage in the next turn: who asks may not know the latest changes."""
        self._uncounted = True

    def _recount(self, batch: list[Change]) -> bool:
        """Count anew what nobody could tell; it does not change in this turn. False: `batch` was refused."""
        if not self._uncounted:
            return True
        try:
            with self._counting:
                self.count_anew()
                self._counted = self._journal.last
        except OSError as error:
            self._refuse(batch, StorageError.from_os(f"look at the items of pool {self._name}", error))
            self._end_turn()
            return False
        self._uncounted = False
        return True

    def _overtaken(self, change: Change) -> FspoolError | None:
        """Why a change cannot be carried out, of which another host has changed the premises."""
        if change.basis < self._untold:
            return BusyError(f"pool {self._name} was changed a lot on other hosts; look again and repeat it")
        if self._is_touched(self_of(change.uuid), change):
            return BusyError(
                f"pool {self._name}: the item was changed on another host at the same moment; look again and "
                "repeat it"
            )
        for key in change.enters:
            if self._is_touched(key, change):
                kind, _, name = key.partition(":")
                what = f"item {name}" if kind == "name" else f"/{name}"
                if self._touched[key][1]:
                    return ExistsError(
                        f"pool {self._name}: {what} has just been made on another host; look again"
                    )
                return BusyError(f"pool {self._name}: {what} has just left on another host; repeat it")
        return None

    def _is_touched(self, key: str, change: Change) -> bool:
        touched = self._touched.get(key)
        return touched is not None and touched[0] > change.basis

    def _end_turn(self) -> None:
        if self.broken is None and self._journal.unstable:
            self._mark()
        self._begun = None
        self._left.clear()
        last = self._journal.last
        self.turns.end()
        self._tell(self.hear, (), last)

    def _finish(self) -> None:
        if self._begun is not None:
            self._end_turn()
        self._tell(self._closed.set)
