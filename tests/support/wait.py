"""Waiting for what a test has caused: by events where the kernel has them, never by a fixed sleep."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable

#: Seconds between two looks where there is no event to wait for.
_INTERVAL = 0.02


def eventually(condition: Callable[[], bool], *, what: str, timeout: float = 30.0) -> None:
    """Return as soon as `condition()` is true; `AssertionError` naming `what` after `timeout` seconds.

    For what the kernel gives no event for; `what` ends the sentence "still not true after 30 s: ...".
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() >= deadline:
            raise AssertionError(f"still not true after {timeout:g} s: {what}")
        time.sleep(_INTERVAL)


def has_ended(pid: int, *, timeout: float) -> bool:
    """Wait up to `timeout` seconds for the end of a process that need not be a child."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        # pidfd_open(2): readable once the process has ended.
        return bool(select.select([descriptor], [], [], timeout)[0])
    finally:
        os.close(descriptor)
