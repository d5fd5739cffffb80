"""Carries changes out durably: journal, sync, storage, in that order, many at a time.

A pool has one committer. Changes wait in a queue; a thread takes all that wait, journals them with
one synced write, applies each, and hands the results back to the event loop. The thread comes with
the first change and goes when nothing has been asked for a while, so idle pools cost nothing; and
a pool whose storage hangs holds up its own thread only.

Some time after the last change the storage is synced as a whole and the journal marked: what is
left to replay after a crash is at most the changes of the last seconds. The kernel would write the
same data by itself a little later.

What one uuid has left (a path, a name) another must not enter while the journal could still replay
the leaving: recovery would not know whose directory it finds there. Such a change waits for a sync
of the storage first.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Protocol
from uuid import UUID

import trio

from fspoolfs.backends.root import RootDirectory
from fspoolfs.errors import FspoolError, RollbackError, StorageError
from fspoolfs.service.journal import Journal

log = logging.getLogger(__name__)

#: Seconds without a change after which the storage is synced and the journal marked.
SETTLE_TIME = 5.0
#: Seconds without a change after which the thread ends.
IDLE_TIME = 15.0
#: The most changes that share one sync.
BATCH = 64


class Change(Protocol):
    """One change of an item. All methods but `settle` run in the committer's thread."""

    #: The item's uuid, and the places (paths and names, told apart by a prefix) it enters and leaves.
    uuid: UUID
    enters: tuple[str, ...]
    leaves: tuple[str, ...]
    #: The number of the newest record of other hosts that was known to who asked for it.
    basis: int

    def prepare(self) -> bytes:
        """Check what only the storage can tell; the intent's payload. Nothing is changed yet."""

    def apply(self) -> None:
        """Change the storage. After a crash recovery does the same from the intent."""

    def undo(self) -> bytes:
        """After `apply` failed: put things back; the payload of an intent that says so."""

    def settle(self, error: Exception | None) -> None:
        """In the event loop: take the result into the objects in memory and wake who waits."""


_Results = list[tuple[Change, Exception | None]]


class Committer:
    """The queue, the thread and the journal of one active pool."""

    def __init__(
        self, name: str, root: RootDirectory, journal: Journal, token: trio.lowlevel.TrioToken
    ) -> None:
        self._name = name
        self._root = root
        self._journal = journal
        self._token = token
        self._queue: queue.SimpleQueue[Change | None] = queue.SimpleQueue()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._applied = journal.last
        #: Place → the uuid that left it and the record that says so, while it could be replayed.
        self._left: dict[str, tuple[UUID, int]] = {}
        self._closed = trio.Event()
        self._closing_error: Exception | None = None
        self._closed_idle = False
        #: Why nothing more can be carried out, once an undo or the journal has failed.
        self.broken: FspoolError | None = None

    def submit(self, change: Change) -> None:
        """Queue `change`; its `settle` is called in the event loop, whatever happens."""
        if self.broken is not None:
            self._token.run_sync_soon(change.settle, self.broken)
            return
        with self._starting:
            self._queue.put(change)
            self._ensure_thread()

    async def close(self) -> None:
        """Carry out what waits, sync the storage, mark and close the journal.

        Raises what the storage answered. Blocks as long as the storage does: bound it outside.
        """
        if not self._closed_idle:
            with self._starting:
                self._queue.put(None)
                self._ensure_thread()
        await self._closed.wait()
        if self._closing_error is not None:
            raise self._closing_error

    def close_idle(self) -> None:
        """Do what `close` does in the calling thread, if there is none at work; blocks.

        `close` has only to be waited for then.
        """
        with self._starting:
            if self._thread is not None:
                return
            self._thread = threading.current_thread()  # so that no other one begins
            self._closed_idle = True
        self._finish()

    def abandon(self) -> None:
        """Give up storage that does not answer: what its thread still does from now on fails."""
        self.broken = FspoolError(f"pool {self._name} was let go while its storage did not answer")
        self._journal.abandon()

    def _ensure_thread(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"commit-{self._name}", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                first = self._queue.get(timeout=self._patience())
            except queue.Empty:
                if self._rest():
                    continue
                with self._starting:
                    if self._queue.empty():
                        self._thread = None
                        return
                continue
            batch = [] if first is None else [first]
            closing = first is None
            while len(batch) < BATCH and not closing:
                try:
                    change = self._queue.get_nowait()
                except queue.Empty:
                    break
                closing = change is None
                if change is not None:
                    batch.append(change)
            if batch:
                self._commit(batch)
            if closing:
                self._finish()
                return

    def _patience(self) -> float:
        """How long the thread waits for work, in seconds."""
        return SETTLE_TIME if self._journal.unstable else IDLE_TIME

    def _rest(self) -> bool:
        """Do what is due while nothing is asked; False when nothing is."""
        if not self._journal.unstable or self.broken is not None:
            return False
        self._mark()
        return True

    def _finish(self) -> None:
        try:
            if self.broken is None and self._journal.unstable:
                self._sync_storage()
            self._journal.close()
        except OSError as error:
            self._closing_error = StorageError.from_os(f"close the journal of pool {self._name}", error)
        self._tell(self._closed.set)

    def _mark(self) -> None:
        """Make the journal's records stable and say so durably, so that nothing is replayed."""
        try:
            self._sync_storage()
            if self._journal.room(b""):
                self._applied = self._journal.append(b"")
                self._journal.sync()
                self._journal.stabilise(self._applied)
        except OSError as error:
            self._break(f"sync the storage of pool {self._name}", error)

    def _sync_storage(self) -> None:
        """Make everything durable that has been applied; the journal need not replay it."""
        number = self._applied
        self._root.sync()
        self._journal.stabilise(number)
        self._left = {place: left for place, left in self._left.items() if left[1] > number}

    def _break(self, what: str, error: OSError) -> None:
        self.broken = StorageError.from_os(what, error)
        log.error("%s; nothing more is changed in pool %s until it is started again", self.broken, self._name)

    def _commit(self, batch: list[Change]) -> None:
        results: list[tuple[Change, Exception | None]] = []
        try:
            self._carry_out(batch, results)
        except BaseException as error:
            # A defect. What was done is unknown, so nothing may follow it; no one waits for ever.
            self.broken = FspoolError(
                f"pool {self._name}: a change ended by an error not foreseen: {error!r}"
            )
            log.critical("%s; start the pool again", self.broken, exc_info=isinstance(error, Exception))
            done = {id(change) for change, _ in results}
            results.extend((change, self.broken) for change in batch if id(change) not in done)
            if not isinstance(error, Exception):
                self._tell(self._closed.set)
                raise
        finally:
            for change, result in results:
                self._tell(change.settle, result)

    def _tell(self, act: Callable[..., object], *arguments: object) -> None:
        """Call `act` in the event loop; it may be gone when storage answers at last."""
        try:
            self._token.run_sync_soon(act, *arguments)
        except trio.RunFinishedError:
            log.debug("pool %s: nobody is left to hear of a change", self._name)

    def _carry_out(self, batch: list[Change], results: _Results) -> None:
        journalled: list[Change] = []
        for change in batch:
            try:
                if self.broken is not None:
                    raise self.broken
                if self._must_wait(change):
                    self._apply_all(journalled, results)
                    self._sync_storage()
                payload = change.prepare()
                if not self._journal.room(payload):
                    self._apply_all(journalled, results)
                    self._sync_storage()
                number = self._journal.append(payload)
            except FspoolError as error:
                results.append((change, error))
            except OSError as error:
                results.append((change, StorageError.from_os(f"change pool {self._name}", error)))
            else:
                self._left.update((place, (change.uuid, number)) for place in change.leaves)
                journalled.append(change)
        self._apply_all(journalled, results)

    def _must_wait(self, change: Change) -> bool:
        """Whether it enters a place that another uuid has left and could be replayed to leave."""
        return any(place in self._left and self._left[place][0] != change.uuid for place in change.enters)

    def _apply_all(self, journalled: list[Change], results: _Results) -> None:
        """Sync the journal, apply what it holds, and empty the list."""
        changes, journalled[:] = list(journalled), []
        if not changes or not self._sync_journal(changes, results):
            return
        undone = False
        for change in changes:
            try:
                change.apply()
            except (OSError, FspoolError) as error:
                refusal = (
                    error
                    if isinstance(error, FspoolError)
                    else StorageError.from_os(f"change pool {self._name}", error)
                )
                results.append((change, self._undo(change, refusal)))
                undone = True
            else:
                results.append((change, None))
        self._applied = self._journal.last
        if undone and self.broken is None:
            self._sync_journal([], results)

    def _sync_journal(self, changes: list[Change], results: _Results) -> bool:
        try:
            self._journal.sync()
        except OSError as error:
            # Whether the records are on the disk is unknown, so nothing may follow them.
            self._break(f"write the journal of pool {self._name}", error)
            results.extend((change, self.broken) for change in changes)
            return False
        return True

    def _undo(self, change: Change, refusal: FspoolError) -> FspoolError:
        try:
            payload = change.undo()
            if not self._journal.room(payload):
                self._sync_storage()
            number = self._journal.append(payload)
            self._left.update((place, (change.uuid, number)) for place in change.enters)
        except (OSError, FspoolError) as error:
            self.broken = RollbackError(
                f"{refusal}; undoing it failed too: {error}; stop and start pool {self._name} to repair it"
            )
            log.error("%s", self.broken)
            return self.broken
        return refusal
