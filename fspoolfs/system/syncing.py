"""Making a whole tree durable where syncfs(2) reaches no server: fsync(2) of each file in it.

Several at a time, since each waits for servers. For trees that nobody else changes.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

from fspoolfs.progress import Progress
from fspoolfs.system import walking
from fspoolfs.system.walking import Descent, Place

#: How many files are synced at once, and how many may wait for that with an open descriptor.
_THREADS = 16
_WAITING = 128
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def sync_tree(directory: int, progress: Progress) -> None:
    """Make what the directory behind the descriptor holds durable, itself included."""
    waiting: deque[Future[None]] = deque()
    with ThreadPoolExecutor(_THREADS, "syncing") as pool, Descent(directory, ".") as descent:
        try:
            while True:
                _sync_files(descent.here, pool, waiting)
                progress.advance(0)
                while not descent.here.pending:
                    if descent.at_top:
                        os.fsync(directory)
                        break
                    descent.leave()
                else:
                    descent.enter(descent.here.pending.pop())
                    continue
                break
        finally:
            # Each closes its descriptor.
            for one in waiting:
                one.exception()
    for one in waiting:
        one.result()


def _sync_files(here: Place, pool: ThreadPoolExecutor, waiting: deque[Future[None]]) -> None:
    for name in walking.split(here):
        if not stat.S_ISREG(os.stat(name, dir_fd=here.fd, follow_symlinks=False).st_mode):
            continue
        fd = os.open(name, _FILE, dir_fd=here.fd)
        waiting.append(pool.submit(_sync, fd))
        while len(waiting) > _WAITING:
            waiting.popleft().result()
    os.fsync(here.fd)


def _sync(fd: int) -> None:
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
