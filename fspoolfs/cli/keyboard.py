"""Single keys from a terminal while something else goes on."""

from __future__ import annotations

import os
import re
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager

#: What a key with a name sends, such as an arrow (ECMA-48, 5.4, and SS3 with one character).
_NAMED = re.compile("\x1b(\\[[0-?]*[ -/]*[@-~]|O.)?")


class Keyboard:
    """`wait` for a key; without a terminal only time passes."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        self._typed = ""

    def wait(self, seconds: float) -> str:
        """The key that is pressed within `seconds`, or nothing; a key with a name is "\\0"."""
        if self._typed:
            return self._take()
        if self._descriptor is None:
            time.sleep(seconds)
            return ""
        ready, _, _ = select.select([self._descriptor], [], [], seconds)
        if not ready:
            return ""
        typed = os.read(self._descriptor, 64).decode(errors="replace")
        if not typed:  # the terminal is gone
            raise KeyboardInterrupt
        self._typed = _NAMED.sub("", typed)
        return self._take() if self._typed else "\0"

    def _take(self) -> str:
        first, self._typed = self._typed[0], self._typed[1:]
        return first


@contextmanager
def keyboard() -> Iterator[Keyboard]:
    """Keys come one by one and are not shown, until the end; Ctrl-C is Ctrl-C."""
    if not sys.stdin.isatty():
        yield Keyboard(None)
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield Keyboard(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
