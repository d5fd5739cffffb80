"""One timer for many waits of the same length: cheaper than a cancel scope for each of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import trio


class Deadlines:
    """Calls back what is overdue; all waits last `seconds`, and end up to a quarter of it late."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._waiting: deque[tuple[float, Callable[[], None]]] = deque()

    def add(self, overdue: Callable[[], None]) -> None:
        """Call `overdue` when the time is over, whether or not anyone still waits."""
        self._waiting.append((trio.current_time() + self.seconds, overdue))

    async def watch(self) -> None:
        """The timer; runs until cancelled."""
        while True:
            await trio.sleep(self.seconds / 4)
            now = trio.current_time()
            while self._waiting and self._waiting[0][0] <= now:
                self._waiting.popleft()[1]()
