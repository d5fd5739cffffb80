"""Making files that nobody else can enter, where the call takes no mode.

The umask belongs to the whole process, so that changing it would concern every other thread. A
thread that needs its own gets its own; the rest of the process notices nothing.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from fspoolfs.system import syscalls

_CLOSED = 0o077


class _Thread(threading.local):
    separate = False


_thread = _Thread()


@contextmanager
def closed() -> Iterator[None]:
    """What this thread makes inside is its owner's alone.

    From then on its working directory is its own, too; nothing here depends on that of the process.
    """
    if not _thread.separate:
        syscalls.unshare_files()
        _thread.separate = True
    before = os.umask(_CLOSED)
    try:
        yield
    finally:
        os.umask(before)
