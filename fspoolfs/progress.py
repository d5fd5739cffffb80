"""Progress of long work: told by the worker, read by the job, and the way to cancel it.

A leaf: backends report through it, the service's jobs read it.
"""

from __future__ import annotations

import threading

from fspoolfs.errors import CancelledError


class Progress:
    """Written by one worker thread, read by the event loop; the numbers may lag but never tear.

    `done` and `total` count in `unit`s ("bytes", "files"); `total` is `None` while it is unknown.
    """

    __slots__ = ("_cancelled", "done", "phase", "total", "unit")

    def __init__(self) -> None:
        self._cancelled = threading.Event()
        self.phase = ""
        self.unit = ""
        self.done = 0
        self.total: int | None = None

    def begin(self, phase: str, *, unit: str = "", total: int | None = None) -> None:
        """Start a new phase at zero."""
        self.phase, self.unit, self.total, self.done = phase, unit, total, 0

    def advance(self, count: int = 1) -> None:
        """`count` more units are done. Raises `CancelledError` when the work is to stop."""
        self.done += count
        if self._cancelled.is_set():
            raise CancelledError(f"{self.phase or 'the work'} was cancelled")

    def cancel(self) -> None:
        """Ask the worker to stop at its next `advance`; any thread may call it."""
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    @property
    def percent(self) -> int | None:
        """0 to 100, or `None` while the total is unknown or zero."""
        return min(100, self.done * 100 // self.total) if self.total else None
