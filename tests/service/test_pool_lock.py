"""The lock of a shared pool, where the storage fails."""

from __future__ import annotations

import errno
import os
from uuid import uuid4

import pytest

from fspoolfs.backends.memory import MemoryRoot, MemoryTree
from fspoolfs.backends.root import SharedDirectory
from fspoolfs.service.hosts.identity import Host
from fspoolfs.service.hosts.lock import PoolLock


class Lost:
    """A lock on a mount whose connection has ended: closing the file fails, and closes it."""

    fd = -1

    def __init__(self) -> None:
        self.held = b""

    def read(self, size: int) -> bytes:
        return self.held[:size]

    def write(self, data: bytes) -> None:
        self.held = data

    def release(self) -> None:
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))


def test_a_lock_that_cannot_be_given_back_is_not_held_and_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    root = MemoryRoot(MemoryTree(), "/simulated/root")
    monkeypatch.setattr(root, "try_lock", lambda path: Lost(), raising=False)
    shared: SharedDirectory = root  # type: ignore[assignment]
    lock = PoolLock("tank", shared, Host(uuid4(), "one"))
    lock.acquire()
    lock.release()
    assert "pool tank: the server was not told that its lock is free" in caplog.text
    lock.release()  # which is nothing any more
    assert caplog.text.count("was not told") == 1
