"""A thread in a mount namespace of its own in which nothing is mounted but the root.

The kernel renames no directory on which something is mounted in the namespace of who asks (EBUSY);
seen from another one, mounts stay on a directory wherever it is renamed to. Reached through
descriptors, which lead to their file systems from every namespace, a directory that carries a mount can
so be renamed and exchanged in one step, and what is mounted comes along. Needs CAP_SYS_ADMIN.
"""

from __future__ import annotations

import ctypes
import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress

from fspoolfs.system import mounts, syscalls

# include/uapi/linux/sched.h, include/uapi/linux/mount.h
_CLONE_FS, _CLONE_NEWNS = 0x200, 0x20000
_MS_REC, _MS_PRIVATE = 1 << 14, 1 << 18

_libc = ctypes.CDLL(None, use_errno=True)


class _Thread:
    """Started with the first call; ends with the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: queue.SimpleQueue[tuple[Callable[[], None], Future[None]]] = queue.SimpleQueue()
        self._ready: Future[None] | None = None

    def run(self, call: Callable[[], None]) -> None:
        with self._lock:
            if self._ready is None or (self._ready.done() and self._ready.exception() is not None):
                self._ready = Future()
                threading.Thread(
                    target=self._serve, args=(self._ready,), name="mountless", daemon=True
                ).start()
            ready = self._ready
        ready.result()
        answer: Future[None] = Future()
        self._calls.put((call, answer))
        answer.result()

    def _serve(self, ready: Future[None]) -> None:
        try:
            _leave_all_mounts()
        except BaseException as error:
            ready.set_exception(error)
            return
        ready.set_result(None)
        while True:
            call, answer = self._calls.get()
            try:
                call()
            except BaseException as error:
                answer.set_exception(error)
            else:
                answer.set_result(None)


_thread = _Thread()


def run(call: Callable[[], None]) -> None:
    """Run `call` there, and raise what it raises. It must not open anything by an absolute path.

    Raises `OSError` when there can be no such thread.
    """
    _thread.run(call)


def _leave_all_mounts() -> None:
    _check(_libc.unshare(_CLONE_FS | _CLONE_NEWNS))
    _check(_libc.mount(b"none", b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None))
    found = mounts.mounts("thread-self")
    # What lies below others goes with them.
    for mount in sorted(found, key=lambda one: len(one.target)):
        if mount.target != "/":
            with suppress(OSError):  # gone with another one
                syscalls.unmount(mount.target, syscalls.MNT_DETACH | syscalls.UMOUNT_NOFOLLOW)


def _check(result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
