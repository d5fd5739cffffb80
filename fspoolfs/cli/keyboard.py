"""Single keys from a terminal while something else goes on."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager


class Keyboard:
    """`wait` for a key; without a terminal only time passes."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def wait(self, seconds: float) -> str:
        """The key that is pressed within `seconds`, or nothing."""
        if self._descriptor is None:
            time.sleep(seconds)
            return ""
        ready, _, _ = select.select([self._descriptor], [], [], seconds)
        if not ready:
            return ""
        pressed = os.read(self._descriptor, 16).decode(errors="replace")
        if not pressed:  # the terminal is gone
            raise KeyboardInterrupt
        # A key with a name, such as an arrow, comes as several characters that begin with an escape.
        return pressed if len(pressed) == 1 else ""


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
