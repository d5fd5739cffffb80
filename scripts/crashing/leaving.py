"""Leaves through every context on the way when a signal comes, and never between two steps of a start."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Leaving:
    """What SIGINT, SIGTERM and SIGHUP do to this program."""

    def __init__(self) -> None:
        self._held = False
        self._pending = 0

    def install(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._handle)

    @contextmanager
    def held(self) -> Iterator[None]:
        """A signal in here acts at the end: a process that was just made is known by then."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
            if self._pending:
                raise SystemExit(128 + self._pending)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self._held:
            raise SystemExit(128 + number)
        self._pending = number


LEAVING = Leaving()
