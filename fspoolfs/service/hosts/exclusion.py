"""Keeps two hosts from doing the same work side by side, where that takes longer than a turn."""

from __future__ import annotations

from contextlib import suppress

import trio

from fspoolfs.backends import layout
from fspoolfs.backends.root import Lock, SharedDirectory
from fspoolfs.errors import BusyError
from fspoolfs.model.definitions import ItemDefinition
from fspoolfs.service.objects import Attached


class RollbackExclusion:
    """One host at a time prepares what an item is rolled back to. Costs nothing where no other can."""

    def __init__(self, attached: Attached, definition: ItemDefinition) -> None:
        assert definition.uuid is not None
        self._attached = attached
        self._name = definition.name
        self._path = layout.rollback_lock(definition.uuid)
        self._lock: Lock | None = None
        #: Whether this host may prepare it now.
        self.begun = False

    def begin(self) -> None:
        """In a thread. Raises `BusyError` while another host rolls the item back."""
        root = self._attached.root
        if self._attached.membership is not None:
            assert isinstance(root, SharedDirectory)
            shared: SharedDirectory = root
            self._lock = shared.try_lock(self._path)
            if self._lock is None:
                raise BusyError(f"item {self._name} is being rolled back on another host; wait for that")
        self.begun = True

    async def end(self) -> None:
        """May be repeated."""
        lock, self._lock = self._lock, None
        if lock is None:
            return

        def release() -> None:
            with suppress(OSError):  # whoever finds an empty file locks that
                self._attached.root.remove_file(self._path)
            lock.release()

        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(release, abandon_on_cancel=True)


class SweepExclusion:
    """One host at a time removes what was purged; another one looks again later."""

    def __init__(self, attached: Attached) -> None:
        self._root = attached.root
        self._shared = attached.membership is not None

    def __enter__(self) -> bool:
        """Whether this host may."""
        self._lock: Lock | None = None
        root = self._root
        if not self._shared or not isinstance(root, SharedDirectory):
            return True
        self._lock = root.try_lock(layout.SWEEP_LOCK)
        return self._lock is not None

    def __exit__(self, *exception: object) -> None:
        if self._lock is not None:
            self._lock.release()
