"""Calls that may never come back: made in a thread of their own, and waited for so long.

A system call on a dead server's file system cannot be interrupted (proc(5), state D). Its thread is
left behind then, and ends when the mount is aborted or the server answers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from fspoolfs.errors import TimeLimitError

T = TypeVar("T")


class _Call(Generic[T]):
    """One call and what became of it; `spoil` gets a result that comes when nobody waits any more."""

    def __init__(self, work: Callable[[], T], spoil: Callable[[T], object] | None) -> None:
        self._work = work
        self._spoil = spoil
        self._turn = threading.Lock()
        self._given_up = False
        self.done = threading.Event()
        self.result: T
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            result = self._work()
        except BaseException as error:
            self.error = error
        else:
            with self._turn:
                late = self._given_up
                if not late:
                    self.result = result
            if late and self._spoil is not None:
                self._spoil(result)
        self.done.set()

    def give_up(self) -> bool:
        """Whether it has still not ended; its result is spoilt then."""
        with self._turn:
            self._given_up = not self.done.is_set() and not hasattr(self, "result")
            return self._given_up


def call(
    work: Callable[[], T], *, seconds: float, what: str, spoil: Callable[[T], object] | None = None
) -> T:
    """What `work` returns, or raises. `TimeLimitError` when it takes longer than `seconds`.

    `what` begins the sentence of the refusal: "reading /srv/tank". `spoil` is called with a result
    that comes too late, such as a descriptor to close.
    """
    made = _Call(work, spoil)
    threading.Thread(target=made.run, name="bounded", daemon=True).start()
    if not made.done.wait(seconds) and made.give_up():
        raise TimeLimitError(f"{what} did not end within {seconds:g} seconds")
    if made.error is not None:
        raise made.error
    return made.result
