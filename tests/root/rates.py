"""Processes under an item's limits, and what they write and read in which time."""

from __future__ import annotations

import mmap
import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from mount.control import request

#: Bytes of one request.
PIECE = 64 << 10


def write_buffered(file: Path, size: int) -> float:
    """Through the page cache. What counts is how long the kernel takes to write it, not we."""
    fd = os.open(file, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        for _ in range(size // PIECE):
            os.write(fd, bytes(PIECE))
        began = time.monotonic()
        os.fsync(fd)
        return time.monotonic() - began
    finally:
        os.close(fd)


def write_directly(file: Path, size: int) -> float:
    fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_DIRECT, 0o600)
    try:
        began = time.monotonic()
        with mmap.mmap(-1, PIECE) as piece:
            for number in range(size // PIECE):
                os.pwritev(fd, [piece], number * PIECE)
        return time.monotonic() - began
    finally:
        os.close(fd)


def read(file: Path, size: int) -> float:
    """From the disk, of a file that one of the others has left."""
    fd = os.open(file, os.O_RDONLY | os.O_DIRECT)
    try:
        began = time.monotonic()
        with mmap.mmap(-1, PIECE) as piece:
            for number in range(size // PIECE):
                assert os.preadv(fd, [piece], number * PIECE) == PIECE
        return time.monotonic() - began
    finally:
        os.close(fd)


def rate_in(item: Path, work: Callable[[Path, int], float], size: int) -> float:
    """Bytes a second of `work` on so many bytes, by a process that has put itself under the item's limits.

    `work` returns how many seconds it took.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            request(item / "cgroup.procs", "0")
            seconds = work((item / "data").resolve() / "file", size)
            os.write(writing, f"{size / seconds}".encode())
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading) as told:
        text = told.read()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    return float(text)
