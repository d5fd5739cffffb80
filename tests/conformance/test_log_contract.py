"""The contract of `LogFile`, over every root."""

from __future__ import annotations

import errno
import os
import stat

import pytest

from fspoolfs.backends.root import RootDirectory


def test_new_log_is_private_and_holds_zeros(root: RootDirectory) -> None:
    log = root.open_log("log", size=8192)
    assert log.read(0, 8192) == bytes(8192)
    assert stat.S_IMODE(root.stat("log").mode) == 0o600
    assert root.stat("log").size == 8192
    log.close()


def test_log_keeps_what_was_written_when_it_is_opened_again(root: RootDirectory) -> None:
    log = root.open_log("log", size=8192)
    log.write(510, b"across")
    log.sync()
    log.close()
    again = root.open_log("log", size=8192)
    assert again.read(508, 10) == b"\0\0across\0\0"
    again.close()


def test_log_never_grows_by_writing(root: RootDirectory) -> None:
    log = root.open_log("log", size=1024)
    with pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
        log.write(1020, b"12345")
    log.write(1020, b"1234")
    assert log.read(1020, 100) == b"1234"
    assert root.stat("log").size == 1024
    log.close()


def test_log_that_was_not_finished_is_extended_with_zeros(root: RootDirectory) -> None:
    root.write("log", b"begun", replace=False, durable=False)
    log = root.open_log("log", size=1024)
    assert log.read(0, 1024) == b"begun".ljust(1024, b"\0")
    log.close()
