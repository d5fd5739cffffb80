"""Tells the kernel what it must no longer believe, and wakes those who poll.

The kernel may keep directories for long (see `fspoolfs.ops.attributes`), so every change that it
did not ask for itself is told. That a name is gone can block while a request on its directory is
under way, hence a thread of its own for it.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterable

import pyfuse3
from pyfuse3 import InodeT

from fspoolfs.ops import inodes
from fspoolfs.ops.handles import Handle
from fspoolfs.ops.inodes import Inodes
from fspoolfs.service.events import Event
from fspoolfs.service.objects import Pool
from fspoolfs.service.pools import Pools
from fspoolfs.tree.root import POOLS_NUMBER

log = logging.getLogger(__name__)

_Message = Callable[[], None]


class Notifier:
    """Listens to events and keeps the kernel's caches true."""

    def __init__(self, pools: Pools, table: Inodes, handles: Callable[[], Iterable[Handle]]) -> None:
        self._pools = pools
        self._inodes = table
        self._handles = handles
        self._queue: queue.SimpleQueue[_Message | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._send, name="notify", daemon=True)

    def start(self) -> None:
        """Begin to tell; what changed before the kernel was there it does not know."""
        self._thread.start()

    def stop(self) -> None:
        """No message is sent after this returns or the one under way ends."""
        self._queue.put(None)

    def _put(self, message: _Message) -> None:
        if self._thread.is_alive():
            self._queue.put(message)

    def hear(self, event: Event) -> None:
        """An event's listener: called in the event loop."""
        if event.number:
            self._inodes.forget(event.number)
        if not event.via_tree:
            self._tell(event)
        for handle in self._handles():
            handle.wake()

    def _tell(self, event: Event) -> None:
        pool = self._pools.get(event.pool)
        if event.kind == "pool-undefined":
            self._entry_gone(POOLS_NUMBER, event.pool, event.number)
        if pool is None:
            return
        match event.kind:
            case "pool-changed" | "pool-state" | "pool-defined":
                self._changed(pool.number)
                self._changed(pool.items_number)
                self._changed(pool.trash_number)
            case "pool-emptied":
                self._emptied(pool)
            case "item-created":
                self._changed(pool.items_number)
            case "item-changed" | "item-rolled-back":
                item = pool.items.get(event.item)
                if item is not None:
                    self._changed(item.number)
                    self._changed(item.snapshots_number)
            case "snapshot-created" | "snapshot-renamed" | "snapshot-deleted" | "snapshot-failed":
                self._snapshot_changed(pool, event)
            case "item-deleted" | "item-failed":
                self._entry_gone(pool.items_number, event.item, event.number)
            case "trash-purged" | "trash-restored":
                self._entry_gone(pool.trash_number, event.item, event.number)
            case "item-renamed":
                self._entry_gone(pool.items_number, str(event.details["old"]), 0)

    def _snapshot_changed(self, pool: Pool, event: Event) -> None:
        item = pool.items.get(event.item)
        if item is None:
            return
        match event.kind:
            case "snapshot-created":
                self._changed(item.snapshots_number)
            case "snapshot-renamed":
                self._entry_gone(item.snapshots_number, str(event.details["old"]), 0)
            case _:
                self._entry_gone(item.snapshots_number, str(event.details["snapshot"]), event.number)

    def _changed(self, number: int) -> None:
        """Told at once, before the request that changed it is answered: this takes no lock."""
        if self._thread.is_alive():
            _tell(lambda: pyfuse3.invalidate_inode(inodes.of_directory(number), attr_only=True))

    def _entry_gone(self, parent: int, name: str, number: int) -> None:
        inode = inodes.of_directory(parent)
        deleted = inodes.of_directory(number) if number else InodeT(0)
        encoded = pyfuse3.FileNameT(name.encode("utf-8", "surrogateescape"))
        self._put(lambda: pyfuse3.invalidate_entry(inode, encoded, deleted))

    def _emptied(self, pool: Pool) -> None:
        """Every item is gone at once: one message drops all that the kernel has below."""
        self._entry_gone(pool.number, "items", 0)
        self._entry_gone(pool.number, "trash", 0)
        self._inodes.forget_below(pool.items_number)
        self._inodes.forget_below(pool.trash_number)

    def _send(self) -> None:
        while (message := self._queue.get()) is not None:
            _tell(message)


def _tell(message: _Message) -> None:
    try:
        message()
    except FileNotFoundError:
        pass  # the kernel did not know it
    except OSError as error:
        log.warning("the kernel could not be told of a change: %s", error)
